//! Group commit: concurrent requests put units into bounded queues, one writer a node flushes.
//!
//! A flush is one round trip and one fsync for up to 512 units. What people and providers wait for
//! comes first; what workers append fills up the rest. A full queue refuses at once.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::batch::{Verdict, Verdicts, append_carefully, append_optimistically};
use super::heads::Heads;
use super::limits;
use super::pressure::Pressure;
use super::unit::{Appended, Unit, UsedMonth};
use crate::vitals::Vitals;

/// Under this name it is missed.
const NAME: &str = "writer";
/// Units of one flush that somebody waits for.
const FOREGROUND_UNITS: usize = 512;
/// Units of one flush that workers append beside them at least; as many as the others when there
/// are more of those, so that work keeps up with what is taken in; and at most, with nobody waiting.
const BACKGROUND_UNITS: usize = 64;
const BACKGROUND_ALONE: usize = 512;
/// Bytes of one flush, unless a single unit is larger.
const FLUSH_BYTES: usize = 16 << 20;
/// Requests that may wait for the writer. Full means overloaded.
const FOREGROUND_QUEUE: usize = 4096;
const BACKGROUND_QUEUE: usize = 64;
/// How long somebody waits for an append: Shopify gives up after 5 s. Whether it was committed is
/// then unknown; sent again, it is new or a duplicate.
const APPEND_LIMIT: Duration = Duration::from_secs(4);
/// How long one flush may take; the connection's statement timeout is shorter.
const FLUSH_LIMIT: Duration = Duration::from_secs(15);
/// Flushes that are done carefully after one met a conflict: conflicts come in bursts.
const CAREFUL_FLUSHES: u32 = 4;

#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum AppendError {
    /// Another event is at one of the sequences already, and nothing was appended.
    #[error("another event came first")]
    Conflict,
    /// The organization has used up its month; nothing was appended.
    #[error("the monthly limit is reached")]
    OverLimit(UsedMonth),
    /// The queue is full or the writer has stopped; nothing was appended.
    #[error("the log takes no more for now")]
    Overloaded,
    /// The flush failed; whether it was committed may be unknown.
    #[error("the log could not commit")]
    Failed,
}

/// Who waits for an append.
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

/// The way to append. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    foreground: mpsc::Sender<Request>,
    background: mpsc::Sender<Request>,
    pressure: Pressure,
}

impl Log {
    /// How long an append will most likely wait, for those who would rather refuse than wait.
    #[must_use]
    pub fn expected_wait(&self) -> Duration {
        self.pressure.expected_wait(self.foreground.max_capacity() - self.foreground.capacity())
    }

    /// Appends one unit that somebody waits for, durably.
    ///
    /// # Errors
    /// [`AppendError`]: on a conflict and under overload nothing was appended.
    pub async fn append(&self, unit: Unit) -> Result<Appended, AppendError> {
        let (answer, wait) = oneshot::channel();
        self.foreground.try_send(Request { units: vec![unit], answer }).map_err(|_| AppendError::Overloaded)?;
        let answered = tokio::time::timeout(APPEND_LIMIT, wait).await.map_err(|_| AppendError::Failed)?;
        let mut verdicts = answered.map_err(|_| AppendError::Failed)?;
        verdicts.pop().unwrap_or(Err(AppendError::Failed))
    }

    /// Appends a worker's units, each whole or not at all, waiting for room.
    ///
    /// # Errors
    /// [`AppendError::Overloaded`] when the writer has stopped; otherwise a verdict per unit.
    pub async fn append_all(&self, units: Vec<Unit>) -> Result<Vec<Result<Appended, AppendError>>, AppendError> {
        let (answer, wait) = oneshot::channel();
        self.background.send(Request { units, answer }).await.map_err(|_| AppendError::Overloaded)?;
        wait.await.map_err(|_| AppendError::Failed)
    }
}

/// The one task of a node that appends.
pub struct Writer {
    pool: PgPool,
    heads: Heads,
    foreground: mpsc::Receiver<Request>,
    background: mpsc::Receiver<Request>,
    connection: Option<PoolConnection<Postgres>>,
    careful: u32,
}

impl Writer {
    /// A writer and the way to it.
    #[must_use]
    pub fn new(pool: PgPool, heads: Heads) -> (Log, Self) {
        let (to_foreground, foreground) = mpsc::channel(FOREGROUND_QUEUE);
        let (to_background, background) = mpsc::channel(BACKGROUND_QUEUE);
        let pressure = heads.pressure.clone();
        let log = Log { foreground: to_foreground, background: to_background, pressure };
        (log, Self { pool, heads, foreground, background, connection: None, careful: 0 })
    }

    /// Flushes until stopped, then flushes what is still queued.
    pub async fn run(mut self, vitals: Vitals, stop: CancellationToken) {
        let mut ails = false;
        loop {
            let first = tokio::select! {
                biased;
                Some(request) = self.foreground.recv() => (Priority::Foreground, request),
                Some(request) = self.background.recv() => (Priority::Background, request),
                () = stop.cancelled() => break,
                else => break,
            };
            match vitals.go(NAME, self.flush_from(Some(first))).await {
                Some(()) if ails => {
                    ails = false;
                    vitals.recovered(NAME);
                }
                Some(()) => {}
                // Who waited for that flush is told that it failed. The connection may be in any state.
                None => {
                    ails = true;
                    self.heads.pressure.note_end(0);
                    self.abandon_connection();
                }
            }
        }
        self.foreground.close();
        self.background.close();
        while !(self.foreground.is_empty() && self.background.is_empty()) {
            self.flush_from(None).await;
        }
    }

    async fn flush_from(&mut self, first: Option<(Priority, Request)>) {
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
        self.heads.pressure.note_begin();
        let verdicts = self.flush(&gathered.units).await;
        self.heads.pressure.note_end(foreground);
        self.heads.advance(verdicts.iter().flatten().filter_map(Verdict::place));
        if gathered.units.iter().any(Unit::is_administrative) {
            self.heads.advance_administrative();
        }
        gathered.answer(verdicts);
    }

    /// The verdicts, or nothing when the flush failed.
    async fn flush(&mut self, units: &[Unit]) -> Option<Verdicts> {
        let started = std::time::Instant::now();
        let result = tokio::time::timeout(FLUSH_LIMIT, self.try_flush(units)).await;
        metrics::histogram!("hookledger_append_flush_seconds").record(started.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "at most some hundreds")]
        metrics::histogram!("hookledger_append_flush_units").record(units.len() as f64);
        match result {
            Ok(Ok(verdicts)) => return Some(verdicts),
            Ok(Err(error)) => tracing::error!(%error, log.units = units.len(), "the log could not commit"),
            Err(_) => tracing::error!(log.units = units.len(), "the log did not commit in time"),
        }
        metrics::counter!("hookledger_append_failures_total").increment(1);
        self.abandon_connection();
        None
    }

    /// The connection may be in any state; it is closed, not given back.
    fn abandon_connection(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.leak());
        }
    }

    async fn try_flush(&mut self, units: &[Unit]) -> Result<Verdicts, sqlx::Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.pool.acquire().await?),
        };
        // Only batches in which somebody has a limit pay for counting.
        let limited = units.iter().any(|unit| unit.limit.is_some());
        if self.careful == 0 && !units.iter().any(Unit::needs_placing) {
            let result = if limited {
                limits::append_optimistically(connection, units).await
            } else {
                append_optimistically(connection, units).await
            };
            match result {
                Err(error) if needs_care(&error) => self.careful = CAREFUL_FLUSHES,
                other => return other,
            }
        }
        self.careful = self.careful.saturating_sub(1);
        if limited {
            limits::append_carefully(connection, units).await
        } else {
            append_carefully(connection, units).await
        }
    }
}

/// A conflict (23505, `unique_violation`) or a limit that not all of the batch fits in.
fn needs_care(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.is_unique_violation() || error.code().is_some_and(|code| code == limits::REACHED))
}

/// The units of a flush, and who waits for how many of them.
#[derive(Default)]
struct Gathered {
    units: Vec<Unit>,
    waiting: Vec<(usize, oneshot::Sender<Answer>)>,
    weight: usize,
}

impl Gathered {
    fn take(&mut self, request: Request) {
        // Nobody waits for it any more, and nobody was told that it is in.
        if request.answer.is_closed() {
            return;
        }
        self.weight += request.units.iter().map(Unit::weight).sum::<usize>();
        self.waiting.push((request.units.len(), request.answer));
        self.units.extend(request.units);
    }

    fn answer(self, verdicts: Option<Verdicts>) {
        let mut verdicts = verdicts.map(Vec::into_iter);
        for (count, waiting) in self.waiting {
            let next = || match &mut verdicts {
                Some(verdicts) => verdicts.next().unwrap_or(Verdict::Conflict).into(),
                None => Err(AppendError::Failed),
            };
            let answer = std::iter::repeat_with(next).take(count).collect();
            // Whoever went away does not need the answer; the events are in the log all the same.
            let _ = waiting.send(answer);
        }
    }
}
