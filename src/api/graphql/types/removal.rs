//! Why a request is not kept any more.

use async_graphql::{Enum, SimpleObject};
use chrono::{DateTime, Utc};

use super::position::LogPosition;
use crate::log::Removal;

/// Why a request is no longer stored.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub enum RemovalKind {
    /// It exceeded the retention period.
    Retention,
    /// Somebody requested it.
    Erasure,
}

/// The log's record of a request that is no longer stored.
#[derive(SimpleObject)]
pub struct BodyRemoval {
    at: DateTime<Utc>,
    kind: RemovalKind,
    reason: Option<String>,
    /// Log position of the removal.
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
