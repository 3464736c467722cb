//! The embedded default store: a PostgreSQL under the data directory.
//!
//! The programs are the system's; the cluster, its socket and its log are under the data directory. fsync is
//! on. The server stops with the process that started it, even after `kill -9`: it gets SIGINT (fast
//! shutdown) when the thread that spawned it ends, so [`Supervised`] keeps a thread for it.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Name of the database in the embedded cluster.
pub const DATABASE: &str = "hookledger";
/// Its owner, which creates the schema. It is no superuser and cannot create roles, because whoever can
/// create roles can become one that runs programs on the server.
pub const OWNER: &str = "hookledger";
/// The cluster's superuser, for operators with psql.
pub const SUPERUSER: &str = "postgres";

const SOCKET: &str = ".s.PGSQL.5432";
/// Longest path of a Unix socket: `sun_path` without its final zero.
const MAX_SOCKET_PATH: usize = 107;
/// How long an earlier server may take to end.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(30);
/// How long to wait for a stopping server.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Interval of supervision.
const SUPERVISION_INTERVAL: Duration = Duration::from_millis(100);
/// How long restarts of the server are tried before this process ends with an error.
const RESTART_LIMIT: Duration = Duration::from_secs(300);
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// A server that ran for this long counts as healthy.
const STABLE_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "no PostgreSQL programs were found (looked for initdb with pg_config, in /usr/lib/postgresql and with \
         Homebrew): install PostgreSQL 15 or later (Debian and Ubuntu: apt-get install postgresql; macOS: brew \
         install postgresql), or set DATABASE_URL to a running server"
    )]
    NoPrograms,
    #[error(
        "PostgreSQL refuses to run as root. Create an account for it (useradd --system postgres), run \
         Hookledger as another user, or set DATABASE_URL to a running server"
    )]
    NoAccount,
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{program} failed: {output}")]
    Program { program: &'static str, output: String },
    #[error("PostgreSQL exited right after its start. The end of {log}:\n{tail}")]
    Ended { log: PathBuf, tail: String },
    #[error("another PostgreSQL uses {0} but does not respond. Stop it, or choose another HOOKLEDGER_DATA_DIR")]
    Occupied(PathBuf),
    #[error("PostgreSQL in {0} keeps exiting. See postgres.log next to it")]
    Unstable(PathBuf),
}

/// The embedded server, started by this process or found running.
#[derive(Debug)]
pub struct Embedded {
    directory: PathBuf,
    server: Option<Child>,
    // Held by the process that runs the server, for as long as it lives.
    ownership: Option<fs::File>,
    // Keeps the path to the socket open if its real path is too long.
    _handle: Option<fs::File>,
    socket_directory: PathBuf,
}

impl Embedded {
    /// Starts the server under `data`, creating the cluster first if there is none, or finds the one that
    /// runs. It may still be recovering when this returns, so connecting has to be retried.
    pub fn start(data: &Path) -> Result<Self, EmbeddedError> {
        let account = Account::choose(data)?;
        make_directory(data, account.data_directory_mode())?;
        let data = fs::canonicalize(data).map_err(at(data))?;
        let directory = data.join("postgres");
        let (socket_directory, handle) = reachable(&directory, &data)?;
        let mut embedded = Self { directory, server: None, ownership: None, _handle: handle, socket_directory };
        let ownership = data.join("postgres.owner");
        let ownership = open_private(&ownership).map_err(at(&ownership))?;
        match ownership.try_lock() {
            Ok(()) => embedded.ownership = Some(ownership),
            Err(fs::TryLockError::WouldBlock) => return embedded.borrow(),
            Err(fs::TryLockError::Error(error)) => return Err(at(&data)(error)),
        }
        let programs = programs()?;
        if !embedded.directory.join("PG_VERSION").exists() {
            account.initialize(&programs, &data, &embedded.directory)?;
        }
        embedded.server = Some(embedded.launch(&programs, &account, &data.join("postgres.log"))?);
        Ok(embedded)
    }

    /// Directory of the socket, in the form that libpq and sqlx expect.
    #[must_use]
    pub fn socket_directory(&self) -> &Path {
        &self.socket_directory
    }

    /// Whether the server belongs to another process, and will end with it.
    #[must_use]
    pub fn is_borrowed(&self) -> bool {
        self.ownership.is_none()
    }

    /// The server belongs to a live process: it is up, or starting.
    fn borrow(self) -> Result<Self, EmbeddedError> {
        let deadline = Instant::now() + TAKEOVER_LIMIT;
        while !self.answers() {
            if Instant::now() > deadline {
                return Err(EmbeddedError::Occupied(self.directory));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self)
    }

    fn answers(&self) -> bool {
        UnixStream::connect(self.socket_directory.join(SOCKET)).is_ok()
    }

    /// Whether the socket is this server's, and not that of one that is shutting down.
    fn is_up(&self, server: &Child) -> bool {
        let pid_file = fs::read_to_string(self.directory.join("postmaster.pid")).unwrap_or_default();
        pid_file.lines().next() == Some(server.id().to_string().as_str()) && self.answers()
    }

    /// Waits for the end of a server whose owner was killed, because it is still shutting down.
    fn launch(&self, programs: &Path, account: &Account, log: &Path) -> Result<Child, EmbeddedError> {
        let deadline = Instant::now() + TAKEOVER_LIMIT;
        loop {
            let from = fs::metadata(log).map_or(0, |metadata| metadata.len());
            let mut server = self.spawn(programs, account, log)?;
            loop {
                if let Some(_status) = server.try_wait().map_err(at(&self.directory))? {
                    break;
                }
                if self.is_up(&server) {
                    return Ok(server);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            // The server that shuts down writes to the same log, perhaps a lot.
            let said = written_since(log, from);
            let is_occupied = said.contains("postmaster.pid") || said.contains("shared memory block");
            if !is_occupied {
                return Err(EmbeddedError::Ended { log: log.to_owned(), tail: last_lines(&said) });
            }
            if Instant::now() > deadline {
                return Err(EmbeddedError::Occupied(self.directory.clone()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn spawn(&self, programs: &Path, account: &Account, log: &Path) -> Result<Child, EmbeddedError> {
        let log = open_private(log).map_err(at(log))?;
        let mut command = command(&programs.join("postgres"));
        command.arg("-D").arg(&self.directory);
        for setting in SETTINGS {
            command.arg("-c").arg(setting);
        }
        command.current_dir(&self.directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Its own process group: Ctrl-C reaches us, and we stop it when our work is done.
        command.process_group(0);
        account.become_it(&mut command, true);
        command.spawn().map_err(at(&programs.join("postgres")))
    }

    /// Whether the server that this process started has ended.
    fn has_ended(&mut self) -> bool {
        self.server.as_mut().is_some_and(|server| !matches!(server.try_wait(), Ok(None)))
    }

    /// Restarts the server if it has ended.
    fn restart(&mut self) -> Result<(), EmbeddedError> {
        let account = Account::choose(self.directory.parent().unwrap_or(&self.directory))?;
        let log = self.directory.with_file_name("postgres.log");
        self.server = Some(self.launch(&programs()?, &account, &log)?);
        Ok(())
    }

    /// Stops the server if this process started it: a fast shutdown with a last checkpoint.
    pub fn stop(self) {
        self.stop_within(STOP_LIMIT);
    }

    fn stop_within(mut self, limit: Duration) {
        let Some(mut server) = self.server.take() else { return };
        signal(&server, libc::SIGINT);
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if !matches!(server.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        tracing::warn!("the embedded PostgreSQL is still shutting down; the next start recovers");
    }
}

/// The embedded server on its own thread, which restarts it whenever it exits unexpectedly.
///
/// The server gets its signal when the thread that started it ends, so that thread lives as long as the
/// process, or until [`Self::stop`].
#[derive(Debug)]
pub struct Supervised {
    socket_directory: PathBuf,
    stop: mpsc::Sender<Duration>,
    thread: JoinHandle<()>,
    lost: Option<oneshot::Receiver<EmbeddedError>>,
}

impl Supervised {
    /// Like [`Embedded::start`].
    pub fn start(data: &Path) -> Result<Self, EmbeddedError> {
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = mpsc::channel();
        let (give_up, lost) = oneshot::channel();
        let directory = data.to_owned();
        let supervise = move || match Embedded::start(&directory) {
            Ok(embedded) => {
                let _ = tell.send(Ok(embedded.socket_directory.clone()));
                supervise(embedded, &stopped, give_up);
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name("postgres".to_owned()).spawn(supervise).map_err(at(data))?;
        let ended = || Err(at(data)(io::Error::other("the embedded PostgreSQL's thread exited")));
        let socket_directory = told.recv().unwrap_or_else(|_| ended())?;
        Ok(Self { socket_directory, stop, thread, lost: Some(lost) })
    }

    /// Directory of the socket, in the form that libpq and sqlx expect.
    #[must_use]
    pub fn socket_directory(&self) -> &Path {
        &self.socket_directory
    }

    /// Resolves with the reason when the server is gone for good. The reason is available once.
    pub async fn lost(&mut self) -> EmbeddedError {
        if let Some(lost) = &mut self.lost
            && let Ok(error) = lost.await
        {
            self.lost = None;
            return error;
        }
        std::future::pending().await
    }

    /// Stops the server within that time.
    pub fn stop(self, limit: Duration) {
        let _ = self.stop.send(limit);
        // A thread that panicked has nothing left to stop.
        let _ = self.thread.join();
    }
}

/// Supervises the server until it should stop, or could not be restarted for too long.
fn supervise(mut embedded: Embedded, stop: &mpsc::Receiver<Duration>, give_up: oneshot::Sender<EmbeddedError>) {
    // Since when the server has been failing.
    let mut ailing: Option<Instant> = None;
    let mut started = Instant::now();
    let mut last_error = None;
    loop {
        match stop.recv_timeout(SUPERVISION_INTERVAL) {
            Ok(limit) => return embedded.stop_within(limit),
            Err(mpsc::RecvTimeoutError::Disconnected) => return embedded.stop(),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if !embedded.has_ended() {
            if started.elapsed() > STABLE_AFTER {
                ailing = None;
            }
            continue;
        }
        let since = *ailing.get_or_insert_with(Instant::now);
        if since.elapsed() > RESTART_LIMIT {
            let directory = embedded.directory.clone();
            let _ = give_up.send(last_error.unwrap_or(EmbeddedError::Unstable(directory)));
            return;
        }
        tracing::error!("the embedded PostgreSQL exited; restarting it");
        metrics::counter!("hookledger_embedded_restarts_total").increment(1);
        match embedded.restart() {
            Ok(()) => {
                tracing::info!("restarted the embedded PostgreSQL; it is recovering");
                last_error = None;
            }
            Err(error) => {
                tracing::error!(%error, "could not restart the embedded PostgreSQL; retrying");
                last_error = Some(error);
            }
        }
        started = Instant::now();
        // Prevents restarting hundreds of times a server that ends at once.
        if since.elapsed() > SUPERVISION_INTERVAL {
            std::thread::sleep(RESTART_PAUSE);
        }
    }
}

/// Durability is never reduced; the rest is sized for a small machine.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "unix_socket_directories=.",
    "unix_socket_permissions=0700",
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "shared_buffers=256MB",
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
    "wal_compression=lz4",
    "jit=off",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_checkpoints=off",
];

/// Environment variables that PostgreSQL's programs need.
const INHERITED: &[&str] = &["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR"];

/// How much of its log is read if it ended right after its start, in bytes.
const MAX_SAID: u64 = 1 << 20;

/// The user that the server runs as: PostgreSQL refuses to run as root.
enum Account {
    Own,
    /// A system account that can access the data directory.
    Other {
        uid: u32,
        gid: u32,
    },
    /// Root, mapped to that account within a user namespace: for directories that only root can enter, such
    /// as a clone under /root.
    Namespace {
        uid: u32,
        gid: u32,
    },
}

impl Account {
    fn choose(data: &Path) -> Result<Self, EmbeddedError> {
        if effective_uid() != 0 {
            return Ok(Self::Own);
        }
        // Never as "nobody": other services run as that user, and could read and change the cluster.
        let (uid, gid) = lookup(SUPERUSER).ok_or(EmbeddedError::NoAccount)?;
        let absolute = std::path::absolute(data).map_err(at(data))?;
        // The data directory itself is made accessible; the directories above are not ours to change.
        let reachable = absolute.ancestors().skip(1).filter(|path| path.exists()).all(|path| {
            fs::metadata(path).is_ok_and(|m| m.mode() & 0o001 != 0 || (m.uid() == uid && m.mode() & 0o100 != 0))
        });
        Ok(if reachable { Self::Other { uid, gid } } else { Self::Namespace { uid, gid } })
    }

    fn data_directory_mode(&self) -> u32 {
        match self {
            Self::Own | Self::Namespace { .. } => 0o700,
            Self::Other { .. } => 0o711,
        }
    }

    /// Creates the cluster next to its place and moves it there, so that it is complete or absent.
    fn initialize(&self, programs: &Path, data: &Path, directory: &Path) -> Result<(), EmbeddedError> {
        let unfinished = data.join("postgres.new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(at(&unfinished))?;
        }
        make_directory(&unfinished, 0o700)?;
        if let Self::Other { uid, gid } = self {
            std::os::unix::fs::chown(&unfinished, Some(*uid), Some(*gid)).map_err(at(&unfinished))?;
        }
        let mut command = command(&programs.join("initdb"));
        command.arg("-D").arg(&unfinished).args(["-U", SUPERUSER, "-E", "UTF8", "--locale=C"]).args([
            "--auth-local=trust",
            "--auth-host=reject",
            "--data-checksums",
            "--no-instructions",
        ]);
        command.current_dir(&unfinished).stdin(Stdio::null());
        self.become_it(&mut command, false);
        let output = command.output().map_err(at(&programs.join("initdb")))?;
        if !output.status.success() {
            let output =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            return Err(EmbeddedError::Program { program: "initdb", output });
        }
        fs::rename(&unfinished, directory).map_err(at(directory))
    }

    #[expect(unsafe_code, reason = "what a child does between fork and exec is unsafe by nature")]
    fn become_it(&self, command: &mut Command, ends_with_us: bool) {
        if let Self::Other { uid, gid } = self {
            command.uid(*uid).gid(*gid);
        }
        let maps = match self {
            Self::Namespace { uid, gid } => Some((format!("{uid} 0 1\n"), format!("{gid} 0 1\n"))),
            Self::Own | Self::Other { .. } => None,
        };
        // SAFETY: only async-signal-safe system calls, and no allocation, happen in the child. The
        // parent-death signal comes last, since a change of credentials clears it.
        unsafe {
            command.pre_exec(move || {
                if let Some((users, groups)) = &maps {
                    enter_user_namespace(users, groups)?;
                }
                if ends_with_us {
                    die_with_parent()?;
                }
                Ok(())
            });
        }
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "unshare has no safe form")]
fn enter_user_namespace(users: &str, groups: &str) -> io::Result<()> {
    // SAFETY: a system call without pointers.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } != 0 {
        return Err(io::Error::last_os_error());
    }
    write_once(c"/proc/self/setgroups", "deny")?;
    write_once(c"/proc/self/uid_map", users)?;
    write_once(c"/proc/self/gid_map", groups)
}

#[cfg(not(target_os = "linux"))]
fn enter_user_namespace(_users: &str, _groups: &str) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no allocation is allowed between fork and exec")]
fn write_once(path: &std::ffi::CStr, text: &str) -> io::Result<()> {
    // SAFETY: path and text outlive the calls, and the length is the text's.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY);
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        let written = libc::write(file, text.as_ptr().cast(), text.len());
        let result = if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        libc::close(file);
        result
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "prctl has no safe form")]
fn die_with_parent() -> io::Result<()> {
    // SAFETY: system calls without pointers. A parent that is gone already is init by now.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT) != 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::getppid() == 1 && libc::getpid() != 1 {
            libc::raise(libc::SIGINT);
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent() -> io::Result<()> {
    Ok(())
}

#[expect(unsafe_code, reason = "geteuid has no safe form in std")]
fn effective_uid() -> u32 {
    // SAFETY: a system call without arguments that cannot fail.
    unsafe { libc::geteuid() }
}

#[expect(unsafe_code, reason = "getpwnam has no safe form in std")]
fn lookup(account: &str) -> Option<(u32, u32)> {
    let name = CString::new(account).ok()?;
    // SAFETY: the name outlives the call, and the answer is copied before anything else is asked.
    // No other thread of this process asks.
    unsafe {
        let entry = libc::getpwnam(name.as_ptr());
        (!entry.is_null()).then(|| ((*entry).pw_uid, (*entry).pw_gid))
    }
}

#[expect(unsafe_code, reason = "kill has no safe form in std")]
fn signal(child: &Child, signal: i32) {
    // SAFETY: the child was not waited for yet, so its id is still its own.
    unsafe {
        libc::kill(child.id().cast_signed(), signal);
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> EmbeddedError + '_ {
    move |source| EmbeddedError::Io { path: path.to_owned(), source }
}

/// Creates the directory, and sets its mode even if it existed.
fn make_directory(path: &Path, mode: u32) -> Result<(), EmbeddedError> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(at(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(at(path))
}

/// The path to the socket: through an open directory if the real path is too long for a socket.
fn reachable(directory: &Path, data: &Path) -> Result<(PathBuf, Option<fs::File>), EmbeddedError> {
    if directory.as_os_str().len() + 1 + SOCKET.len() <= MAX_SOCKET_PATH {
        return Ok((directory.to_owned(), None));
    }
    let handle = fs::File::open(data).map_err(at(data))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/postgres", handle.as_raw_fd()));
    Ok((path, Some(handle)))
}

/// Opens a file for appending that no other user may open, even if it existed: whoever can open the lock file
/// can take the lock.
fn open_private(path: &Path) -> io::Result<fs::File> {
    let file = fs::File::options().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// A PostgreSQL program, without this process's environment, which contains its keys.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    let kept = INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.envs(kept);
    command
}

/// Programs that root runs must belong to root: those in the PATH or in another user's directory could be
/// anybody's.
fn programs() -> Result<PathBuf, EmbeddedError> {
    let is_root = effective_uid() == 0;
    let is_good = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|found| !is_root || (found.uid() == 0 && found.mode() & 0o022 == 0))
    };
    let has_both = |path: &PathBuf| [path.clone(), path.join("initdb"), path.join("postgres")].iter().all(is_good);
    let pg_config = Path::new(if is_root { "/usr/bin/pg_config" } else { "pg_config" });
    let configured = command(pg_config).arg("--bindir").output().ok();
    let configured = configured.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let packaged = versions("/usr/lib/postgresql", "").into_iter().chain(versions("/usr", "pgsql-"));
    let brewed = ["/opt/homebrew/bin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from);
    configured.into_iter().chain(packaged).chain(brewed).find(has_both).ok_or(EmbeddedError::NoPrograms)
}

/// `<directory>/<prefix><version>/bin`, newest first: `/usr/lib/postgresql/15/bin` with Debian,
/// `/usr/pgsql-15/bin` with Red Hat.
fn versions(directory: &str, prefix: &str) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, path)| path).collect()
}

fn written_since(log: &Path, from: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = fs::File::open(log) {
        let _ = file.seek(SeekFrom::Start(from)).and_then(|_| file.take(MAX_SAID).read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
