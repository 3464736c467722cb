//! The routing of a verified webhook: the routes it goes by, their versions, and why it does not go by the others.

use serde::{Deserialize, Serialize};

use crate::{DeliveryId, DestinationId, Phase, RouteId};

/// The routes of a webhook's provider when it was decided where the webhook goes. Changing a route later changes
/// nothing about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// One delivery each. Without any, recording the webhook is the processing.
    pub matched: Vec<Match>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unmatched: Vec<Unmatched>,
}

/// A route by which a webhook goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    pub delivery_id: DeliveryId,
    pub route_id: RouteId,
    /// The version of the route that decided.
    pub version: u32,
    /// The route's destination at that version.
    pub destination_id: DestinationId,
}

/// A route by which a webhook does not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unmatched {
    pub route_id: RouteId,
    pub version: u32,
    pub reason: UnmatchedReason,
}

/// Why a webhook does not go by a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnmatchedReason {
    RouteDisabled,
}

impl Routing {
    /// Where a webhook stands right after this was decided.
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::of_webhook(self.matched.iter().map(|_| Phase::Pending))
    }
}
