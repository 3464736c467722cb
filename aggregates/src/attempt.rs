//! The outcome of an attempt, and when a failed one is retried.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use crate::Label;

/// The outcome of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// HTTP status, if there was a response.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status_code: Option<u16>,
    #[serde(default)]
    pub duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<Label>,
    /// Stored bytes of the response body.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub response_size: Option<u32>,
    /// SHA-256 of these bytes, in hex.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub response_sha256: Option<String>,
}

/// Error of an attempt that no worker started in time.
pub const PENDING_TIMEOUT: &str = "pending timeout";

/// When failed attempts are retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The delay before retry 1, 2, 3…; one retry per delay.
    pub delays: Vec<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { delays: [1, 5, 15].map(Duration::minutes).to_vec() }
    }
}

/// The policy's decision after a failed attempt; see [`RetryAt::after`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAt {
    At(DateTime<Utc>),
    Never,
}

impl RetryAt {
    /// When attempt `attempt + 1` is due after `attempt` failed at `failed_at`.
    ///
    /// `jitter_per_mille` lengthens the delay by up to 10 % (0 to 100); `asked` is the receiver's
    /// `Retry-After`, honored up to double the delay.
    #[must_use]
    pub fn after(
        policy: &RetryPolicy,
        attempt: u32,
        failed_at: DateTime<Utc>,
        jitter_per_mille: i32,
        asked: Option<Duration>,
    ) -> Self {
        let index = attempt.saturating_sub(1) as usize;
        let Some(delay) = policy.delays.get(index).copied() else { return Self::Never };
        let jittered = delay + delay * jitter_per_mille.clamp(0, 100) / 1000;
        let lengthened = asked.map_or(jittered, |asked| asked.clamp(jittered, jittered.max(delay * 2)));
        Self::At(failed_at + lengthened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn delays_are_one_five_and_fifteen_minutes_and_then_none() {
        let policy = RetryPolicy::default();
        let due = |attempt| RetryAt::after(&policy, attempt, at(0), 0, None);
        assert_eq!([due(1), due(2), due(3)], [60, 300, 900].map(|s| RetryAt::At(at(s))));
        assert_eq!(due(4), RetryAt::Never);
    }

    #[test]
    fn retry_after_lengthens_a_delay_to_at_most_double() {
        let policy = RetryPolicy::default();
        let due = |jitter, asked| RetryAt::after(&policy, 1, at(0), jitter, Some(Duration::seconds(asked)));
        assert_eq!(due(0, 5), RetryAt::At(at(60)));
        assert_eq!(due(0, 90), RetryAt::At(at(90)));
        assert_eq!(due(0, 9_000), RetryAt::At(at(120)));
        assert_eq!(due(100, 5), RetryAt::At(at(66)));
    }
}
