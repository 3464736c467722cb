//! Where a webhook or one of its deliveries stands.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a webhook or one of its deliveries stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    #[default]
    Unknown,
    /// Received; the next event of the same unit says that it is verified.
    Received,
    /// Accepted before it could be verified. Not routed until then.
    Unverified,
    Pending,
    Processing,
    Succeeded,
    /// Failed, and waiting for its retry.
    AwaitingRetry,
    DeadLettered,
    /// A person decided that it is not delivered.
    Cancelled,
    Rejected,
    /// A duplicate of a known webhook.
    Merged,
}

/// A phase as it is shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Pending,
    Processing,
    Success,
    Failed,
}

impl Status {
    /// Every status, in the order of processing.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Processing, Self::Success, Self::Failed];

    /// Its name in answers and read models.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Success => "success",
            Self::Failed => "failed",
        }
    }
}

impl Phase {
    /// As it is shown to people. What was not delivered is never a success.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::Unknown | Self::Received | Self::Unverified | Self::Pending | Self::Merged => Status::Pending,
            Self::Processing => Status::Processing,
            Self::Succeeded => Status::Success,
            Self::AwaitingRetry | Self::DeadLettered | Self::Cancelled | Self::Rejected => Status::Failed,
        }
    }

    /// The phase of a webhook whose deliveries stand there: that of the delivery that is furthest from being
    /// finished, ignoring cancelled ones. Without deliveries, nothing is left to do.
    #[must_use]
    pub fn of_webhook(deliveries: impl IntoIterator<Item = Self>) -> Self {
        deliveries.into_iter().min_by_key(|phase| phase.rank()).unwrap_or(Self::Succeeded)
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Processing => 0,
            Self::Unknown | Self::Received | Self::Unverified | Self::Pending | Self::Merged => 1,
            Self::AwaitingRetry => 2,
            Self::DeadLettered | Self::Rejected => 3,
            Self::Succeeded => 4,
            Self::Cancelled => 5,
        }
    }
}

/// Completes a sentence that begins with "it is".
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Received => "being verified",
            Self::Unverified => "waiting for verification",
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Succeeded => "already successful",
            Self::AwaitingRetry => "waiting for a retry",
            Self::DeadLettered => "a dead letter",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
            Self::Merged => "a duplicate",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Phase::{AwaitingRetry, Cancelled, DeadLettered, Pending, Processing, Succeeded};
    use super::*;

    #[test]
    fn a_webhook_stands_where_its_least_finished_delivery_does() {
        for (deliveries, phase) in [
            (&[][..], Succeeded),
            (&[Succeeded, Cancelled], Succeeded),
            (&[Cancelled], Cancelled),
            (&[Succeeded, DeadLettered], DeadLettered),
            (&[DeadLettered, AwaitingRetry], AwaitingRetry),
            (&[DeadLettered, AwaitingRetry, Pending], Pending),
            (&[Pending, Processing, Succeeded], Processing),
        ] {
            assert_eq!(Phase::of_webhook(deliveries.iter().copied()), phase, "{deliveries:?}");
        }
    }

    #[test]
    fn what_was_not_delivered_is_no_success() {
        assert_eq!(Cancelled.status(), Status::Failed);
        assert_eq!(DeadLettered.status(), Status::Failed);
    }
}
