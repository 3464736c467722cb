//! The loop of a follower: read after the checkpoint, react, apply, move the checkpoint.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::RecordedEvent;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use super::checkpoints::{Checkpoints, Move};
use super::lease::{Isolation, Lease};
use super::leases::Leases;
use super::limit::{READ_LIMIT, STATEMENT_LIMIT, is_late, within};
use crate::log::{Batch, Epoch, Heads, LogPosition, ReadError, Reader, Scope};
use crate::platform::vitals::Vitals;

/// Events per partition and batch.
const BATCH: i64 = 1_000;
/// Pause after a batch, to gather more events: applying them together costs one transaction, and a webhook
/// whose events are all in one batch costs one row instead of a row and its updates. The first event after a
/// rest is applied at once.
const GATHER: Duration = Duration::from_millis(100);
/// This many events in a batch mean that the follower is behind, so it continues without a pause.
const FULL_BATCH: usize = 2_000;
const LONGEST_REST: Duration = Duration::from_secs(2);
/// Without a wake-up the follower looks at the log this often.
const IDLE: Duration = Duration::from_millis(250);
const BACKOFF: Duration = Duration::from_secs(1);
/// A stopped partition is retried this often, because a later release may know the event.
const RETRY_STOPPED: Duration = Duration::from_secs(30);
/// How long applying a batch may take; after that it is retried in smaller batches.
const APPLY_LIMIT: Duration = Duration::from_secs(20);
/// How long a handler may react to a batch, unless it states another limit.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a step may continue when the node stops. An interrupted step is repeated later.
const STOP_GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Nothing is wrong with the events; a later try may succeed.
    #[error("{0}")]
    Transient(String),
    /// It took too long; fewer events at once may not.
    #[error("{0}")]
    Late(String),
    /// The events cannot be applied: the partition stops here.
    #[error("{0}")]
    Unappliable(String),
}

/// Waiting does not repair errors in the data: classes 22 (data exception) and 23 (constraint). Everything
/// else, such as a lost connection or a deadlock, is transient.
impl From<sqlx::Error> for HandlerError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code.as_deref().map(|code| &code[..2.min(code.len())]) {
            Some("22" | "23") => Self::Unappliable(error.to_string()),
            _ if is_late(&error) => Self::Late(error.to_string()),
            _ => Self::Transient(error.to_string()),
        }
    }
}

/// How a follower steps back while acknowledgements need the machine.
#[derive(Clone, Copy, Debug)]
pub struct UnderPressure {
    /// Events per partition and batch.
    pub batch: i64,
    /// It then rests this many times as long as it worked.
    pub rest: u32,
    /// It does not step back if the events that it applies are older than this.
    pub oldest: chrono::Duration,
}

impl Default for UnderPressure {
    fn default() -> Self {
        Self { batch: 100, rest: 8, oldest: chrono::Duration::seconds(10) }
    }
}

/// An event as its followers see it, and how they read it.
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

/// A handler of the log's events, with a name.
pub trait Handler<E: Followed = RecordedEvent>: Send + Sync + 'static {
    /// Name of its lease and checkpoints.
    fn name(&self) -> &'static str;

    /// Which events it receives.
    fn scope(&self) -> Scope;

    /// Pause after a batch, to gather more events.
    fn gather(&self) -> Duration {
        GATHER
    }

    /// How it steps back while acknowledgements need the machine.
    fn under_pressure(&self) -> UnderPressure {
        UnderPressure::default()
    }

    /// How long it may react to a batch. If no step succeeds for a little longer, the vitals report it.
    fn patience(&self) -> Duration {
        PATIENCE
    }

    /// Called after the checkpoints were read anew: its memory of the log may be void.
    fn begin(&self) {}

    /// Up to `limit` events of each partition after its cursor, from any source.
    fn read<'a>(
        &'a self,
        reader: &'a Reader,
        cursors: &'a [LogPosition],
        limit: i64,
    ) -> BoxFuture<'a, Result<Batch<E>, ReadError>> {
        E::read(reader, cursors, self.scope(), limit)
    }

    /// Carries out the events' effects, outside any transaction. It may be called again with the same events,
    /// so it has to be idempotent.
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

    /// Called when the rows of the last `apply` and the checkpoint are committed.
    fn committed(&self) {}
}

/// Outcome of one step of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// That many events were handled.
    Applied(usize),
    /// There was nothing to do.
    Idle,
    /// It took too long; the next step takes fewer events.
    Late,
    /// Another node follows now.
    Lost,
}

/// Outcome of handing over a batch.
enum Handed {
    /// It was handled, or its partition stopped.
    On,
    /// It waits for a transient problem to pass.
    Back,
    /// It took too long.
    Late,
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
    leases: Leases,
    vitals: Vitals,
    /// It panicked, and has not succeeded since.
    ails: AtomicBool,
}

/// A follower's own knowledge while it holds the lease.
struct Progress {
    /// The epoch of the log in which this is valid.
    epoch: Epoch,
    /// The checkpoints in the database, by partition.
    stored: Vec<LogPosition>,
    /// How far the log was looked through; beyond the checkpoint if no event there concerned the follower.
    seen: Vec<i64>,
    stopped: Vec<bool>,
    retry_stopped_at: tokio::time::Instant,
    /// When the last handled event was recorded.
    applied_at: Option<DateTime<Utc>>,
    /// Events per partition and read.
    batch: i64,
}

impl<E: Followed> Follower<E> {
    #[must_use]
    pub fn new(handler: Box<dyn Handler<E>>, pool: PgPool, heads: Heads, leases: Leases) -> Self {
        let (reader, checkpoints) = (Reader::with_recent(pool.clone(), heads.clone()), Checkpoints::new(pool.clone()));
        Self {
            handler,
            pool,
            reader,
            heads,
            checkpoints,
            leases,
            vitals: Vitals::default(),
            ails: AtomicBool::new(false),
        }
    }

    /// Reports to `vitals` when the handler panics, when the follower stalls, and when it works again.
    #[must_use]
    pub fn watched(self, vitals: Vitals) -> Self {
        Self { vitals, ..self }
    }

    /// Follows until stopped, whenever it holds the lease.
    pub async fn run(self, stop: CancellationToken) {
        let name = self.handler.name();
        while let Some(lease) = stop.run_until_cancelled(self.leases.want(name)).await {
            // Only the holder of the lease can tell whether it makes progress.
            self.vitals.expect_looks(name, self.handler.patience() + READ_LIMIT + APPLY_LIMIT);
            match self.vitals.go(name, self.follow(&lease, &stop)).await {
                Some(Ok(())) => {}
                None => self.ails.store(true, Ordering::Relaxed),
                Some(Err(error)) => tracing::error!(follower.name = name, %error, "a follower failed; retrying"),
            }
            self.vitals.expect_no_looks(name);
            lease.release().await;
            let _ = stop.run_until_cancelled(tokio::time::sleep(BACKOFF / 2)).await;
        }
    }

    async fn follow(&self, lease: &Lease, stop: &CancellationToken) -> Result<(), ReadError> {
        let stopped = async {
            stop.cancelled().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        // An interrupted step is rolled back with its connection.
        tokio::select! {
            worked = self.work(lease, stop) => worked,
            () = stopped => Ok(()),
            () = lease.lost() => {
                tracing::warn!(
                    follower.name = self.handler.name(),
                    "a follower lost its lease or could not renew it in time; restarting it"
                );
                Ok(())
            }
        }
    }

    async fn work(&self, lease: &Lease, stop: &CancellationToken) -> Result<(), ReadError> {
        let mut progress = self.start().await?;
        let mut wake = self.heads.wake(self.handler.scope());
        // A new epoch of the log requires reading the checkpoints anew.
        while !stop.is_cancelled() && self.heads.epoch() == progress.epoch {
            let started = tokio::time::Instant::now();
            let taken = self.step(lease, &mut progress).await?;
            if taken != Step::Late {
                self.vitals.seen(self.handler.name());
            }
            if self.ails.swap(false, Ordering::Relaxed) {
                self.vitals.recovered(self.handler.name());
            }
            let pause = match taken {
                Step::Applied(_) if self.yields(&progress) => {
                    (started.elapsed() * self.handler.under_pressure().rest).clamp(self.handler.gather(), LONGEST_REST)
                }
                Step::Applied(count) if count >= FULL_BATCH => continue,
                Step::Applied(_) => self.handler.gather(),
                Step::Idle => {
                    let _ = stop.run_until_cancelled(wake.wait(IDLE)).await;
                    continue;
                }
                Step::Late => BACKOFF,
                Step::Lost => return Ok(()),
            };
            let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        Ok(())
    }

    /// Whether acknowledgements come first now.
    fn yields(&self, progress: &Progress) -> bool {
        let oldest = self.handler.under_pressure().oldest;
        let oldest = progress.applied_at.is_none_or(|at| Utc::now() - at < oldest);
        oldest && self.heads.pressure.is_high()
    }

    async fn start(&self) -> Result<Progress, ReadError> {
        within(STATEMENT_LIMIT, self.heads.refresh(&self.pool)).await?;
        let epoch = self.heads.epoch();
        let stored = within(STATEMENT_LIMIT, self.checkpoints.load(self.handler.name())).await?;
        self.handler.begin();
        Ok(Progress {
            epoch,
            seen: stored.iter().map(|place| place.position).collect(),
            stopped: vec![false; stored.len()],
            stored,
            retry_stopped_at: tokio::time::Instant::now() + RETRY_STOPPED,
            applied_at: None,
            batch: BATCH,
        })
    }

    /// One step: a batch of every partition with new events.
    async fn step(&self, lease: &Lease, progress: &mut Progress) -> Result<Step, ReadError> {
        if !lease.is_good() {
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
        let limit = limit.min(progress.batch);
        let batch = match within(READ_LIMIT, self.handler.read(&self.reader, &cursors, limit)).await {
            Err(ReadError::Database(error)) if is_late(&error) => {
                return Ok(self.take_less(progress, limit, &error.to_string()));
            }
            read => read?,
        };
        if self.heads.epoch() != progress.epoch {
            return Ok(Step::Lost);
        }
        progress.applied_at = batch.events.iter().map(E::recorded_at).min();
        match self.hand_on(lease, progress, &batch.events).await? {
            Handed::On => {}
            // No event was seen without being handled, so the same events are read again.
            Handed::Back => return Ok(Step::Idle),
            Handed::Late => {
                let most = batch.events.chunk_by(same_partition).map(<[E]>::len).max().unwrap_or_default();
                let most = i64::try_from(most).unwrap_or(limit);
                return Ok(self.take_less(progress, most, "the batch was not applied in time"));
            }
            Handed::Lost => return Ok(Step::Lost),
        }
        progress.batch = (progress.batch * 2).min(BATCH);
        // Only after the events before it are applied, because moving a checkpoint clears the stop.
        for broken in &batch.broken {
            self.stop_partition(lease, progress, broken.at, &broken.reason).await?;
        }
        self.note_seen(progress, &cursors, &batch.events, &heads, limit);
        Ok(if batch.events.is_empty() { Step::Idle } else { Step::Applied(batch.events.len()) })
    }

    /// Halves the next batches; they grow again as they are applied.
    fn take_less(&self, progress: &mut Progress, limit: i64, reason: &str) -> Step {
        progress.batch = (limit / 2).max(1);
        metrics::counter!("hookledger_follower_late_batches_total", "follower" => self.handler.name()).increment(1);
        tracing::warn!(
            follower.name = self.handler.name(),
            batch.events = progress.batch,
            reason,
            "a follower's batch took too long; the next one is smaller"
        );
        Step::Late
    }

    /// A partition that returned less than a full batch was seen up to the known head.
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
                // In a full scope the checkpoint is the position seen.
                Scope::All => applied,
                Scope::Administrative | Scope::Pending if all => applied.max(heads[index]),
                Scope::Administrative | Scope::Pending => applied,
            };
        }
    }

    async fn hand_on(&self, lease: &Lease, progress: &mut Progress, events: &[E]) -> Result<Handed, ReadError> {
        if events.is_empty() {
            return Ok(Handed::On);
        }
        match self.try_hand_on(lease, progress, events).await? {
            Ok(true) => return Ok(Handed::On),
            Ok(false) => return Ok(Handed::Lost),
            Err(HandlerError::Late(_)) => return Ok(Handed::Late),
            Err(HandlerError::Transient(reason)) => {
                tracing::warn!(
                    follower.name = self.handler.name(),
                    reason,
                    "a follower could not handle its events; retrying"
                );
                tokio::time::sleep(BACKOFF).await;
                return Ok(Handed::Back);
            }
            Err(HandlerError::Unappliable(_)) => {}
        }
        // Some event of this batch cannot be applied. Its partition stops right before it, the others
        // continue.
        for of_partition in events.chunk_by(same_partition) {
            for event in of_partition.chunks(1) {
                match self.try_hand_on(lease, progress, event).await? {
                    Ok(true) => {}
                    Ok(false) => return Ok(Handed::Lost),
                    Err(HandlerError::Late(_)) => return Ok(Handed::Late),
                    Err(HandlerError::Transient(_)) => return Ok(Handed::Back),
                    Err(error @ HandlerError::Unappliable(_)) => {
                        self.stop_partition(lease, progress, event[0].at(), &error.to_string()).await?;
                        break;
                    }
                }
            }
        }
        Ok(Handed::On)
    }

    async fn try_hand_on(
        &self,
        lease: &Lease,
        progress: &mut Progress,
        events: &[E],
    ) -> Result<Result<bool, HandlerError>, ReadError> {
        let patience = self.handler.patience();
        match tokio::time::timeout(patience, self.handler.react(events)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Ok(Err(error)),
            Err(_) => return Ok(Err(HandlerError::Late(format!("no reaction within {} s", patience.as_secs())))),
        }
        let moves: Vec<Move> = events
            .chunk_by(same_partition)
            .filter_map(<[E]>::last)
            .map(|last| Move {
                from: progress.stored[last.at().partition.index()],
                to: last.at().position,
                recorded_at: Some(last.recorded_at()),
            })
            .collect();
        match tokio::time::timeout(APPLY_LIMIT, self.apply(lease, events, &moves)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Ok(Ok(false)),
            Ok(Err(error)) => return Ok(Err(error)),
            Err(_) => return Ok(Err(HandlerError::Late(format!("not applied within {} s", APPLY_LIMIT.as_secs())))),
        }
        self.handler.committed();
        for Move { from, to, .. } in moves {
            progress.stored[from.partition.index()].position = to;
        }
        metrics::counter!("hookledger_follower_events_total", "follower" => self.handler.name())
            .increment(events.len() as u64);
        Ok(Ok(true))
    }

    /// Writes rows and moves the checkpoint together; returns false if another node follows now.
    async fn apply(&self, lease: &Lease, events: &[E], moves: &[Move]) -> Result<bool, HandlerError> {
        let mut transaction = lease.begin(&self.pool, Isolation::ReadCommitted).await?;
        let applied = match self.handler.apply(&mut transaction, events).await {
            Ok(()) => Checkpoints::advance(&mut transaction, self.handler.name(), lease.epoch, moves).await?,
            Err(error) => {
                transaction.rollback().await?;
                return Err(error);
            }
        };
        if applied {
            transaction.commit().await?;
        }
        Ok(applied)
    }

    async fn stop_partition(
        &self,
        lease: &Lease,
        progress: &mut Progress,
        at: LogPosition,
        reason: &str,
    ) -> Result<(), ReadError> {
        let index = at.partition.index();
        progress.stopped[index] = true;
        // A node of another release may be able to apply it.
        lease.is_stuck_after(at.partition.number(), progress.stored[index].position);
        let name = self.handler.name();
        tracing::error!(
            follower.name = name, log.partition = %at.partition, log.position = at.position, reason,
            "a follower stopped at an event that it cannot handle"
        );
        metrics::counter!("hookledger_follower_stops_total", "follower" => name).increment(1);
        let told = format!("{}:{}: {reason}", at.partition, at.position);
        within(STATEMENT_LIMIT, self.checkpoints.stop(name, lease.epoch, at.partition, &told)).await?;
        Ok(())
    }
}

fn same_partition<E: Followed>(a: &E, b: &E) -> bool {
    a.at().partition == b.at().partition
}
