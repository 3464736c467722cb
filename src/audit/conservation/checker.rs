//! Counts along the log, and compares.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::balances::{self, Mismatch};
use crate::log::follow::{Checkpoints, Isolation, Lease, Leases, Move, STATEMENT_LIMIT, within};
use crate::log::{Heads, LogPosition, balance_changes, standings_before};
use crate::platform::vitals::Vitals;

/// Name of its lease and checkpoints.
const NAME: &str = "conservation";
/// The compared projection, whose rows `webhook_balances` counts.
const READ_MODEL: &str = "webhook_logs";
/// Interval between looks.
const PERIOD: Duration = Duration::from_secs(2);
/// Longest pause while acknowledgements need the machine.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// How long a look may take, and the maximum age of the last successful one.
const LOOK_LIMIT: Duration = Duration::from_secs(60);
const LONGEST_BLIND: Duration = Duration::from_secs(300);
/// Positions counted per statement, and statements per look.
const STRETCH: i64 = 20_000;
const STRETCHES: usize = 16;
/// A difference counts only if a second look after this time confirms it: during a switch of tables, one
/// snapshot may see the log from before and the rows from after.
const SECOND_LOOK: Duration = Duration::from_millis(500);
/// Webhooks with differences are searched among this many of the newest, in pages, up to a number of webhooks
/// and of organizations.
const PAGE: i64 = 2_000;
const PAGES: usize = 10;
const FOUND: usize = 5;
const SEARCHED: usize = 10;

/// Checks conservation on the node that holds the lease.
pub struct Checker {
    pool: PgPool,
    checkpoints: Checkpoints,
    heads: Heads,
    leases: Leases,
    vitals: Vitals,
}

impl Checker {
    #[must_use]
    pub fn new(pool: PgPool, heads: Heads, leases: Leases, vitals: Vitals) -> Self {
        Self { checkpoints: Checkpoints::new(pool.clone()), pool, heads, leases, vitals }
    }

    /// Checks until stopped.
    pub async fn run(self, stop: CancellationToken) {
        while let Some(lease) = stop.run_until_cancelled(self.leases.want(NAME)).await {
            self.vitals.expect_looks(NAME, LONGEST_BLIND);
            tokio::select! {
                () = self.check(&lease) => {}
                () = lease.lost() => {}
                () = stop.cancelled() => {}
            }
            self.vitals.expect_no_looks(NAME);
            lease.release().await;
        }
    }

    /// Checks for as long as the lease is good.
    async fn check(&self, lease: &Lease) {
        let mut looked = Instant::now();
        loop {
            tokio::time::sleep(PERIOD).await;
            if self.heads.pressure.is_high() && looked.elapsed() < LONGEST_REST {
                continue;
            }
            match within(LOOK_LIMIT, self.look(lease)).await {
                Ok(()) => {
                    looked = Instant::now();
                    self.vitals.seen(NAME);
                }
                Err(error) => tracing::warn!(%error, "could not check conservation; retrying"),
            }
        }
    }

    async fn look(&self, lease: &Lease) -> Result<(), sqlx::Error> {
        let mut counted = within(STATEMENT_LIMIT, self.checkpoints.load(NAME)).await?;
        if !self.count(lease, &mut counted).await? {
            return Ok(());
        }
        for look in 0..2 {
            if self.compare(lease, look == 1).await? {
                break;
            }
            tokio::time::sleep(SECOND_LOOK).await;
        }
        Ok(())
    }

    /// Counts events that the read model has handled, in stretches; returns false if another node counts now.
    async fn count(&self, lease: &Lease, counted: &mut [LogPosition]) -> Result<bool, sqlx::Error> {
        let live = within(STATEMENT_LIMIT, self.checkpoints.of(READ_MODEL)).await?;
        let mut stretches = 0;
        for at in counted {
            let target = live.iter().find(|live| live.partition == at.partition).map_or(0, |live| live.position);
            while target - at.position > STRETCH && stretches < STRETCHES {
                stretches += 1;
                let mut transaction = lease.begin(&self.pool, Isolation::ReadCommitted).await?;
                let to = at.position + STRETCH;
                if !advance(&mut transaction, lease.epoch, *at, to).await? {
                    return Ok(false);
                }
                transaction.commit().await?;
                at.position = to;
            }
        }
        Ok(true)
    }

    /// Compares in one snapshot all partitions that are counted up to the read model's position. Returns
    /// false if there are differences that need a second look.
    async fn compare(&self, lease: &Lease, is_second: bool) -> Result<bool, sqlx::Error> {
        let mut transaction = lease.begin(&self.pool, Isolation::Snapshot).await?;
        let places: Vec<(i32, i64, i64)> = sqlx::query_as(
            "select c.partition, c.position, m.position
             from follower_checkpoints c join follower_checkpoints m using (partition)
             where c.name = $1 and m.name = $2 and m.position - c.position between 0 and $3 order by 1",
        )
        .bind(NAME)
        .bind(READ_MODEL)
        .bind(STRETCH)
        .fetch_all(&mut *transaction)
        .await?;
        for (partition, from, to) in places.iter().filter(|(_, from, to)| from < to) {
            let Some(partition) = hookledger_aggregates::Partition::new(*partition) else { continue };
            let at = LogPosition { partition, position: *from };
            if !advance(&mut transaction, lease.epoch, at, *to).await? {
                return Ok(true);
            }
        }
        let (partitions, positions): (Vec<i32>, Vec<i64>) = places.iter().map(|(number, _, to)| (*number, *to)).unzip();
        let mismatches = balances::compare(&mut transaction, &partitions).await?;
        if !mismatches.is_empty() && !is_second {
            transaction.rollback().await?;
            return Ok(false);
        }
        let mut found = Vec::new();
        for (n, mismatch) in mismatches.into_iter().enumerate() {
            let at = places.iter().find(|(number, ..)| *number == mismatch.partition).map_or(0, |(_, _, to)| *to);
            let webhooks = if n < SEARCHED { search(&mut transaction, &mismatch, at).await? } else { Vec::new() };
            found.push((mismatch, webhooks));
        }
        let known = balances::known_mismatches(&mut transaction).await?;
        balances::note(&mut transaction, &partitions, &positions, &found).await?;
        transaction.commit().await?;
        alarm(&known, &found);
        Ok(true)
    }
}

/// Counts a stretch of a partition and moves the checkpoint; returns false if another node counts now.
async fn advance(transaction: &mut PgConnection, epoch: i64, at: LogPosition, to: i64) -> Result<bool, sqlx::Error> {
    let changes = balance_changes(&mut *transaction, at, to).await?;
    balances::add(&mut *transaction, at.partition, to, &changes).await?;
    // The counts were read in this transaction.
    Checkpoints::advance(transaction, NAME, epoch, &[Move { from: at, to, recorded_at: None }]).await
}

/// Some of the newest webhooks whose status differs from the log's.
async fn search(connection: &mut PgConnection, mismatch: &Mismatch, at: i64) -> Result<Vec<Uuid>, sqlx::Error> {
    let (mut found, mut before) = (Vec::new(), i64::MAX);
    for _ in 0..PAGES {
        let page = standings_before(&mut *connection, mismatch.organization, before.min(at + 1), at, PAGE).await?;
        let Some(last) = page.last() else { break };
        before = last.position;
        let ids: Vec<Uuid> = page.iter().map(|standing| standing.webhook_id).collect();
        let kept = balances::kept(&mut *connection, mismatch.organization, &ids).await?;
        let differs = page.into_iter().filter(|standing| {
            let by_log: Vec<&String> = standing.places.iter().filter(|place| *place != "merged").collect();
            by_log != kept.get(&standing.webhook_id).into_iter().flatten().collect::<Vec<_>>()
        });
        found.extend(differs.map(|standing| standing.webhook_id));
        if found.len() >= FOUND {
            break;
        }
    }
    found.truncate(FOUND);
    Ok(found)
}

/// Logs changes: once when a difference appears, and once when it is gone.
fn alarm(known: &[Uuid], found: &[(Mismatch, Vec<Uuid>)]) {
    for (mismatch, webhooks) in found.iter().filter(|(mismatch, _)| !known.contains(&mismatch.organization.uuid())) {
        tracing::error!(
            organization.id = %mismatch.organization, difference = mismatch.difference,
            differences = mismatch.differences.join("; "), webhooks = ?webhooks,
            "the read model differs from the log; run `hookledger projections compare` for details"
        );
    }
    for id in known.iter().filter(|id| found.iter().all(|(mismatch, _)| mismatch.organization.uuid() != **id)) {
        tracing::info!(organization.id = %id, "log and read model agree again");
    }
    #[expect(clippy::cast_precision_loss, reason = "for a graph")]
    metrics::gauge!("hookledger_conservation_mismatches").set(found.len() as f64);
}
