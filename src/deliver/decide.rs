//! The aggregate's decisions about attempts, as units to append. Pure.

use hookledger_aggregates::webhook::{Webhook, WebhookCommand, WebhookError};
use hookledger_aggregates::{Metadata, OrganizationId, WebhookId};

use super::queue::Due;
use crate::log::{NewEvent, Sequence, Unit};

#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    #[error(transparent)]
    Refused(#[from] WebhookError),
    #[error("could not serialize an event: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a sequence is out of range")]
    Range,
}

/// A unit, and the webhook's state after it.
#[derive(Debug)]
pub struct Decided {
    pub unit: Unit,
    pub state: Webhook,
    /// Sequence of the unit's last event.
    pub sequence: i64,
}

/// Runs commands in order from a state whose last event is `sequence`.
pub fn decide(
    organization: OrganizationId,
    id: WebhookId,
    mut state: Webhook,
    mut sequence: i64,
    commands: impl IntoIterator<Item = WebhookCommand>,
) -> Result<Decided, DecideError> {
    let mut events = Vec::new();
    for command in commands {
        for event in state.decide(command)? {
            sequence = sequence.checked_add(1).ok_or(DecideError::Range)?;
            let at = Sequence::At(sequence);
            events.push(NewEvent::of(organization, id.uuid(), at, &event, &Metadata::default())?);
            state.evolve(&event);
        }
    }
    Ok(Decided { unit: Unit::new(events), state, sequence })
}

/// Runs commands on a webhook that waits for a delivery, in the state that its row states.
pub fn decide_due(due: &Due, commands: impl IntoIterator<Item = WebhookCommand>) -> Result<Decided, DecideError> {
    let state = Webhook::waiting(due.attempt, due.requested);
    decide(due.organization, due.webhook, state, due.sequence, commands)
}
