//! The load generator: a closed loop of keep-alive connections, each with one request at a time.
//!
//! A slow server is sent less, so the latencies belong to the throughput next to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use crate::contender::ORGANIZATIONS;
use crate::exchange::{Connection, ExchangeError};
use crate::request::Template;

/// Avoids a tight loop against a server that refuses everything.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct Load {
    pub elapsed: Duration,
    /// Microseconds from the first byte sent to the last received, of each acknowledged request.
    pub latencies: Vec<u32>,
    /// Acknowledged requests by organization.
    pub accepted: [u64; ORGANIZATIONS],
    /// All other outcomes, by kind.
    pub failures: BTreeMap<String, u64>,
}

impl Load {
    /// Sends until `duration` is over and the last requests are answered.
    pub async fn run(address: SocketAddr, connections: u16, duration: Duration) -> Result<Self> {
        let templates = Arc::new(Template::all(address)?);
        let started = Instant::now();
        let deadline = started + duration;
        let mut senders = JoinSet::new();
        for number in 0..connections {
            let sender = Sender { address, templates: Arc::clone(&templates), turn: number.into() };
            senders.spawn(sender.run(deadline));
        }
        let mut load = Self::empty();
        while let Some(part) = senders.join_next().await {
            load.add(part??);
        }
        load.elapsed = started.elapsed();
        Ok(load)
    }

    fn empty() -> Self {
        Self { elapsed: Duration::ZERO, latencies: Vec::new(), accepted: [0; ORGANIZATIONS], failures: BTreeMap::new() }
    }

    fn add(&mut self, part: Self) {
        self.latencies.extend(part.latencies);
        for (sum, count) in self.accepted.iter_mut().zip(part.accepted) {
            *sum += count;
        }
        for (what, count) in part.failures {
            *self.failures.entry(what).or_default() += count;
        }
    }
}

struct Sender {
    address: SocketAddr,
    templates: Arc<Vec<Template>>,
    turn: usize,
}

impl Sender {
    async fn run(mut self, deadline: Instant) -> Result<Load> {
        let mut load = Load::empty();
        let mut connection = None;
        let mut request = Vec::new();
        while Instant::now() < deadline {
            let organization = self.turn % ORGANIZATIONS;
            self.turn += 1;
            self.templates[organization].write(&mut request)?;
            match self.send(&mut connection, &request).await {
                Ok(latency) => {
                    load.latencies.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
                    load.accepted[organization] += 1;
                }
                Err(error) => {
                    if !matches!(error, ExchangeError::Refused(_)) {
                        connection = None;
                    }
                    *load.failures.entry(error.to_string()).or_default() += 1;
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
        Ok(load)
    }

    async fn send(&self, connection: &mut Option<Connection>, request: &[u8]) -> Result<Duration, ExchangeError> {
        let open = match connection {
            Some(open) => open,
            None => connection.insert(Connection::open(self.address).await?),
        };
        let started = Instant::now();
        open.send(request).await?;
        Ok(started.elapsed())
    }
}
