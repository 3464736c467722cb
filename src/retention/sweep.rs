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

use crate::demo::sandbox;
use crate::log::follow::{Checkpoints, Lease, Leases};
use crate::log::{
    AppendError, Heads, Log, NewEvent, Positions, Removable, Sequence, Unit, positions_at, removable, retried_after,
};
use crate::platform::vitals::Vitals;

/// Name of the lease.
const LEASE: &str = "retention_sweep";
/// The read model that knows which webhooks are finished.
const READ_MODEL: &str = "webhook_logs";
/// Bodies per event.
const BATCH: i64 = 5_000;
/// Organizations per page.
const PAGE: i64 = 500;
/// Shortest and longest interval between sweeps.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
/// An organization gets at most one event per day, unless a batch is full.
const LONGEST_REST: chrono::Duration = chrono::Duration::days(1);
/// Retention in the sandbox of the public demo.
const SANDBOX_PERIOD: chrono::Duration = chrono::Duration::days(1);
/// How long one sweep may take.
const SWEEP_LIMIT: Duration = Duration::from_secs(1_800);
/// Pause between batches while acknowledgements need the machine.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Appends the removal of old bodies, on one node at a time.
pub struct Sweep {
    pool: PgPool,
    log: Log,
    heads: Heads,
    checkpoints: Checkpoints,
    leases: Leases,
    vitals: Vitals,
    period: chrono::Duration,
}

/// The limit beyond which bodies are too old.
struct Cutoff {
    before: DateTime<Utc>,
    /// Head of each partition at that time.
    positions: Positions,
    rest: chrono::Duration,
}

impl Sweep {
    /// Bodies are kept for `period`.
    #[must_use]
    pub fn new(pool: PgPool, log: Log, heads: Heads, leases: Leases, period: chrono::Duration) -> Self {
        Self {
            checkpoints: Checkpoints::new(pool.clone()),
            pool,
            log,
            heads,
            leases,
            vitals: Vitals::default(),
            period,
        }
    }

    /// Reports to `vitals` when old bodies are not removed.
    #[must_use]
    pub fn watched(self, vitals: Vitals) -> Self {
        Self { vitals, ..self }
    }

    /// Sweeps until stopped, whenever it holds the lease. A second sweep at the same time would append
    /// nothing, so the lease only saves work.
    pub async fn run(self, stop: CancellationToken) {
        while let Some(lease) = stop.run_until_cancelled(self.leases.want(LEASE)).await {
            tokio::select! {
                () = self.sweep_again_and_again(&lease) => {}
                () = lease.lost() => {}
                () = stop.cancelled() => {}
            }
            self.vitals.expect_no_looks(LEASE);
            lease.release().await;
        }
    }

    async fn sweep_again_and_again(&self, lease: &Lease) {
        let often = Self::rest(self.period.min(SANDBOX_PERIOD)).to_std().unwrap_or_default();
        let mut interval = tokio::time::interval(often.clamp(*EVERY.start(), *EVERY.end()));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Two consecutive sweeps may fail.
        self.vitals.expect_looks(LEASE, 2 * (interval.period() + SWEEP_LIMIT));
        loop {
            interval.tick().await;
            match tokio::time::timeout(SWEEP_LIMIT, self.sweep(lease)).await {
                Ok(Ok(())) => self.vitals.seen(LEASE),
                Ok(Err(error)) => tracing::warn!(%error, "could not remove old bodies; retrying later"),
                Err(_) => tracing::warn!("the search for old bodies timed out; retrying later"),
            }
        }
    }

    /// Pause of an organization with this retention between batches that are not full.
    fn rest(period: chrono::Duration) -> chrono::Duration {
        chrono::Duration::seconds((period / 24).num_seconds()).min(LONGEST_REST)
    }

    async fn sweep(&self, lease: &Lease) -> Result<(), SweepError> {
        // A node's clock that is ahead must not remove what is young.
        let now: DateTime<Utc> = sqlx::query_scalar("select clock_timestamp()").fetch_one(&self.pool).await?;
        let old = self.cutoff(now, self.period).await?;
        let old_of_sandbox = self.cutoff(now, self.period.min(SANDBOX_PERIOD)).await?;
        let mut after = Uuid::nil();
        loop {
            let page = organizations::ids_after(&self.pool, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.uuid();
            let (sandbox, others): (Vec<OrganizationId>, Vec<_>) =
                page.into_iter().partition(|id| *id == OrganizationId::from_slug(sandbox::SLUG));
            for (organizations, cutoff) in [(others, &old), (sandbox, &old_of_sandbox)] {
                while !organizations.is_empty() && self.remove(&organizations, cutoff, lease).await? {}
            }
        }
    }

    async fn cutoff(&self, now: DateTime<Utc>, period: chrono::Duration) -> Result<Cutoff, SweepError> {
        let before = (now - period).trunc_subsecs(6);
        let positions = positions_at(&mut *self.pool.acquire().await?, before).await?;
        Ok(Cutoff { before, positions, rest: Self::rest(period) })
    }

    /// Removes a batch of each of these organizations; returns whether there may be more.
    async fn remove(
        &self,
        organizations: &[OrganizationId],
        cutoff: &Cutoff,
        lease: &Lease,
    ) -> Result<bool, SweepError> {
        if !lease.is_good() {
            return Ok(false);
        }
        let epoch = self.log.epoch();
        let until = self.until(organizations, cutoff).await?;
        let found = removable(&self.pool, &until, BATCH, cutoff.rest).await?;
        if found.is_empty() {
            return Ok(false);
        }
        let units = found
            .iter()
            .map(|found| Ok(unit(found, cutoff.before)?.decided_in(epoch)))
            .collect::<Result<Vec<_>, serde_json::Error>>()?;
        let verdicts = self.log.append_all(units).await?;
        // A refused unit is appended by another node at this moment, or the log is overloaded.
        let told = found.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok());
        let bodies: u64 = told.map(|(found, _)| found.count).sum();
        metrics::counter!("hookledger_bodies_removed_total").increment(bodies);
        tracing::info!(bodies.removed = bodies, organizations.count = found.len(), "removed old bodies");
        if self.heads.pressure.is_high() {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(verdicts.iter().all(Result::is_ok))
    }

    /// Position up to which each organization's bodies may be removed now. Unfinished webhooks keep their
    /// bodies because they will be delivered; so do requested retries that the read model has not processed
    /// yet.
    async fn until(
        &self,
        organizations: &[OrganizationId],
        cutoff: &Cutoff,
    ) -> Result<Vec<(OrganizationId, i64)>, SweepError> {
        let known = self.checkpoints.of(READ_MODEL).await?;
        let mut unfinished = unfinished::oldest(&self.pool).await?;
        for (organization, position) in retried_after(&self.pool, &known).await? {
            unfinished.entry(organization).and_modify(|oldest| *oldest = position.min(*oldest)).or_insert(position);
        }
        let until = |organization: OrganizationId| {
            let partition = organization.partition();
            let known = known.iter().find(|known| known.partition == partition).map_or(0, |known| known.position);
            let old = cutoff.positions[partition.index()].min(known);
            unfinished.get(&organization).map_or(old, |oldest| old.min(oldest - 1))
        };
        Ok(organizations.iter().map(|id| (*id, until(*id))).collect())
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
