//! Receiving and delivering together: webhooks arrive at a steady pace and are forwarded to a sink on this
//! machine, which shares its cores. Measures what arrives there, and whether a backlog grows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::contender::{Contender as _, ORGANIZATIONS};
use crate::exchange::Connection;
use crate::hookledger::Hookledger;
use crate::request::Template;

const CONNECTIONS: u32 = 64;
const SECONDS: u64 = 20;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[derive(Debug, Clone, Copy, Serialize)]
pub struct DeliveryFigures {
    pub offered_per_second: u32,
    pub accepted_per_second: f64,
    pub delivered_per_second: f64,
    /// Accepted and not delivered, halfway and at the end.
    pub backlog_half_way: i64,
    pub backlog_at_end: i64,
    /// Until all accepted webhooks had arrived.
    pub drained_after_seconds: f64,
}

impl DeliveryFigures {
    pub async fn measure(hookledger: &mut Hookledger, rate: u32) -> Result<Self> {
        let (address, arrived) = sink()?;
        let running = hookledger.start().await?;
        for number in 0..ORGANIZATIONS {
            hookledger.forward(number, &format!("http://{address}/")).await?;
        }
        // A new destination is in force within a second.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let templates = Arc::new(Template::all(running.address)?);
        let accepted = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let mut senders = JoinSet::new();
        for number in 0..CONNECTIONS {
            let pace = Duration::from_secs(1) * CONNECTIONS / rate;
            senders.spawn(send(running.address, Arc::clone(&templates), number, pace, Arc::clone(&accepted)));
        }
        let backlog = || {
            let (arrived, accepted) = (arrived.load(Ordering::Relaxed), accepted.load(Ordering::Relaxed));
            i64::try_from(accepted).unwrap_or(i64::MAX) - i64::try_from(arrived).unwrap_or(i64::MAX)
        };
        tokio::time::sleep(Duration::from_secs(SECONDS / 2)).await;
        let backlog_half_way = backlog();
        while let Some(sender) = senders.join_next().await {
            sender??;
        }
        let elapsed = started.elapsed().as_secs_f64();
        let (backlog_at_end, delivered) = (backlog(), arrived.load(Ordering::Relaxed));
        let drained = Instant::now();
        while backlog() > 0 && drained.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        #[expect(clippy::cast_precision_loss, reason = "some hundred thousands")]
        let per_second = |count: u64| count as f64 / elapsed;
        Ok(Self {
            offered_per_second: rate,
            accepted_per_second: per_second(accepted.load(Ordering::Relaxed)),
            delivered_per_second: per_second(delivered),
            backlog_half_way,
            backlog_at_end,
            drained_after_seconds: drained.elapsed().as_secs_f64(),
        })
    }

    pub fn print(&self) {
        println!(
            "receive and deliver, {SECONDS} s at {}/s: {:.0}/s accepted, {:.0}/s delivered; backlog {} half way, {} at the \
             end, drained after {:.2} s",
            self.offered_per_second,
            self.accepted_per_second,
            self.delivered_per_second,
            self.backlog_half_way,
            self.backlog_at_end,
            self.drained_after_seconds
        );
    }
}

/// Sends at its pace, and does not catch up when late, so that the offered load stays steady.
async fn send(
    address: SocketAddr,
    templates: Arc<Vec<Template>>,
    number: u32,
    pace: Duration,
    accepted: Arc<AtomicU64>,
) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + pace * number / CONNECTIONS, pace);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let deadline = Instant::now() + Duration::from_secs(SECONDS);
    let (mut buffer, mut turn) = (Vec::new(), number as usize);
    while Instant::now() < deadline {
        interval.tick().await;
        templates[turn % templates.len()].write(&mut buffer)?;
        turn += 1;
        connection.send(&buffer).await?;
        accepted.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// A destination on its own thread, and its number of answered requests.
fn sink() -> Result<(SocketAddr, Arc<AtomicU64>)> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let arrived = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&arrived);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("sink".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move { drop(answer(stream, &count).await) });
            }
        });
    })?;
    Ok((address, arrived))
}

async fn answer(mut stream: TcpStream, arrived: &AtomicU64) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(16 << 10);
    loop {
        let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head = std::str::from_utf8(&input[..end])?;
        let length = head.lines().filter_map(|line| line.split_once(':'));
        let length = length.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length: usize = length.context("no content-length")?.1.trim().parse()?;
        let whole = end + 4 + length;
        while input.len() < whole {
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }
        input.drain(..whole);
        arrived.fetch_add(1, Ordering::Relaxed);
        stream.write_all(ANSWER).await?;
    }
}

impl Hookledger {
    /// Forwards an organization's webhooks to a URL.
    async fn forward(&self, number: usize, url: &str) -> Result<()> {
        let query = "query($slug: String!) { organization(slug: $slug) { providers { id } } }";
        let answer = self.graphql(query, json!({ "slug": format!("bench-{number}") })).await?;
        let set = "mutation($input: SetProviderDestinationInput!) { setProviderDestination(input: $input) \
                   { provider { id } } }";
        let id = &answer["organization"]["providers"][0]["id"];
        let input = json!({ "providerId": id, "url": url, "concurrency": 32 });
        self.graphql(set, json!({ "input": input })).await.context("setProviderDestination")?;
        Ok(())
    }
}
