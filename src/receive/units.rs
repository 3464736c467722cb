//! From an aggregate's decision to a unit of the log.

use hookledger_aggregates::webhook::{Webhook, WebhookCommand, WebhookError};
use hookledger_aggregates::{Metadata, OrganizationId, WebhookId};

use crate::log::{NewEvent, Sequence, Unit};

/// A defect, because decisions here are made on state that was just read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnitError {
    #[error("a webhook contradicts its own first event: {0}")]
    Decide(#[from] WebhookError),
    #[error("could not serialize an event: {0}")]
    Json(#[from] serde_json::Error),
}

/// Lets the aggregate decide and makes a unit of its events.
pub(super) fn unit(
    organization: OrganizationId,
    webhook: WebhookId,
    sequence: Sequence,
    state: &Webhook,
    command: WebhookCommand,
    metadata: &Metadata,
) -> Result<Unit, UnitError> {
    let mut events = Vec::with_capacity(2);
    for (offset, event) in (0..).zip(state.decide(command)?) {
        let sequence = match sequence {
            Sequence::At(first) => Sequence::At(first + offset),
            Sequence::End => Sequence::End,
        };
        events.push(NewEvent::of(organization, webhook.uuid(), sequence, &event, metadata)?);
    }
    Ok(Unit::new(events))
}
