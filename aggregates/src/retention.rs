//! Removed requests: those that became too old, and those whose erasure a person requested. The events about
//! them stay, with size and SHA-256 of the removed body.
//!
//! There are three kinds of streams. One has the organization's ID and states the position up to which
//! requests were removed. The others have the ID of a webhook whose request was erased, or the ID of its
//! duplicates' bodies.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::Label;
use crate::decision::aggregate;

/// The state of a stream. Removed requests never come back, so the last event says everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Retention {
    removed_to: i64,
    #[serde(default)]
    erased: BTreeSet<i64>,
}

/// Records a removal of requests.
#[derive(Clone, Debug)]
pub enum RetentionCommand {
    /// The organization's requests between two positions were received before this time.
    RemoveBodies {
        /// The position up to which requests were removed before; 0 for none.
        after_position: i64,
        /// The position up to which requests are removed, this one included.
        to_position: i64,
        /// Number of requests that are removed.
        count: u64,
        /// The age limit: all of them were received earlier.
        received_before: DateTime<Utc>,
    },
    /// The webhook's request, received at that position; for duplicates' bodies, the requests at these
    /// positions.
    EraseBodies {
        /// Positions of the events that recorded the requests.
        positions: Vec<i64>,
        /// The reason that the person gave.
        reason: Option<Label>,
    },
}

/// Requests were removed. The database lets bodies go only with such an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetentionEvent {
    /// Requests received up to `toPosition` are removed. `count` of them existed until now.
    #[serde(rename = "retention.bodies_removed", rename_all = "camelCase")]
    BodiesRemoved {
        /// The position up to which requests were removed before; 0 for none.
        after_position: i64,
        /// The position up to which requests are removed, this one included.
        to_position: i64,
        /// Number of requests that this event removes.
        count: u64,
        /// The age limit: all of them were received earlier.
        received_before: DateTime<Utc>,
    },
    /// A person had one request erased.
    #[serde(rename = "retention.body_erased")]
    BodyErased {
        /// Position of the event that recorded the request.
        position: i64,
        /// The reason that the person gave.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<Label>,
    },
}

aggregate!(Retention, "retention", RetentionCommand, RetentionEvent, RetentionError, {
    BodiesRemoved => "retention.bodies_removed" v 1,
    BodyErased => "retention.body_erased" v 1,
});

/// Why a removal is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetentionError {
    /// Somebody else removed requests up to this position meanwhile.
    #[error("Requests up to position {0} were already removed.")]
    Removed(i64),
}

impl Retention {
    /// An organization's state after the removal of requests up to that position, as its last event says.
    #[must_use]
    pub fn of_organization(removed_to: i64) -> Self {
        Self { removed_to, erased: BTreeSet::new() }
    }

    /// The position up to which the organization's requests are removed; 0 for none.
    #[must_use]
    pub fn removed_to(&self) -> i64 {
        self.removed_to
    }

    /// Decides a command. Requests that are removed already are skipped.
    ///
    /// # Errors
    /// [`RetentionError::Removed`] if requests after the same position were removed meanwhile.
    pub fn decide(&self, command: RetentionCommand) -> Result<Vec<RetentionEvent>, RetentionError> {
        match command {
            RetentionCommand::RemoveBodies { after_position, .. } if after_position != self.removed_to => {
                Err(RetentionError::Removed(self.removed_to))
            }
            RetentionCommand::RemoveBodies { to_position, .. } if to_position <= self.removed_to => Ok(vec![]),
            RetentionCommand::RemoveBodies { after_position, to_position, count, received_before } => {
                Ok(vec![RetentionEvent::BodiesRemoved { after_position, to_position, count, received_before }])
            }
            RetentionCommand::EraseBodies { positions, reason } => {
                let new = positions.into_iter().filter(|position| !self.erased.contains(position));
                Ok(new.map(|position| RetentionEvent::BodyErased { position, reason: reason.clone() }).collect())
            }
        }
    }

    /// Applies an event.
    pub fn evolve(&mut self, event: &RetentionEvent) {
        match event {
            RetentionEvent::BodiesRemoved { to_position, .. } => self.removed_to = *to_position,
            RetentionEvent::BodyErased { position, .. } => drop(self.erased.insert(*position)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remove(after_position: i64, to_position: i64) -> RetentionCommand {
        RetentionCommand::RemoveBodies { after_position, to_position, count: 1, received_before: DateTime::UNIX_EPOCH }
    }

    #[test]
    fn requests_are_removed_from_where_they_were_removed_to() {
        let mut retention = Retention::default();
        for event in retention.decide(remove(0, 7)).unwrap() {
            retention.evolve(&event);
        }
        assert_eq!(retention.removed_to(), 7);
        assert_eq!(retention.decide(remove(0, 9)), Err(RetentionError::Removed(7)));
        assert_eq!(retention.decide(remove(7, 7)), Ok(vec![]));
        assert_eq!(retention.decide(remove(7, 9)).unwrap().len(), 1);
    }

    #[test]
    fn a_request_is_erased_once() {
        let erase = RetentionCommand::EraseBodies { positions: vec![3], reason: None };
        let mut retention = Retention::default();
        let events = retention.decide(erase.clone()).unwrap();
        assert_eq!(events, [RetentionEvent::BodyErased { position: 3, reason: None }]);
        retention.evolve(&events[0]);
        assert_eq!(retention.decide(erase), Ok(vec![]));
        let more = RetentionCommand::EraseBodies { positions: vec![3, 5], reason: None };
        assert_eq!(retention.decide(more), Ok(vec![RetentionEvent::BodyErased { position: 5, reason: None }]));
    }
}
