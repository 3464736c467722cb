//! Requests that are not kept any more: what may go, that it goes, and what the log says of it. The
//! database lets bodies go only where an event says so (`body_removal_is_documented`).

use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, WebhookId};
use sqlx::{FromRow, PgConnection, PgExecutor};
use uuid::Uuid;

use super::unit::LogPosition;

/// Requests of an organization that may go.
#[derive(Clone, Copy, Debug)]
pub struct Removable {
    pub organization: OrganizationId,
    /// The last event of the stream that tells of the removed, 0 where there is none.
    pub sequence: i64,
    /// What was received up to there is removed already.
    pub after: i64,
    pub to: i64,
    pub count: u64,
}

/// The oldest requests of organizations that were received up to a position of theirs and are still
/// kept; of each up to `limit`.
///
/// # Errors
/// When the database does not answer.
pub async fn removable(
    executor: impl PgExecutor<'_>,
    until: &[(OrganizationId, i64)],
    limit: i64,
) -> Result<Vec<Removable>, sqlx::Error> {
    let ids: Vec<Uuid> = until.iter().map(|(organization, _)| organization.uuid()).collect();
    let partitions: Vec<i32> = until.iter().map(|(organization, _)| organization.partition().number()).collect();
    let positions: Vec<i64> = until.iter().map(|(_, position)| *position).collect();
    let rows: Vec<(Uuid, i64, i64, i64, i64)> = sqlx::query_as(
        "select o.id, coalesce(r.sequence, 0), coalesce(r.removed_to, 0), n.last, n.count
         from unnest($1::uuid[], $2::int[], $3::bigint[]) as o (id, partition, until)
         left join lateral (
             select e.sequence, (e.payload ->> 'toPosition')::bigint as removed_to from events e
             where e.aggregate_id = o.id::text and e.aggregate_type = 'retention' and e.partition = o.partition
               and e.organization_id = o.id
             order by e.sequence desc limit 1) r on true
         cross join lateral (
             select max(position) as last, count(*) from (
                 select b.position from webhook_bodies b
                 where b.organization_id = o.id and b.position > coalesce(r.removed_to, 0) and b.position <= o.until
                 order by b.position limit $4) b) n
         where n.count > 0",
    )
    .bind(ids)
    .bind(partitions)
    .bind(positions)
    .bind(limit)
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

/// Removes an organization's requests after one position and up to another, with what destinations
/// answered to them: up to `limit`. Answers how many went.
///
/// # Errors
/// When the database does not answer.
pub async fn remove_bodies(
    connection: &mut PgConnection,
    organization: OrganizationId,
    after: i64,
    to: i64,
    limit: i64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "with gone as (
             delete from webhook_bodies where organization_id = $1 and position in (
                 select position from webhook_bodies
                 where organization_id = $1 and position > $2 and position <= $3
                 order by position limit $4)
             returning webhook_id),
         answers as (
             delete from attempt_responses where organization_id = $1 and webhook_id in (select webhook_id from gone))
         select count(*) from gone",
    )
    .bind(organization.uuid())
    .bind(after)
    .bind(to)
    .bind(limit)
    .fetch_one(connection)
    .await
}

/// Removes the request of one webhook, with what its destination answered.
///
/// # Errors
/// When the database does not answer.
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

/// Whether an organization's requests were removed by events after a place in the log.
///
/// # Errors
/// When the database does not answer.
pub async fn removed_after(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    position: i64,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from events
                        where partition = $1 and position > $2 and organization_id = $3 and aggregate_type = 'retention')",
    )
    .bind(organization.partition().number())
    .bind(position)
    .bind(organization.uuid())
    .fetch_one(executor)
    .await
}

/// Why a request is not kept any more.
#[derive(Clone, Debug, FromRow)]
pub struct Removal {
    pub at: DateTime<Utc>,
    /// A person asked for it; otherwise it was too old.
    pub erased: bool,
    pub reason: Option<String>,
    pub partition: i32,
    pub position: i64,
}

/// What the log says of a webhook's request, which was received at that place; nothing while it is kept.
///
/// # Errors
/// When the database does not answer.
pub async fn removal_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    webhook: WebhookId,
    received: LogPosition,
) -> Result<Option<Removal>, sqlx::Error> {
    sqlx::query_as(
        "select e.recorded_at as at, e.event_type = 'retention.body_erased' as erased, e.payload ->> 'reason' as reason,
                e.partition, e.position
         from events e
         where e.organization_id = $1 and e.aggregate_type = 'retention' and e.partition = $3
           and (e.aggregate_id = $2 or e.aggregate_id = $1::text and (e.payload ->> 'toPosition')::bigint >= $4)
           and not exists (select from webhook_bodies b where b.organization_id = $1 and b.position = $4)
         order by e.position limit 1",
    )
    .bind(organization.uuid())
    .bind(webhook.to_string())
    .bind(received.partition.number())
    .bind(received.position)
    .fetch_optional(executor)
    .await
}
