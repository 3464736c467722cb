//! Group commit: concurrent requests put units into bounded queues, and one writer per node flushes them.
//!
//! A flush is one round trip and one fsync for up to 512 units. Units that people and providers wait for come
//! first; units of workers fill the rest. A full queue refuses at once.

use std::time::{Duration, Instant};

use chrono::Utc;
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::batch::{Verdict, Verdicts};
use super::flusher::{Flushed, Flusher, Now};
use super::heads::{Epoch, Heads, Remembered};
use super::record;
use super::unit::{Appended, Unit, UsedMonth};
use crate::platform::vitals::Vitals;

/// Name under which the vitals miss it.
const NAME: &str = "writer";
/// Most units in one flush that somebody waits for.
const FOREGROUND_UNITS: usize = 512;
/// Most units of workers beside them; as many as the others if those are more, so that work keeps up with
/// receiving. [`BACKGROUND_ALONE`] applies when nobody waits.
const BACKGROUND_UNITS: usize = 64;
const BACKGROUND_ALONE: usize = 512;
/// Bytes per flush, unless a single unit is larger.
const FLUSH_BYTES: usize = 16 << 20;
/// Requests that may wait for the writer. A full queue means overload.
const FOREGROUND_QUEUE: usize = 4096;
const BACKGROUND_QUEUE: usize = 64;
/// How long a caller waits for an append: Shopify gives up after 5 s. The outcome is then unknown; a repeated
/// request is new or a duplicate.
const APPEND_LIMIT: Duration = Duration::from_secs(4);
/// How long a flush is retried at most: workers wait longer than people do.
const FLUSH_LIMIT: Duration = Duration::from_secs(15);
/// Interval at which a log that failed to commit is probed, because nobody sends to a node that is not ready.
const PROBE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum AppendError {
    /// Another event already has one of the sequences; nothing was appended.
    #[error("another event was appended first")]
    Conflict,
    /// The organization has reached its monthly limit; nothing was appended.
    #[error("the monthly limit is reached")]
    OverLimit(UsedMonth),
    /// The queue is full or the writer has stopped; nothing was appended.
    #[error("the log is overloaded; try again later")]
    Overloaded,
    /// The flush failed; it may or may not have been committed.
    #[error("the log could not commit")]
    Failed,
}

/// The urgency of an append, by who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// A provider or a person.
    Foreground,
    /// A worker.
    Background,
}

type Answer = Vec<Result<Appended, AppendError>>;

impl From<Verdict> for Result<Appended, AppendError> {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Appended(appended) => Ok(appended),
            Verdict::Conflict => Err(AppendError::Conflict),
            Verdict::OverLimit(used) => Err(AppendError::OverLimit(used)),
            Verdict::Uncounted => Err(AppendError::Overloaded),
        }
    }
}

struct Request {
    units: Vec<Unit>,
    answer: oneshot::Sender<Answer>,
}

/// The handle for appending. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    foreground: mpsc::Sender<Request>,
    background: mpsc::Sender<Request>,
    heads: Heads,
}

impl Log {
    /// The epoch that is appended to now. A caller that reads to decide takes the epoch first, and puts it
    /// into the unit.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.heads.epoch()
    }

    /// A memory that becomes empty with each new epoch.
    #[must_use]
    pub fn remember<T: Default>(&self) -> Remembered<T> {
        self.heads.remember()
    }

    /// Expected wait of an append, for callers that would rather refuse than wait.
    #[must_use]
    pub fn expected_wait(&self) -> Duration {
        self.heads.pressure.expected_wait(self.foreground.max_capacity() - self.foreground.capacity())
    }

    /// Appends one unit that somebody waits for, durably.
    ///
    /// # Errors
    /// After [`AppendError::Conflict`] and [`AppendError::Overloaded`] nothing was appended.
    pub async fn append(&self, unit: Unit) -> Result<Appended, AppendError> {
        let (answer, wait) = oneshot::channel();
        let units = vec![self.dated(unit)];
        self.foreground.try_send(Request { units, answer }).map_err(|_| AppendError::Overloaded)?;
        let answered = tokio::time::timeout(APPEND_LIMIT, wait).await.map_err(|_| AppendError::Failed)?;
        let mut verdicts = answered.map_err(|_| AppendError::Failed)?;
        verdicts.pop().unwrap_or(Err(AppendError::Failed))
    }

    /// Appends a worker's units, each whole or not at all, and waits for room in the queue.
    ///
    /// # Errors
    /// [`AppendError::Overloaded`] when the writer has stopped; otherwise there is a verdict per unit.
    pub async fn append_all(&self, units: Vec<Unit>) -> Result<Vec<Result<Appended, AppendError>>, AppendError> {
        let (answer, wait) = oneshot::channel();
        let units = units.into_iter().map(|unit| self.dated(unit)).collect();
        self.background.send(Request { units, answer }).await.map_err(|_| AppendError::Overloaded)?;
        wait.await.map_err(|_| AppendError::Failed)
    }

    /// A unit that continues a stream without stating its epoch was decided just now. It gets the current
    /// epoch, so that it is not appended in another one, however long it waits.
    fn dated(&self, unit: Unit) -> Unit {
        if unit.epoch.is_none() && unit.goes_on() { unit.decided_in(self.epoch()) } else { unit }
    }
}

/// The only task of a node that appends.
pub struct Writer {
    pool: PgPool,
    heads: Heads,
    foreground: mpsc::Receiver<Request>,
    background: mpsc::Receiver<Request>,
    now: Now,
}

impl Writer {
    /// A writer and its handle.
    #[must_use]
    pub fn new(pool: PgPool, heads: Heads) -> (Log, Self) {
        let (to_foreground, foreground) = mpsc::channel(FOREGROUND_QUEUE);
        let (to_background, background) = mpsc::channel(BACKGROUND_QUEUE);
        let log = Log { foreground: to_foreground, background: to_background, heads: heads.clone() };
        (log, Self { pool, heads, foreground, background, now: Utc::now })
    }

    /// A writer on a node with another clock.
    #[must_use]
    pub fn with_clock(self, now: Now) -> Self {
        Self { now, ..self }
    }

    /// Flushes until stopped, then flushes what is still queued.
    pub async fn run(mut self, vitals: Vitals, stop: CancellationToken) {
        let mut flusher = Flusher::new(self.pool.clone(), self.heads.clone(), vitals.clone(), self.now);
        let sweeper = tokio::spawn(record::sweep(self.pool.clone(), stop.clone()));
        let mut ails = false;
        loop {
            let first = tokio::select! {
                biased;
                Some(request) = self.foreground.recv() => Some((Priority::Foreground, request)),
                Some(request) = self.background.recv() => Some((Priority::Background, request)),
                () = stop.cancelled() => break,
                () = tokio::time::sleep(PROBE), if flusher.ails() => None,
                else => break,
            };
            let go = async {
                match first {
                    None => flusher.probe().await,
                    first => self.flush_from(&mut flusher, first, &stop).await,
                }
            };
            match vitals.go(NAME, go).await {
                Some(()) if ails => {
                    ails = false;
                    vitals.recovered(NAME);
                }
                Some(()) => {}
                // The waiting callers of that flush learn that it failed. The connection may be in any state.
                None => {
                    ails = true;
                    self.heads.pressure.note_end(0);
                    flusher.abandon_connection();
                }
            }
        }
        self.foreground.close();
        self.background.close();
        let rest = async {
            while !(self.foreground.is_empty() && self.background.is_empty()) {
                self.flush_from(&mut flusher, None, &stop).await;
            }
        };
        if tokio::time::timeout(APPEND_LIMIT, rest).await.is_err() {
            tracing::error!("the log does not commit; its waiting callers get an error");
        }
        sweeper.abort();
    }

    async fn flush_from(
        &mut self,
        flusher: &mut Flusher,
        first: Option<(Priority, Request)>,
        stop: &CancellationToken,
    ) {
        let mut gathered = Gathered::default();
        let (mut foreground, mut background) = (0, 0);
        if let Some((priority, request)) = first {
            match priority {
                Priority::Foreground => foreground = request.units.len(),
                Priority::Background => background = request.units.len(),
            }
            gathered.take(request);
        }
        while foreground < FOREGROUND_UNITS && gathered.weight < FLUSH_BYTES {
            let Ok(request) = self.foreground.try_recv() else { break };
            foreground += request.units.len();
            gathered.take(request);
        }
        let allowance = if foreground == 0 { BACKGROUND_ALONE } else { BACKGROUND_UNITS.max(foreground) };
        while background < allowance && gathered.weight < FLUSH_BYTES {
            let Ok(request) = self.background.try_recv() else { break };
            background += request.units.len();
            gathered.take(request);
        }
        if gathered.units.is_empty() {
            return gathered.answer(Ok(Verdicts::new()));
        }
        self.heads.pressure.note_begin();
        let started = Instant::now();
        let is_worth_while = || {
            let limit = if stop.is_cancelled() { APPEND_LIMIT } else { FLUSH_LIMIT };
            gathered.is_waited_for() && started.elapsed() < limit
        };
        let Flushed { verdicts, is_unusual, epoch, clock } = flusher.flush(&gathered.units, &is_worth_while).await;
        metrics::histogram!("hookledger_append_flush_seconds").record(started.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "at most some hundreds")]
        metrics::histogram!("hookledger_append_flush_units").record(gathered.units.len() as f64);
        self.heads.pressure.note_end(if is_unusual { 0 } else { foreground });
        let is_administrative = gathered.units.iter().any(Unit::is_administrative);
        let placed = verdicts.iter().flatten().zip(std::mem::take(&mut gathered.units));
        let placed: Vec<_> = placed.filter_map(|(verdict, unit)| Some((unit, verdict.place()?))).collect();
        let ends: Vec<_> = placed.iter().filter_map(|(unit, last)| Some((*last, unit.last_stream()?))).collect();
        // Before anybody is woken who looks for them there.
        if let Some(clock) = clock {
            self.heads.recent.push(epoch, clock, placed);
        }
        self.heads.advance(epoch, ends);
        if is_administrative {
            self.heads.advance_administrative();
        }
        gathered.answer(verdicts);
    }
}

/// The units of a flush, and the callers with their number of units.
#[derive(Default)]
struct Gathered {
    units: Vec<Unit>,
    waiting: Vec<(usize, oneshot::Sender<Answer>)>,
    weight: usize,
}

impl Gathered {
    fn take(&mut self, request: Request) {
        // The caller left before its unit was flushed, so nobody expects it in the log.
        if request.answer.is_closed() {
            return;
        }
        self.weight += request.units.iter().map(Unit::weight).sum::<usize>();
        self.waiting.push((request.units.len(), request.answer));
        self.units.extend(request.units);
    }

    fn is_waited_for(&self) -> bool {
        self.waiting.iter().any(|(_, waiting)| !waiting.is_closed())
    }

    fn answer(self, verdicts: Result<Verdicts, AppendError>) {
        let mut verdicts = verdicts.map(Vec::into_iter);
        for (count, waiting) in self.waiting {
            let next = || match &mut verdicts {
                Ok(verdicts) => verdicts.next().unwrap_or(Verdict::Conflict).into(),
                Err(error) => Err(*error),
            };
            let answer = std::iter::repeat_with(next).take(count).collect();
            // A caller that left does not need the answer; its events are in the log anyway.
            let _ = waiting.send(answer);
        }
    }
}
