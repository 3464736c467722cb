//! The sweeper: every delivery that the read model shows as unfinished has to be in the queue.
//!
//! Rows of the queue are memory and can be lost, through a deletion or a defect. The sweeper restores missing
//! ones as doubtful, so that the next holder asks the log how far the delivery came. If only the read model
//! was late, this costs a look at the log and changes nothing.

use std::time::Duration;

use hookledger_aggregates::ids::PARTITIONS;
use hookledger_projections::unfinished::{self, OpenKey, Unfinished, WaitingKey};
use sqlx::PgPool;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::feeder;
use super::queue::Queue;
use crate::log::follow::{Checkpoints, within};
use crate::platform::vitals::Vitals;

/// Name of its warning.
const NAME: &str = "sweeper";
/// Webhooks, and waiting deliveries, per round.
const PAGE: i64 = 1_000;
/// How long a round may take.
const ROUND_LIMIT: Duration = Duration::from_secs(30);
/// Shortest and longest interval between rounds.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10);

/// Looks for forgotten deliveries.
pub struct Sweeper {
    pool: PgPool,
    queue: Queue,
    checkpoints: Checkpoints,
    /// After this time, a pending delivery should have changed.
    pending_timeout: Duration,
    vitals: Vitals,
    open: Option<OpenKey>,
    waiting: Option<WaitingKey>,
}

impl Sweeper {
    #[must_use]
    pub fn new(pool: PgPool, queue: Queue, pending_timeout: Duration, vitals: Vitals) -> Self {
        let checkpoints = Checkpoints::new(pool.clone());
        Self { pool, queue, checkpoints, pending_timeout, vitals, open: None, waiting: None }
    }

    /// Sweeps until stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(self.pending_timeout.clamp(*EVERY.start(), *EVERY.end()));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            let swept = within(ROUND_LIMIT, self.sweep()).await;
            match &swept {
                Ok(_) => self.vitals.unwarn(NAME),
                Err(_) => self.vitals.warn(NAME, "deliveries missing from the queue cannot be looked for"),
            }
            match swept {
                Ok(0) => {}
                Ok(count) => {
                    metrics::counter!("hookledger_queue_restored_total").increment(count);
                    tracing::warn!(
                        queue.restored = count,
                        "restored deliveries that were missing from the queue of attempts"
                    );
                }
                Err(error) => tracing::warn!(%error, "could not look for forgotten deliveries"),
            }
        }
    }

    /// One round, which continues where the last one ended; returns the number of missing deliveries.
    async fn sweep(&mut self) -> Result<u64, sqlx::Error> {
        // Only forgotten deliveries, those that wait for their destination and long attempts remain unchanged
        // for this long.
        let long = self.pending_timeout * 2;
        let fed = self.fed().await?;
        let open = unfinished::open(&self.pool, long, self.open, PAGE).await?;
        let waiting = unfinished::overdue(&self.pool, long, self.waiting, PAGE).await?;
        let next = (open.next, waiting.next);
        let was_fed =
            |one: &Unfinished| one.pending_at.is_none_or(|at| at <= fed[one.organization.partition().index()]);
        let unfinished: Vec<_> = open.unfinished.into_iter().filter(was_fed).chain(waiting.unfinished).collect();
        let restored = if unfinished.is_empty() { 0 } else { self.queue.restore(&unfinished).await? };
        // Set only after success, so that a page that could not be restored is read again.
        (self.open, self.waiting) = next;
        Ok(restored)
    }

    /// How far the queue was fed in each partition.
    async fn fed(&self) -> Result<[i64; PARTITIONS as usize], sqlx::Error> {
        let mut fed = [0; PARTITIONS as usize];
        for place in self.checkpoints.of(feeder::NAME).await? {
            fed[place.partition.index()] = place.position;
        }
        Ok(fed)
    }
}
