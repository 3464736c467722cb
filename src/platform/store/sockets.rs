//! The sockets of connections to the store: a limit on every use of the store, whatever the network does.
//!
//! sqlx does not limit how long a server may take to answer, and dropping a future instead leaves a
//! connection that the pool waits for. So the limit applies at the lowest level: the sockets. They are found
//! among the process's files by their peer, get keepalive and a limit on unacknowledged data, and are shut
//! down if an answer is overdue, which ends the waiting read.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

/// The server's address, and this process's sockets to it. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Sockets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: String,
    port: u16,
    /// Name of the server's Unix socket, if it has one. The server may know another path to it.
    socket: Option<String>,
    /// Every address that the host was seen to have.
    addresses: Mutex<Vec<IpAddr>>,
    /// The sockets of the last look.
    #[cfg(target_os = "linux")]
    known: Mutex<Vec<std::os::fd::RawFd>>,
}

/// How long a connection has been waiting and silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "found on Linux alone"))]
pub(super) struct Silence {
    /// Since the last request without a first byte of the answer; `None` if no answer is awaited.
    pub waiting: Option<Duration>,
    /// Since the last received data.
    pub silent: Duration,
}

impl Sockets {
    pub(super) fn to(options: &PgConnectOptions) -> Self {
        let host = options.get_host().trim_matches(['[', ']']).to_owned();
        let is_local = options.get_socket().is_some() || host.starts_with('/');
        let socket = is_local.then(|| format!(".s.PGSQL.{}", options.get_port()));
        Self(Arc::new(Inner {
            host,
            port: options.get_port(),
            socket,
            addresses: Mutex::default(),
            #[cfg(target_os = "linux")]
            known: Mutex::default(),
        }))
    }

    /// Resolves the server's addresses. Earlier results still count, because connections outlive them.
    pub(super) async fn resolve(&self) {
        if self.0.socket.is_some() {
            return;
        }
        let Ok(found) = tokio::net::lookup_host((self.0.host.as_str(), self.0.port)).await else { return };
        let mut addresses = self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        for address in found.map(|address| address.ip().to_canonical()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }

    fn is_peer(&self, peer: SocketAddr) -> bool {
        let addresses = self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        peer.port() == self.0.port && addresses.contains(&peer.ip().to_canonical())
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::{BorrowedFd, RawFd};
    use std::sync::PoisonError;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::net::{Shutdown, SocketAddrUnix, getpeername, shutdown, sockopt};

    use super::{Silence, Sockets};

    /// Idle time before the first keepalive probe.
    const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
    const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
    const KEEPALIVE_PROBES: u32 = 3;
    /// How long sent data may stay unacknowledged, in milliseconds.
    const UNACKNOWLEDGED_LIMIT: u32 = 15_000;

    impl Sockets {
        /// Finds the sockets again, and sets the options of each.
        pub(in crate::platform::store) fn look(&self) {
            let found = open_files().into_iter().filter(|fd| self.is_ours(*fd)).collect::<Vec<_>>();
            if self.0.socket.is_none() {
                for fd in &found {
                    keep_alive(*fd);
                }
            }
            *self.0.known.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }

        /// Whether the server has closed any of the connections, so that a pool may hold dead ones. It costs
        /// one system call.
        pub(in crate::platform::store) fn has_closed(&self) -> bool {
            let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if known.is_empty() {
                return true;
            }
            let hung_up = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
            let borrowed: Vec<BorrowedFd<'_>> = known.iter().map(|fd| borrow(*fd)).collect();
            let mut files: Vec<PollFd<'_>> = borrowed.iter().map(|fd| PollFd::new(fd, PollFlags::RDHUP)).collect();
            match poll(&mut files, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
                Ok(0) => false,
                Ok(_) => files.iter().any(|file| file.revents().intersects(hung_up)),
                Err(_) => true,
            }
        }

        /// Shuts down the connections selected by `is_cut`; if their times are unknown, as for a local
        /// socket, `untold` decides. Returns their number.
        pub(in crate::platform::store) fn cut(&self, is_cut: impl Fn(Silence) -> bool, untold: bool) -> usize {
            self.look();
            let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let overdue = |fd: &RawFd| silence(*fd).map_or(untold, &is_cut);
            // A file descriptor that was closed and reused since the look is not ours any more.
            let cut = known.into_iter().filter(overdue).filter(|fd| self.is_ours(*fd));
            cut.filter(|fd| shutdown(borrow(*fd), Shutdown::Both).is_ok()).count()
        }

        fn is_ours(&self, fd: RawFd) -> bool {
            let Ok(Some(peer)) = getpeername(borrow(fd)) else { return false };
            match &self.0.socket {
                Some(name) => SocketAddrUnix::try_from(peer).is_ok_and(|peer| is_called(&peer, name)),
                None => std::net::SocketAddr::try_from(peer).is_ok_and(|peer| self.is_peer(peer)),
            }
        }
    }

    fn is_called(peer: &SocketAddrUnix, name: &str) -> bool {
        let path = peer.path_bytes().unwrap_or_default();
        path.strip_suffix(&[0]).unwrap_or(path).rsplit(|byte| *byte == b'/').next() == Some(name.as_bytes())
    }

    fn open_files() -> Vec<RawFd> {
        let Ok(files) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
        files.flatten().filter_map(|file| file.file_name().to_str()?.parse().ok()).collect()
    }

    fn keep_alive(fd: RawFd) {
        let fd = borrow(fd);
        let set = sockopt::set_socket_keepalive(fd, true)
            .and_then(|()| sockopt::set_tcp_keepidle(fd, KEEPALIVE_IDLE))
            .and_then(|()| sockopt::set_tcp_keepintvl(fd, KEEPALIVE_INTERVAL))
            .and_then(|()| sockopt::set_tcp_keepcnt(fd, KEEPALIVE_PROBES))
            .and_then(|()| sockopt::set_tcp_user_timeout(fd, UNACKNOWLEDGED_LIMIT));
        if let Err(error) = set {
            tracing::debug!(%error, "could not enable keepalive on a connection to the store");
        }
    }

    #[expect(unsafe_code, reason = "files that sqlx opened are known by their numbers alone")]
    fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
        // SAFETY: it is used only for system calls, which return EBADF if the file was closed, and which
        // change only sockets that were checked to lead to the store.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    #[expect(unsafe_code, reason = "TCP_INFO has no safe form")]
    fn silence(fd: RawFd) -> Option<Silence> {
        // SAFETY: the structure consists of plain numbers, for which zeros are valid, and the kernel writes
        // at most the given length.
        let info = unsafe {
            let mut info: libc::tcp_info = std::mem::zeroed();
            let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
            let told = libc::getsockopt(
                fd,
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                std::ptr::from_mut(&mut info).cast(),
                &raw mut length,
            );
            (told == 0).then_some(info)
        }?;
        let (sent, received) = (info.tcpi_last_data_sent, info.tcpi_last_data_recv);
        Some(Silence {
            waiting: (sent < received).then(|| Duration::from_millis(sent.into())),
            silent: Duration::from_millis(received.into()),
        })
    }
}

/// On other systems the sockets cannot be found, and the system's own keepalive has to suffice.
#[cfg(not(target_os = "linux"))]
impl Sockets {
    pub(super) fn look(&self) {}

    pub(super) fn has_closed(&self) -> bool {
        true
    }

    pub(super) fn cut(&self, _: impl Fn(Silence) -> bool, _: bool) -> usize {
        0
    }
}
