//! The interface of both contenders.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::process::Process;

/// Organizations that the load is spread over, `bench-0` and so on.
pub const ORGANIZATIONS: usize = 16;
/// The webhook secret of each.
pub const SECRET: &str = "bench-secret";

const READY_LIMIT: Duration = Duration::from_secs(60);

pub trait Contender {
    const NAME: &'static str;

    /// Starts its cluster and its server, and returns once it accepts webhooks.
    async fn start(&mut self) -> Result<Running>;

    /// Waits until all acknowledged webhooks can be read, and measures how long that took. `accepted` has the
    /// webhooks acknowledged so far, by organization, over all rounds.
    async fn settle(&mut self, accepted: &[u64]) -> Result<Settled>;
}

#[derive(Debug, Clone, Copy)]
pub struct Settled {
    /// `None` for a contender without a read model.
    pub caught_up_after: Option<Duration>,
    /// The age of the oldest event without a leaf in the ledger when the load ended, and when the last one
    /// had it; likewise.
    pub ledger: Option<LedgerLag>,
    pub counted: u64,
    /// Whether exactly the acknowledged webhooks are there, by organization if these are separate.
    pub exact: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct LedgerLag {
    pub behind: Duration,
    pub caught_up_after: Duration,
}

/// A contender's server and cluster. Dropping it stops them, in this order.
#[derive(Debug)]
pub struct Running {
    pub address: SocketAddr,
    server: Process,
    _cluster: Process,
}

impl Running {
    pub fn new(address: SocketAddr, server: Process, cluster: Process) -> Self {
        Self { address, server, _cluster: cluster }
    }

    /// Waits for 200 on `/readyz`.
    pub async fn ready(mut self, http: &reqwest::Client) -> Result<Self> {
        let url = format!("http://{}/readyz", self.address);
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let refusal = match http.get(&url).send().await {
                Ok(response) if response.status().is_success() => return Ok(self),
                Ok(response) => format!("{}: {}", response.status(), response.text().await.unwrap_or_default()),
                Err(error) => error.to_string(),
            };
            self.server.still_runs()?;
            if Instant::now() > deadline {
                bail!("{url} is not ready after {READY_LIMIT:?}: {refusal}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Fails with the end of the server's log if it exited by itself.
    pub fn still_runs(&mut self) -> Result<()> {
        self.server.still_runs()
    }
}

/// A local port that nothing listens on.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// A client that ignores the environment's proxy variables.
pub fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?)
}
