//! Unfinished webhooks according to the read model: waiting for an attempt, or in one.
//!
//! Used to ensure that each of them is in the queue. It reads all organizations, a page at a time.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, ProviderId, WebhookId};
use sqlx::{FromRow, PgExecutor};
use uuid::Uuid;

use crate::webhook_logs::WebhookKey;

/// A genuine webhook that is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The organization that it belongs to.
    pub organization: OrganizationId,
    /// The webhook.
    pub webhook: WebhookId,
    /// The provider that sent it.
    pub provider: ProviderId,
    /// The position at which it became pending, if it is: the queue may not have been fed that far.
    pub pending_at: Option<i64>,
}

/// End of a page of webhooks that are pending or in an attempt.
pub type OpenKey = (Uuid, WebhookKey);
/// End of a page of webhooks that wait for a retry.
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
    webhook_id: Uuid,
    provider_id: Uuid,
    /// The page's sort key.
    at: DateTime<Utc>,
    position: i64,
    pending_at: Option<i64>,
    /// Whether it has not changed for a while.
    is_still: bool,
}

impl Row {
    fn unfinished(&self) -> Unfinished {
        Unfinished {
            organization: OrganizationId::new(self.organization_id),
            webhook: WebhookId::new(self.webhook_id),
            provider: ProviderId::new(self.provider_id),
            pending_at: self.pending_at,
        }
    }
}

fn looked<K>(rows: &[Row], limit: i64, key: impl Fn(&Row) -> K) -> Looked<K> {
    let is_full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let unfinished = rows.iter().filter(|row| row.is_still).map(Row::unfinished).collect();
    Looked { unfinished, next: rows.last().filter(|_| is_full).map(key) }
}

/// Webhooks that are pending or in an attempt, unchanged for this long. Leaves out those that wait for
/// verification.
pub async fn open(
    executor: impl PgExecutor<'_>,
    unchanged_for: Duration,
    after: Option<OpenKey>,
    limit: i64,
) -> Result<Looked<OpenKey>, sqlx::Error> {
    let (organization, (received_at, position)) = after.unwrap_or((Uuid::nil(), (DateTime::UNIX_EPOCH, 0)));
    let rows: Vec<Row> = sqlx::query_as(
        // A page counts its own rows, so that none ends the search early.
        "select organization_id, coalesce(l.webhook_id, organization_id) as webhook_id,
                coalesce(l.provider_id, organization_id) as provider_id, received_at as at, position,
                case when l.status = 'pending' then l.applied_position end as pending_at,
                coalesce(l.signature_valid and l.updated_at < now() - $4 * interval '1 second', false) as is_still
         from (select * from webhook_open where (organization_id, received_at, position) > ($1, $2, $3)
               order by organization_id, received_at, position limit $5) o
         left join webhook_logs l using (organization_id, received_at, position)
         order by organization_id, received_at, position",
    )
    .bind(organization)
    .bind(received_at)
    .bind(position)
    .bind(unchanged_for.as_secs_f64())
    .bind(limit)
    .fetch_all(executor)
    .await?;
    Ok(looked(&rows, limit, |row| (row.organization_id, (row.at, row.position))))
}

/// Webhooks whose retry has been due for this long.
pub async fn overdue(
    executor: impl PgExecutor<'_>,
    due_for: Duration,
    after: Option<WaitingKey>,
    limit: i64,
) -> Result<Looked<WaitingKey>, sqlx::Error> {
    let (due_at, webhook) = after.unwrap_or((DateTime::UNIX_EPOCH, Uuid::nil()));
    let rows: Vec<Row> = sqlx::query_as(
        "select organization_id, webhook_id, provider_id, next_retry_at as at, position,
                null::bigint as pending_at, true as is_still
         from webhook_logs
         where next_retry_at is not null and next_retry_at < now() - $3 * interval '1 second' and (next_retry_at, webhook_id) > ($1, $2)
         order by next_retry_at, webhook_id limit $4",
    )
    .bind(due_at)
    .bind(webhook)
    .bind(due_for.as_secs_f64())
    .bind(limit)
    .fetch_all(executor)
    .await?;
    Ok(looked(&rows, limit, |row| (row.at, row.webhook_id)))
}

/// Position of each organization's oldest unfinished webhook: pending, in an attempt, or waiting for a retry
/// or verification.
pub async fn oldest(executor: impl PgExecutor<'_>) -> Result<HashMap<OrganizationId, i64>, sqlx::Error> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "select organization_id, min(position) from (
             select organization_id, position from webhook_open
             union all
             select organization_id, position from webhook_logs where next_retry_at is not null) unfinished
         group by 1",
    )
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(organization, position)| (OrganizationId::new(organization), position)).collect())
}
