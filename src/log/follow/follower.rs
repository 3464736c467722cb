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

/// Events of one partition that are handed on at once.
const BATCH: i64 = 1_000;
/// After a batch more is let come: what is applied together costs a transaction, and a webhook
/// whose whole story is in one batch costs one row instead of a row and its updates. The first
/// event after a rest is applied at once.
const GATHER: Duration = Duration::from_millis(100);
/// So many events at once mean that the follower is behind, and goes on without a pause.
const FULL_BATCH: usize = 2_000;
const LONGEST_REST: Duration = Duration::from_secs(2);
/// Without a wake-up the log is looked at this often.
const IDLE: Duration = Duration::from_millis(250);
const BACKOFF: Duration = Duration::from_secs(1);
/// A partition that stopped is tried again this often: a later release may know the event.
const RETRY_STOPPED: Duration = Duration::from_secs(30);
/// How long a batch may take to be applied; one that takes longer comes back smaller.
const APPLY_LIMIT: Duration = Duration::from_secs(20);
/// How long a handler may react to a batch, unless it says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);
/// When the node stops, a step may go on for so long. What is given up is done again.
const STOP_GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Nothing is wrong with the events; it may work a little later.
    #[error("{0}")]
    Transient(String),
    /// It took too long: fewer events at once may not.
    #[error("{0}")]
    Late(String),
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
            _ if is_late(&error) => Self::Late(error.to_string()),
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

    /// How long it may react to a batch. Without a good step for a little longer, it is missed.
    fn patience(&self) -> Duration {
        PATIENCE
    }

    /// The checkpoints were read anew: what it remembers of the log may be void.
    fn begin(&self) {}

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
    /// It was not done in time; the next one takes less.
    Late,
    /// Another node follows now.
    Lost,
}

/// What became of a batch.
enum Handed {
    /// It was dealt with, or its partition stopped.
    On,
    /// It waits: something is out of order that may not be so a little later.
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
    /// It panicked, and has done nothing since.
    ails: AtomicBool,
}

/// A follower's own knowledge while it holds the lease.
struct Progress {
    /// In which epoch of the log all this holds.
    epoch: Epoch,
    /// What the database has as checkpoint, per partition.
    stored: Vec<LogPosition>,
    /// Up to where the log was looked through; beyond the checkpoint where nothing concerned us.
    seen: Vec<i64>,
    stopped: Vec<bool>,
    retry_stopped_at: tokio::time::Instant,
    /// When the last event that was dealt with had been recorded.
    applied_at: Option<DateTime<Utc>>,
    /// Events of one partition that are read at once.
    batch: i64,
}

impl<E: Followed> Follower<E> {
    #[must_use]
    pub fn new(handler: Box<dyn Handler<E>>, pool: PgPool, heads: Heads, leases: Leases) -> Self {
        let (reader, checkpoints) = (Reader::new(pool.clone()), Checkpoints::new(pool.clone()));
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

    /// Told there when the handler panics or nothing is looked at, and when it works again.
    #[must_use]
    pub fn watched(self, vitals: Vitals) -> Self {
        Self { vitals, ..self }
    }

    /// Follows until stopped, whenever the lease can be had.
    pub async fn run(self, stop: CancellationToken) {
        let name = self.handler.name();
        while let Some(lease) = stop.run_until_cancelled(self.leases.want(name)).await {
            // Only the holder of the lease can tell whether it goes on.
            self.vitals.expect_looks(name, self.handler.patience() + READ_LIMIT + APPLY_LIMIT);
            match self.vitals.go(name, self.follow(&lease, &stop)).await {
                Some(Ok(())) => {}
                None => self.ails.store(true, Ordering::Relaxed),
                Some(Err(error)) => tracing::error!(follower.name = name, %error, "a follower failed; it tries again"),
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
        // What is given up in the midst is rolled back with its connection.
        tokio::select! {
            worked = self.work(lease, stop) => worked,
            () = stopped => Ok(()),
            () = lease.lost() => {
                tracing::warn!(
                    follower.name = self.handler.name(),
                    "a follower's lease was lost, or could not be renewed in time; it begins again"
                );
                Ok(())
            }
        }
    }

    async fn work(&self, lease: &Lease, stop: &CancellationToken) -> Result<(), ReadError> {
        let mut progress = self.start().await?;
        let mut wake = self.heads.wake(self.handler.scope());
        // Where another epoch of the log begins, the checkpoints are read anew.
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

    /// One step: a batch of every partition that has something new.
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
            // Nothing was seen that was not dealt with: the same events are read again.
            Handed::Back => return Ok(Step::Idle),
            Handed::Late => {
                let most = batch.events.chunk_by(same_partition).map(<[E]>::len).max().unwrap_or_default();
                let most = i64::try_from(most).unwrap_or(limit);
                return Ok(self.take_less(progress, most, "the batch was not applied in time"));
            }
            Handed::Lost => return Ok(Step::Lost),
        }
        progress.batch = (progress.batch * 2).min(BATCH);
        // Now that what comes before is applied: to move a checkpoint says that nothing stops there.
        for broken in &batch.broken {
            self.stop_partition(lease, progress, broken.at, &broken.reason).await?;
        }
        self.note_seen(progress, &cursors, &batch.events, &heads, limit);
        Ok(if batch.events.is_empty() { Step::Idle } else { Step::Applied(batch.events.len()) })
    }

    /// The next batches are half as large, and grow again as they are applied.
    fn take_less(&self, progress: &mut Progress, limit: i64, reason: &str) -> Step {
        progress.batch = (limit / 2).max(1);
        metrics::counter!("hookledger_follower_late_batches_total", "follower" => self.handler.name()).increment(1);
        tracing::warn!(
            follower.name = self.handler.name(),
            batch.events = progress.batch,
            reason,
            "a batch took too long; the next one is smaller"
        );
        Step::Late
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

    async fn hand_on(&self, lease: &Lease, progress: &mut Progress, events: &[E]) -> Result<Handed, ReadError> {
        if events.is_empty() {
            return Ok(Handed::On);
        }
        match self.try_hand_on(lease, progress, events).await? {
            Ok(true) => return Ok(Handed::On),
            Ok(false) => return Ok(Handed::Lost),
            Err(HandlerError::Late(_)) => return Ok(Handed::Late),
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

    /// Writes rows and moves the checkpoint, together; false where another node follows now.
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
        // Another node may be of a release that can.
        lease.is_stuck_after(at.partition.number(), progress.stored[index].position);
        let name = self.handler.name();
        tracing::error!(
            follower.name = name, log.partition = %at.partition, log.position = at.position, reason,
            "a follower stopped at an event that it cannot deal with"
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
