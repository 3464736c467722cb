//! Where a webhook stands, and what it waits for.

use async_graphql::Enum;
use hookledger_projections::webhook_logs;

use crate::deliver;
use crate::directory::Hold;

/// The status of a webhook.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "webhook_logs::WebhookStatus")]
pub enum WebhookStatus {
    Pending,
    Processing,
    Success,
    Failed,
}

/// The condition that a webhook waits for before its next attempt.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub enum WebhookWait {
    /// The destination was removed. Add one to deliver the webhook.
    DestinationRemoved,
    /// The route was removed. Set it again to deliver the webhook.
    RouteRemoved,
    /// The route is disabled. Enable it to deliver the webhook.
    RouteDisabled,
    /// The provider was deleted. Connect it again, with a destination, to deliver the webhook.
    ProviderDeleted,
    /// The provider is disabled. Enable it to deliver the webhook.
    ProviderDisabled,
    /// The organization is disabled. Enable it to deliver the webhook.
    OrganizationDisabled,
    /// A secret of the destination cannot be opened. Set new ones to deliver the webhook.
    SecretUnreadable,
    /// The destination's maximum number of concurrent attempts is reached.
    Concurrency,
    /// The destination stopped answering. It is tried again with one attempt at a time.
    CircuitOpen,
}

impl From<deliver::Wait> for WebhookWait {
    fn from(wait: deliver::Wait) -> Self {
        match wait {
            deliver::Wait::Held(Hold::DestinationRemoved) => Self::DestinationRemoved,
            deliver::Wait::Held(Hold::RouteRemoved) => Self::RouteRemoved,
            deliver::Wait::Held(Hold::RouteDisabled) => Self::RouteDisabled,
            deliver::Wait::Held(Hold::ProviderDeleted) => Self::ProviderDeleted,
            deliver::Wait::Held(Hold::ProviderDisabled) => Self::ProviderDisabled,
            deliver::Wait::Held(Hold::OrganizationDisabled) => Self::OrganizationDisabled,
            deliver::Wait::Held(Hold::SecretUnreadable) => Self::SecretUnreadable,
            deliver::Wait::Busy(deliver::BusyReason::Concurrency) => Self::Concurrency,
            deliver::Wait::Busy(deliver::BusyReason::CircuitOpen) => Self::CircuitOpen,
        }
    }
}
