//! A webhook: its row, its raw request, its attempts, and its own events in order.

use std::sync::Arc;

use async_graphql::{
    ComplexObject, Context, Enum, Error, ID, InputObject, InputValueError, InputValueResult, Json, Object, Scalar,
    ScalarType, SimpleObject, Value,
};
use base64::Engine as _;
use chrono::{DateTime, Utc};
use hookledger_aggregates::provider::Destination;
use hookledger_aggregates::webhook::{PENDING_TIMEOUT, WebhookEvent};
use hookledger_aggregates::{Actor, Event, OrganizationId, ProviderId, RecordedEvent as Recorded, WebhookId};
use hookledger_projections::{summaries, webhook_logs, webhook_providers, webhook_retries};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::allowance::Allowance;
use super::context::{Viewer, tenant};
use super::duplicates::DuplicateBody;
use super::errors::{Code, internal, unread};
use super::ids::NodeId;
use super::provider::WebhookProvider;
use super::retention::BodyRemoval;
use super::rows::{AttemptsOf, BodyOf, DestinationsOf, EventsOf, HeadersOf, ProviderOf, ResponsesOf, WaitOf, load};
use super::shown::shown;
use super::time::Time;
use crate::deliver;
use crate::directory::Hold;
use crate::log::{self, streams_of};

/// Bodies above this are parsed off the threads that serve everybody.
const LARGE_BODY: i64 = 256 << 10;
/// Bytes of a text to look for.
const MAX_TEXT: usize = 1_000;
/// Providers and types that a filter names.
const MAX_PROVIDERS: usize = 20;
const MAX_TYPES: usize = 50;
/// A larger body is not shown parsed.
const MAX_PARSED: i64 = 4 << 20;
/// A body that is shown as JSON is copied so many times on the way.
const SHOWN_WEIGHT: i64 = 4;

/// Where a webhook stands.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "webhook_logs::WebhookStatus")]
pub enum WebhookStatus {
    Pending,
    Processing,
    Success,
    Failed,
}

/// What a webhook waits for before its next attempt.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub enum WebhookWait {
    /// The destination was removed. Add one to deliver the webhook.
    DestinationRemoved,
    /// The provider was deleted. Connect it again, with a destination, to deliver the webhook.
    ProviderDeleted,
    /// The provider is disabled. Enable it to deliver the webhook.
    ProviderDisabled,
    /// The organization is disabled. Enable it to deliver the webhook.
    OrganizationDisabled,
    /// A secret of the provider cannot be opened. Set new ones to deliver the webhook.
    SecretUnreadable,
    /// The destination takes no more attempts at the same time.
    Concurrency,
    /// The destination stopped answering. It is tried again with one attempt at a time.
    CircuitOpen,
}

impl From<deliver::Wait> for WebhookWait {
    fn from(wait: deliver::Wait) -> Self {
        match wait {
            deliver::Wait::Held(Hold::DestinationRemoved) => Self::DestinationRemoved,
            deliver::Wait::Held(Hold::ProviderDeleted) => Self::ProviderDeleted,
            deliver::Wait::Held(Hold::ProviderDisabled) => Self::ProviderDisabled,
            deliver::Wait::Held(Hold::OrganizationDisabled) => Self::OrganizationDisabled,
            deliver::Wait::Held(Hold::SecretUnreadable) => Self::SecretUnreadable,
            deliver::Wait::Busy(deliver::BusyReason::Concurrency) => Self::Concurrency,
            deliver::Wait::Busy(deliver::BusyReason::CircuitOpen) => Self::CircuitOpen,
        }
    }
}

/// Which webhooks; what is left out does not matter.
#[derive(Default, InputObject)]
pub struct WebhookFilter {
    provider_id: Option<ID>,
    /// Of any of these; at most 20.
    provider_ids: Option<Vec<ID>>,
    status: Option<Vec<WebhookStatus>>,
    event_type: Option<String>,
    /// Any of these; at most 50.
    event_types: Option<Vec<String>>,
    /// What went wrong last, word for word.
    error_message: Option<String>,
    signature_valid: Option<bool>,
    dead_lettered: Option<bool>,
    /// A duplicate came with another body.
    body_differs: Option<bool>,
    /// Its body came before, under another id that is not signed.
    suspected_replay: Option<bool>,
    /// A person sent it to try the provider.
    is_test: Option<bool>,
    /// Anything about it is suspicious.
    flagged: Option<bool>,
    /// Received then or later.
    received_from: Option<Time>,
    /// Received before then.
    received_to: Option<Time>,
    /// A webhook id or a provider's event id; or the beginning of a provider's event id or of an event
    /// type, or text anywhere in a body of up to 1 MiB, byte for byte. Ids are found wherever they are;
    /// all else is looked for in the newest 10,000 webhooks of the page that the other filters leave.
    /// Where those do not fill the page, `searchedTo` tells how far it looked.
    text: Option<String>,
}

impl WebhookFilter {
    pub(super) fn checked(self, organization: OrganizationId) -> Result<webhook_logs::WebhookFilter, Error> {
        let provider = provider_of(organization, self.provider_id.as_ref())?;
        // PostgreSQL's text holds no U+0000, so nothing can match it.
        let single = [&self.event_type, &self.error_message, &self.text].into_iter().flatten();
        if single.chain(self.event_types.iter().flatten()).any(|text| text.contains('\0')) {
            return Err(Code::BadUserInput.error("A filter can't contain U+0000."));
        }
        if self.text.as_ref().is_some_and(|text| text.len() > MAX_TEXT) {
            return Err(Code::BadUserInput.error(format!("A filter's text can be at most {MAX_TEXT} bytes.")));
        }
        if self.provider_ids.as_ref().is_some_and(|ids| ids.len() > MAX_PROVIDERS) {
            return Err(Code::BadUserInput.error(format!("`providerIds` can have at most {MAX_PROVIDERS} IDs.")));
        }
        if self.event_types.as_ref().is_some_and(|types| types.len() > MAX_TYPES) {
            return Err(Code::BadUserInput.error(format!("`eventTypes` can have at most {MAX_TYPES} names.")));
        }
        let one_of =
            |ids: Vec<ID>| ids.iter().filter_map(|id| provider_of(organization, Some(id)).transpose()).collect();
        let providers: Option<Vec<ProviderId>> = self.provider_ids.map(one_of).transpose()?;
        Ok(webhook_logs::WebhookFilter {
            provider,
            providers,
            status: self.status.map(|all| all.into_iter().map(webhook_logs::WebhookStatus::from).collect()),
            event_type: self.event_type,
            event_types: self.event_types,
            error_message: self.error_message,
            signature_valid: self.signature_valid,
            dead_lettered: self.dead_lettered,
            body_differs: self.body_differs,
            suspected_replay: self.suspected_replay,
            is_test: self.is_test,
            flagged: self.flagged,
            received_from: self.received_from.map(|from| from.0),
            received_to: self.received_to.map(|to| to.0),
            text: self.text.filter(|text| !text.is_empty()),
        })
    }
}

/// The provider that an argument names, which is one of this organization.
pub(super) fn provider_of(organization: OrganizationId, id: Option<&ID>) -> Result<Option<ProviderId>, Error> {
    match id.map(NodeId::decode) {
        None => Ok(None),
        Some(Some(NodeId::Provider(owner, provider))) if owner == organization => Ok(Some(provider)),
        Some(_) => Err(Code::BadUserInput.error("`providerId` isn't a provider of this organization.")),
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
                let place = Self { partition: partition.parse().ok()?, position: position.parse().ok()? };
                // None is before the first, and one more is a number still.
                (place.position >= 0 && place.position < i64::MAX).then_some(place)
            }),
            _ => None,
        };
        parsed.ok_or_else(|| InputValueError::expected_type(value))
    }

    fn to_value(&self) -> Value {
        Value::from(self.to_string())
    }
}

impl std::fmt::Display for LogPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.partition, self.position)
    }
}

/// A header as it was received.
#[derive(SimpleObject)]
pub struct Header {
    name: String,
    value: String,
}

impl Header {
    pub(super) fn new(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), value: value.to_owned() }
    }

    /// Those of the request at that position, while they are kept.
    pub(super) async fn all_of(
        context: &Context<'_>,
        organization: OrganizationId,
        position: i64,
    ) -> Result<Vec<Self>, Error> {
        let pairs = load(context, HeadersOf(organization, position)).await?.unwrap_or_default();
        let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        Allowance::of(context)?.hold(3 * i64::try_from(bytes).map_err(internal)?)?;
        Ok(pairs.into_iter().map(|(name, value)| Self { name, value }).collect())
    }
}

/// A body as text, where it is UTF-8: counted as it is written, before it is copied.
pub(super) fn as_text(context: &Context<'_>, body: Option<Arc<Vec<u8>>>) -> Result<Option<String>, Error> {
    let Some(body) = body else { return Ok(None) };
    let Ok(text) = std::str::from_utf8(&body) else { return Ok(None) };
    Allowance::of(context)?.hold_text(text)?;
    Ok(Some(text.to_owned()))
}

/// A body in base64, counted before it is encoded.
pub(super) fn as_base64(context: &Context<'_>, body: Option<Arc<Vec<u8>>>) -> Result<Option<String>, Error> {
    let Some(body) = body else { return Ok(None) };
    // Four for three, as a value and as it is written; the body itself was counted.
    Allowance::of(context)?.hold(i64::try_from(body.len() / 3 * 5).map_err(internal)?)?;
    Ok(Some(base64::engine::general_purpose::STANDARD.encode(&*body)))
}

/// One try at processing.
#[derive(Clone, SimpleObject)]
#[graphql(complex)]
pub struct Attempt {
    #[graphql(skip)]
    of: (OrganizationId, WebhookId),
    /// Where the webhook's first event is.
    #[graphql(skip)]
    position: i64,
    /// 1 is the first try, 2 to 4 are retries 1 to 3.
    attempt_number: i32,
    attempted_at: DateTime<Utc>,
    /// While null, it runs.
    ended_at: Option<DateTime<Utc>>,
    succeeded: Option<bool>,
    status_code: Option<i32>,
    duration_ms: Option<i64>,
    error_details: Option<String>,
    #[graphql(skip)]
    provider: ProviderId,
}

/// An attempt after the first.
#[derive(SimpleObject)]
pub struct WebhookRetry {
    attempt_number: i32,
    attempted_at: DateTime<Utc>,
    error_details: Option<String>,
}

#[ComplexObject]
impl Attempt {
    /// Where it was sent, as the provider's destination stood when it began; null where there was none.
    async fn request_url(&self, context: &Context<'_>) -> Result<Option<String>, Error> {
        Ok(self.destination(context).await?.map(|destination| destination.url))
    }

    /// Names of the headers that it was sent with, the destination's own among them, and the sender's while the
    /// request is kept. Values are not kept: they are secrets and signatures.
    async fn request_header_names(&self, context: &Context<'_>) -> Result<Vec<String>, Error> {
        let Some(destination) = self.destination(context).await? else { return Ok(Vec::new()) };
        let received = load(context, HeadersOf(self.of.0, self.position)).await?.unwrap_or_default();
        let received = received.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Ok(deliver::header_names(received, destination.original_signature, &destination.header_names))
    }

    /// The beginning of what the destination answered, 16 KiB at most, while it is kept; what is not
    /// UTF-8 is replaced.
    async fn response_excerpt(&self, context: &Context<'_>) -> Option<Result<String, Error>> {
        let excerpt = async {
            Allowance::of(context)?.body(MAX_EXCERPT, 1)?;
            let (organization, webhook) = self.of;
            let all = load(context, ResponsesOf(organization, webhook)).await?.unwrap_or_default();
            let mine = all.into_iter().find(|(attempt, _)| *attempt == self.attempt_number);
            let mine = mine.map(|(_, excerpt)| String::from_utf8_lossy(&excerpt).into_owned());
            mine.iter().try_for_each(|text| Allowance::of(context)?.hold_text(text))?;
            Ok(mine)
        };
        excerpt.await.transpose()
    }
}

impl Attempt {
    async fn destination(&self, context: &Context<'_>) -> Result<Option<Destination>, Error> {
        // A webhook that was only recorded, or that no worker took, was sent nowhere.
        let is_recorded = self.succeeded == Some(true) && self.status_code.is_none();
        if is_recorded || self.error_details.as_deref() == Some(PENDING_TIMEOUT) {
            return Ok(None);
        }
        let changes = load(context, DestinationsOf(self.of.0, self.provider)).await?.unwrap_or_default();
        let before = changes.iter().take_while(|(at, _)| *at <= self.attempted_at).last();
        Ok(before.and_then(|(_, destination)| destination.clone()))
    }

    fn new(
        of: (OrganizationId, WebhookId),
        position: i64,
        provider: ProviderId,
        row: &webhook_retries::WebhookAttempt,
    ) -> Self {
        Self {
            of,
            position,
            attempt_number: row.attempt_number,
            attempted_at: row.attempted_at,
            ended_at: row.ended_at,
            succeeded: row.succeeded,
            status_code: row.status_code,
            duration_ms: row.duration_ms,
            error_details: row.error_details.clone(),
            provider,
        }
    }
}

/// Bytes of an answer that are kept at most.
const MAX_EXCERPT: i64 = 16 << 10;

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
    /// For admins, and of oneself.
    user_id: Option<Uuid>,
    /// The client's address: a sender's; of users for admins, and one's own.
    client: Option<String>,
    recorded_at: DateTime<Utc>,
}

impl RecordedEvent {
    pub(super) fn place(&self) -> LogPosition {
        self.position
    }
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

/// Events of one webhook that are folded at most.
const MAX_SEQUENCE: i32 = 2_000;

/// Where a webhook stood after one of its events.
#[derive(SimpleObject)]
pub struct WebhookState {
    /// The event's place among the webhook's own.
    sequence: i64,
    /// When the event was recorded.
    at: DateTime<Utc>,
    signature_valid: bool,
    status: WebhookStatus,
    retry_count: i32,
    error_message: Option<String>,
    processed_at: Option<DateTime<Utc>>,
    next_retry_at: Option<DateTime<Utc>>,
    dead_lettered_at: Option<DateTime<Utc>>,
    duplicate_count: i32,
    body_differs: bool,
}

impl From<webhook_logs::WebhookState> for WebhookState {
    fn from(state: webhook_logs::WebhookState) -> Self {
        Self {
            sequence: state.sequence,
            at: state.at,
            signature_valid: state.signature_valid,
            status: state.status.into(),
            retry_count: state.retry_count,
            error_message: state.error_message,
            processed_at: state.processed_at,
            next_retry_at: state.next_retry_at,
            dead_lettered_at: state.dead_lettered_at,
            duplicate_count: state.duplicate_count,
            body_differs: state.body_differs,
        }
    }
}

/// One delivery from a provider, accepted or rejected.
pub struct Webhook(
    pub(super) webhook_logs::WebhookLog,
    /// Its provider, where a list looked it up for all of its rows.
    pub(super) Option<Arc<webhook_providers::WebhookProvider>>,
);

impl Webhook {
    pub(super) fn of(row: webhook_logs::WebhookLog) -> Self {
        Self(row, None)
    }

    fn organization(&self) -> OrganizationId {
        OrganizationId::new(self.0.organization_id)
    }

    fn id_(&self) -> WebhookId {
        WebhookId::new(self.0.webhook_id)
    }

    // Where these fail, as they may for bodies that are too large, `Some(Err(_))` makes that field null
    // and leaves the rest of the answer; an `Err` would take the list with it.

    /// The body, which counts so many times towards what one answer may load.
    async fn body(&self, context: &Context<'_>, weight: i64) -> Result<Option<Arc<Vec<u8>>>, Error> {
        Allowance::of(context)?.body(self.0.body_size, weight)?;
        load(context, BodyOf(self.organization(), self.0.position)).await
    }

    async fn parsed(&self, context: &Context<'_>) -> Result<Option<Json<Box<RawValue>>>, Error> {
        if self.0.body_size > MAX_PARSED {
            return Err(Code::LimitExceeded.error("Bodies above 4 MiB aren't parsed. Ask for rawBody."));
        }
        let Some(body) = self.body(context, SHOWN_WEIGHT).await? else { return Ok(None) };
        Allowance::of(context)?.hold(self.0.body_size.saturating_mul(2))?;
        let parse = move || shown(&body);
        if self.0.body_size > LARGE_BODY {
            return tokio::task::spawn_blocking(parse).await.map_err(internal);
        }
        Ok(parse())
    }

    async fn attempt_rows(&self, context: &Context<'_>) -> Result<Vec<webhook_retries::WebhookAttempt>, Error> {
        Ok(load(context, AttemptsOf(self.organization(), self.id_())).await?.unwrap_or_default())
    }
}

// Fields one after another: most are there already, and loaders gather across the rows of a list.
#[Object(serial)]
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
        if let Some(row) = &self.1 {
            return Ok(WebhookProvider((**row).clone()));
        }
        let row = load(context, ProviderOf(self.organization(), ProviderId::new(self.0.provider_id))).await?;
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
    /// The body, where it is JSON and is still kept, with the digits of its numbers. One above 4 MiB is shown
    /// as `rawBody` only.
    async fn payload(&self, context: &Context<'_>) -> Option<Result<Json<Box<RawValue>>, Error>> {
        self.parsed(context).await.transpose()
    }
    /// The body as text, where it is UTF-8 and is still kept.
    async fn raw_body(&self, context: &Context<'_>) -> Option<Result<String, Error>> {
        self.body(context, 1).await.and_then(|body| as_text(context, body)).transpose()
    }
    /// The bytes of the body, in base64, while they are kept.
    async fn raw_body_base64(&self, context: &Context<'_>) -> Option<Result<String, Error>> {
        self.body(context, 1).await.and_then(|body| as_base64(context, body)).transpose()
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
        Header::all_of(context, self.organization(), self.0.position).await
    }
    /// Why body and headers are not kept any more; null while they are. For at most 20 webhooks at once.
    async fn body_removal(&self, context: &Context<'_>) -> Option<Result<BodyRemoval, Error>> {
        let removal = async {
            Allowance::of(context)?.look_backs(1)?;
            let organization = self.organization();
            let place = log::LogPosition { partition: organization.partition(), position: self.0.position };
            let mut tenant = tenant(context, organization).await?;
            log::removal_of(&mut *tenant, organization, self.id_(), place).await.map_err(internal)
        };
        removal.await.map(|removal| removal.map(BodyRemoval::from)).transpose()
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
    /// Why its next attempt does not begin, where that is due; null where it waits for nothing but its
    /// turn. What waits is neither failed nor given up meanwhile.
    async fn waits_for(&self, context: &Context<'_>) -> Option<Result<WebhookWait, Error>> {
        let is_open = self.0.processed_at.is_none() && self.0.dead_lettered_at.is_none() && self.0.rejection.is_none();
        let wait = async {
            if !is_open {
                return Ok(None);
            }
            load(context, WaitOf(self.organization(), self.id_())).await
        };
        wait.await.map(|wait| wait.map(WebhookWait::from)).transpose()
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
    /// The bodies of its duplicates that differ from its own and from each other, the first 16 of them. For
    /// at most 4 webhooks at once.
    async fn duplicate_bodies(&self, context: &Context<'_>) -> Result<Vec<DuplicateBody>, Error> {
        if !self.0.body_differs {
            return Ok(Vec::new());
        }
        DuplicateBody::all_of(context, self.organization(), self.id_()).await
    }
    /// The webhook whose duplicate had this body, where somebody had that delivered. For at most 20
    /// webhooks at once.
    async fn duplicate_of(&self, context: &Context<'_>) -> Option<Result<Webhook, Error>> {
        let original = async {
            Allowance::of(context)?.look_backs(1)?;
            let (organization, ids) = (self.organization(), [self.id_()]);
            let mut tenant = tenant(context, organization).await?;
            let first = streams_of(&mut *tenant, organization, "webhook", &ids, 1, 1).await.map_err(unread)?;
            let Some(Event::Webhook(WebhookEvent::Received(receipt))) = first.first().map(|first| &first.event) else {
                return Ok(None);
            };
            let Some(original) = receipt.duplicate_of else { return Ok(None) };
            webhook_logs::find(&mut *tenant, organization, original).await.map_err(internal)
        };
        original.await.map(|row| row.map(Webhook::of)).transpose()
    }
    /// Its body came before, under another id that is not signed.
    async fn suspected_replay(&self) -> bool {
        self.0.suspected_replay
    }
    /// A person sent it to try the provider; the service did not.
    async fn is_test(&self) -> bool {
        self.0.is_test
    }
    /// Anything about it is suspicious: its body differs from a duplicate's, or came before under
    /// another id, or a transmission was replayed with another body.
    async fn flagged(&self) -> bool {
        self.0.is_flagged()
    }
    /// The code of why it was refused, like `signature_invalid`; null where it was accepted.
    async fn rejection(&self) -> Option<&str> {
        self.0.rejection.as_deref()
    }
    /// Every try at processing, the first included.
    async fn attempts(&self, context: &Context<'_>) -> Result<Vec<Attempt>, Error> {
        let of = (self.organization(), self.id_());
        let provider = ProviderId::new(self.0.provider_id);
        Ok(self
            .attempt_rows(context)
            .await?
            .iter()
            .map(|row| Attempt::new(of, self.0.position, provider, row))
            .collect())
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
    /// The accepted one of the same provider and event type that was received before it, where it is
    /// among the provider's last 2,000 before it: to compare them. For at most 20 webhooks at once.
    async fn previous_of_type(&self, context: &Context<'_>) -> Option<Result<Webhook, Error>> {
        let previous = async {
            Allowance::of(context)?.look_backs(1)?;
            let mut tenant = tenant(context, self.organization()).await?;
            summaries::previous_of_type(&mut *tenant, self.organization(), &self.0).await.map_err(unread)
        };
        previous.await.map(|row| row.map(Webhook::of)).transpose()
    }
    /// Where it stood right after the event of that sequence among its own, 1 to 2,000; null before its first.
    async fn state_at(&self, context: &Context<'_>, sequence: i32) -> Option<Result<WebhookState, Error>> {
        let state = async {
            if !(0..=MAX_SEQUENCE).contains(&sequence) {
                return Err(Code::BadUserInput.error(format!("A sequence must be between 1 and {MAX_SEQUENCE}.")));
            }
            let (limit, ids) = (i64::from(sequence), [self.id_()]);
            let mut tenant = tenant(context, self.organization()).await?;
            let events = streams_of(&mut *tenant, self.organization(), "webhook", &ids, limit, limit).await;
            Ok(webhook_logs::state_after(&events.map_err(unread)?).map(WebhookState::from))
        };
        state.await.transpose()
    }
    /// What the log says of this webhook, in order, from its beginning; at most 1,000 events.
    async fn events(&self, context: &Context<'_>) -> Result<Vec<RecordedEvent>, Error> {
        let events = load(context, EventsOf(self.organization(), self.id_())).await?.unwrap_or_default();
        let viewer = Viewer::of(context)?;
        let sees_people = viewer.manages(self.organization());
        let shown = |event: Recorded| {
            let event = RecordedEvent::try_from(event)?;
            let is_shown = sees_people || event.user_id.is_none_or(|user| user == viewer.user.id);
            Ok(if is_shown { event } else { RecordedEvent { user_id: None, client: None, ..event } })
        };
        events.into_iter().map(shown).collect()
    }
}
