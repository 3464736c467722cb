//! Removal of stored requests: candidates, the removal itself, and its event in the log. The database lets
//! bodies go only when an event documents it (`body_removal_is_documented`).

use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, WebhookId};
use sqlx::{FromRow, PgConnection, PgExecutor};
use uuid::Uuid;

use super::read::ADMINISTRATIVE;
use super::unit::LogPosition;

/// Requests removed per statement, and roughly their bytes: each statement has a time limit.
const PORTION: i64 = 500;
const PORTION_BYTES: i64 = 256 << 20;

/// Requests of an organization that may be removed.
#[derive(Clone, Copy, Debug)]
pub struct Removable {
    pub organization: OrganizationId,
    /// Sequence of the last removal event of the stream; 0 without one.
    pub sequence: i64,
    /// Everything received up to this position is removed already.
    pub after: i64,
    pub to: i64,
    pub count: u64,
}

/// The oldest stored requests of organizations, received up to a position of each; up to `limit` per
/// organization. Fewer than `limit` wait until the last removal is long enough ago.
pub async fn removable(
    executor: impl PgExecutor<'_>,
    until: &[(OrganizationId, i64)],
    limit: i64,
    rest: chrono::Duration,
) -> Result<Vec<Removable>, sqlx::Error> {
    let ids: Vec<Uuid> = until.iter().map(|(organization, _)| organization.uuid()).collect();
    let partitions: Vec<i32> = until.iter().map(|(organization, _)| organization.partition().number()).collect();
    let positions: Vec<i64> = until.iter().map(|(_, position)| *position).collect();
    let rows: Vec<(Uuid, i64, i64, i64, i64)> = sqlx::query_as(
        "select o.id, coalesce(r.sequence, 0), coalesce(r.removed_to, 0), n.last, n.count
         from unnest($1::uuid[], $2::int[], $3::bigint[]) as o (id, partition, until)
         left join lateral (
             select e.sequence, (e.payload ->> 'toPosition')::bigint as removed_to, e.recorded_at from events e
             where e.stream_id = o.id and e.aggregate_type = 'retention' and e.partition = o.partition
               and e.organization_id = o.id
             order by e.first_sequence desc, e.sequence desc limit 1) r on true
         cross join lateral (
             select max(position) as last, count(*) from (
                 select b.position from webhook_bodies b
                 where b.organization_id = o.id and b.position > coalesce(r.removed_to, 0) and b.position <= o.until
                 order by b.position limit $4) b) n
         where n.count >= $4 or n.count > 0 and (r.recorded_at is null or r.recorded_at < now() - $5)",
    )
    .bind(ids)
    .bind(partitions)
    .bind(positions)
    .bind(limit)
    .bind(rest)
    .fetch_all(executor)
    .await?;
    let removable = rows.into_iter().map(|(organization, sequence, after, to, count)| Removable {
        organization: OrganizationId::new(organization),
        sequence,
        after,
        to,
        count: count.unsigned_abs(),
    });
    Ok(removable.collect())
}

/// Removes the first portion of an organization's stored requests between two positions, with the answers of
/// destinations. Returns true if there may be more.
pub async fn remove_bodies(
    connection: &mut PgConnection,
    organization: OrganizationId,
    after: i64,
    to: i64,
) -> Result<bool, sqlx::Error> {
    // Computes sizes without reading the large values.
    let (found, gone): (i64, i64) = sqlx::query_as(
        "with found as (
             select position, sum(octet_length(body)) over (order by position) - octet_length(body) as before
             from (select position, body from webhook_bodies
                   where organization_id = $1 and position > $2 and position <= $3
                   order by position limit $4) b),
         gone as (
             delete from webhook_bodies
             where organization_id = $1 and position in (select position from found where before < $5)
             returning webhook_id),
         answers as (
             delete from attempt_responses where organization_id = $1 and webhook_id in (select webhook_id from gone))
         select (select count(*) from found), (select count(*) from gone)",
    )
    .bind(organization.uuid())
    .bind(after)
    .bind(to)
    .bind(PORTION)
    .bind(PORTION_BYTES)
    .fetch_one(connection)
    .await?;
    if found > 0 && gone == 0 {
        return Err(sqlx::Error::Protocol(format!("a policy prevents the removal of bodies of {organization}")));
    }
    Ok(gone < found || found == PORTION)
}

/// Removes the stored request of one webhook, with its destination's answers.
pub async fn remove_body(
    connection: &mut PgConnection,
    organization: OrganizationId,
    webhook: WebhookId,
    position: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with gone as (
             delete from webhook_bodies where organization_id = $1 and webhook_id = $2 and position = $3)
         delete from attempt_responses where organization_id = $1 and webhook_id = $2",
    )
    .bind(organization.uuid())
    .bind(webhook.uuid())
    .bind(position)
    .execute(connection)
    .await
    .map(drop)
}

/// Webhooks among the given ones whose request is still stored, in their order.
pub async fn with_bodies(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    webhooks: &[WebhookId],
) -> Result<Vec<WebhookId>, sqlx::Error> {
    let ids: Vec<Uuid> = webhooks.iter().map(|id| id.uuid()).collect();
    let kept: Vec<Uuid> = sqlx::query_scalar(
        "select w.id from unnest($2::uuid[]) with ordinality as w (id, n)
         join commits c on c.stream_id = w.id and c.aggregate_type = 'webhook' and c.first_sequence = 1
                       and c.partition = $3 and c.organization_id = $1
         join webhook_bodies b on b.organization_id = c.organization_id and b.position = c.position
         order by w.n",
    )
    .bind(organization.uuid())
    .bind(ids)
    .bind(organization.partition().number())
    .fetch_all(executor)
    .await?;
    Ok(kept.into_iter().map(WebhookId::new).collect())
}

/// Per organization, the position of the oldest webhook for which a person requested a retry after these log
/// positions.
pub async fn retried_after(
    executor: impl PgExecutor<'_>,
    places: &[LogPosition],
) -> Result<Vec<(OrganizationId, i64)>, sqlx::Error> {
    let (partitions, positions): (Vec<i32>, Vec<i64>) =
        places.iter().map(|place| (place.partition.number(), place.position)).unzip();
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(&format!(
        "select f.organization_id, min(f.position)
         from unnest($1::int[], $2::bigint[]) as n (partition, position)
         join commits c on c.partition = n.partition and c.position > n.position - 100
                       and c.position + c.events - 1 > n.position
                       and {ADMINISTRATIVE} and starts_with(c.data, 'delivery.retry_requested')
         join commits f on f.stream_id = (split_part(split_part(c.data, E'\\n', 1), E'\\t', 3)::json ->> 'webhookId')::uuid
                       and f.aggregate_type = 'webhook' and f.first_sequence = 1 and f.partition = c.partition
         group by 1"
    ))
    .bind(partitions)
    .bind(positions)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(organization, position)| (OrganizationId::new(organization), position)).collect())
}

/// Whether events after a log position removed requests of an organization.
pub async fn removed_after(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    position: i64,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from commits
                        where partition = $1 and position + events - 1 > $2 and position > $2 - 100
                          and organization_id = $3 and aggregate_type = 'retention')",
    )
    .bind(organization.partition().number())
    .bind(position)
    .bind(organization.uuid())
    .fetch_one(executor)
    .await
}

/// Why a request is no longer stored.
#[derive(Clone, Debug, FromRow)]
pub struct Removal {
    pub at: DateTime<Utc>,
    /// A person requested it; otherwise it was too old.
    pub erased: bool,
    pub reason: Option<String>,
    pub partition: i32,
    pub position: i64,
}

/// The log's record of the removal of a webhook's request; `None` while it is stored.
pub async fn removal_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    webhook: WebhookId,
    received: LogPosition,
) -> Result<Option<Removal>, sqlx::Error> {
    // Reads each stream by its key, in its order. Rejections with a large body were never stored.
    sqlx::query_as(
        "select e.recorded_at as at, e.event_type = 'retention.body_erased' as erased, e.payload ->> 'reason' as reason,
                e.partition, e.position
         from (values (1, $2::uuid), (2, $1)) as s (rank, id)
         cross join lateral (
             select * from events e
             where e.stream_id = s.id and e.aggregate_type = 'retention' and e.partition = $3
               and e.organization_id = $1 and (s.rank = 1 or (e.payload ->> 'toPosition')::bigint >= $4)
             order by e.first_sequence, e.sequence limit 1) e
         where not exists (select from webhook_bodies b where b.organization_id = $1 and b.position = $4)
           and not exists (
               select from events r
               where r.partition = $3 and r.first_position = $4 and r.position = $4 and r.event_type = 'webhook.rejected'
                 and r.event_version <> '1' and r.payload -> 'headersSha256' is null)
         order by e.position limit 1",
    )
    .bind(organization.uuid())
    .bind(webhook.uuid())
    .bind(received.partition.number())
    .bind(received.position)
    .fetch_optional(executor)
    .await
}
