//! The table `conservation`: each organization's counts by the log, and the result of the last check.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, Partition, WebhookId};
use hookledger_projections::{deliveries, webhook_logs};
use sqlx::{FromRow, PgConnection, PgExecutor};
use uuid::Uuid;

use crate::log::BalanceChange;

/// Maximum number of organizations in a list.
const MAX_LISTED: i64 = 1_000;

/// An organization's webhooks according to the log, and whether the read models agree.
#[derive(Clone, Debug, FromRow)]
pub struct Balance {
    pub organization_id: Uuid,
    pub partition: i32,
    pub position: i64,
    pub received: i64,
    pub outcomes: i64,
    pub duplicates: i64,
    pub pending: i64,
    pub processing: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub dead_lettered: i64,
    pub cancelled: i64,
    pub rejected: i64,
    pub difference: i64,
    pub differences: Vec<String>,
    pub webhook_ids: Vec<Uuid>,
    pub checked_at: Option<DateTime<Utc>>,
    pub mismatch_since: Option<DateTime<Utc>>,
}

/// Organizations with webhooks, those with differences first, then by number of webhooks; 1,000 at most. For
/// super admins.
pub async fn list(executor: impl PgExecutor<'_>) -> Result<Vec<Balance>, sqlx::Error> {
    sqlx::query_as(
        "select * from conservation order by mismatch_since is null, received desc, organization_id limit $1",
    )
    .bind(MAX_LISTED)
    .fetch_all(executor)
    .await
}

/// Number of organizations with differences.
pub async fn mismatches(executor: impl PgExecutor<'_>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(*) from conservation where mismatch_since is not null").fetch_one(executor).await
}

/// The organizations with differences at the last check.
pub(super) async fn known_mismatches(connection: &mut PgConnection) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("select organization_id from conservation where mismatch_since is not null")
        .fetch_all(connection)
        .await
}

/// Adds the changes of a stretch of a partition's log, and records how far it is counted.
pub(super) async fn add(
    connection: &mut PgConnection,
    partition: Partition,
    to: i64,
    changes: &[BalanceChange],
) -> Result<(), sqlx::Error> {
    let column = |of: fn(&BalanceChange) -> i64| changes.iter().map(of).collect::<Vec<_>>();
    sqlx::query(
        "insert into conservation as c (organization_id, partition, position, received, outcomes, duplicates, pending,
                                        processing, succeeded, failed, dead_lettered, cancelled, rejected)
         select n.id, $1, $2, n.received, n.outcomes, n.duplicates, n.pending, n.processing, n.succeeded, n.failed,
                n.dead_lettered, n.cancelled, n.rejected
         from unnest($3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
                     $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[])
              as n (id, received, duplicates, pending, processing, succeeded, failed, dead_lettered, rejected, outcomes,
                    cancelled)
         on conflict (organization_id) do update
         set position = excluded.position, received = c.received + excluded.received,
             outcomes = c.outcomes + excluded.outcomes, cancelled = c.cancelled + excluded.cancelled,
             duplicates = c.duplicates + excluded.duplicates, pending = c.pending + excluded.pending,
             processing = c.processing + excluded.processing, succeeded = c.succeeded + excluded.succeeded,
             failed = c.failed + excluded.failed, dead_lettered = c.dead_lettered + excluded.dead_lettered,
             rejected = c.rejected + excluded.rejected",
    )
    .bind(partition.number())
    .bind(to)
    .bind(changes.iter().map(|change| change.organization_id).collect::<Vec<_>>())
    .bind(column(|change| change.received))
    .bind(column(|change| change.duplicates))
    .bind(column(|change| change.pending))
    .bind(column(|change| change.processing))
    .bind(column(|change| change.succeeded))
    .bind(column(|change| change.failed))
    .bind(column(|change| change.dead_lettered))
    .bind(column(|change| change.rejected))
    .bind(column(|change| change.outcomes))
    .bind(column(|change| change.cancelled))
    .execute(connection)
    .await
    .map(drop)
}

/// An organization's differences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) organization: OrganizationId,
    pub(super) partition: i32,
    pub(super) difference: i64,
    pub(super) differences: Vec<String>,
}

/// Counts by the log and by the read model, in the order of [`NAMES`].
#[derive(FromRow)]
struct Compared {
    organization_id: Uuid,
    partition: i32,
    outcomes: i64,
    log: Vec<i64>,
    kept: Vec<i64>,
}

const NAMES: [&str; 7] = ["pending", "processing", "succeeded", "failed", "dead-lettered", "cancelled", "rejected"];

/// The organizations of some partitions with differences, in the caller's snapshot.
pub(super) async fn compare(connection: &mut PgConnection, partitions: &[i32]) -> Result<Vec<Mismatch>, sqlx::Error> {
    let rows: Vec<Compared> = sqlx::query_as(
        "select * from (
             select organization_id, get_byte(uuid_send(organization_id), 15) % 16 as partition,
                    coalesce(c.outcomes, 0) as outcomes,
                    array[coalesce(c.pending, 0), coalesce(c.processing, 0), coalesce(c.succeeded, 0),
                          coalesce(c.failed, 0), coalesce(c.dead_lettered, 0), coalesce(c.cancelled, 0),
                          coalesce(c.rejected, 0)] as log,
                    array[coalesce(b.pending, 0), coalesce(b.processing, 0), coalesce(b.succeeded, 0),
                          coalesce(b.failed, 0), coalesce(b.dead_lettered, 0), coalesce(b.cancelled, 0),
                          coalesce(b.rejected, 0)] as kept
             from conservation c full join webhook_balances b using (organization_id)) n
         where partition = any ($1)
           and (log <> kept or outcomes <> log[1] + log[2] + log[3] + log[4] + log[5] + log[6])",
    )
    .bind(partitions)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(mismatch).collect())
}

fn mismatch(row: Compared) -> Mismatch {
    let (mut moved, mut differences) = (0, Vec::new());
    for ((name, log), kept) in NAMES.into_iter().zip(&row.log).zip(&row.kept) {
        if log != kept {
            moved += (log - kept).abs();
            differences.push(format!("{name}: {log} in the log, {kept} in the read model"));
        }
    }
    // A webhook with another status counts at both statuses.
    let balance = (row.log.iter().sum::<i64>() - row.kept.iter().sum::<i64>()).abs();
    let mut difference = i64::midpoint(moved, balance);
    let standing: i64 = row.log.iter().take(6).sum();
    if row.outcomes != standing {
        difference += (row.outcomes - standing).abs();
        differences.push(format!("{} outcomes in the log, but only {standing} have a status", row.outcomes));
    }
    let organization = OrganizationId::new(row.organization_id);
    Mismatch { organization, partition: row.partition, difference, differences }
}

/// Records that the organizations of some partitions were compared, and the differences. Rows without
/// differences are written every 15 s.
pub(super) async fn note(
    connection: &mut PgConnection,
    partitions: &[i32],
    positions: &[i64],
    mismatches: &[(Mismatch, Vec<Uuid>)],
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = mismatches.iter().map(|(mismatch, _)| mismatch.organization.uuid()).collect();
    sqlx::query(
        "update conservation c
         set position = n.position, checked_at = now(), difference = 0, differences = '{}', webhook_ids = '{}',
             mismatch_since = null
         from unnest($1::int[], $2::bigint[]) as n (partition, position)
         where c.partition = n.partition and c.organization_id <> all ($3)
           and (c.checked_at is null or c.checked_at < now() - interval '15 seconds' or c.mismatch_since is not null)",
    )
    .bind(partitions)
    .bind(positions)
    .bind(&ids)
    .execute(&mut *connection)
    .await?;
    for (mismatch, webhooks) in mismatches {
        let position = partitions.iter().position(|partition| *partition == mismatch.partition);
        sqlx::query(
            "insert into conservation as c (organization_id, partition, position, received, duplicates, pending,
                                            processing, succeeded, failed, dead_lettered, rejected, outcomes, cancelled,
                                            difference, differences, webhook_ids, checked_at, mismatch_since)
             values ($1, $2, $3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, $4, $5, $6, now(), now())
             on conflict (organization_id) do update
             set position = $3, difference = $4, differences = $5, webhook_ids = $6, checked_at = now(),
                 mismatch_since = coalesce(c.mismatch_since, now())",
        )
        .bind(mismatch.organization.uuid())
        .bind(mismatch.partition)
        .bind(position.and_then(|index| positions.get(index)).copied().unwrap_or_default())
        .bind(mismatch.difference)
        .bind(&mismatch.differences)
        .bind(webhooks)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The statuses of webhooks that have a row, or of their deliveries, in alphabetical order.
pub(super) async fn kept(
    connection: &mut PgConnection,
    organization: OrganizationId,
    webhooks: &[Uuid],
) -> Result<HashMap<Uuid, Vec<String>>, sqlx::Error> {
    let ids: Vec<_> = webhooks.iter().map(|id| WebhookId::new(*id)).collect();
    let mut places: HashMap<Uuid, Vec<String>> = HashMap::new();
    for row in deliveries::of_webhooks(&mut *connection, organization, &ids).await? {
        let place = if row.phase == "awaiting_retry" { "failed".to_owned() } else { row.phase };
        places.entry(row.webhook_id).or_default().push(place);
    }
    for row in webhook_logs::find_many(connection, organization, &ids).await? {
        let places = places.entry(row.webhook_id).or_default();
        if places.is_empty() {
            let place = match row.status.as_str() {
                "success" => "succeeded",
                "failed" if !row.signature_valid => "rejected",
                "failed" if row.dead_lettered_at.is_some() => "dead_lettered",
                "failed" => "failed",
                "processing" => "processing",
                _ => "pending",
            };
            places.push(place.to_owned());
        }
        places.sort_unstable();
    }
    Ok(places)
}
