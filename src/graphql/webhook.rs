//! A webhook: its row, its raw request, its attempts, and its own events in order.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::dataloader::{DataLoader, Loader};
use async_graphql::{
    Context, Enum, Error, ID, InputObject, InputValueError, InputValueResult, Json, Object, Scalar, ScalarType,
    SimpleObject, Value,
};
use base64::Engine as _;
use chrono::{DateTime, Utc};
use hookledger_aggregates::{Actor, OrganizationId, ProviderId, RecordedEvent as Recorded, WebhookId};
use hookledger_projections::{webhook_logs, webhook_providers, webhook_retries};
use sqlx::PgPool;
use uuid::Uuid;

use super::context::App;
use super::errors::{Code, internal};
use super::ids::NodeId;
use super::provider::WebhookProvider;
use crate::log::RawRequest;

/// Bodies above this are parsed off the threads that serve everybody.
const LARGE_BODY: i64 = 256 << 10;
/// Events of one webhook that are shown.
const MAX_EVENTS: i64 = 1_000;

/// Where a webhook stands.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "webhook_logs::WebhookStatus")]
pub enum WebhookStatus {
    Pending,
    Processing,
    Success,
    Failed,
}

/// Which webhooks; what is left out does not matter.
#[derive(Default, InputObject)]
pub struct WebhookFilter {
    provider_id: Option<ID>,
    status: Option<Vec<WebhookStatus>>,
    event_type: Option<String>,
    signature_valid: Option<bool>,
    dead_lettered: Option<bool>,
    /// Received then or later.
    received_from: Option<DateTime<Utc>>,
    /// Received before then.
    received_to: Option<DateTime<Utc>>,
    /// A webhook id, or the beginning of a provider's event id or of an event type.
    text: Option<String>,
}

impl WebhookFilter {
    pub(super) fn checked(self, organization: OrganizationId) -> Result<webhook_logs::WebhookFilter, Error> {
        let provider = match self.provider_id.as_ref().map(NodeId::decode) {
            None => None,
            Some(Some(NodeId::Provider(owner, provider))) if owner == organization => Some(provider),
            Some(_) => {
                return Err(Code::BadUserInput.error("providerId is not the id of a provider of this organization"));
            }
        };
        // PostgreSQL's text holds no U+0000, so nothing can match it.
        let storable = |text: &Option<String>| text.as_ref().is_none_or(|text| !text.contains('\0'));
        if !storable(&self.event_type) || !storable(&self.text) {
            return Err(Code::BadUserInput.error("a filter holds no U+0000"));
        }
        Ok(webhook_logs::WebhookFilter {
            provider,
            status: self.status.map(|all| all.into_iter().map(webhook_logs::WebhookStatus::from).collect()),
            event_type: self.event_type,
            signature_valid: self.signature_valid,
            dead_lettered: self.dead_lettered,
            received_from: self.received_from,
            received_to: self.received_to,
            text: self.text.filter(|text| !text.is_empty()),
        })
    }
}

/// A place in the log, written `partition:position`.
#[derive(Clone, Copy)]
pub struct LogPosition {
    pub(super) partition: i32,
    pub(super) position: i64,
}

/// A place in the log, written `partition:position`.
#[Scalar]
impl ScalarType for LogPosition {
    fn parse(value: Value) -> InputValueResult<Self> {
        let parsed = match &value {
            Value::String(text) => text.split_once(':').and_then(|(partition, position)| {
                Some(Self { partition: partition.parse().ok()?, position: position.parse().ok()? })
            }),
            _ => None,
        };
        parsed.ok_or_else(|| InputValueError::expected_type(value))
    }

    fn to_value(&self) -> Value {
        Value::from(format!("{}:{}", self.partition, self.position))
    }
}

/// A header as it was received.
#[derive(SimpleObject)]
pub struct Header {
    name: String,
    value: String,
}

/// One try at processing.
#[derive(Clone, SimpleObject)]
pub struct Attempt {
    /// 1 is the first try, 2 to 4 are retries 1 to 3.
    attempt_number: i32,
    attempted_at: DateTime<Utc>,
    /// While null, it runs.
    ended_at: Option<DateTime<Utc>>,
    succeeded: Option<bool>,
    status_code: Option<i32>,
    duration_ms: Option<i64>,
    error_details: Option<String>,
}

/// An attempt after the first.
#[derive(SimpleObject)]
pub struct WebhookRetry {
    attempt_number: i32,
    attempted_at: DateTime<Utc>,
    error_details: Option<String>,
}

impl From<&webhook_retries::WebhookAttempt> for Attempt {
    fn from(row: &webhook_retries::WebhookAttempt) -> Self {
        Self {
            attempt_number: row.attempt_number,
            attempted_at: row.attempted_at,
            ended_at: row.ended_at,
            succeeded: row.succeeded,
            status_code: row.status_code,
            duration_ms: row.duration_ms,
            error_details: row.error_details.clone(),
        }
    }
}

/// An event as the log holds it.
#[derive(SimpleObject)]
pub struct RecordedEvent {
    position: LogPosition,
    aggregate_type: &'static str,
    aggregate_id: Uuid,
    sequence: i64,
    event_type: &'static str,
    payload: Json<serde_json::Value>,
    /// `system`, `sender`, or `user`.
    actor: &'static str,
    user_id: Option<Uuid>,
    /// The client's address.
    client: Option<String>,
    recorded_at: DateTime<Utc>,
}

impl TryFrom<Recorded> for RecordedEvent {
    type Error = Error;
    fn try_from(recorded: Recorded) -> Result<Self, Error> {
        let (aggregate_type, event_type, payload) = recorded.event.stored().map_err(internal)?;
        let (actor, user_id) = match recorded.metadata.actor {
            Actor::System => ("system", None),
            Actor::Sender => ("sender", None),
            Actor::User(user) => ("user", Some(user.uuid())),
        };
        Ok(Self {
            position: LogPosition { partition: recorded.partition.number(), position: recorded.position },
            aggregate_type,
            aggregate_id: recorded.aggregate_id,
            sequence: recorded.sequence,
            event_type,
            payload: Json(serde_json::from_str(&payload).map_err(internal)?),
            actor,
            user_id,
            client: recorded.metadata.client,
            recorded_at: recorded.recorded_at,
        })
    }
}

/// One delivery from a provider, accepted or rejected.
pub struct Webhook(pub(super) webhook_logs::WebhookLog);

impl Webhook {
    fn organization(&self) -> OrganizationId {
        OrganizationId::new(self.0.organization_id)
    }

    fn id_(&self) -> WebhookId {
        WebhookId::new(self.0.webhook_id)
    }

    async fn raw(&self, context: &Context<'_>) -> Result<Option<RawRequest>, Error> {
        App::of(context)?.reader.body(self.organization(), self.id_()).await.map_err(internal)
    }

    async fn attempt_rows(&self, context: &Context<'_>) -> Result<Vec<webhook_retries::WebhookAttempt>, Error> {
        let loader = context.data::<DataLoader<Rows>>()?;
        let key = AttemptsOf(self.organization(), self.id_());
        Ok(loader.load_one(key).await.map_err(internal)?.unwrap_or_default())
    }
}

#[Object]
impl Webhook {
    pub(super) async fn id(&self) -> ID {
        NodeId::Webhook(self.organization(), self.id_()).encode()
    }
    /// The id that its sender was answered.
    async fn webhook_id(&self) -> Uuid {
        self.0.webhook_id
    }
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.received_at
    }
    async fn updated_at(&self) -> DateTime<Utc> {
        self.0.updated_at
    }
    async fn provider(&self, context: &Context<'_>) -> Result<WebhookProvider, Error> {
        let loader = context.data::<DataLoader<Rows>>()?;
        let key = ProviderOf(self.organization(), ProviderId::new(self.0.provider_id));
        let row = loader.load_one(key).await.map_err(internal)?;
        row.map(WebhookProvider).ok_or_else(|| internal("a webhook's provider has no row"))
    }
    /// The provider's own id of the event.
    async fn provider_event_id(&self) -> Option<&str> {
        self.0.provider_event_id.as_deref()
    }
    /// The provider's own name of the event, like `push`.
    async fn event_type(&self) -> Option<&str> {
        self.0.event_type.as_deref()
    }
    /// The body, where it is JSON and is still kept.
    async fn payload(&self, context: &Context<'_>) -> Result<Option<Json<serde_json::Value>>, Error> {
        let Some(raw) = self.raw(context).await? else { return Ok(None) };
        let parse = move || serde_json::from_slice(&raw.body).ok().map(Json);
        if self.0.body_size > LARGE_BODY {
            return tokio::task::spawn_blocking(parse).await.map_err(internal);
        }
        Ok(parse())
    }
    /// The body as text, where it is UTF-8 and is still kept.
    async fn raw_body(&self, context: &Context<'_>) -> Result<Option<String>, Error> {
        Ok(self.raw(context).await?.and_then(|raw| String::from_utf8(raw.body).ok()))
    }
    /// The bytes of the body, in base64, while they are kept.
    async fn raw_body_base64(&self, context: &Context<'_>) -> Result<Option<String>, Error> {
        let raw = self.raw(context).await?;
        Ok(raw.map(|raw| base64::engine::general_purpose::STANDARD.encode(raw.body)))
    }
    /// SHA-256 of the body, in hex.
    async fn body_sha256(&self) -> &str {
        &self.0.body_sha256
    }
    /// Bytes.
    async fn body_size(&self) -> i64 {
        self.0.body_size
    }
    async fn content_type(&self) -> Option<&str> {
        self.0.content_type.as_deref()
    }
    /// As received, but for `authorization` and `cookie`.
    async fn headers(&self, context: &Context<'_>) -> Result<Vec<Header>, Error> {
        let pairs = self.raw(context).await?.map(|raw| raw.header_pairs()).unwrap_or_default();
        Ok(pairs.into_iter().map(|(name, value)| Header { name, value }).collect())
    }
    async fn signature_received(&self) -> Option<&str> {
        self.0.signature_received.as_deref()
    }
    async fn signature_valid(&self) -> bool {
        self.0.signature_valid
    }
    async fn status(&self) -> Result<WebhookStatus, Error> {
        self.0.status().map(WebhookStatus::from).map_err(internal)
    }
    /// Automatic retries so far, 0 to 3.
    async fn retry_count(&self) -> i32 {
        self.0.retry_count
    }
    async fn can_retry(&self) -> bool {
        self.0.signature_valid && self.0.retry_count < webhook_logs::MAX_RETRIES
    }
    async fn error_message(&self) -> Option<&str> {
        self.0.error_message.as_deref()
    }
    async fn received_at(&self) -> DateTime<Utc> {
        self.0.received_at
    }
    async fn processed_at(&self) -> Option<DateTime<Utc>> {
        self.0.processed_at
    }
    async fn next_retry_at(&self) -> Option<DateTime<Utc>> {
        self.0.next_retry_at
    }
    async fn dead_lettered_at(&self) -> Option<DateTime<Utc>> {
        self.0.dead_lettered_at
    }
    /// Further deliveries of the same event.
    async fn duplicate_count(&self) -> i32 {
        self.0.duplicate_count
    }
    /// A duplicate came with another body.
    async fn body_differs(&self) -> bool {
        self.0.body_differs
    }
    /// Every try at processing, the first included.
    async fn attempts(&self, context: &Context<'_>) -> Result<Vec<Attempt>, Error> {
        Ok(self.attempt_rows(context).await?.iter().map(Attempt::from).collect())
    }
    /// The tries after the first.
    async fn retries(&self, context: &Context<'_>) -> Result<Vec<WebhookRetry>, Error> {
        let rows = self.attempt_rows(context).await?;
        Ok(rows
            .into_iter()
            .filter(|row| row.attempt_number > 1)
            .map(|row| WebhookRetry {
                attempt_number: row.attempt_number,
                attempted_at: row.attempted_at,
                error_details: row.error_details,
            })
            .collect())
    }
    /// What the log says of this webhook, in order, from its beginning.
    async fn events(&self, context: &Context<'_>) -> Result<Vec<RecordedEvent>, Error> {
        let reader = &App::of(context)?.reader;
        let stream = reader.stream(self.organization(), "webhook", self.0.webhook_id, MAX_EVENTS).await;
        stream.map_err(internal)?.into_iter().map(RecordedEvent::try_from).collect()
    }
}

/// Loads what many webhooks of one answer have in common, once.
pub struct Rows(pub PgPool);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ProviderOf(OrganizationId, ProviderId);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct AttemptsOf(OrganizationId, WebhookId);

impl Loader<ProviderOf> for Rows {
    type Value = webhook_providers::WebhookProvider;
    type Error = Arc<sqlx::Error>;

    async fn load(&self, keys: &[ProviderOf]) -> Result<HashMap<ProviderOf, Self::Value>, Self::Error> {
        let mut found = HashMap::new();
        for (organization, ids) in by_organization(keys.iter().map(|key| (key.0, key.1))) {
            for row in webhook_providers::find_many(&self.0, organization, &ids).await? {
                found.insert(ProviderOf(organization, ProviderId::new(row.id)), row);
            }
        }
        Ok(found)
    }
}

impl Loader<AttemptsOf> for Rows {
    type Value = Vec<webhook_retries::WebhookAttempt>;
    type Error = Arc<sqlx::Error>;

    async fn load(&self, keys: &[AttemptsOf]) -> Result<HashMap<AttemptsOf, Self::Value>, Self::Error> {
        let mut found: HashMap<AttemptsOf, Self::Value> = HashMap::new();
        for (organization, ids) in by_organization(keys.iter().map(|key| (key.0, key.1))) {
            for row in webhook_retries::of_webhooks(&self.0, organization, &ids).await? {
                found.entry(AttemptsOf(organization, WebhookId::new(row.webhook_id))).or_default().push(row);
            }
        }
        Ok(found)
    }
}

fn by_organization<I>(keys: impl Iterator<Item = (OrganizationId, I)>) -> HashMap<OrganizationId, Vec<I>> {
    let mut groups: HashMap<OrganizationId, Vec<I>> = HashMap::new();
    keys.for_each(|(organization, id)| groups.entry(organization).or_default().push(id));
    groups
}
