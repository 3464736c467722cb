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
use crate::api::graphql::rows::{AttemptsOf, BodyOf, EventsOf, ProviderOf, WaitsOf, load};
use crate::api::graphql::types::duplicate::DuplicateBody;
use crate::api::graphql::types::ids::NodeId;
use crate::api::graphql::types::provider::WebhookProvider;
use crate::api::graphql::types::removal::BodyRemoval;
use crate::api::graphql::types::shown::shown;
use crate::log::{self, stories_of, streams_of};

/// Larger bodies are parsed on a thread that serves no other requests.
const LARGE_BODY: i64 = 256 << 10;
/// Larger bodies are not shown as parsed JSON.
const MAX_PARSED: i64 = 4 << 20;
/// How many times a body shown as JSON is copied.
const SHOWN_WEIGHT: i64 = 4;
/// Maximum number of folded events per webhook.
const MAX_SEQUENCE: i32 = 2_000;

/// One event from a provider, accepted or rejected.
pub struct Webhook(
    pub(crate) webhook_logs::WebhookLog,
    /// Its provider, if a list looked it up for all its rows.
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

    // These may fail for bodies that are too large. `Some(Err(_))` then makes only that field null, whereas
    // an `Err` would fail the whole list.

    /// The body, which counts `weight` times towards the answer's allowance.
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
        let rows = load(context, AttemptsOf(self.organization(), self.id_())).await?.unwrap_or_default();
        Allowance::of(context)?.list(rows.len())?;
        Ok(rows)
    }
}

// Fields resolve one after another: most are loaded already, and loaders batch across the rows of a list.
#[Object(serial)]
impl Webhook {
    pub(crate) async fn id(&self) -> ID {
        NodeId::Webhook(self.organization(), self.id_()).encode()
    }
    /// The ID that its sender got.
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
    /// The provider's event ID.
    async fn provider_event_id(&self) -> Option<&str> {
        self.0.provider_event_id.as_deref()
    }
    /// The provider's event type, such as `push`.
    async fn event_type(&self) -> Option<&str> {
        self.0.event_type.as_deref()
    }
    /// The body, if it is JSON and still stored, with the original digits of its numbers. Above 4 MiB, only
    /// `rawBody` shows it.
    async fn payload(&self, context: &Context<'_>) -> Option<Result<Json<Box<RawValue>>, Error>> {
        self.parsed(context).await.transpose()
    }
    /// The body as text, if it is UTF-8 and still stored.
    async fn raw_body(&self, context: &Context<'_>) -> Option<Result<String, Error>> {
        self.body(context, 1).await.and_then(|body| as_text(context, body)).transpose()
    }
    /// The body in base64, while it is stored.
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
    /// As received, except `authorization` and `cookie`.
    async fn headers(&self, context: &Context<'_>) -> Result<Vec<Header>, Error> {
        Header::all_of(context, self.organization(), self.0.position).await
    }
    /// Why body and headers are no longer stored; null while they are. For at most 20 webhooks per query.
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
    /// Why the next attempt at one of its deliveries does not start although it is due; null if they only wait for their
    /// turn. A waiting webhook neither fails nor becomes a dead letter meanwhile.
    async fn waits_for(&self, context: &Context<'_>) -> Option<Result<WebhookWait, Error>> {
        let is_open = self.0.processed_at.is_none() && self.0.dead_lettered_at.is_none() && self.0.rejection.is_none();
        let wait = async {
            if !is_open {
                return Ok(None);
            }
            let waits = load(context, WaitsOf(self.organization(), self.id_())).await?;
            Ok(waits.and_then(|waits| waits.into_iter().next()))
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
    /// Number of duplicates.
    async fn duplicate_count(&self) -> i32 {
        self.0.duplicate_count
    }
    /// A duplicate had a different body.
    async fn body_differs(&self) -> bool {
        self.0.body_differs
    }
    /// The first 16 bodies of its duplicates that differ from its own and from each other. For at most 4
    /// webhooks per query.
    async fn duplicate_bodies(&self, context: &Context<'_>) -> Result<Vec<DuplicateBody>, Error> {
        if !self.0.body_differs {
            return Ok(Vec::new());
        }
        DuplicateBody::all_of(context, self.organization(), self.id_()).await
    }
    /// The original webhook, if this one was created by delivering a duplicate's body. For at most 20
    /// webhooks per query.
    async fn duplicate_of(&self, context: &Context<'_>) -> Option<Result<Webhook, Error>> {
        let original = async {
            Allowance::of(context)?.look_backs(1)?;
            let (organization, ids) = (self.organization(), [self.0.webhook_id]);
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
    /// Its body was received before, under another unsigned ID.
    async fn suspected_replay(&self) -> bool {
        self.0.suspected_replay
    }
    /// A person sent it to test the provider, not the service.
    async fn is_test(&self) -> bool {
        self.0.is_test
    }
    /// Anything about it is suspicious: a duplicate had a different body, its body was received before under
    /// another ID, or a transmission was replayed with another body.
    async fn flagged(&self) -> bool {
        self.0.is_flagged()
    }
    /// The code of its rejection, such as `signature_invalid`; null if it was accepted.
    async fn rejection(&self) -> Option<&str> {
        self.0.rejection.as_deref()
    }
    /// All attempts, including the first.
    async fn attempts(&self, context: &Context<'_>) -> Result<Vec<Attempt>, Error> {
        let of = (self.organization(), self.id_());
        let rows = self.attempt_rows(context).await?;
        Ok(rows.iter().map(|row| Attempt::new(of, self.0.position, row)).collect())
    }
    /// The attempts after the first.
    async fn retries(&self, context: &Context<'_>) -> Result<Vec<WebhookRetry>, Error> {
        let rows = self.attempt_rows(context).await?;
        Ok(rows.into_iter().filter(|row| row.attempt_number > 1).map(WebhookRetry::from).collect())
    }
    /// The previous accepted webhook of the same provider and event type, for comparison, if it is among the
    /// provider's last 2,000 before this one. For at most 20 webhooks per query.
    async fn previous_of_type(&self, context: &Context<'_>) -> Option<Result<Webhook, Error>> {
        let previous = async {
            Allowance::of(context)?.look_backs(1)?;
            let mut tenant = tenant(context, self.organization()).await?;
            summaries::previous_of_type(&mut *tenant, self.organization(), &self.0).await.map_err(unread)
        };
        previous.await.map(|row| row.map(Webhook::of)).transpose()
    }
    /// Its state right after the event with that number among its own and its deliveries', 1 to 2,000; null before its
    /// first.
    async fn state_at(&self, context: &Context<'_>, sequence: i32) -> Option<Result<WebhookState, Error>> {
        let state = async {
            if !(0..=MAX_SEQUENCE).contains(&sequence) {
                return Err(Code::BadUserInput.error(format!("A sequence must be between 1 and {MAX_SEQUENCE}.")));
            }
            let (limit, id) = (i64::from(sequence), self.id_());
            let mut tenant = tenant(context, self.organization()).await?;
            let stories = stories_of(&mut tenant, self.organization(), &[id], limit, limit).await;
            let mut events = stories.map_err(unread)?.remove(&id).unwrap_or_default();
            events.truncate(usize::try_from(sequence).unwrap_or_default());
            Ok(webhook_logs::state_after(&events).map(WebhookState::from))
        };
        state.await.transpose()
    }
    /// The events of this webhook and of its deliveries, in order; at most 1,000 of each.
    async fn events(&self, context: &Context<'_>) -> Result<Vec<RecordedEvent>, Error> {
        let events = load(context, EventsOf(self.organization(), self.id_())).await?.unwrap_or_default();
        Allowance::of(context)?.list(events.len())?;
        let viewer = Viewer::of(context)?;
        let sees_people = viewer.manages(self.organization());
        let shown = |event: Recorded| {
            let event = RecordedEvent::try_from(event)?;
            Ok(if sees_people { event } else { event.without_others(viewer.user.id) })
        };
        events.into_iter().map(shown).collect()
    }
}
