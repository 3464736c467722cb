//! Offers more than a server can take: a separate process that ignores `Retry-After`.
//!
//! Either a fixed number of requests per second is due, whatever their outcome (each takes a free connection;
//! without one, it is counted as unsent), or each connection sends again at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::contender::ORGANIZATIONS;
use crate::exchange::{Connection, ExchangeError};
use crate::options::OfferArguments;
use crate::report::percentile;
use crate::request::Template;

/// Enough for both cores: a single thread does not offer enough.
const THREADS: u16 = 2;
/// Interval of releasing the requests that are due.
const TICK: Duration = Duration::from_millis(1);

/// The offered load, and its outcome.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Offered {
    pub elapsed_seconds: f64,
    pub sent: u64,
    /// Due but not sent, because all connections were waiting for answers.
    pub unsent: u64,
    /// Answered 200, by organization.
    pub accepted: Vec<u64>,
    /// Answered 503.
    pub refused: u64,
    /// Any other outcome, by kind.
    pub others: BTreeMap<String, u64>,
    pub acknowledged_ms: Latencies,
    pub refused_ms: Latencies,
}

/// Milliseconds from writing a request to the socket until its answer was read.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Latencies {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latencies {
    fn of(mut micros: Vec<u32>) -> Self {
        micros.sort_unstable();
        let at = |permille| percentile(&micros, permille);
        Self { p50: at(500), p99: at(990), p999: at(999), max: at(1000) }
    }
}

/// Offers the load, and returns its outcome.
pub fn run(arguments: &OfferArguments) -> Result<Offered> {
    be_nice(arguments.niceness);
    allow_many_files();
    let all_open = Arc::new(Barrier::new(THREADS.into()));
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let part = Part {
                address: arguments.address,
                connections: share(arguments.connections.into(), number),
                rate: arguments.rate.map(|rate| share(rate, number)),
                duration: Duration::from_secs(arguments.seconds),
                turn: number.into(),
                all_open: Arc::clone(&all_open),
            };
            std::thread::spawn(move || part.run())
        })
        .collect();
    let mut whole = Tally::default();
    for thread in threads {
        whole.add(thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
    }
    Ok(Offered {
        elapsed_seconds: whole.elapsed.as_secs_f64(),
        sent: whole.sent,
        unsent: whole.unsent,
        accepted: whole.accepted.to_vec(),
        refused: whole.refused.len() as u64,
        others: whole.others,
        acknowledged_ms: Latencies::of(whole.acknowledged),
        refused_ms: Latencies::of(whole.refused),
    })
}

fn share(whole: u32, number: u16) -> u32 {
    whole / u32::from(THREADS) + u32::from(whole % u32::from(THREADS) > u32::from(number))
}

/// One thread's share of the load.
struct Part {
    address: SocketAddr,
    connections: u32,
    rate: Option<u32>,
    duration: Duration,
    turn: usize,
    /// Nobody sends before everybody has connected, so that no one connects to a server under load.
    all_open: Arc<Barrier>,
}

impl Part {
    fn run(self) -> Result<Tally> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.offer())
    }

    async fn offer(self) -> Result<Tally> {
        let templates = Arc::new(Template::all(self.address)?);
        let opened = self.open().await;
        // Also after a failure, because the others wait. It blocks nothing else: this thread has no other
        // work.
        self.all_open.wait();
        let open = opened?;
        let started = Instant::now();
        let deadline = started + self.duration;
        let due = Arc::new(Semaphore::new(0));
        let unsent = Arc::new(AtomicU64::new(0));
        let pacing = self.rate.map(|rate| tokio::spawn(pace(rate, Arc::clone(&due), Arc::clone(&unsent), deadline)));
        let mut senders = JoinSet::new();
        for (number, connection) in open.into_iter().enumerate() {
            let sender = Sender {
                address: self.address,
                templates: Arc::clone(&templates),
                due: self.rate.map(|_| Arc::clone(&due)),
                connection: Some(connection),
                turn: self.turn + number * usize::from(THREADS),
            };
            senders.spawn(sender.run(deadline));
        }
        let mut tally = Tally::default();
        while let Some(part) = senders.join_next().await {
            tally.add(part??);
        }
        if let Some(pacing) = pacing {
            pacing.await?;
        }
        tally.unsent = unsent.load(Ordering::Relaxed);
        tally.elapsed = started.elapsed();
        Ok(tally)
    }

    async fn open(&self) -> Result<Vec<Connection>> {
        let mut open = Vec::new();
        for _ in 0..self.connections {
            open.push(Connection::open(self.address).await.context("the first connections")?);
        }
        Ok(open)
    }
}

/// Releases this many requests per second. Those without a free connection do not wait for one.
async fn pace(rate: u32, due: Arc<Semaphore>, unsent: Arc<AtomicU64>, deadline: Instant) {
    let started = Instant::now();
    let mut interval = tokio::time::interval(TICK);
    let mut let_go = 0;
    while Instant::now() < deadline {
        interval.tick().await;
        let left = due.forget_permits(usize::MAX >> 4);
        unsent.fetch_add(left as u64, Ordering::Relaxed);
        let by_now = u64::from(rate) * u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX) / 1_000_000;
        due.add_permits(usize::try_from(by_now - let_go).unwrap_or_default());
        let_go = by_now;
    }
    due.close();
}

/// One connection's requests.
struct Sender {
    address: SocketAddr,
    templates: Arc<Vec<Template>>,
    due: Option<Arc<Semaphore>>,
    connection: Option<Connection>,
    turn: usize,
}

impl Sender {
    async fn run(mut self, deadline: Instant) -> Result<Tally> {
        let (mut tally, mut request) = (Tally::default(), Vec::new());
        let mut is_first = true;
        while Instant::now() < deadline {
            if let Some(due) = &self.due {
                let Ok(permit) = due.acquire().await else { break };
                permit.forget();
            }
            let organization = self.turn % ORGANIZATIONS;
            self.turn += 1;
            self.templates[organization].write(&mut request)?;
            // All connections had to be open first, and a server under load takes long enough to close the
            // first one.
            if std::mem::take(&mut is_first) && self.connection.as_ref().is_some_and(Connection::was_left) {
                self.connection = None;
            }
            let open = match &mut self.connection {
                Some(open) => open,
                none => match Connection::open(self.address).await {
                    Ok(open) => none.insert(open),
                    Err(error) => {
                        tally.note_other(&error);
                        continue;
                    }
                },
            };
            tally.sent += 1;
            let sent = Instant::now();
            let answered = open.send(&request).await;
            let micros = u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX);
            if open.is_over() {
                self.connection = None;
            }
            match answered {
                Ok(()) => {
                    tally.accepted[organization] += 1;
                    tally.acknowledged.push(micros);
                }
                Err(ExchangeError::Refused(503)) => tally.refused.push(micros),
                Err(error) => tally.note_other(&error),
            }
        }
        Ok(tally)
    }
}

#[derive(Default)]
struct Tally {
    /// From the first request to the last answer.
    elapsed: Duration,
    sent: u64,
    unsent: u64,
    accepted: [u64; ORGANIZATIONS],
    /// Microseconds.
    acknowledged: Vec<u32>,
    refused: Vec<u32>,
    others: BTreeMap<String, u64>,
}

impl Tally {
    fn note_other(&mut self, error: &ExchangeError) {
        *self.others.entry(error.to_string()).or_default() += 1;
    }

    fn add(&mut self, part: Self) {
        self.elapsed = self.elapsed.max(part.elapsed);
        self.sent += part.sent;
        self.unsent += part.unsent;
        for (sum, count) in self.accepted.iter_mut().zip(part.accepted) {
            *sum += count;
        }
        self.acknowledged.extend(part.acknowledged);
        self.refused.extend(part.refused);
        for (what, count) in part.others {
            *self.others.entry(what).or_default() += count;
        }
    }
}

#[expect(unsafe_code, reason = "setpriority has no safe form in std")]
fn be_nice(niceness: i32) {
    // SAFETY: a system call on plain numbers. A refusal would only make the figures worse.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
}

#[expect(unsafe_code, reason = "setrlimit has no safe form in std")]
fn allow_many_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives as long as the calls that read and write it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}
