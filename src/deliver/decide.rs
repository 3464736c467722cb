//! The aggregate's decisions about attempts, as units to append. Pure.

use hookledger_aggregates::delivery::{Delivery, DeliveryCommand, DeliveryError};
use hookledger_aggregates::{DeliveryId, Metadata, OrganizationId};

use super::queue::Due;
use crate::log::{NewEvent, Sequence, Unit};

#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    #[error(transparent)]
    Refused(#[from] DeliveryError),
    #[error("could not serialize an event: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a sequence is out of range")]
    Range,
}

/// A unit, and the delivery's state after it.
#[derive(Debug)]
pub struct Decided {
    pub unit: Unit,
    pub state: Delivery,
    /// Sequence of the unit's last event.
    pub sequence: i64,
}

/// Runs commands in order from a state whose last event is `sequence`.
pub fn decide(
    organization: OrganizationId,
    id: DeliveryId,
    mut state: Delivery,
    mut sequence: i64,
    commands: impl IntoIterator<Item = DeliveryCommand>,
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

/// Runs commands on a delivery that waits for its next attempt, in the state that its row states.
pub fn decide_due(due: &Due, commands: impl IntoIterator<Item = DeliveryCommand>) -> Result<Decided, DecideError> {
    let state = Delivery::waiting(due.attempt, due.requested);
    decide(due.organization, due.delivery, state, due.sequence, commands)
}
