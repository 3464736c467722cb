//! Summaries of many webhooks: dead letters by error, frequent types and errors, the health of providers. The
//! rows are those of `webhook_logs` and `webhook_analytics`; the number of rows read is bounded, newest
//! first.

use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, ProviderId};
use sqlx::{FromRow, PgExecutor};
use uuid::Uuid;

use crate::webhook_logs::{COLUMNS, FAILED, WebhookLog};

/// Webhooks read per summary.
pub const LOOKED_AT: i64 = 50_000;
/// Maximum number of groups of dead letters.
const GROUPS: i64 = 200;
/// Webhooks read for the names of types, and maximum number of names.
const RECENT: i64 = 10_000;
const NAMES: i64 = 200;
/// Webhooks of a provider that are read to find the previous one of the same type.
const BEFORE: i64 = 2_000;

/// Dead letters with one error at one provider.
#[derive(Clone, Debug, FromRow)]
pub struct DeadLetterGroup {
    /// The provider that sent them.
    pub provider_id: Uuid,
    /// The error of the last attempt.
    pub error_message: Option<String>,
    /// Number of dead letters.
    pub count: i64,
    /// When the first of them was received.
    pub oldest: DateTime<Utc>,
    /// When the last of them was received.
    pub newest: DateTime<Utc>,
}

/// The dead letters of an organization by error and provider, the most frequent first, among the newest
/// webhooks.
pub async fn dead_letter_groups(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
) -> Result<Vec<DeadLetterGroup>, sqlx::Error> {
    sqlx::query_as(&format!(
        "select provider_id, error_message, count(*), min(received_at) as oldest, max(received_at) as newest
         from (select provider_id, error_message, received_at from webhook_logs
               where organization_id = $1 and {FAILED} and dead_lettered_at is not null
               order by received_at desc, position desc limit $2) t
         group by 1, 2 order by count(*) desc, max(received_at) desc limit $3"
    ))
    .bind(organization.uuid())
    .bind(LOOKED_AT)
    .bind(GROUPS)
    .fetch_all(executor)
    .await
}

/// A name, and its frequency.
#[derive(Clone, Debug, FromRow)]
pub struct Named {
    /// The event type or the error; `None` counts the webhooks without one.
    pub name: Option<String>,
    /// Number of webhooks with this name.
    pub count: i64,
    /// Total number of rows read.
    pub looked_at: i64,
}

/// The names of a ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranked {
    /// The providers' own names for their events.
    EventTypes,
    /// Rejections by their code, failures by their last error.
    Errors,
}

/// The most frequent names in a span of time.
pub async fn ranking(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    ranked: Ranked,
    provider: Option<ProviderId>,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    first: i64,
) -> Result<Vec<Named>, sqlx::Error> {
    let (name, which) = match ranked {
        Ranked::EventTypes => ("event_type", "true"),
        Ranked::Errors => ("coalesce(rejection, error_message)", FAILED),
    };
    let of_provider = if provider.is_some() { "provider_id = $4" } else { "$4::uuid is null" };
    sqlx::query_as(&format!(
        "select name, count(*), (sum(count(*)) over ())::bigint as looked_at
         from (select {name} as name from webhook_logs
               where organization_id = $1 and received_at >= $2 and received_at < $3 and {of_provider} and {which}
               order by received_at desc, position desc limit $5) t
         group by 1 order by 2 desc, 1 limit $6"
    ))
    .bind(organization.uuid())
    .bind(from)
    .bind(to)
    .bind(provider.map(ProviderId::uuid))
    .bind(LOOKED_AT)
    .bind(first)
    .fetch_all(executor)
    .await
}

/// The types of recent events, the most frequent first.
pub async fn recent_event_types(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select event_type
         from (select event_type from webhook_logs where organization_id = $1
               order by received_at desc, position desc limit $2) t
         where event_type is not null group by 1 order by count(*) desc, 1 limit $3",
    )
    .bind(organization.uuid())
    .bind(RECENT)
    .bind(NAMES)
    .fetch_all(executor)
    .await
}

/// The previous accepted webhook of the same provider and type, if it is among the provider's most recent
/// ones before.
pub async fn previous_of_type(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    webhook: &WebhookLog,
) -> Result<Option<WebhookLog>, sqlx::Error> {
    sqlx::query_as(&format!(
        "select {COLUMNS}
         from (select * from webhook_logs
               where organization_id = $1 and provider_id = $2 and (received_at, position) < ($3, $4)
               order by received_at desc, position desc limit $5) t
         where event_type is not distinct from $6 and signature_valid
         order by received_at desc, position desc limit 1"
    ))
    .bind(organization.uuid())
    .bind(webhook.provider_id)
    .bind(webhook.received_at)
    .bind(webhook.position)
    .bind(BEFORE)
    .bind(webhook.event_type.as_deref())
    .fetch_optional(executor)
    .await
}

/// The health of a provider.
#[derive(Clone, Debug, Default, FromRow)]
pub struct ProviderHealth {
    /// The provider.
    pub provider_id: Uuid,
    /// Webhooks accepted since that time, without duplicates.
    pub received: i64,
    /// Requests rejected since that time.
    pub rejected: i64,
    /// Attempts that succeeded since that time.
    pub succeeded: i64,
    /// Attempts that failed since that time.
    pub failed: i64,
    /// Webhooks that became dead letters since that time.
    pub dead_lettered: i64,
    /// The last request ever, accepted or rejected.
    pub last_received_at: Option<DateTime<Utc>>,
}

/// The health of an organization's providers since a time.
pub async fn health(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    providers: &[ProviderId],
    since: DateTime<Utc>,
) -> Result<Vec<ProviderHealth>, sqlx::Error> {
    let ids: Vec<Uuid> = providers.iter().map(|id| id.uuid()).collect();
    sqlx::query_as(
        "select p.id as provider_id, coalesce(a.received, 0) as received, coalesce(a.rejected, 0) as rejected,
                coalesce(a.succeeded, 0) as succeeded, coalesce(a.failed, 0) as failed,
                coalesce(a.dead_lettered, 0) as dead_lettered, l.received_at as last_received_at
         from unnest($2::uuid[]) as p (id)
         left join (select provider_id, sum(received)::bigint as received, sum(rejected)::bigint as rejected,
                           sum(succeeded)::bigint as succeeded, sum(failed)::bigint as failed,
                           sum(dead_lettered)::bigint as dead_lettered
                    from webhook_analytics where organization_id = $1 and minute >= $3 group by provider_id) a
              on a.provider_id = p.id
         left join lateral (select received_at from webhook_logs w
                            where w.organization_id = $1 and w.provider_id = p.id
                            order by w.received_at desc, w.position desc limit 1) l on true",
    )
    .bind(organization.uuid())
    .bind(ids)
    .bind(since)
    .fetch_all(executor)
    .await
}
