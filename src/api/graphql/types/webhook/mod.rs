//! A webhook: its row, its request, its attempts, and its own events in order.

pub(crate) mod attempt;
pub(crate) mod event;
pub(crate) mod filter;
pub(crate) mod request;
pub(crate) mod status;

use std::sync::Arc;

use async_graphql::{Context, Error, ID, Json, Object};
use attempt::{Attempt, WebhookRetry};
use chrono::{DateTime, Utc};
use event::{RecordedEvent, WebhookState};
use hookledger_aggregates::webhook::WebhookEvent;
use hookledger_aggregates::{Event, OrganizationId, ProviderId, RecordedEvent as Recorded, WebhookId};
use hookledger_projections::{summaries, webhook_logs, webhook_providers, webhook_retries};
use request::{Header, as_base64, as_text};
use serde_json::value::RawValue;
use status::{WebhookStatus, WebhookWait};
use uuid::Uuid;

use crate::api::graphql::context::tenant;
use crate::api::graphql::errors::{Code, internal, unread};
use crate::api::graphql::guards::allowance::Allowance;
use crate::api::graphql::guards::rights::Viewer;
use crate::api::graphql::rows::{AttemptsOf, BodyOf, EventsOf, ProviderOf, WaitOf, load};
use crate::api::graphql::types::duplicate::DuplicateBody;
use crate::api::graphql::types::ids::NodeId;
use crate::api::graphql::types::provider::WebhookProvider;
use crate::api::graphql::types::removal::BodyRemoval;
use crate::api::graphql::types::shown::shown;
use crate::log::{self, streams_of};

/// Bodies above this are parsed off the threads that serve everybody.
const LARGE_BODY: i64 = 256 << 10;
/// A larger body is not shown parsed.
const MAX_PARSED: i64 = 4 << 20;
/// A body that is shown as JSON is copied so many times on the way.
const SHOWN_WEIGHT: i64 = 4;
/// Events of one webhook that are folded at most.
const MAX_SEQUENCE: i32 = 2_000;

/// One delivery from a provider, accepted or rejected.
pub struct Webhook(
    pub(crate) webhook_logs::WebhookLog,
    /// Its provider, where a list looked it up for all of its rows.
    pub(crate) Option<Arc<webhook_providers::WebhookProvider>>,
);

impl Webhook {
    pub(crate) fn of(row: webhook_logs::WebhookLog) -> Self {
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
    pub(crate) async fn id(&self) -> ID {
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
        Ok(rows.into_iter().filter(|row| row.attempt_number > 1).map(WebhookRetry::from).collect())
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
            Ok(if sees_people { event } else { event.without_others(viewer.user.id) })
        };
        events.into_iter().map(shown).collect()
    }
}
