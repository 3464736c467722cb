//! `webhook_logs`: one row per webhook, accepted or rejected; with it their deliveries, the open ones, the attempts, the
//! monthly counts, the analytics and the last use of each secret.
//!
//! A batch is folded in memory to one change per webhook, and written in a few statements regardless of its
//! size.

mod conditions;
mod fold;
mod write;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::delivery::DeliveryEvent;
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::webhook::{RejectionReason, WebhookEvent};
use hookledger_aggregates::{OrganizationId, ProviderId, RecordedEvent, WebhookId};
use sqlx::{FromRow, PgConnection, PgExecutor};
use uuid::Uuid;

pub(crate) use conditions::{Conditions, Value};
pub use fold::{WebhookState, state_after};
pub use hookledger_aggregates::Status as WebhookStatus;

use self::fold::Fold;
use crate::{Interest, Page, PageRequest, Projection, ProjectionError};

/// Maximum number of automatic retries of one webhook, as shown to people.
pub const MAX_RETRIES: i32 = 3;

/// A row of `webhook_logs`.
#[derive(Clone, Debug, FromRow)]
pub struct WebhookLog {
    /// The organization that it belongs to.
    pub organization_id: Uuid,
    /// Derived from the connection and the event ID; random if rejected.
    pub webhook_id: Uuid,
    /// Position of its first event: the order of lists.
    pub position: i64,
    /// The provider that sent it.
    pub provider_id: Uuid,
    /// The provider's own ID of the event.
    pub provider_event_id: Option<String>,
    /// The provider's own name for the event, such as `push`.
    pub event_type: Option<String>,
    /// Digest of the raw body, in hex.
    pub body_sha256: String,
    /// Bytes of the raw body.
    pub body_size: i64,
    /// The `content-type` header.
    pub content_type: Option<String>,
    /// The signature header, cut to a limit.
    pub signature_received: Option<String>,
    /// Whether a secret verified it; false for rejections and until verification.
    pub signature_valid: bool,
    /// A [`WebhookStatus`], as text; see [`WebhookLog::status()`].
    pub status: String,
    /// Automatic retries so far, 0 to [`MAX_RETRIES`].
    pub retry_count: i32,
    /// The error of the last attempt, or the code and detail of the rejection.
    pub error_message: Option<String>,
    /// When its first event was recorded, just before the answer.
    pub received_at: DateTime<Utc>,
    /// Time of its last event.
    pub updated_at: DateTime<Utc>,
    /// When an attempt succeeded.
    pub processed_at: Option<DateTime<Utc>>,
    /// When the next automatic retry is due.
    pub next_retry_at: Option<DateTime<Utc>>,
    /// When its last retry failed; `None` again once a person retries it.
    pub dead_lettered_at: Option<DateTime<Utc>>,
    /// Number of further deliveries of the same event.
    pub duplicate_count: i32,
    /// A duplicate had another body.
    pub body_differs: bool,
    /// Its body was received before, under another ID that is not signed.
    pub suspected_replay: bool,
    /// A person sent it to test the provider.
    pub is_test: bool,
    /// The code of its rejection; `None` if it was accepted.
    pub rejection: Option<String>,
}

impl WebhookLog {
    /// Whether anything about it is suspicious: a replay, or an ID with several bodies.
    #[must_use]
    pub fn is_flagged(&self) -> bool {
        self.body_differs
            || self.suspected_replay
            || self.rejection.as_deref() == Some(RejectionReason::TransmissionReplayed.as_str())
    }

    /// The status, unless the table holds an unknown one.
    pub fn status(&self) -> Result<WebhookStatus, ProjectionError> {
        WebhookStatus::ALL.into_iter().find(|status| status.as_str() == self.status).ok_or_else(|| {
            ProjectionError::Corrupt { table: "webhook_logs", column: "status", value: self.status.clone() }
        })
    }
}

/// A selection of an organization's webhooks; a `None` does not restrict it.
#[derive(Clone, Debug, Default)]
pub struct WebhookFilter {
    /// Of this provider.
    pub provider: Option<ProviderId>,
    /// Any of these.
    pub providers: Option<Vec<ProviderId>>,
    /// In any of these statuses.
    pub status: Option<Vec<WebhookStatus>>,
    /// Of this event type, word for word.
    pub event_type: Option<String>,
    /// Any of these.
    pub event_types: Option<Vec<String>>,
    /// The last error, word for word.
    pub error_message: Option<String>,
    /// Verified, or not.
    pub signature_valid: Option<bool>,
    /// Dead letters, or none of them.
    pub dead_lettered: Option<bool>,
    /// A duplicate had another body.
    pub body_differs: Option<bool>,
    /// Its body was received before, under another ID.
    pub suspected_replay: Option<bool>,
    /// A person sent it to test the provider.
    pub is_test: Option<bool>,
    /// Anything about it is suspicious; see [`WebhookLog::is_flagged`].
    pub flagged: Option<bool>,
    /// Received at this time or later.
    pub received_from: Option<DateTime<Utc>>,
    /// Received before this time.
    pub received_to: Option<DateTime<Utc>>,
    /// A webhook ID, a provider's event ID, or the beginning of either or of an event type.
    pub text: Option<String>,
}

impl WebhookFilter {
    /// Whether only pending and processing webhooks can match.
    pub(crate) fn asks_for_open(&self) -> bool {
        let open = |status: &WebhookStatus| matches!(status, WebhookStatus::Pending | WebhookStatus::Processing);
        self.status.as_ref().is_some_and(|all| all.iter().all(open))
    }

    /// Whether a row is selected, ignoring the text, which is searched in bodies too.
    #[must_use]
    pub fn matches(&self, row: &WebhookLog) -> bool {
        let is = |wanted: Option<bool>, found| wanted.is_none_or(|wanted| wanted == found);
        self.provider.is_none_or(|provider| provider.uuid() == row.provider_id)
            && self.status.as_ref().is_none_or(|all| all.iter().any(|status| status.as_str() == row.status))
            && self.providers.as_ref().is_none_or(|all| all.iter().any(|one| one.uuid() == row.provider_id))
            && self.event_type.as_ref().is_none_or(|wanted| Some(wanted) == row.event_type.as_ref())
            && self.event_types.as_ref().is_none_or(|all| all.iter().any(|one| Some(one) == row.event_type.as_ref()))
            && self.error_message.as_ref().is_none_or(|wanted| Some(wanted) == row.error_message.as_ref())
            && is(self.signature_valid, row.signature_valid)
            && is(self.dead_lettered, row.dead_lettered_at.is_some())
            && is(self.body_differs, row.body_differs)
            && is(self.suspected_replay, row.suspected_replay)
            && is(self.is_test, row.is_test)
            && is(self.flagged, row.is_flagged())
            && self.received_from.is_none_or(|from| row.received_at >= from)
            && self.received_to.is_none_or(|to| row.received_at < to)
    }
}

/// Key of a webhook in its organization's list, newest first.
pub type WebhookKey = (DateTime<Utc>, i64);

pub(crate) const COLUMNS: &str = "organization_id, webhook_id, position, provider_id, provider_event_id, event_type, \
     body_sha256, body_size, content_type, signature_received, signature_valid, status, retry_count, error_message, \
     received_at, updated_at, processed_at, next_retry_at, dead_lettered_at, duplicate_count, body_differs, \
     suspected_replay, is_test, rejection";

/// A webhook of an organization.
pub async fn find(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    webhook: WebhookId,
) -> Result<Option<WebhookLog>, sqlx::Error> {
    sqlx::query_as(&format!("select {COLUMNS} from webhook_logs where organization_id = $1 and webhook_id = $2"))
        .bind(organization.uuid())
        .bind(webhook.uuid())
        .fetch_optional(executor)
        .await
}

/// Selected failed webhooks of an organization that may be retried; a text is searched in IDs and event types
/// only. The oldest first, so that they are retried in that order.
pub async fn retryable(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    filter: &WebhookFilter,
    limit: i64,
) -> Result<Vec<WebhookId>, sqlx::Error> {
    let filter = WebhookFilter { signature_valid: Some(true), ..filter.clone() };
    let mut conditions = Conditions::default();
    let organization = conditions.bind(Value::Id(organization.uuid()));
    conditions.all.push(format!("organization_id = {organization}"));
    conditions.all.push(FAILED.to_owned());
    conditions.of_filter(&filter);
    let limit = conditions.bind(Value::Number(limit));
    let sql = format!(
        "select webhook_id from webhook_logs where {} order by received_at, position limit {limit}",
        conditions.all.join(" and ")
    );
    let rows: Vec<(Uuid,)> = conditions.bind_to(sqlx::query_as(&sql)).fetch_all(executor).await?;
    Ok(rows.into_iter().map(|(id,)| WebhookId::new(id)).collect())
}

/// The condition of the index `webhook_logs_failed`, word for word.
pub(crate) const FAILED: &str =
    "status = 'failed' and (dead_lettered_at is not null or next_retry_at is not null or not signature_valid)";

/// Webhooks of an organization by ID, in no order.
pub async fn find_many(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    webhooks: &[WebhookId],
) -> Result<Vec<WebhookLog>, sqlx::Error> {
    let ids: Vec<Uuid> = webhooks.iter().map(|id| id.uuid()).collect();
    sqlx::query_as(&format!("select {COLUMNS} from webhook_logs where organization_id = $1 and webhook_id = any ($2)"))
        .bind(organization.uuid())
        .bind(ids)
        .fetch_all(executor)
        .await
}

/// The selected webhooks of an organization, newest first.
pub async fn list(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    filter: &WebhookFilter,
    page: PageRequest<WebhookKey>,
) -> Result<Page<WebhookLog>, sqlx::Error> {
    let mut conditions = Conditions::default();
    let order = conditions.of_page(organization, filter, page);
    let limit = conditions.bind(Value::Number(page.limit + 1));
    // Open webhooks are few among many, and have a table of their own.
    let rows = if filter.asks_for_open() {
        "webhook_open join webhook_logs using (organization_id, received_at, position)"
    } else {
        "webhook_logs"
    };
    let sql =
        format!("select {COLUMNS} from {rows} where {} order by {order} limit {limit}", conditions.all.join(" and "));
    let rows = conditions.bind_to(sqlx::query_as(&sql)).fetch_all(executor).await?;
    Ok(Page::from_overfull(rows, &page))
}

/// The position of the last webhook received before a time.
pub async fn position_before(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    time: DateTime<Utc>,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "select position from webhook_logs where organization_id = $1 and received_at < $2
         order by received_at desc, position desc limit 1",
    )
    .bind(organization.uuid())
    .bind(time)
    .fetch_optional(executor)
    .await
}

/// The parts of a webhook that a text search needs.
#[derive(Clone, Debug, FromRow)]
pub struct Candidate {
    /// The webhook.
    pub webhook_id: Uuid,
    /// When it was received: the first part of its [`WebhookKey`].
    pub received_at: DateTime<Utc>,
    /// Position of its first event: the second part of its [`WebhookKey`].
    pub position: i64,
    /// Bytes of the raw body, which the search may have to read.
    pub body_size: i64,
    /// Its event ID or type begins with the text.
    pub named: bool,
}

/// The webhooks that a search examines: those that match the filter, ignoring its text, from the page's key
/// on, up to `limit`.
pub async fn candidates(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    filter: &WebhookFilter,
    text: &str,
    page: PageRequest<WebhookKey>,
    limit: i64,
) -> Result<Vec<Candidate>, sqlx::Error> {
    let mut conditions = Conditions::default();
    let order = conditions.of_page(organization, &WebhookFilter { text: None, ..filter.clone() }, page);
    let (text, limit) = (conditions.bind(Value::Text(text.to_owned())), conditions.bind(Value::Number(limit)));
    let sql = format!(
        "select webhook_id, received_at, position, body_size,
                coalesce(starts_with(provider_event_id, {text}), false)
                    or coalesce(starts_with(event_type, {text}), false) as named
         from webhook_logs where {} order by {order} limit {limit}",
        conditions.all.join(" and ")
    );
    conditions.bind_to(sqlx::query_as(&sql)).fetch_all(executor).await
}

/// The webhooks with an ID: our own, or a provider's event ID.
pub async fn by_identity(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    text: &str,
) -> Result<Vec<WebhookLog>, sqlx::Error> {
    // A union, so that each part uses its index.
    sqlx::query_as(&format!(
        "select {COLUMNS} from webhook_logs where organization_id = $1 and webhook_id = $2
         union
         (select {COLUMNS} from webhook_logs where organization_id = $1 and provider_event_id = $3 limit 1000)"
    ))
    .bind(organization.uuid())
    .bind(text.parse::<Uuid>().ok())
    .bind(text)
    .fetch_all(executor)
    .await
}

/// Maintains `webhook_logs`, `deliveries`, `webhook_open`, `webhook_retries`, `webhook_counts`, `webhook_analytics` and
/// `provider_secret_uses`.
#[derive(Debug)]
pub struct WebhookLogs;

impl Projection for WebhookLogs {
    fn name(&self) -> &'static str {
        "webhook_logs"
    }

    fn interest(&self) -> Interest {
        Interest::All
    }

    fn shows(&self) -> &'static [&'static str] {
        &[WebhookEvent::AGGREGATE, DeliveryEvent::AGGREGATE]
    }

    fn tables(&self) -> &'static [&'static str] {
        &[
            "webhook_logs",
            "deliveries",
            // Written by triggers on the first two.
            "webhook_balances",
            "webhook_open",
            "webhook_retries",
            "webhook_counts",
            "webhook_analytics",
            "provider_secret_uses",
        ]
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            let mut fold = Fold::default();
            events.iter().for_each(|recorded| fold.note(recorded));
            fold.write(connection).await
        })
    }
}
