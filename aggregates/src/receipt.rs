//! Facts of a request from its receipt and its verification, and the reasons of rejections.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Label, ProviderId, ProviderName, WebhookId};

/// The facts about a received request. Its bytes are stored beside the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    pub provider_id: ProviderId,
    pub provider: ProviderName,
    /// The provider's own event ID, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider_event_id: Option<Label>,
    /// The provider's own event type, such as `push` or `charge.succeeded`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub event_type: Option<Label>,
    /// SHA-256 of the raw body, in hex.
    pub body_sha256: String,
    /// Bytes.
    pub body_size: u64,
    /// SHA-256 of the stored headers, in hex. Absent in version 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub headers_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_type: Option<Label>,
    /// The signature header, truncated.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signature: Option<Label>,
    /// The original webhook, if a person delivered a duplicate's body as this webhook.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub duplicate_of: Option<WebhookId>,
    /// Whether a person sent it to test the provider.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub is_test: bool,
    /// How many times an installation of Hookledger had delivered it before it arrived here.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub hops: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The secret that verified a webhook, and the circumstances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignatureMatch {
    pub scheme: SignatureScheme,
    pub secret_version: u32,
    /// The provider that sent it, so that readers of this event need no other event. Absent in earlier
    /// releases.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider_id: Option<ProviderId>,
    /// The sender's signing time, if the scheme signs it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signed_at: Option<DateTime<Utc>>,
}

/// How a signature was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureScheme {
    HmacSha256,
    Ed25519,
    RsaSha256,
}

/// Why a request was rejected after its provider was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectionReason {
    SignatureMissing,
    SignatureInvalid,
    TimestampOutOfTolerance,
    ProviderDisabled,
    OrganizationDisabled,
    MonthlyLimitReached,
    /// A known transmission ID with another body: a security event.
    TransmissionReplayed,
    /// Too many deliveries between installations: destinations form a loop.
    LoopDetected,
}

impl RejectionReason {
    /// Its code in answers and read models.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignatureMissing => "signature_missing",
            Self::SignatureInvalid => "signature_invalid",
            Self::TimestampOutOfTolerance => "timestamp_out_of_tolerance",
            Self::ProviderDisabled => "provider_disabled",
            Self::OrganizationDisabled => "organization_disabled",
            Self::MonthlyLimitReached => "monthly_limit_reached",
            Self::TransmissionReplayed => "transmission_replayed",
            Self::LoopDetected => "loop_detected",
        }
    }
}
