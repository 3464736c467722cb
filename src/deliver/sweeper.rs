//! The sweeper: what the read model says is not finished must be in the queue.
//!
//! Rows of the queue are memory and can be lost: somebody deletes one, or we have a defect. It puts
//! back what is missing, in doubt, so that whoever takes it asks the log how far the webhook came: of
//! what was only a read model that is late, nothing becomes but a look at the log.

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

/// The name of its warning.
const NAME: &str = "sweeper";
/// Webhooks of each kind that are looked at in one round.
const PAGE: i64 = 1_000;
/// How long a round may take.
const ROUND_LIMIT: Duration = Duration::from_secs(30);
/// How often a round is made at most and at least.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10);

/// Looks for webhooks that were forgotten.
pub struct Sweeper {
    pool: PgPool,
    queue: Queue,
    checkpoints: Checkpoints,
    /// By then something should have become of a pending webhook.
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
                Err(_) => self.vitals.warn(NAME, "webhooks missing from the delivery queue cannot be looked for"),
            }
            match swept {
                Ok(0) => {}
                Ok(count) => {
                    metrics::counter!("hookledger_queue_restored_total").increment(count);
                    tracing::warn!(queue.restored = count, "webhooks were missing in the queue of attempts");
                }
                Err(error) => tracing::warn!(%error, "it cannot be looked for webhooks that were forgotten"),
            }
        }
    }

    /// One round, which begins where the last one ended; answers how many were missing.
    async fn sweep(&mut self) -> Result<u64, sqlx::Error> {
        // Nothing is this long without a change but what is forgotten, what waits for its destination, and
        // what is in a long attempt.
        let long = self.pending_timeout * 2;
        let fed = self.fed().await?;
        let open = unfinished::open(&self.pool, long, self.open, PAGE).await?;
        let waiting = unfinished::overdue(&self.pool, long, self.waiting, PAGE).await?;
        let next = (open.next, waiting.next);
        let was_fed = |webhook: &Unfinished| {
            webhook.pending_at.is_none_or(|at| at <= fed[webhook.organization.partition().index()])
        };
        let unfinished: Vec<_> = open.unfinished.into_iter().filter(was_fed).chain(waiting.unfinished).collect();
        let restored = if unfinished.is_empty() { 0 } else { self.queue.restore(&unfinished).await? };
        // A page that could not be put back is looked at again.
        (self.open, self.waiting) = next;
        Ok(restored)
    }

    /// How far the queue has been fed in each partition.
    async fn fed(&self) -> Result<[i64; PARTITIONS as usize], sqlx::Error> {
        let mut fed = [0; PARTITIONS as usize];
        for place in self.checkpoints.of(feeder::NAME).await? {
            fed[place.partition.index()] = place.position;
        }
        Ok(fed)
    }
}
