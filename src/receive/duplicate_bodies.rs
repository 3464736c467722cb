//! Bodies of duplicates that differ from the webhook's own: stored, and delivered when a person requests it.
//!
//! They are events of streams of their own, one per webhook, whose sequences limit their number. Only bodies
//! of verified requests are stored.

use hookledger_aggregates::access::AccessEvent;
use hookledger_aggregates::webhook::{
    MAX_DUPLICATE_BODIES, Receipt, SignatureMatch, Webhook, WebhookCommand, WebhookEvent,
};
use hookledger_aggregates::{DuplicateBodiesId, Event, Label, Metadata, OrganizationId, RecordedEvent, WebhookId};

use super::Receiver;
use super::units::{UnitError, unit};
use crate::log::{AppendError, Body, LogPosition, NewEvent, ReadError, Sequence};

/// A duplicate's body, as recorded in the log.
#[derive(Clone, Debug)]
pub struct DuplicateBody {
    pub receipt: Receipt,
    pub verified: SignatureMatch,
    /// The log position under which its bytes are stored.
    pub received: LogPosition,
    pub received_at: chrono::DateTime<chrono::Utc>,
}

/// The duplicate's body that an event records, if any.
#[must_use]
pub fn duplicate_body(recorded: RecordedEvent) -> Option<DuplicateBody> {
    let Event::Webhook(WebhookEvent::DuplicateBodyKept { receipt, verified, webhook_id: _ }) = recorded.event else {
        return None;
    };
    let received = LogPosition { partition: recorded.partition, position: recorded.position };
    Some(DuplicateBody { receipt, verified, received, received_at: recorded.recorded_at })
}

/// A body to store.
pub(super) struct Keep {
    organization: OrganizationId,
    stream: DuplicateBodiesId,
    sequence: i64,
    event: WebhookEvent,
}

/// Stores the body of a duplicate at this sequence.
pub(super) fn keep_body(
    organization: OrganizationId,
    webhook_id: WebhookId,
    sequence: i64,
    receipt: Receipt,
    verified: SignatureMatch,
) -> Keep {
    let event = WebhookEvent::DuplicateBodyKept { receipt, webhook_id, verified };
    Keep { organization, stream: DuplicateBodiesId::of(webhook_id), sequence, event }
}

impl Keep {
    /// The event, which has to be the first of its unit because the body is stored under its position.
    pub(super) fn event(&self, metadata: &Metadata) -> Result<NewEvent, serde_json::Error> {
        NewEvent::of(self.organization, self.stream.uuid(), Sequence::At(self.sequence), &self.event, metadata)
    }

    /// The ID that the body is stored under.
    pub(super) fn owner(&self) -> WebhookId {
        WebhookId::new(self.stream.uuid())
    }
}

/// Why a duplicate's body is not delivered.
#[derive(Debug, thiserror::Error)]
pub enum RedeliverError {
    #[error("No duplicate of this webhook has this body.")]
    NotFound,
    #[error("This duplicate's body is no longer stored, so it can't be delivered.")]
    Gone,
    #[error("This body was already delivered as webhook {0}. Retry that webhook instead.")]
    Delivered(WebhookId),
    #[error("The provider is no longer connected.")]
    NotConnected,
    #[error("Monthly limit reached. Try again next month, or raise the limit.")]
    LimitReached,
    #[error(transparent)]
    Append(AppendError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("could not append the events: {0}")]
    Decide(String),
}

impl From<UnitError> for RedeliverError {
    fn from(error: UnitError) -> Self {
        Self::Decide(error.to_string())
    }
}

impl Receiver {
    /// The bodies of a webhook's duplicates that differ from its own and from each other.
    pub(super) async fn duplicate_bodies(
        &self,
        organization: OrganizationId,
        webhook: WebhookId,
    ) -> Result<Vec<DuplicateBody>, ReadError> {
        let stream = DuplicateBodiesId::of(webhook).uuid();
        let most = i64::try_from(MAX_DUPLICATE_BODIES).unwrap_or(i64::MAX);
        let events = self.reader.stream(organization, "webhook", stream, most).await?;
        Ok(events.into_iter().filter_map(duplicate_body).collect())
    }

    /// Creates a webhook from a duplicate's body. Its ID follows from that body, so that nobody can deliver
    /// it twice; later commands go to the new webhook.
    ///
    /// # Errors
    /// After any error, nothing was appended.
    pub async fn redeliver(&self, request: RedeliverRequest<'_>) -> Result<(WebhookId, LogPosition), RedeliverError> {
        let RedeliverRequest { organization, webhook: original, body_sha256, reason, by } = request;
        let kept = self.duplicate_bodies(organization, original).await?;
        let kept = kept.into_iter().find(|kept| kept.receipt.body_sha256 == body_sha256);
        let Some(DuplicateBody { receipt, verified, received, .. }) = kept else {
            return Err(RedeliverError::NotFound);
        };
        let endpoint = self.directory.endpoint_of(organization, receipt.provider_id);
        let endpoint = endpoint.ok_or(RedeliverError::NotConnected)?;
        let raw = self.reader.body_at(organization, received.position).await?.ok_or(RedeliverError::Gone)?;
        let webhook = WebhookId::of_duplicate(original, body_sha256);
        let receipt = Receipt { duplicate_of: Some(original), ..receipt };
        let routing = endpoint.provider.routing(webhook);
        let command = WebhookCommand::Receive { receipt, verified, routing };
        let mut unit = unit(organization, webhook, Sequence::At(1), &Webhook::default(), command, by)?;
        let asked =
            AccessEvent::DuplicateDelivered { body_sha256: body_sha256.to_owned(), delivered_as: webhook, reason };
        unit.events.push(NewEvent::of(organization, original.uuid(), Sequence::End, &asked, by)?);
        unit.body = Some(Body { organization, webhook, headers: raw.headers.into(), body: raw.body.into() });
        unit.limit = endpoint.limit;
        match self.log.append(unit).await {
            Ok(appended) => {
                if let Some((limit, used)) = endpoint.limit.zip(appended.used) {
                    self.limits.note(organization, limit, used);
                }
                Ok((webhook, appended.last))
            }
            Err(AppendError::Conflict) => Err(RedeliverError::Delivered(webhook)),
            Err(AppendError::OverLimit(_)) => Err(RedeliverError::LimitReached),
            Err(error) => Err(RedeliverError::Append(error)),
        }
    }
}

/// Requests the delivery of a duplicate's body.
#[derive(Clone, Debug)]
pub struct RedeliverRequest<'a> {
    pub organization: OrganizationId,
    /// The webhook that it is a duplicate of.
    pub webhook: WebhookId,
    /// In hex.
    pub body_sha256: &'a str,
    pub reason: Option<Label>,
    /// The person who asks for it.
    pub by: &'a Metadata,
}
