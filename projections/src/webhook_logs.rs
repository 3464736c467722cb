//! `webhook_logs`: one row per webhook, accepted or rejected; with it the open ones, the attempts,
//! the monthly counts, the analytics and the last use of each secret.
//!
//! A batch is folded in memory to one change per webhook, and written in a handful of statements
//! however many events it has.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Duration, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::webhook::{Receipt, RejectionReason, WebhookEvent};
use hookledger_aggregates::{Event, Label, OrganizationId, ProviderId, ProviderName, RecordedEvent, WebhookId};
use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;
use sqlx::{FromRow, PgConnection, PgExecutor, Postgres};
use uuid::Uuid;

use crate::analytics::Tally;
use crate::webhook_retries::{Attempts, WORKER_LOST};
use crate::{Interest, Page, PageRequest, Projection, ProjectionError};

/// Automatic retries of one webhook at most, as people see them.
pub const MAX_RETRIES: i32 = 3;

/// Where a webhook stands, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookStatus {
    Pending,
    Processing,
    Success,
    Failed,
}

impl WebhookStatus {
    pub const ALL: [Self; 4] = [Self::Pending, Self::Processing, Self::Success, Self::Failed];

    /// The name in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Success => "success",
            Self::Failed => "failed",
        }
    }
}

/// A row of `webhook_logs`.
#[derive(Clone, Debug, FromRow)]
pub struct WebhookLog {
    pub organization_id: Uuid,
    pub webhook_id: Uuid,
    pub position: i64,
    pub provider_id: Uuid,
    pub provider_event_id: Option<String>,
    pub event_type: Option<String>,
    pub body_sha256: String,
    pub body_size: i64,
    pub content_type: Option<String>,
    pub signature_received: Option<String>,
    pub signature_valid: bool,
    pub status: String,
    pub retry_count: i32,
    pub error_message: Option<String>,
    pub received_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub processed_at: Option<DateTime<Utc>>,
    pub next_retry_at: Option<DateTime<Utc>>,
    pub dead_lettered_at: Option<DateTime<Utc>>,
    pub duplicate_count: i32,
    pub body_differs: bool,
    pub suspected_replay: bool,
    /// The code of why it was refused; nothing where it was accepted.
    pub rejection: Option<String>,
}

impl WebhookLog {
    /// Whether anything about it is suspicious: a replay, or an id that came with several bodies.
    #[must_use]
    pub fn is_flagged(&self) -> bool {
        self.body_differs
            || self.suspected_replay
            || self.rejection.as_deref() == Some(RejectionReason::TransmissionReplayed.as_str())
    }

    /// # Errors
    /// When the table holds a status that does not exist.
    pub fn status(&self) -> Result<WebhookStatus, ProjectionError> {
        WebhookStatus::ALL.into_iter().find(|status| status.as_str() == self.status).ok_or_else(|| {
            ProjectionError::Corrupt { table: "webhook_logs", column: "status", value: self.status.clone() }
        })
    }
}

/// Which webhooks of an organization are asked for; what is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct WebhookFilter {
    pub provider: Option<ProviderId>,
    /// Any of these.
    pub providers: Option<Vec<ProviderId>>,
    pub status: Option<Vec<WebhookStatus>>,
    pub event_type: Option<String>,
    /// Any of these.
    pub event_types: Option<Vec<String>>,
    /// What went wrong last, word for word.
    pub error_message: Option<String>,
    pub signature_valid: Option<bool>,
    pub dead_lettered: Option<bool>,
    /// A duplicate came with another body.
    pub body_differs: Option<bool>,
    /// Its body came before, under another id.
    pub suspected_replay: Option<bool>,
    /// Anything about it is suspicious; see [`WebhookLog::is_flagged`].
    pub flagged: Option<bool>,
    pub received_from: Option<DateTime<Utc>>,
    pub received_to: Option<DateTime<Utc>>,
    /// A webhook id, a provider's event id, or the beginning of either or of an event type.
    pub text: Option<String>,
}

impl WebhookFilter {
    /// Whether nothing but pending and processing webhooks can match.
    pub(crate) fn asks_for_open(&self) -> bool {
        let open = |status: &WebhookStatus| matches!(status, WebhookStatus::Pending | WebhookStatus::Processing);
        self.status.as_ref().is_some_and(|all| all.iter().all(open))
    }

    /// Whether a row is one of those asked for, but for the text, which is looked for in bodies too.
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
            && is(self.flagged, row.is_flagged())
            && self.received_from.is_none_or(|from| row.received_at >= from)
            && self.received_to.is_none_or(|to| row.received_at < to)
    }
}

/// Place of a webhook in its organization's list, newest first.
pub type WebhookKey = (DateTime<Utc>, i64);

pub(crate) const COLUMNS: &str = "organization_id, webhook_id, position, provider_id, provider_event_id, event_type, \
     body_sha256, body_size, content_type, signature_received, signature_valid, status, retry_count, error_message, \
     received_at, updated_at, processed_at, next_retry_at, dead_lettered_at, duplicate_count, body_differs, \
     suspected_replay, rejection";

/// A webhook of an organization.
///
/// # Errors
/// When the database does not answer.
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

/// Failed webhooks of an organization that match, of those that may be retried; a text is looked for
/// in ids and event types alone. The oldest first, so that they are retried in that order.
///
/// # Errors
/// When the database does not answer.
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

/// Webhooks of an organization by id, in no order.
///
/// # Errors
/// When the database does not answer.
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

/// The webhooks of an organization that match, newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    filter: &WebhookFilter,
    page: PageRequest<WebhookKey>,
) -> Result<Page<WebhookLog>, sqlx::Error> {
    let mut conditions = Conditions::default();
    let order = conditions.of_page(organization, filter, page);
    let limit = conditions.bind(Value::Number(page.limit + 1));
    // Open webhooks are few among many, and listed in a table of their own.
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

/// The position of the last webhook that was received before a time.
///
/// # Errors
/// When the database does not answer.
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

/// What a search for text needs to know of a webhook.
#[derive(Clone, Debug, FromRow)]
pub struct Candidate {
    pub webhook_id: Uuid,
    pub received_at: DateTime<Utc>,
    pub position: i64,
    pub body_size: i64,
    /// Its event's id or type begins with the text.
    pub named: bool,
}

/// The webhooks that a search looks at: those that match the filter, whose own text is ignored, from
/// the page's place on, up to `limit`.
///
/// # Errors
/// When the database does not answer.
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

/// The webhooks that an id names: our own, or a provider's of an event.
///
/// # Errors
/// When the database does not answer.
pub async fn by_identity(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    text: &str,
) -> Result<Vec<WebhookLog>, sqlx::Error> {
    // A union, so that each part has its index.
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
/// The predicate of the partial index `webhook_logs_flagged`, word for word.
const FLAGGED: &str = "(suspected_replay or body_differs or rejection = 'transmission_replayed')";

pub(crate) enum Value {
    Id(Uuid),
    Ids(Vec<Uuid>),
    Time(DateTime<Utc>),
    Span(Duration),
    Number(i64),
    Text(String),
    Texts(Vec<String>),
}

/// The conditions of a query on `webhook_logs`, with the values that they bind.
#[derive(Default)]
pub(crate) struct Conditions {
    pub(crate) all: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    pub(crate) fn bind(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    /// What a page is of, and in which order it comes. Conditions are spelled out only where they are
    /// asked for, so that the planner sees which index fits; every value is bound.
    fn of_page(
        &mut self,
        organization: OrganizationId,
        filter: &WebhookFilter,
        page: PageRequest<WebhookKey>,
    ) -> &'static str {
        let (compare, order) = if page.backward {
            (">", "received_at asc, position asc")
        } else {
            ("<", "received_at desc, position desc")
        };
        let organization = self.bind(Value::Id(organization.uuid()));
        self.all.push(format!("organization_id = {organization}"));
        self.of_filter(filter);
        if let Some((received_at, position)) = page.from {
            let (received_at, position) = (self.bind(Value::Time(received_at)), self.bind(Value::Number(position)));
            self.all.push(format!("(received_at, position) {compare} ({received_at}, {position})"));
        }
        order
    }

    pub(crate) fn of_filter(&mut self, filter: &WebhookFilter) {
        if let Some(provider) = filter.provider {
            let provider = self.bind(Value::Id(provider.uuid()));
            self.all.push(format!("provider_id = {provider}"));
        }
        if let Some(providers) = &filter.providers {
            let providers = self.bind(Value::Ids(providers.iter().map(|id| id.uuid()).collect()));
            self.all.push(format!("provider_id = any ({providers})"));
        }
        match filter.status.as_deref() {
            None => {}
            Some([WebhookStatus::Failed]) => self.all.push(FAILED.to_owned()),
            Some(several) => {
                let names = several.iter().map(|status| status.as_str().to_owned()).collect();
                let names = self.bind(Value::Texts(names));
                self.all.push(format!("status = any ({names})"));
            }
        }
        if let Some(event_type) = &filter.event_type {
            let event_type = self.bind(Value::Text(event_type.clone()));
            self.all.push(format!("event_type = {event_type}"));
        }
        if let Some(event_types) = &filter.event_types {
            let event_types = self.bind(Value::Texts(event_types.clone()));
            self.all.push(format!("event_type = any ({event_types})"));
        }
        if let Some(error) = &filter.error_message {
            let error = self.bind(Value::Text(error.clone()));
            self.all.push(format!("error_message = {error}"));
        }
        // Spelled out, so that the planner sees that the index of failed ones holds all rejections.
        match filter.signature_valid {
            None => {}
            Some(true) => self.all.push("signature_valid".to_owned()),
            Some(false) => self.all.push("not signature_valid".to_owned()),
        }
        match filter.dead_lettered {
            None => {}
            Some(true) => self.all.push("status = 'failed' and dead_lettered_at is not null".to_owned()),
            Some(false) => self.all.push("dead_lettered_at is null".to_owned()),
        }
        for (column, wanted) in [("body_differs", filter.body_differs), ("suspected_replay", filter.suspected_replay)] {
            match wanted {
                None => {}
                Some(true) => self.all.push(format!("{column} and {FLAGGED}")),
                Some(false) => self.all.push(format!("not {column}")),
            }
        }
        match filter.flagged {
            None => {}
            Some(true) => self.all.push(FLAGGED.to_owned()),
            Some(false) => self.all.push(format!("{FLAGGED} is not true")),
        }
        if let Some(from) = filter.received_from {
            let from = self.bind(Value::Time(from));
            self.all.push(format!("received_at >= {from}"));
        }
        if let Some(to) = filter.received_to {
            let to = self.bind(Value::Time(to));
            self.all.push(format!("received_at < {to}"));
        }
        if let Some(text) = &filter.text {
            let exact_id = text.parse::<Uuid>().ok();
            let prefix = self.bind(Value::Text(text.clone()));
            let id = exact_id.map(|id| self.bind(Value::Id(id)));
            let by_id = id.map(|id| format!(" or webhook_id = {id}")).unwrap_or_default();
            self.all.push(format!(
                "(starts_with(provider_event_id, {prefix}) or starts_with(event_type, {prefix}){by_id})"
            ));
        }
    }

    pub(crate) fn bind_to<O>(
        self,
        query: QueryAs<'_, Postgres, O, PgArguments>,
    ) -> QueryAs<'_, Postgres, O, PgArguments> {
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Id(id) => query.bind(id),
            Value::Ids(ids) => query.bind(ids),
            Value::Time(time) => query.bind(time),
            Value::Span(span) => query.bind(span),
            Value::Number(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Texts(texts) => query.bind(texts),
        })
    }
}

/// Keeps `webhook_logs`, `webhook_open`, `webhook_retries`, `webhook_counts`, `webhook_analytics` and
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

    fn tables(&self) -> &'static [&'static str] {
        &[
            "webhook_logs",
            // Written by triggers on the first.
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
            for recorded in events {
                match &recorded.event {
                    Event::Webhook(event) => fold.note(recorded, event),
                    Event::Provider(event) => fold.tally.note_provider(recorded, event),
                    Event::Organization(_)
                    | Event::User(_)
                    | Event::EmailClaim(_)
                    | Event::Team(_)
                    | Event::Retention(_)
                    | Event::Access(_)
                    | Event::Usage(_) => {}
                }
            }
            fold.write(connection).await?;
            Ok(())
        })
    }
}

/// What a batch says of one webhook.
struct Change<'a> {
    /// Set where the batch holds the webhook's first event: the row is made from it.
    first: Option<First<'a>>,
    last_position: i64,
    last_at: DateTime<Utc>,
    state: Option<State>,
    /// Set where it turned out to be another delivery of a known webhook: the row goes.
    merged: bool,
    /// Positions of its duplicates, and whether each had another body.
    duplicates: Vec<(i64, bool)>,
}

struct First<'a> {
    receipt: &'a Receipt,
    position: i64,
    at: DateTime<Utc>,
    valid: bool,
    rejection: Option<RejectionReason>,
}

/// The columns that say where a webhook stands; each event that moves it sets all of them.
#[derive(Clone)]
struct State {
    status: WebhookStatus,
    retry_count: i32,
    error: Option<String>,
    rejection: Option<RejectionReason>,
    /// The failure was told by an earlier batch, and stays.
    keeps_error: bool,
    processed_at: Option<DateTime<Utc>>,
    next_retry_at: Option<DateTime<Utc>>,
    dead_lettered_at: Option<DateTime<Utc>>,
}

impl State {
    fn at(status: WebhookStatus, attempt: u32) -> Self {
        let retry_count = i32::try_from(attempt.saturating_sub(1)).unwrap_or(MAX_RETRIES).min(MAX_RETRIES);
        Self {
            status,
            retry_count,
            error: None,
            rejection: None,
            keeps_error: false,
            processed_at: None,
            next_retry_at: None,
            dead_lettered_at: None,
        }
    }

    /// Failed at that attempt, as an earlier batch said.
    fn failed_before(attempt: u32) -> Self {
        Self { keeps_error: true, ..Self::at(WebhookStatus::Failed, attempt) }
    }
}

#[derive(Default)]
struct Fold<'a> {
    changes: HashMap<(Uuid, Uuid), Change<'a>>,
    attempts: Attempts,
    tally: Tally,
    /// Last use of each secret version: (organization, provider, version).
    uses: BTreeMap<(Uuid, Uuid, u32), DateTime<Utc>>,
    providers: HashMap<Uuid, Uuid>,
    /// Verifications whose receipt came in an earlier batch.
    later: Vec<VerifiedLater>,
}

/// Where a webhook stood after one of its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookState {
    pub sequence: i64,
    pub at: DateTime<Utc>,
    pub signature_valid: bool,
    pub status: WebhookStatus,
    pub retry_count: i32,
    pub error_message: Option<String>,
    pub processed_at: Option<DateTime<Utc>>,
    pub next_retry_at: Option<DateTime<Utc>>,
    pub dead_lettered_at: Option<DateTime<Utc>>,
    pub duplicate_count: i32,
    pub body_differs: bool,
}

/// Where a webhook stands after these, its own events from the first on: what its row says then.
/// Nothing where they do not begin with a receipt, or it was merged into another.
#[must_use]
pub fn state_after(events: &[RecordedEvent]) -> Option<WebhookState> {
    let mut fold = Fold::default();
    for recorded in events {
        if let Event::Webhook(event) = &recorded.event {
            fold.note(recorded, event);
        }
    }
    let last = events.last()?;
    let change = fold.changes.remove(&(last.organization.uuid(), last.aggregate_id))?;
    let (first, state) = (change.first?, change.state?);
    (!change.merged).then(|| WebhookState {
        sequence: last.sequence,
        at: last.recorded_at,
        signature_valid: first.valid,
        status: state.status,
        retry_count: state.retry_count,
        error_message: state.error,
        processed_at: state.processed_at,
        next_retry_at: state.next_retry_at,
        dead_lettered_at: state.dead_lettered_at,
        duplicate_count: count(&change.duplicates),
        body_differs: change.duplicates.iter().any(|(_, differs)| *differs),
    })
}

struct VerifiedLater {
    organization: Uuid,
    webhook: Uuid,
    position: i64,
    secret_version: u32,
    at: DateTime<Utc>,
}

impl<'a> Fold<'a> {
    fn note(&mut self, recorded: &'a RecordedEvent, event: &'a WebhookEvent) {
        self.attempts.note(recorded, event);
        self.tally.note(recorded, event);
        let key = (recorded.organization.uuid(), recorded.aggregate_id);
        // Streams of these two hold no webhook.
        if matches!(event, WebhookEvent::Identified { .. } | WebhookEvent::TransmissionBound { .. }) {
            return;
        }
        let change = self.changes.entry(key).or_insert_with(|| Change {
            first: None,
            last_position: 0,
            last_at: recorded.recorded_at,
            state: None,
            merged: false,
            duplicates: Vec::new(),
        });
        change.last_position = recorded.position;
        change.last_at = recorded.recorded_at;
        let first = |receipt, valid, rejection| {
            Some(First { receipt, position: recorded.position, at: recorded.recorded_at, valid, rejection })
        };
        match event {
            WebhookEvent::Received(receipt) => {
                change.first = first(receipt, true, None);
                change.state = Some(State::at(WebhookStatus::Pending, 0));
                self.providers.insert(recorded.aggregate_id, receipt.provider_id.uuid());
            }
            WebhookEvent::SignatureVerified(matched) => {
                let (version, at) = (matched.secret_version, recorded.recorded_at);
                match self.providers.get(&recorded.aggregate_id) {
                    Some(provider) => drop(self.uses.insert((key.0, *provider, version), at)),
                    None => self.later.push(VerifiedLater {
                        organization: key.0,
                        webhook: key.1,
                        position: recorded.position,
                        secret_version: version,
                        at,
                    }),
                }
                if let Some(first) = &mut change.first {
                    first.valid = true;
                }
            }
            WebhookEvent::ReceivedUnverified { receipt, event_webhook_id: _ } => {
                change.first = first(receipt, false, None);
                change.state = Some(State::at(WebhookStatus::Pending, 0));
                self.providers.insert(recorded.aggregate_id, receipt.provider_id.uuid());
            }
            WebhookEvent::VerificationFailed { reason, detail } => {
                let error = Some(rejection(*reason, detail));
                change.state = Some(State { error, rejection: Some(*reason), ..State::at(WebhookStatus::Failed, 0) });
                if let Some(first) = &mut change.first {
                    first.rejection = Some(*reason);
                }
            }
            WebhookEvent::Merged { into: _ } => change.merged = true,
            WebhookEvent::Identified { .. } | WebhookEvent::TransmissionBound { .. } => {}
            WebhookEvent::Rejected { receipt, reason, detail } => {
                change.first = first(receipt, false, Some(*reason));
                let error = Some(rejection(*reason, detail));
                change.state = Some(State { error, ..State::at(WebhookStatus::Failed, 0) });
            }
            WebhookEvent::DuplicateReceived { body_differs, .. } => {
                change.duplicates.push((recorded.position, *body_differs));
            }
            WebhookEvent::AttemptStarted { attempt } => {
                change.state = Some(State::at(WebhookStatus::Processing, *attempt));
            }
            WebhookEvent::AttemptSucceeded { attempt, .. } => {
                let processed_at = Some(recorded.recorded_at);
                change.state = Some(State { processed_at, ..State::at(WebhookStatus::Success, *attempt) });
            }
            WebhookEvent::AttemptFailed { attempt, outcome } => {
                let error = outcome.error.as_ref().map(|error| error.as_str().to_owned());
                change.state = Some(State { error, ..State::at(WebhookStatus::Failed, *attempt) });
            }
            WebhookEvent::AttemptAbandoned { attempt } => {
                let error = Some(WORKER_LOST.to_owned());
                change.state = Some(State { error, ..State::at(WebhookStatus::Failed, *attempt) });
            }
            // These two follow a failure in the same unit and keep what it said.
            WebhookEvent::RetryScheduled { attempt, retry_at } => {
                let failed = change.state.take().unwrap_or_else(|| State::failed_before(attempt.saturating_sub(1)));
                change.state = Some(State { next_retry_at: Some(*retry_at), ..failed });
            }
            WebhookEvent::DeadLettered { attempts } => {
                let failed = change.state.take().unwrap_or_else(|| State::failed_before(*attempts));
                change.state = Some(State { dead_lettered_at: Some(recorded.recorded_at), ..failed });
            }
            WebhookEvent::RetryRequested { attempt, .. } => {
                change.state = Some(State::at(WebhookStatus::Pending, *attempt));
            }
        }
    }

    async fn write(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        // In one order for everybody: whoever else locks these rows does so in the same.
        let mut changes: Vec<_> = self.changes.into_iter().collect();
        changes.sort_unstable_by_key(|(key, _)| *key);
        let merged: Vec<_> = changes.iter().filter(|(_, change)| change.merged).map(|(key, _)| *key).collect();
        let (made, moved): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, change)| change.first.is_some());
        make(connection, &made).await?;
        let mut uses = self.uses;
        for later in self.later {
            let (organization, webhook) = (OrganizationId::new(later.organization), WebhookId::new(later.webhook));
            if let Some(row) = find(&mut *connection, organization, webhook).await? {
                if !row.signature_valid {
                    note_verified(connection, &later).await?;
                }
                let secret = (later.organization, row.provider_id, later.secret_version);
                let last = uses.entry(secret).or_insert(later.at);
                *last = later.at.max(*last);
            }
        }
        update(connection, moved).await?;
        self.attempts.write(connection).await?;
        self.tally.write(connection).await?;
        note_uses(connection, uses).await?;
        remove_merged(connection, merged).await
    }
}

fn rejection(reason: RejectionReason, detail: &Label) -> String {
    format!("{}: {}", reason.as_str(), detail.as_str())
}

/// What was accepted unverified is genuine: from now on it counts.
async fn note_verified(connection: &mut PgConnection, later: &VerifiedLater) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with verified as (
             update webhook_logs set signature_valid = true
             where organization_id = $1 and webhook_id = $2 and not signature_valid and applied_position < $3
             returning organization_id
         )
         insert into webhook_counts as c (organization_id, month, accepted)
         select organization_id, date_trunc('month', $4 at time zone 'UTC')::date, 1 from verified
         on conflict (organization_id, month) do update set accepted = c.accepted + excluded.accepted",
    )
    .bind(later.organization)
    .bind(later.webhook)
    .bind(later.position)
    .bind(later.at)
    .execute(connection)
    .await
    .map(drop)
}

/// Another delivery of a webhook that has a row has none of its own.
async fn remove_merged(connection: &mut PgConnection, merged: Vec<(Uuid, Uuid)>) -> Result<(), sqlx::Error> {
    if merged.is_empty() {
        return Ok(());
    }
    let (organizations, webhooks): (Vec<Uuid>, Vec<Uuid>) = merged.into_iter().unzip();
    sqlx::query(
        "delete from webhook_logs w using unnest($1::uuid[], $2::uuid[]) as m (organization_id, webhook_id)
         where w.organization_id = m.organization_id and w.webhook_id = m.webhook_id",
    )
    .bind(organizations)
    .bind(webhooks)
    .execute(connection)
    .await
    .map(drop)
}

type Changed<'a> = ((Uuid, Uuid), Change<'a>);

/// Rows of webhooks whose first event is in the batch, and the count of those that are new.
async fn make(connection: &mut PgConnection, made: &[Changed<'_>]) -> Result<(), sqlx::Error> {
    if made.is_empty() {
        return Ok(());
    }
    let mut columns = Made::default();
    for (key, change) in made {
        columns.push(*key, change);
    }
    sqlx::query(
        "with written as (
             insert into webhook_logs as w
                 (organization_id, webhook_id, position, applied_position, provider_id, provider_event_id, event_type,
                  body_sha256, body_size, content_type, signature_received, signature_valid, status, retry_count,
                  error_message, received_at, updated_at, processed_at, next_retry_at, dead_lettered_at,
                  duplicate_count, body_differs, rejection, replay_key, suspected_replay)
             select n.*, n.replay_key is not null and exists (
                 select from webhook_logs o
                 where o.organization_id = n.organization_id and o.provider_id = n.provider_id
                   and o.replay_key = n.replay_key and o.position < n.position)
             from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::uuid[], $6::text[],
                 $7::text[], $8::text[], $9::bigint[], $10::text[], $11::text[], $12::bool[], $13::text[], $14::int[],
                 $15::text[], $16::timestamptz[], $17::timestamptz[], $18::timestamptz[], $19::timestamptz[],
                 $20::timestamptz[], $21::int[], $22::bool[], $23::text[], $24::uuid[])
                 as n (organization_id, webhook_id, position, applied_position, provider_id, provider_event_id,
                       event_type, body_sha256, body_size, content_type, signature_received, signature_valid, status,
                       retry_count, error_message, received_at, updated_at, processed_at, next_retry_at,
                       dead_lettered_at, duplicate_count, body_differs, rejection, replay_key)
             on conflict (organization_id, webhook_id) do update
             set applied_position = excluded.applied_position, status = excluded.status,
                 retry_count = excluded.retry_count, error_message = excluded.error_message,
                 updated_at = excluded.updated_at, processed_at = excluded.processed_at,
                 next_retry_at = excluded.next_retry_at, dead_lettered_at = excluded.dead_lettered_at,
                 duplicate_count = excluded.duplicate_count, body_differs = excluded.body_differs
             where w.applied_position < excluded.applied_position
             returning w.organization_id, w.received_at, w.position, w.status, w.signature_valid, (xmax = 0) as is_new
         ),
         opened as (
             insert into webhook_open (organization_id, received_at, position)
             select organization_id, received_at, position from written where status in ('pending', 'processing')
             on conflict do nothing
         )
         insert into webhook_counts as c (organization_id, month, accepted)
         select organization_id, date_trunc('month', received_at at time zone 'UTC')::date, count(*)
         from written where is_new and signature_valid
         group by 1, 2 order by 1, 2
         on conflict (organization_id, month) do update set accepted = c.accepted + excluded.accepted",
    )
    .bind(&columns.organization)
    .bind(&columns.webhook)
    .bind(&columns.position)
    .bind(&columns.last_position)
    .bind(&columns.provider)
    .bind(&columns.event_id)
    .bind(&columns.event_type)
    .bind(&columns.sha256)
    .bind(&columns.size)
    .bind(&columns.content_type)
    .bind(&columns.signature)
    .bind(&columns.valid)
    .bind(&columns.state.status)
    .bind(&columns.state.retry_count)
    .bind(&columns.state.error)
    .bind(&columns.received_at)
    .bind(&columns.updated_at)
    .bind(&columns.state.processed_at)
    .bind(&columns.state.next_retry_at)
    .bind(&columns.state.dead_lettered_at)
    .bind(&columns.duplicates)
    .bind(&columns.body_differs)
    .bind(&columns.rejection)
    .bind(&columns.replay_key)
    .execute(&mut *connection)
    .await?;
    flag_replays_within(connection, &columns).await
}

/// A statement does not see the rows that it inserts: replays of the same batch are found here.
async fn flag_replays_within(connection: &mut PgConnection, columns: &Made<'_>) -> Result<(), sqlx::Error> {
    let mut earliest: HashMap<(Uuid, Uuid, Uuid), i64> = HashMap::new();
    let keyed = || {
        let keys = columns.replay_key.iter().zip(columns.organization.iter().zip(&columns.provider));
        let keys = keys.map(|(key, (organization, provider))| key.map(|key| (*organization, *provider, key)));
        keys.zip(&columns.position).zip(&columns.webhook).filter_map(|((key, at), webhook)| Some((key?, *at, *webhook)))
    };
    for (key, at, _) in keyed() {
        earliest.entry(key).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }
    let replays = keyed().filter(|(key, at, _)| earliest.get(key).is_some_and(|first| first < at));
    let (organizations, webhooks): (Vec<Uuid>, Vec<Uuid>) = replays.map(|(key, _, webhook)| (key.0, webhook)).unzip();
    if webhooks.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update webhook_logs w set suspected_replay = true
         from unnest($1::uuid[], $2::uuid[]) as n (organization_id, webhook_id)
         where w.organization_id = n.organization_id and w.webhook_id = n.webhook_id and not w.suspected_replay",
    )
    .bind(organizations)
    .bind(webhooks)
    .execute(connection)
    .await
    .map(drop)
}

/// GitHub signs bodies, and neither ids nor times: a body that comes again under another id may be
/// somebody's recording. The first half of its digest tells bodies apart.
fn replay_key(first: &First<'_>) -> Option<Uuid> {
    let applies = first.valid && first.receipt.provider == ProviderName::Github;
    let half = first.receipt.body_sha256.get(..32).filter(|_| applies)?;
    u128::from_str_radix(half, 16).ok().map(Uuid::from_u128)
}

#[derive(Default)]
struct Made<'a> {
    organization: Vec<Uuid>,
    webhook: Vec<Uuid>,
    position: Vec<i64>,
    last_position: Vec<i64>,
    provider: Vec<Uuid>,
    event_id: Vec<Option<&'a str>>,
    event_type: Vec<Option<&'a str>>,
    sha256: Vec<&'a str>,
    size: Vec<i64>,
    content_type: Vec<Option<&'a str>>,
    signature: Vec<Option<&'a str>>,
    valid: Vec<bool>,
    received_at: Vec<DateTime<Utc>>,
    updated_at: Vec<DateTime<Utc>>,
    duplicates: Vec<i32>,
    body_differs: Vec<bool>,
    rejection: Vec<Option<&'static str>>,
    replay_key: Vec<Option<Uuid>>,
    state: States,
}

impl<'a> Made<'a> {
    fn push(&mut self, (organization, webhook): (Uuid, Uuid), change: &Change<'a>) {
        let Some(first) = &change.first else { return };
        let First { receipt, position, at, valid, rejection } = first;
        self.organization.push(organization);
        self.webhook.push(webhook);
        self.position.push(*position);
        self.last_position.push(change.last_position);
        self.provider.push(receipt.provider_id.uuid());
        self.event_id.push(receipt.provider_event_id.as_ref().map(Label::as_str));
        self.event_type.push(receipt.event_type.as_ref().map(Label::as_str));
        self.sha256.push(&receipt.body_sha256);
        self.size.push(i64::try_from(receipt.body_size).unwrap_or(i64::MAX));
        self.content_type.push(receipt.content_type.as_ref().map(Label::as_str));
        self.signature.push(receipt.signature.as_ref().map(Label::as_str));
        self.valid.push(*valid);
        self.received_at.push(*at);
        self.updated_at.push(change.last_at);
        self.duplicates.push(count(&change.duplicates));
        self.body_differs.push(change.duplicates.iter().any(|(_, differs)| *differs));
        self.rejection.push(rejection.map(RejectionReason::as_str));
        self.replay_key.push(replay_key(first));
        self.state.push(change.state.as_ref());
    }
}

fn count(duplicates: &[(i64, bool)]) -> i32 {
    i32::try_from(duplicates.len()).unwrap_or(i32::MAX)
}

#[derive(Default)]
struct States {
    status: Vec<Option<&'static str>>,
    retry_count: Vec<Option<i32>>,
    error: Vec<Option<String>>,
    rejection: Vec<Option<&'static str>>,
    keeps_error: Vec<bool>,
    processed_at: Vec<Option<DateTime<Utc>>>,
    next_retry_at: Vec<Option<DateTime<Utc>>>,
    dead_lettered_at: Vec<Option<DateTime<Utc>>>,
}

impl States {
    fn push(&mut self, state: Option<&State>) {
        self.status.push(state.map(|state| state.status.as_str()));
        self.retry_count.push(state.map(|state| state.retry_count));
        self.error.push(state.and_then(|state| state.error.clone()));
        self.rejection.push(state.and_then(|state| state.rejection).map(RejectionReason::as_str));
        self.keeps_error.push(state.is_none_or(|state| state.keeps_error));
        self.processed_at.push(state.and_then(|state| state.processed_at));
        self.next_retry_at.push(state.and_then(|state| state.next_retry_at));
        self.dead_lettered_at.push(state.and_then(|state| state.dead_lettered_at));
    }
}

/// Rows that were made by an earlier batch.
async fn update(connection: &mut PgConnection, mut moved: Vec<Changed<'_>>) -> Result<(), sqlx::Error> {
    if moved.is_empty() {
        return Ok(());
    }
    drop_counted_duplicates(connection, &mut moved).await?;
    let (mut organizations, mut webhooks, mut positions, mut at) = (vec![], vec![], vec![], vec![]);
    let (mut duplicates, mut differs, mut states) = (vec![], vec![], States::default());
    for ((organization, webhook), change) in &moved {
        organizations.push(*organization);
        webhooks.push(*webhook);
        positions.push(change.last_position);
        at.push(change.last_at);
        duplicates.push(count(&change.duplicates));
        differs.push(change.duplicates.iter().any(|(_, differs)| *differs));
        states.push(change.state.as_ref());
    }
    sqlx::query(
        "with moved as (
         update webhook_logs w
         set applied_position = n.last_position, updated_at = n.last_at,
             duplicate_count = w.duplicate_count + n.duplicates, body_differs = w.body_differs or n.differs,
             status = coalesce(n.status, w.status), retry_count = coalesce(n.retry_count, w.retry_count),
             error_message = case when n.keeps_error then w.error_message else n.error end,
             rejection = coalesce(n.rejection, w.rejection),
             processed_at = case when n.status is null then w.processed_at else n.processed_at end,
             next_retry_at = case when n.status is null then w.next_retry_at else n.next_retry_at end,
             dead_lettered_at = case when n.status is null then w.dead_lettered_at else n.dead_lettered_at end
         from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::timestamptz[], $5::int[], $6::bool[], $7::text[],
                     $8::int[], $9::text[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::bool[],
                     $14::text[])
              as n (organization_id, webhook_id, last_position, last_at, duplicates, differs, status,
                    retry_count, error, processed_at, next_retry_at, dead_lettered_at, keeps_error, rejection)
         where w.organization_id = n.organization_id and w.webhook_id = n.webhook_id
           and w.applied_position < n.last_position
         returning w.organization_id, w.received_at, w.position, w.status in ('pending', 'processing') as is_open
         ),
         closed as (
             delete from webhook_open o using moved m
             where (o.organization_id, o.received_at, o.position) = (m.organization_id, m.received_at, m.position)
               and not m.is_open
         )
         insert into webhook_open (organization_id, received_at, position)
         select organization_id, received_at, position from moved where is_open
         on conflict do nothing",
    )
    .bind(organizations)
    .bind(webhooks)
    .bind(positions)
    .bind(at)
    .bind(duplicates)
    .bind(differs)
    .bind(&states.status)
    .bind(&states.retry_count)
    .bind(&states.error)
    .bind(&states.processed_at)
    .bind(&states.next_retry_at)
    .bind(&states.dead_lettered_at)
    .bind(&states.keeps_error)
    .bind(&states.rejection)
    .execute(connection)
    .await
    .map(drop)
}

/// A replay may begin in the middle of what a row has seen: duplicates it counted are dropped.
async fn drop_counted_duplicates(connection: &mut PgConnection, moved: &mut [Changed<'_>]) -> Result<(), sqlx::Error> {
    let with_duplicates = moved.iter().filter(|(_, change)| !change.duplicates.is_empty());
    let (organizations, webhooks): (Vec<Uuid>, Vec<Uuid>) = with_duplicates.map(|(key, _)| *key).unzip();
    if webhooks.is_empty() {
        return Ok(());
    }
    let rows: Vec<(Uuid, Uuid, i64)> = sqlx::query_as(
        "select w.organization_id, w.webhook_id, w.applied_position
         from webhook_logs w join unnest($1::uuid[], $2::uuid[]) as n (organization_id, webhook_id)
              using (organization_id, webhook_id)",
    )
    .bind(organizations)
    .bind(webhooks)
    .fetch_all(connection)
    .await?;
    let applied: HashMap<(Uuid, Uuid), i64> = rows.into_iter().map(|(o, w, position)| ((o, w), position)).collect();
    for (key, change) in moved {
        if let Some(applied) = applied.get(key) {
            change.duplicates.retain(|(position, _)| position > applied);
        }
    }
    Ok(())
}

async fn note_uses(
    connection: &mut PgConnection,
    uses: BTreeMap<(Uuid, Uuid, u32), DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    if uses.is_empty() {
        return Ok(());
    }
    let (mut organizations, mut providers, mut versions, mut at) = (vec![], vec![], vec![], vec![]);
    for ((organization, provider, version), used_at) in uses {
        organizations.push(organization);
        providers.push(provider);
        versions.push(version.cast_signed());
        at.push(used_at);
    }
    sqlx::query(
        "insert into provider_secret_uses as u (organization_id, provider_id, version, last_used_at)
         select * from unnest($1::uuid[], $2::uuid[], $3::int[], $4::timestamptz[])
         on conflict (organization_id, provider_id, version) do update
         set last_used_at = greatest(u.last_used_at, excluded.last_used_at)",
    )
    .bind(organizations)
    .bind(providers)
    .bind(versions)
    .bind(at)
    .execute(connection)
    .await
    .map(drop)
}
