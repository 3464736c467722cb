//! The network between a node and its database: a TCP proxy that fails in every way that networks do.
//!
//! It does not read the packets that it drops. A connection that fell silent stays open on both sides until
//! the end of the run: neither side is told, as when a firewall has forgotten a connection.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::draw::Draw;

/// Percentage of messages inside a transaction that are cut, so that some transactions get through.
const CUT_PERCENT: u64 = 10;

/// State of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Well,
    /// Connections are refused.
    Refusing,
    /// Each packet is delayed by a time in this range, in milliseconds.
    Slow(u64, u64),
    /// Nothing passes until the state changes.
    Stalled,
    /// Everything is dropped, and connections opened meanwhile stay silent forever.
    Hole,
    /// Connections are cut while they append.
    CuttingCommits,
    /// Connections are cut inside a transaction, for a percentage of messages.
    CuttingTransactions,
    /// This many connections inside a transaction fall silent forever.
    SilencingTransactions,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToDatabase,
    ToNode,
}

struct Connection {
    /// Whether it was seen to append.
    appends: AtomicBool,
    /// Whether the database last said that it is inside a transaction.
    is_inside: AtomicBool,
    silent: watch::Sender<bool>,
    cut: CancellationToken,
}

struct State {
    network: watch::Sender<Network>,
    upstream: Mutex<PathBuf>,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// Number of connections that may still fall silent.
    to_silence: AtomicU32,
    draw: Mutex<Draw>,
    stop: CancellationToken,
}

/// A local port that leads to a PostgreSQL socket.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    /// `socket` is PostgreSQL's; `seed` decides the details that the kinds leave open.
    pub async fn start(socket: PathBuf, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            network: watch::Sender::new(Network::Well),
            upstream: Mutex::new(socket),
            connections: Mutex::default(),
            to_silence: AtomicU32::new(0),
            draw: Mutex::new(Draw::new(seed, "proxy")),
            stop: CancellationToken::new(),
        });
        tokio::spawn(Arc::clone(&state).listen(listener, address));
        Ok(Self { address, state })
    }

    pub fn set(&self, network: Network) {
        if network == Network::SilencingTransactions {
            self.state.to_silence.store(3, Ordering::SeqCst);
        }
        if network == Network::Refusing {
            self.reset_all();
        }
        // A connection opened inside the hole is unknown outside of it.
        if *self.state.network.borrow() == Network::Hole {
            self.silence_all();
        }
        self.state.network.send_replace(network);
    }

    /// Leads to another server from now on; open connections are reset.
    pub fn lead_to(&self, socket: PathBuf) {
        *self.state.upstream.lock().unwrap_or_else(PoisonError::into_inner) = socket;
        self.reset_all();
    }

    pub fn reset_all(&self) {
        for connection in self.state.open() {
            connection.cut.cancel();
        }
    }

    /// Silences open connections without telling either side.
    pub fn silence_all(&self) {
        for connection in self.state.open() {
            connection.silent.send_replace(true);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stop.cancel();
    }
}

impl State {
    fn open(&self) -> Vec<Arc<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn listen(self: Arc<Self>, listener: TcpListener, address: SocketAddr) {
        let mut listener = Some(listener);
        let mut network = self.network.subscribe();
        loop {
            let refuses = *network.borrow_and_update() == Network::Refusing;
            if refuses {
                listener = None;
            } else if listener.is_none() {
                listener = TcpListener::bind(address).await.ok();
            }
            let accepted = async {
                match &listener {
                    Some(listener) => listener.accept().await,
                    None if refuses => std::future::pending().await,
                    // The port was not available yet.
                    None => Err(std::io::Error::from(std::io::ErrorKind::AddrInUse)),
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = network.changed() => {}
                accepted = accepted => match accepted {
                    Ok((stream, _)) => drop(tokio::spawn(Arc::clone(&self).carry(stream))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                },
            }
        }
    }

    async fn carry(self: Arc<Self>, node: TcpStream) {
        let upstream = self.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Ok(database) = UnixStream::connect(upstream).await else { return reset(node) };
        let _ = node.set_nodelay(true);
        let connection = Arc::new(Connection {
            appends: AtomicBool::new(false),
            is_inside: AtomicBool::new(false),
            silent: watch::Sender::new(false),
            cut: CancellationToken::new(),
        });
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&connection));
        let (mut from_node, mut to_node) = node.into_split();
        let (mut from_database, mut to_database) = database.into_split();
        tokio::select! {
            () = connection.cut.cancelled() => {}
            () = self.stop.cancelled() => {}
            _ = self.pump(&connection, Direction::ToDatabase, &mut from_node, &mut to_database) => {}
            _ = self.pump(&connection, Direction::ToNode, &mut from_database, &mut to_node) => {}
        }
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|other| !Arc::ptr_eq(other, &connection));
        drop(connections);
        if connection.cut.is_cancelled()
            && let Ok(node) = from_node.reunite(to_node)
        {
            reset(node);
        }
    }

    /// Carries one direction until either side closes it.
    async fn pump(
        &self,
        connection: &Connection,
        direction: Direction,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            self.passage(connection).await;
            let count = from.read(&mut buffer).await?;
            // Data that arrived while the network changed waits like everything else, including the end.
            self.passage(connection).await;
            if count == 0 {
                return Ok(());
            }
            let bytes = &buffer[..count];
            if direction == Direction::ToNode
                && let Some(status) = status(bytes)
            {
                connection.is_inside.store(status == b'T', Ordering::Relaxed);
            }
            let network = *self.network.borrow();
            match network {
                Network::Slow(least, most) => tokio::time::sleep(self.drawn(|draw| draw.millis(least..most))).await,
                Network::CuttingCommits if direction == Direction::ToDatabase && connection.is_append(bytes) => {
                    return self.cut(connection, bytes, to).await;
                }
                Network::CuttingTransactions
                    if direction == Direction::ToDatabase
                        && connection.is_inside.load(Ordering::Relaxed)
                        && self.drawn(|draw| draw.chance(CUT_PERCENT)) =>
                {
                    return self.cut(connection, bytes, to).await;
                }
                Network::SilencingTransactions if direction == Direction::ToNode && status(bytes) == Some(b'T') => {
                    let left = self.to_silence.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
                    if left.is_ok() {
                        connection.silent.send_replace(true);
                        continue;
                    }
                }
                _ => drop(connection.is_append(bytes)),
            }
            to.write_all(bytes).await?;
        }
    }

    /// Waits while nothing passes on this connection.
    async fn passage(&self, connection: &Connection) {
        let (mut network, mut silent) = (self.network.subscribe(), connection.silent.subscribe());
        loop {
            let stands = matches!(*network.borrow_and_update(), Network::Stalled | Network::Hole);
            if *silent.borrow_and_update() {
                return std::future::pending().await;
            }
            if !stands {
                return;
            }
            tokio::select! {
                _ = network.changed() => {}
                _ = silent.changed() => {}
            }
        }
    }

    /// Half of the time, the database gets the whole message, commits, and its answer is lost; otherwise it
    /// gets half of it.
    async fn cut(
        &self,
        connection: &Connection,
        bytes: &[u8],
        to: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        let (whole, wait) = self.drawn(|draw| (draw.chance(50), draw.millis(1..60)));
        to.write_all(if whole { bytes } else { &bytes[..bytes.len() / 2] }).await?;
        connection.silent.send_replace(true);
        tokio::time::sleep(wait).await;
        connection.cut.cancel();
        Ok(())
    }

    fn drawn<T>(&self, of: impl FnOnce(&mut Draw) -> T) -> T {
        of(&mut self.draw.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Connection {
    /// Statements are prepared once, so their text appears once per connection.
    fn is_append(&self, bytes: &[u8]) -> bool {
        if bytes.windows(7).any(|window| window == b"append_") {
            self.appends.store(true, Ordering::Relaxed);
        }
        self.appends.load(Ordering::Relaxed)
    }
}

/// The status in `ReadyForQuery` at the end of the database's message: `T` inside a transaction, `I` outside,
/// `E` in a failed one.
fn status(bytes: &[u8]) -> Option<u8> {
    let (status, before) = bytes.split_last()?;
    before.ends_with(b"Z\0\0\0\x05").then_some(*status)
}

#[expect(deprecated, reason = "it is what sends a reset")]
fn reset(stream: TcpStream) {
    let _ = stream.set_linger(Some(Duration::ZERO));
}
