//! Looks for bodies that are too old.

use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, Utc};
use hookledger_aggregates::retention::{Retention, RetentionCommand};
use hookledger_aggregates::{Metadata, OrganizationId};
use hookledger_projections::{organizations, unfinished};
use sqlx::PgPool;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::follow::{Checkpoints, Lease};
use crate::log::{AppendError, Heads, Log, NewEvent, Positions, Removable, Sequence, Unit, positions_at, removable};
use crate::sandbox;

/// Under this name the lease is kept.
const LEASE: &str = "retention_sweep";
/// The read model that knows which webhooks are finished.
const READ_MODEL: &str = "webhook_logs";
/// Bodies that one event tells of.
const BATCH: i64 = 5_000;
/// Organizations that are looked at together.
const PAGE: i64 = 500;
/// How often it is looked, at most and at least.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
/// Of what the public demo is sent nothing is kept for longer.
const SANDBOX_PERIOD: chrono::Duration = chrono::Duration::days(1);
/// While acknowledgements press, it rests so long between batches.
const REST: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Appends which bodies are not kept any more, on whichever node comes first.
pub struct Sweep {
    pool: PgPool,
    log: Log,
    heads: Heads,
    checkpoints: Checkpoints,
    node: Uuid,
    period: chrono::Duration,
}

/// How far each partition had come some time ago.
struct Cutoffs {
    before: DateTime<Utc>,
    positions: Positions,
}

impl Sweep {
    /// Bodies are kept for `period`.
    #[must_use]
    pub fn new(pool: PgPool, log: Log, heads: Heads, node: Uuid, period: chrono::Duration) -> Self {
        Self { checkpoints: Checkpoints::new(pool.clone()), pool, log, heads, node, period }
    }

    /// Sweeps until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let often = self.period.to_std().unwrap_or_default() / 24;
        let mut interval = tokio::time::interval(often.clamp(*EVERY.start(), *EVERY.end()));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            let swept = stop.run_until_cancelled(self.sweep_once()).await;
            if let Some(Err(error)) = swept {
                tracing::warn!(%error, "old bodies cannot be removed; trying again later");
            }
        }
    }

    async fn sweep_once(&self) -> Result<(), SweepError> {
        // Who comes second appends in vain, so the lease saves work and is no more needed for that.
        let Some(mut lease) = Lease::acquire(&self.pool, LEASE, self.node).await? else { return Ok(()) };
        let swept = self.sweep(&mut lease).await;
        lease.release(&self.pool).await?;
        swept
    }

    async fn sweep(&self, lease: &mut Lease) -> Result<(), SweepError> {
        let now = Utc::now();
        let old = self.cutoffs(now - self.period).await?;
        let old_of_sandbox = self.cutoffs(now - self.period.min(SANDBOX_PERIOD)).await?;
        // What is not finished is delivered again, so its body stays.
        let unfinished = unfinished::oldest(&self.pool).await?;
        let until = |organization: OrganizationId, cutoffs: &Cutoffs| {
            let position = cutoffs.positions[organization.partition().index()];
            unfinished.get(&organization).map_or(position, |oldest| position.min(oldest - 1))
        };
        let mut after = Uuid::nil();
        loop {
            let page = organizations::ids_after(&self.pool, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.uuid();
            let (sandbox, others): (Vec<OrganizationId>, Vec<_>) =
                page.into_iter().partition(|id| *id == OrganizationId::from_slug(sandbox::SLUG));
            for (organizations, cutoffs) in [(others, &old), (sandbox, &old_of_sandbox)] {
                let until: Vec<_> = organizations.into_iter().map(|id| (id, until(id, cutoffs))).collect();
                self.remove(&until, cutoffs, lease).await?;
            }
        }
    }

    /// How far each partition had come at some time, as far as the read model has come too.
    async fn cutoffs(&self, time: DateTime<Utc>) -> Result<Cutoffs, SweepError> {
        let before = time.trunc_subsecs(6);
        let mut positions = positions_at(&mut *self.pool.acquire().await?, before).await?;
        let known = self.checkpoints.of(READ_MODEL).await?;
        for (index, position) in positions.iter_mut().enumerate() {
            let known = known.iter().find(|known| known.partition.index() == index);
            *position = known.map_or(0, |known| known.position.min(*position));
        }
        Ok(Cutoffs { before, positions })
    }

    /// Batch after batch, until nothing of these organizations is too old.
    async fn remove(
        &self,
        until: &[(OrganizationId, i64)],
        cutoffs: &Cutoffs,
        lease: &mut Lease,
    ) -> Result<(), SweepError> {
        loop {
            let found = removable(&self.pool, until, BATCH).await?;
            if found.is_empty() || !lease.renew(&self.pool).await? {
                return Ok(());
            }
            let units = found.iter().map(|found| unit(found, cutoffs.before)).collect::<Result<Vec<_>, _>>()?;
            let bodies: u64 = found.iter().map(|found| found.count).sum();
            let verdicts = self.log.append_all(units).await?;
            if verdicts.iter().any(Result::is_err) {
                // Another node does the same at this moment, or the log takes nothing now.
                return Ok(());
            }
            metrics::counter!("hookledger_bodies_removed_total").increment(bodies);
            tracing::info!(bodies.removed = bodies, organizations.count = found.len(), "bodies were too old");
            if self.heads.pressure.is_high() {
                tokio::time::sleep(REST).await;
            }
        }
    }
}

fn unit(found: &Removable, received_before: DateTime<Utc>) -> Result<Unit, serde_json::Error> {
    let organization = found.organization;
    let command = RetentionCommand::RemoveBodies {
        after_position: found.after,
        to_position: found.to,
        count: found.count,
        received_before,
    };
    let events = Retention::of_organization(found.after).decide(command).unwrap_or_default();
    let events = (found.sequence + 1..).zip(&events).map(|(sequence, event)| {
        NewEvent::of(organization, organization.uuid(), Sequence::At(sequence), event, &Metadata::default())
    });
    Ok(Unit::new(events.collect::<Result<_, _>>()?))
}
