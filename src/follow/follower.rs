//! The loop of a follower: read after the checkpoint, react, apply, move the checkpoint.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::RecordedEvent;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::checkpoints::Checkpoints;
use super::lease::Lease;
use crate::log::{Batch, Heads, LogPosition, ReadError, Reader, Scope};
use crate::vitals::Vitals;

/// Events of one partition that are handed on at once.
const BATCH: i64 = 1_000;
/// After a batch more is let come: what is applied together costs a transaction, and a webhook
/// whose whole story is in one batch costs one row instead of a row and its updates. The first
/// event after a rest is applied at once.
const GATHER: Duration = Duration::from_millis(100);
/// So many events at once mean that the follower is behind, and goes on without a pause.
const FULL_BATCH: usize = 2_000;
const LONGEST_REST: Duration = Duration::from_secs(2);
/// Without a wake-up the log is looked at this often, and the lease is kept.
const IDLE: Duration = Duration::from_millis(250);
const BACKOFF: Duration = Duration::from_secs(1);
/// A partition that stopped is tried again this often: a later release may know the event.
const RETRY_STOPPED: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Nothing is wrong with the events; it may work a little later.
    #[error("{0}")]
    Transient(String),
    /// The events cannot be applied: the partition stops here.
    #[error("{0}")]
    Unappliable(String),
}

/// What the data itself cannot satisfy will not get better by waiting: classes 22 (data exception)
/// and 23 (constraint). Everything else, a lost connection or a deadlock, may.
impl From<sqlx::Error> for HandlerError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code.as_deref().map(|code| &code[..2.min(code.len())]) {
            Some("22" | "23") => Self::Unappliable(error.to_string()),
            _ => Self::Transient(error.to_string()),
        }
    }
}

/// How a follower steps back while acknowledgements need the machine.
#[derive(Clone, Copy, Debug)]
pub struct UnderPressure {
    /// Events of one partition that are handed on at once.
    pub batch: i64,
    /// It then rests so many times as long as it worked.
    pub rest: u32,
    /// But not when what it applies is older than this.
    pub oldest: chrono::Duration,
}

impl Default for UnderPressure {
    fn default() -> Self {
        Self { batch: 100, rest: 8, oldest: chrono::Duration::seconds(10) }
    }
}

/// What a follower has to know of an event, and how it gets it.
pub trait Followed: Sized + Send + Sync + 'static {
    fn at(&self) -> LogPosition;
    fn recorded_at(&self) -> DateTime<Utc>;

    /// Up to `limit` events of each partition after its cursor.
    fn read<'a>(
        reader: &'a Reader,
        cursors: &'a [LogPosition],
        scope: Scope,
        limit: i64,
    ) -> BoxFuture<'a, Result<Batch<Self>, ReadError>>;
}

impl Followed for RecordedEvent {
    fn at(&self) -> LogPosition {
        LogPosition { partition: self.partition, position: self.position }
    }

    fn recorded_at(&self) -> DateTime<Utc> {
        self.recorded_at
    }

    fn read<'a>(
        reader: &'a Reader,
        cursors: &'a [LogPosition],
        scope: Scope,
        limit: i64,
    ) -> BoxFuture<'a, Result<Batch<Self>, ReadError>> {
        Box::pin(reader.after(cursors, scope, limit))
    }
}

/// What follows the log under a name.
pub trait Handler<E: Followed = RecordedEvent>: Send + Sync + 'static {
    /// Under this name lease and checkpoints are kept.
    fn name(&self) -> &'static str;

    /// Which events it is handed.
    fn scope(&self) -> Scope;

    /// How long more is let come after a batch.
    fn gather(&self) -> Duration {
        GATHER
    }

    /// How it steps back while acknowledgements need the machine.
    fn under_pressure(&self) -> UnderPressure {
        UnderPressure::default()
    }

    /// Up to `limit` events of each partition after its cursor, from wherever they can be had.
    fn read<'a>(
        &'a self,
        reader: &'a Reader,
        cursors: &'a [LogPosition],
        limit: i64,
    ) -> BoxFuture<'a, Result<Batch<E>, ReadError>> {
        E::read(reader, cursors, self.scope(), limit)
    }

    /// Does what the events ask for, outside any transaction. It may be asked again for the same
    /// events, so it must do nothing twice.
    fn react<'a>(&'a self, _events: &'a [E]) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Writes rows in the transaction that also moves the checkpoint.
    fn apply<'a>(
        &'a self,
        _connection: &'a mut PgConnection,
        _events: &'a [E],
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The rows of the last `apply` and the checkpoint are committed.
    fn committed(&self) {}
}

/// What one step of a follower did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Dealt with that many events.
    Applied(usize),
    /// There was nothing to do.
    Idle,
    /// Another node follows now.
    Lost,
}

/// What became of a batch.
enum Handed {
    /// It was dealt with, or its partition stopped.
    On,
    /// It waits: something is out of order that may not be so a little later.
    Back,
    /// Another node follows now.
    Lost,
}

/// Runs a handler along the log.
pub struct Follower<E: Followed = RecordedEvent> {
    handler: Box<dyn Handler<E>>,
    pool: PgPool,
    reader: Reader,
    heads: Heads,
    checkpoints: Checkpoints,
    node: Uuid,
    vitals: Vitals,
    /// It panicked, and has done nothing since.
    ails: AtomicBool,
}

/// A follower's own knowledge while it holds the lease.
struct Progress {
    lease: Lease,
    /// What the database has as checkpoint, per partition.
    stored: Vec<LogPosition>,
    /// Up to where the log was looked through; beyond the checkpoint where nothing concerned us.
    seen: Vec<i64>,
    stopped: Vec<bool>,
    retry_stopped_at: tokio::time::Instant,
    /// When the last event that was dealt with had been recorded.
    applied_at: Option<DateTime<Utc>>,
}

impl<E: Followed> Follower<E> {
    #[must_use]
    pub fn new(handler: Box<dyn Handler<E>>, pool: PgPool, heads: Heads, node: Uuid) -> Self {
        let (reader, checkpoints) = (Reader::new(pool.clone()), Checkpoints::new(pool.clone()));
        Self {
            handler,
            pool,
            reader,
            heads,
            checkpoints,
            node,
            vitals: Vitals::default(),
            ails: AtomicBool::new(false),
        }
    }

    /// Told there when the handler panics, and when it works again.
    #[must_use]
    pub fn watched(self, vitals: Vitals) -> Self {
        Self { vitals, ..self }
    }

    /// Follows until stopped, whenever the lease can be had.
    pub async fn run(self, stop: CancellationToken) {
        let name = self.handler.name();
        while !stop.is_cancelled() {
            match self.vitals.go(name, self.follow(&stop)).await {
                Some(Ok(())) => {}
                None => self.ails.store(true, Ordering::Relaxed),
                Some(Err(error)) => tracing::error!(follower.name = name, %error, "a follower failed; it tries again"),
            }
            let _ = stop.run_until_cancelled(tokio::time::sleep(BACKOFF / 2)).await;
        }
    }

    async fn follow(&self, stop: &CancellationToken) -> Result<(), ReadError> {
        let Some(lease) = Lease::acquire(&self.pool, self.handler.name(), self.node).await? else { return Ok(()) };
        let mut progress = self.start(lease).await?;
        let mut wake = self.heads.wake(self.handler.scope());
        let result = loop {
            if stop.is_cancelled() {
                break Ok(());
            }
            let started = tokio::time::Instant::now();
            let taken = self.step(&mut progress).await;
            if taken.is_ok() && self.ails.swap(false, Ordering::Relaxed) {
                self.vitals.recovered(self.handler.name());
            }
            let pause = match taken {
                Ok(Step::Applied(_)) if self.yields(&progress) => {
                    (started.elapsed() * self.handler.under_pressure().rest).clamp(self.handler.gather(), LONGEST_REST)
                }
                Ok(Step::Applied(count)) if count >= FULL_BATCH => continue,
                Ok(Step::Applied(_)) => self.handler.gather(),
                Ok(Step::Idle) => {
                    let _ = stop.run_until_cancelled(wake.wait(IDLE)).await;
                    continue;
                }
                Ok(Step::Lost) => break Ok(()),
                Err(error) => break Err(error),
            };
            let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        };
        if let Err(error) = progress.lease.release(&self.pool).await {
            tracing::debug!(%error, "a lease could not be released; it runs out");
        }
        result
    }

    /// Whether acknowledgements come first now.
    fn yields(&self, progress: &Progress) -> bool {
        let oldest = self.handler.under_pressure().oldest;
        let oldest = progress.applied_at.is_none_or(|at| Utc::now() - at < oldest);
        oldest && self.heads.pressure.is_high()
    }

    async fn start(&self, lease: Lease) -> Result<Progress, ReadError> {
        let stored = self.checkpoints.load(self.handler.name()).await?;
        self.heads.refresh(&self.pool).await?;
        Ok(Progress {
            lease,
            seen: stored.iter().map(|place| place.position).collect(),
            stopped: vec![false; stored.len()],
            stored,
            retry_stopped_at: tokio::time::Instant::now() + RETRY_STOPPED,
            applied_at: None,
        })
    }

    /// One step: a batch of every partition that has something new.
    async fn step(&self, progress: &mut Progress) -> Result<Step, ReadError> {
        if !progress.lease.renew(&self.pool).await? {
            return Ok(Step::Lost);
        }
        if tokio::time::Instant::now() >= progress.retry_stopped_at {
            progress.stopped.fill(false);
            progress.retry_stopped_at = tokio::time::Instant::now() + RETRY_STOPPED;
        }
        let heads = self.heads.now();
        let cursors: Vec<LogPosition> = progress
            .stored
            .iter()
            .enumerate()
            .filter(|(index, place)| {
                !progress.stopped[*index] && heads[place.partition.index()] > progress.seen[*index]
            })
            .map(|(index, place)| LogPosition { position: progress.seen[index].max(place.position), ..*place })
            .collect();
        if cursors.is_empty() {
            return Ok(Step::Idle);
        }
        let limit = if self.yields(progress) { self.handler.under_pressure().batch } else { BATCH };
        let batch = self.handler.read(&self.reader, &cursors, limit).await?;
        progress.applied_at = batch.events.iter().map(E::recorded_at).min();
        for broken in &batch.broken {
            self.stop_partition(progress, broken.at, &broken.reason).await?;
        }
        match self.hand_on(progress, &batch.events).await? {
            Handed::On => {}
            // Nothing was seen that was not dealt with: the same events are read again.
            Handed::Back => return Ok(Step::Idle),
            Handed::Lost => return Ok(Step::Lost),
        }
        self.note_seen(progress, &cursors, &batch.events, &heads, limit);
        Ok(if batch.events.is_empty() { Step::Idle } else { Step::Applied(batch.events.len()) })
    }

    /// Where a partition gave less than a full batch, everything up to the known head was seen.
    fn note_seen(&self, progress: &mut Progress, cursors: &[LogPosition], events: &[E], heads: &[i64], limit: i64) {
        for cursor in cursors {
            let index = cursor.partition.index();
            if progress.stopped[index] {
                continue;
            }
            let count = events.iter().filter(|event| event.at().partition == cursor.partition).count();
            let applied = progress.stored[index].position;
            let all = i64::try_from(count).is_ok_and(|count| count < limit);
            progress.seen[index] = match self.handler.scope() {
                // In a full scope the checkpoint says it all.
                Scope::All => applied,
                Scope::Administrative | Scope::Pending if all => applied.max(heads[index]),
                Scope::Administrative | Scope::Pending => applied,
            };
        }
    }

    async fn hand_on(&self, progress: &mut Progress, events: &[E]) -> Result<Handed, ReadError> {
        if events.is_empty() {
            return Ok(Handed::On);
        }
        match self.try_hand_on(progress, events).await? {
            Ok(true) => return Ok(Handed::On),
            Ok(false) => return Ok(Handed::Lost),
            Err(HandlerError::Transient(reason)) => {
                tracing::warn!(follower.name = self.handler.name(), reason, "events wait; trying again");
                tokio::time::sleep(BACKOFF).await;
                return Ok(Handed::Back);
            }
            Err(HandlerError::Unappliable(_)) => {}
        }
        // Somewhere in this batch is an event that cannot be applied. Its partition stops right
        // before it, the others go on.
        for of_partition in events.chunk_by(same_partition) {
            for event in of_partition.chunks(1) {
                match self.try_hand_on(progress, event).await? {
                    Ok(true) => {}
                    Ok(false) => return Ok(Handed::Lost),
                    Err(HandlerError::Transient(_)) => return Ok(Handed::Back),
                    Err(error @ HandlerError::Unappliable(_)) => {
                        self.stop_partition(progress, event[0].at(), &error.to_string()).await?;
                        break;
                    }
                }
            }
        }
        Ok(Handed::On)
    }

    async fn try_hand_on(
        &self,
        progress: &mut Progress,
        events: &[E],
    ) -> Result<Result<bool, HandlerError>, ReadError> {
        if let Err(error) = self.handler.react(events).await {
            return Ok(Err(error));
        }
        let moves: Vec<(LogPosition, i64)> = events
            .chunk_by(same_partition)
            .filter_map(|of_partition| of_partition.last().map(E::at))
            .map(|last| (progress.stored[last.partition.index()], last.position))
            .collect();
        let mut transaction = self.pool.begin().await?;
        if let Err(error) = self.handler.apply(&mut transaction, events).await {
            return Ok(Err(error));
        }
        let name = self.handler.name();
        if !Checkpoints::advance(&mut transaction, name, progress.lease.epoch, &moves).await? {
            return Ok(Ok(false));
        }
        transaction.commit().await?;
        self.handler.committed();
        for (from, to) in moves {
            progress.stored[from.partition.index()].position = to;
        }
        metrics::counter!("hookledger_follower_events_total", "follower" => name).increment(events.len() as u64);
        Ok(Ok(true))
    }

    async fn stop_partition(&self, progress: &mut Progress, at: LogPosition, reason: &str) -> Result<(), ReadError> {
        progress.stopped[at.partition.index()] = true;
        let name = self.handler.name();
        tracing::error!(
            follower.name = name, log.partition = %at.partition, log.position = at.position, reason,
            "a follower stopped at an event that it cannot deal with"
        );
        metrics::counter!("hookledger_follower_stops_total", "follower" => name).increment(1);
        let told = format!("{}:{}: {reason}", at.partition, at.position);
        self.checkpoints.stop(name, progress.lease.epoch, at.partition, &told).await?;
        Ok(())
    }
}

fn same_partition<E: Followed>(a: &E, b: &E) -> bool {
    a.at().partition == b.at().partition
}
