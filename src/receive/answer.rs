//! Answers to senders: a status, a JSON body, and `Retry-After`.

use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::Serialize;

use super::{Accepted, ReceiveError};

/// The answer to a webhook.
#[derive(Clone, Debug)]
pub struct WebhookAnswer {
    pub status: StatusCode,
    /// JSON.
    pub body: String,
    /// Seconds.
    pub retry_after: Option<u64>,
}

#[derive(Serialize)]
struct AcceptedBody {
    webhook_id: uuid::Uuid,
    status: &'static str,
    duplicate: bool,
}

#[derive(Serialize)]
struct RefusedBody {
    error: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<DateTime<Utc>>,
}

impl WebhookAnswer {
    fn new(status: StatusCode, body: &impl Serialize, retry_after: Option<u64>) -> Self {
        // Serializing our own plain types cannot fail.
        Self { status, body: serde_json::to_string(body).unwrap_or_default(), retry_after }
    }
}

impl From<&Accepted> for WebhookAnswer {
    fn from(accepted: &Accepted) -> Self {
        let Accepted { webhook, duplicate, phase } = *accepted;
        let body = AcceptedBody { webhook_id: webhook.uuid(), status: phase.status().as_str(), duplicate };
        Self::new(StatusCode::OK, &body, None)
    }
}

impl From<&ReceiveError> for WebhookAnswer {
    fn from(error: &ReceiveError) -> Self {
        let (status, code, retry_after) = match error {
            ReceiveError::Refused(refusal) => (StatusCode::UNAUTHORIZED, refusal.reason.as_str(), None),
            ReceiveError::ProviderDisabled => (StatusCode::FORBIDDEN, "provider_disabled", None),
            ReceiveError::OrganizationDisabled => (StatusCode::FORBIDDEN, "organization_disabled", None),
            ReceiveError::Loop(_) => (StatusCode::LOOP_DETECTED, "loop_detected", None),
            ReceiveError::LimitReached { .. } => (StatusCode::TOO_MANY_REQUESTS, "monthly_limit_reached", None),
            ReceiveError::RateLimited { retry_after } => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limited", Some(*retry_after))
            }
            ReceiveError::Unavailable | ReceiveError::Overloaded { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", Some(1))
            }
        };
        let (limit, resets_at) = match error {
            ReceiveError::LimitReached { limit, resets_at } => (Some(*limit), Some(*resets_at)),
            _ => (None, None),
        };
        Self::new(status, &RefusedBody { error: error.to_string(), code, limit, resets_at }, retry_after)
    }
}
