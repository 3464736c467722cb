//! Why a request is not kept any more.

use async_graphql::{Enum, SimpleObject};
use chrono::{DateTime, Utc};

use super::position::LogPosition;
use crate::log::Removal;

/// Why a request is not kept any more.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub enum RemovalKind {
    /// It was older than bodies are kept.
    Retention,
    /// Somebody asked for it.
    Erasure,
}

/// What the log says of a request that is not kept any more.
#[derive(SimpleObject)]
pub struct BodyRemoval {
    at: DateTime<Utc>,
    kind: RemovalKind,
    reason: Option<String>,
    /// The event that says it.
    position: LogPosition,
}

impl From<Removal> for BodyRemoval {
    fn from(removal: Removal) -> Self {
        Self {
            at: removal.at,
            kind: if removal.erased { RemovalKind::Erasure } else { RemovalKind::Retention },
            reason: removal.reason,
            position: LogPosition { partition: removal.partition, position: removal.position },
        }
    }
}
