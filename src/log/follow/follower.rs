//! The loop of a follower: read after the checkpoint, react, apply, move the checkpoint.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;
use hookledger_aggregates::RecordedEvent;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::checkpoints::{Checkpoints, Move};
use super::handler::{Followed, Handler, HandlerError};
use super::lease::{Isolation, Lease};
use super::leases::Leases;
use super::limit::{READ_LIMIT, STATEMENT_LIMIT, is_late, within};
use super::progress::{BATCH, Progress, same_partition};
use crate::log::{Heads, LogPosition, ReadError, Reader};
use crate::platform::vitals::Vitals;

/// This many events in a batch mean that the follower is behind, so it continues without a pause.
const FULL_BATCH: usize = 2_000;
const LONGEST_REST: Duration = Duration::from_secs(2);
/// Without a wake-up the follower looks at the log this often.
const IDLE: Duration = Duration::from_millis(250);
const BACKOFF: Duration = Duration::from_secs(1);
/// How long applying a batch may take; after that it is retried in smaller batches.
const APPLY_LIMIT: Duration = Duration::from_secs(20);
/// How long a step may continue when the node stops. An interrupted step is repeated later.
const STOP_GRACE: Duration = Duration::from_secs(5);

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

/// Outcome of a batch's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its rows and the checkpoint are committed.
    Applied,
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
        Ok(Progress::new(epoch, stored))
    }

    /// One step: a batch of every partition with new events.
    async fn step(&self, lease: &Lease, progress: &mut Progress) -> Result<Step, ReadError> {
        if !lease.is_good() {
            return Ok(Step::Lost);
        }
        progress.retry_stopped();
        let heads = self.heads.now();
        let cursors = progress.cursors(&heads);
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
        progress.applied_at = batch.events.iter().filter_map(E::recorded_at).min();
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
        progress.take_more();
        // Only after the events before it are applied, because moving a checkpoint clears the stop.
        for broken in &batch.broken {
            self.stop_partition(lease, progress, broken.at, &broken.reason).await?;
        }
        progress.note_seen(self.handler.scope(), &cursors, &batch.full, &heads);
        Ok(if batch.events.is_empty() { Step::Idle } else { Step::Applied(batch.events.len()) })
    }

    /// Halves the next batches; they grow again as they are applied.
    fn take_less(&self, progress: &mut Progress, limit: i64, reason: &str) -> Step {
        progress.take_less(limit);
        metrics::counter!("hookledger_follower_late_batches_total", "follower" => self.handler.name()).increment(1);
        tracing::warn!(
            follower.name = self.handler.name(),
            batch.events = progress.batch,
            reason,
            "a follower's batch took too long; the next one is smaller"
        );
        Step::Late
    }

    async fn hand_on(&self, lease: &Lease, progress: &mut Progress, events: &[E]) -> Result<Handed, ReadError> {
        if events.is_empty() {
            return Ok(Handed::On);
        }
        match self.try_hand_on(lease, progress, events).await {
            Ok(Fate::Applied) => return Ok(Handed::On),
            Ok(Fate::Lost) => return Ok(Handed::Lost),
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
                match self.try_hand_on(lease, progress, event).await {
                    Ok(Fate::Applied) => {}
                    Ok(Fate::Lost) => return Ok(Handed::Lost),
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

    async fn try_hand_on(&self, lease: &Lease, progress: &mut Progress, events: &[E]) -> Result<Fate, HandlerError> {
        let patience = self.handler.patience();
        let late = |what: &str, limit: Duration| HandlerError::Late(format!("{what} within {} s", limit.as_secs()));
        tokio::time::timeout(patience, self.handler.react(events))
            .await
            .map_err(|_| late("no reaction", patience))??;
        let moves = progress.moves(events);
        let applying = self.apply(lease, events, &moves);
        let fate =
            tokio::time::timeout(APPLY_LIMIT, applying).await.map_err(|_| late("not applied", APPLY_LIMIT))??;
        if fate == Fate::Applied {
            self.handler.committed();
            progress.advance(&moves);
            metrics::counter!("hookledger_follower_events_total", "follower" => self.handler.name())
                .increment(events.len() as u64);
        }
        Ok(fate)
    }

    /// Writes rows and moves the checkpoint together.
    async fn apply(&self, lease: &Lease, events: &[E], moves: &[Move]) -> Result<Fate, HandlerError> {
        let mut transaction = lease.begin(&self.pool, Isolation::ReadCommitted).await?;
        let is_applied = match self.handler.apply(&mut transaction, events).await {
            Ok(()) => Checkpoints::advance(&mut transaction, self.handler.name(), lease.epoch, moves).await?,
            Err(error) => {
                transaction.rollback().await?;
                return Err(error);
            }
        };
        if !is_applied {
            return Ok(Fate::Lost);
        }
        transaction.commit().await?;
        Ok(Fate::Applied)
    }

    async fn stop_partition(
        &self,
        lease: &Lease,
        progress: &mut Progress,
        at: LogPosition,
        reason: &str,
    ) -> Result<(), ReadError> {
        let stored = progress.stop(at.partition);
        // A node of another release may be able to apply it.
        lease.is_stuck_after(at.partition.number(), stored);
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
