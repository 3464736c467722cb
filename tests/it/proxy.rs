//! A TCP proxy in front of PostgreSQL that breaks the network: it drops, holds, resets or delays data.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The state of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "not every test breaks the network in every way")]
pub enum Network {
    Good,
    /// Nothing arrives in either direction, without a FIN or RST. An affected connection
    /// stays silent for good, as behind a firewall that forgot it.
    Swallows,
    /// Nothing arrives in either direction until the network is good again; then connections continue.
    Holds,
    /// Established connections are reset, and new ones too.
    Resets,
    /// Each piece of data is late by this much.
    Delays(Duration),
}

/// The proxy. It ends with its owner.
pub struct Proxy {
    /// `DATABASE_URL` through the proxy.
    pub url: String,
    network: watch::Sender<Network>,
    target: watch::Sender<Target>,
    accepting: JoinHandle<()>,
}

/// Where the database listens.
#[derive(Clone)]
enum Target {
    Tcp(String),
    Unix(String),
}

impl Target {
    fn of(database_url: &str) -> Self {
        let url = url::Url::parse(database_url).unwrap();
        let host = url.host_str().unwrap().replace("%2F", "/");
        let port = url.port().unwrap_or(5432);
        if host.starts_with('/') {
            Self::Unix(format!("{host}/.s.PGSQL.{port}"))
        } else {
            Self::Tcp(format!("{host}:{port}"))
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Proxy {
    /// In front of the database of that URL: `postgres://user@host:port/name`, or a socket's directory as host.
    pub async fn before(database_url: &str) -> Self {
        Self::at("127.0.0.1:0", database_url).await
    }

    /// The same on a given address.
    pub async fn at(address: &str, database_url: &str) -> Self {
        let target = watch::Sender::new(Target::of(database_url));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = url::Url::parse(database_url).unwrap();
        let url = format!("postgres://{}@{address}{}?sslmode=disable", url.username(), url.path());
        let network = watch::Sender::new(Network::Good);
        let (seen, targets) = (network.subscribe(), target.subscribe());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = targets.borrow().clone();
                tokio::spawn(carry(client, target, seen.clone()));
            }
        });
        Self { url, network, target, accepting }
    }

    /// Sets the state of the network, for existing connections and for new ones.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// New connections lead to the server of that URL, as after a failover.
    pub fn point_to(&self, database_url: &str) {
        self.target.send_replace(Target::of(database_url));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut client: TcpStream, target: Target, mut network: watch::Receiver<Network>) {
    client.set_nodelay(true).unwrap();
    let mut server: Option<Box<dyn Stream>> = None;
    let (mut from_client, mut from_server) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let now = *network.borrow_and_update();
        let delay = match now {
            Network::Good => Duration::ZERO,
            Network::Delays(delay) => delay,
            Network::Resets => {
                client.set_zero_linger().unwrap();
                return;
            }
            // Both ends stay open, until the test is over.
            Network::Swallows => {
                while network.changed().await.is_ok() {}
                return;
            }
            Network::Holds if network.changed().await.is_ok() => continue,
            Network::Holds => return,
        };
        let Some(server) = &mut server else {
            let connected = match &target {
                Target::Tcp(address) => TcpStream::connect(address).await.map(|stream| Box::new(stream) as Box<_>),
                Target::Unix(path) => UnixStream::connect(path).await.map(|stream| Box::new(stream) as Box<_>),
            };
            let Ok(connected) = connected else {
                client.set_zero_linger().unwrap();
                return;
            };
            server = Some(connected);
            continue;
        };
        let done = tokio::select! {
            changed = network.changed() => changed.is_err(),
            read = client.read(&mut from_client) => pass(read, &from_client, &mut **server, delay).await,
            read = server.read(&mut from_server) => pass(read, &from_server, &mut client, delay).await,
        };
        if done {
            return;
        }
    }
}

/// Passes on the bytes that were read; returns true at the end.
async fn pass(
    read: std::io::Result<usize>,
    buffer: &[u8],
    to: &mut (impl AsyncWrite + Unpin + ?Sized),
    delay: Duration,
) -> bool {
    let Ok(read @ 1..) = read else { return true };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    to.write_all(&buffer[..read]).await.is_err()
}
