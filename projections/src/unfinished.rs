//! Unfinished deliveries according to the read model: waiting for an attempt, or in one.
//!
//! Used to ensure that each of them is in the queue. It reads all organizations, a page at a time.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hookledger_aggregates::{DeliveryId, DestinationId, OrganizationId, RouteId, WebhookId};
use sqlx::{FromRow, PgExecutor};
use uuid::Uuid;

use crate::webhook_logs::WebhookKey;

/// A delivery that is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The organization that it belongs to.
    pub organization: OrganizationId,
    /// The delivery.
    pub delivery: DeliveryId,
    /// The delivered webhook.
    pub webhook: WebhookId,
    /// The route that the webhook matched.
    pub route: RouteId,
    /// Where it goes.
    pub destination: DestinationId,
    /// The position at which it became pending, if it is: the queue may not have been fed that far.
    pub pending_at: Option<i64>,
}

/// End of a page of webhooks that are pending or in an attempt.
pub type OpenKey = (Uuid, WebhookKey);
/// End of a page of deliveries that wait for a retry.
pub type WaitingKey = (DateTime<Utc>, Uuid);

/// A page of unfinished webhooks. Without a `next`, it is the last.
#[derive(Clone, Debug)]
pub struct Looked<K> {
    /// The unfinished webhooks of the page, without those that changed recently.
    pub unfinished: Vec<Unfinished>,
    /// The key that the next page begins after.
    pub next: Option<K>,
}

#[derive(FromRow)]
struct Row {
    organization_id: Uuid,
    delivery_id: Uuid,
    webhook_id: Uuid,
    route_id: Uuid,
    destination_id: Uuid,
    pending_at: Option<i64>,
}

impl From<Row> for Unfinished {
    fn from(row: Row) -> Self {
        Self {
            organization: OrganizationId::new(row.organization_id),
            delivery: DeliveryId::new(row.delivery_id),
            webhook: WebhookId::new(row.webhook_id),
            route: RouteId::new(row.route_id),
            destination: DestinationId::new(row.destination_id),
            pending_at: row.pending_at,
        }
    }
}

fn is_full(rows: usize, limit: i64) -> bool {
    i64::try_from(rows).is_ok_and(|count| count == limit)
}

/// Deliveries of a page of open webhooks that are pending or in an attempt, unchanged for this long.
pub async fn open(
    executor: impl PgExecutor<'_> + Copy,
    unchanged_for: Duration,
    after: Option<OpenKey>,
    limit: i64,
) -> Result<Looked<OpenKey>, sqlx::Error> {
    let (organization, (received_at, position)) = after.unwrap_or((Uuid::nil(), (DateTime::UNIX_EPOCH, 0)));
    let page: Vec<(Uuid, DateTime<Utc>, i64)> = sqlx::query_as(
        "select organization_id, received_at, position from webhook_open
         where (organization_id, received_at, position) > ($1, $2, $3)
         order by organization_id, received_at, position limit $4",
    )
    .bind(organization)
    .bind(received_at)
    .bind(position)
    .bind(limit)
    .fetch_all(executor)
    .await?;
    let next = page.last().filter(|_| is_full(page.len(), limit));
    let next = next.map(|(organization, received_at, position)| (*organization, (*received_at, *position)));
    let (mut organizations, mut times, mut positions) = (Vec::new(), Vec::new(), Vec::new());
    for (organization, received_at, position) in page {
        organizations.push(organization);
        times.push(received_at);
        positions.push(position);
    }
    let rows: Vec<Row> = sqlx::query_as(
        "select d.organization_id, d.delivery_id, d.webhook_id, d.route_id, d.destination_id,
                case when d.phase = 'pending' then d.applied_position end as pending_at
         from unnest($1::uuid[], $2::timestamptz[], $3::bigint[]) as o (organization_id, received_at, position)
         join webhook_logs l using (organization_id, received_at, position)
         join deliveries d on d.organization_id = l.organization_id and d.webhook_id = l.webhook_id
         where d.phase in ('pending', 'processing') and d.updated_at < now() - $4 * interval '1 second'",
    )
    .bind(organizations)
    .bind(times)
    .bind(positions)
    .bind(unchanged_for.as_secs_f64())
    .fetch_all(executor)
    .await?;
    Ok(Looked { unfinished: rows.into_iter().map(Unfinished::from).collect(), next })
}

/// Deliveries whose retry has been due for this long.
pub async fn overdue(
    executor: impl PgExecutor<'_>,
    due_for: Duration,
    after: Option<WaitingKey>,
    limit: i64,
) -> Result<Looked<WaitingKey>, sqlx::Error> {
    #[derive(FromRow)]
    struct Waiting {
        #[sqlx(flatten)]
        row: Row,
        next_retry_at: DateTime<Utc>,
    }
    let (due_at, delivery) = after.unwrap_or((DateTime::UNIX_EPOCH, Uuid::nil()));
    let rows: Vec<Waiting> = sqlx::query_as(
        "select organization_id, delivery_id, webhook_id, route_id, destination_id, null::bigint as pending_at,
                next_retry_at
         from deliveries
         where next_retry_at is not null and next_retry_at < now() - $3 * interval '1 second'
           and (next_retry_at, delivery_id) > ($1, $2)
         order by next_retry_at, delivery_id limit $4",
    )
    .bind(due_at)
    .bind(delivery)
    .bind(due_for.as_secs_f64())
    .bind(limit)
    .fetch_all(executor)
    .await?;
    let next = rows.last().filter(|_| is_full(rows.len(), limit));
    let next = next.map(|last| (last.next_retry_at, last.row.delivery_id));
    Ok(Looked { unfinished: rows.into_iter().map(|waiting| waiting.row.into()).collect(), next })
}

/// Position of each organization's oldest webhook that waits for verification or has an unfinished delivery.
pub async fn oldest(executor: impl PgExecutor<'_>) -> Result<HashMap<OrganizationId, i64>, sqlx::Error> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "select organization_id, min(position) from (
             select organization_id, position from webhook_open
             union all
             select organization_id, l.position from deliveries d join webhook_logs l using (organization_id, webhook_id)
             where d.next_retry_at is not null) unfinished
         group by 1",
    )
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(organization, position)| (OrganizationId::new(organization), position)).collect())
}
