//! A webhook: from its receipt to success or dead letter.
//!
//! ```text
//! received → pending → processing → success
//!                        │  ▲
//!                        ▼  │ retry
//!                      failed ──(third retry failed)──▶ dead letter ──(a person)──▶ pending
//! ```

use std::fmt;

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use crate::decision::aggregate;
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
    /// What processing it means, decided for good. Absent in earlier releases.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owed: Option<Owed>,
    /// The sender's signing time, if the scheme signs it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signed_at: Option<DateTime<Utc>>,
}

/// What a webhook is owed, according to its provider's settings when it was accepted. A later change of the
/// provider may hold a delivery, but never turns it into a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owed {
    /// There was no destination: recording the webhook is the processing, and that is done with its receipt.
    Recording,
    /// A delivery to the provider's destination.
    Delivery,
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

/// Maximum number of stored bodies of duplicates that differ from the webhook's own and from each other.
pub const MAX_DUPLICATE_BODIES: usize = 16;

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

/// The status of a webhook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    #[default]
    Unknown,
    /// Received; the next event of the same unit says that it is verified.
    Received,
    /// Accepted before it could be verified. Not processed until then.
    Unverified,
    Pending,
    Processing,
    Succeeded,
    /// Failed, and waiting for its retry.
    AwaitingRetry,
    DeadLettered,
    Rejected,
    /// A duplicate of a known webhook.
    Merged,
}

impl Owed {
    /// Where a webhook stands that was accepted.
    #[must_use]
    pub fn accepted(self) -> Phase {
        match self {
            Self::Recording => Phase::Succeeded,
            Self::Delivery => Phase::Pending,
        }
    }
}

/// Completes a sentence that begins with "the webhook is".
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
            Self::Rejected => "rejected",
            Self::Merged => "a duplicate",
        })
    }
}

/// The state of one webhook.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Webhook {
    phase: Phase,
    #[serde(default)]
    provider: Option<ProviderId>,
    body_sha256: String,
    /// The running or the last attempt.
    attempt: u32,
    /// Whether a person requested the next attempt, which no automatic retries follow.
    requested: bool,
    /// What it is owed once it is verified; known only while it waits for that.
    #[serde(default)]
    owed: Option<Owed>,
    #[serde(default)]
    retry_at: Option<DateTime<Utc>>,
}

/// Receives a webhook, or moves it along.
#[derive(Clone, Debug)]
pub enum WebhookCommand {
    /// A genuine request, received for the first time.
    Receive {
        receipt: Receipt,
        verified: SignatureMatch,
        owed: Owed,
    },
    /// A request that cannot be verified yet; its ID is random, because it may be a forgery.
    ReceiveUnverified {
        receipt: Receipt,
        event_webhook_id: WebhookId,
        owed: Owed,
    },
    /// A waiting request is genuine.
    Verify {
        verified: SignatureMatch,
    },
    /// A waiting request is not genuine, or came too late.
    FailVerification {
        reason: RejectionReason,
        detail: Label,
    },
    /// A waiting request is genuine, and a duplicate.
    Merge {
        into: WebhookId,
    },
    /// A rejected request; its ID is random.
    Reject {
        receipt: Receipt,
        reason: RejectionReason,
        detail: Label,
    },
    /// A genuine request for an event that was received before.
    ReceiveDuplicate {
        body_sha256: String,
        body_size: u64,
    },
    StartAttempt {
        attempt: u32,
    },
    /// The destination took it: the outcome has its answer.
    SucceedAttempt {
        attempt: u32,
        outcome: Outcome,
    },
    /// `retry_after` is the policy's delay, including the jitter.
    FailAttempt {
        attempt: u32,
        outcome: Outcome,
        retry_at: RetryAt,
    },
    /// The worker that started the attempt is gone.
    AbandonAttempt {
        attempt: u32,
        retry_at: RetryAt,
    },
    RequestRetry {
        reason: Option<Label>,
    },
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

/// A step of a webhook, from its receipt to its success or dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WebhookEvent {
    #[serde(rename = "webhook.received")]
    Received(Receipt),
    #[serde(rename = "webhook.signature_verified")]
    SignatureVerified(SignatureMatch),
    /// Its provider had no destination, so recording it was the processing. In the unit that verifies it.
    #[serde(rename = "webhook.recorded")]
    Recorded {},
    #[serde(rename = "webhook.received_unverified", rename_all = "camelCase")]
    ReceivedUnverified {
        #[serde(flatten)]
        receipt: Receipt,
        /// The ID of this provider event, which is taken only once the request is verified.
        event_webhook_id: WebhookId,
        /// See [`SignatureMatch`].
        #[serde(skip_serializing_if = "Option::is_none", default)]
        owed: Option<Owed>,
    },
    #[serde(rename = "webhook.verification_failed", rename_all = "camelCase")]
    VerificationFailed { reason: RejectionReason, detail: Label },
    #[serde(rename = "webhook.merged", rename_all = "camelCase")]
    Merged { into: WebhookId },
    /// The only event of its stream, whose ID is that of the provider event. The webhook itself has another
    /// ID, because it was accepted before it was verified.
    #[serde(rename = "webhook.identified", rename_all = "camelCase")]
    Identified { webhook_id: WebhookId },
    /// The only event of its stream, whose ID is that of a transmission, which is valid for this body alone.
    /// A separate kind of stream, so that followers of administrative events need not read this traffic.
    #[serde(rename = "webhook.transmission_bound", rename_all = "camelCase")]
    TransmissionBound { body_sha256: String },
    #[serde(rename = "webhook.rejected", rename_all = "camelCase")]
    Rejected {
        #[serde(flatten)]
        receipt: Receipt,
        reason: RejectionReason,
        detail: Label,
    },
    #[serde(rename = "webhook.duplicate_received", rename_all = "camelCase")]
    DuplicateReceived { body_sha256: String, body_size: u64, body_differs: bool },
    /// Duplicates beyond a rate, counted instead of logged individually; `differing` of them had another
    /// body.
    #[serde(rename = "webhook.duplicates_counted", rename_all = "camelCase")]
    DuplicatesCounted { count: u64, differing: u64, since: DateTime<Utc> },
    /// A duplicate's body that differed from all before, stored beside the log like any other. Streams of
    /// such bodies contain nothing else, so that no body is stored twice and there are at most
    /// [`MAX_DUPLICATE_BODIES`].
    #[serde(rename = "webhook.duplicate_body_kept", rename_all = "camelCase")]
    DuplicateBodyKept {
        #[serde(flatten)]
        receipt: Receipt,
        webhook_id: WebhookId,
        verified: SignatureMatch,
    },
    #[serde(rename = "webhook.attempt_started", rename_all = "camelCase")]
    AttemptStarted { attempt: u32 },
    #[serde(rename = "webhook.attempt_succeeded", rename_all = "camelCase")]
    AttemptSucceeded {
        attempt: u32,
        #[serde(flatten)]
        outcome: Outcome,
    },
    #[serde(rename = "webhook.attempt_failed", rename_all = "camelCase")]
    AttemptFailed {
        attempt: u32,
        #[serde(flatten)]
        outcome: Outcome,
    },
    #[serde(rename = "webhook.attempt_abandoned", rename_all = "camelCase")]
    AttemptAbandoned { attempt: u32 },
    #[serde(rename = "webhook.retry_scheduled", rename_all = "camelCase")]
    RetryScheduled { attempt: u32, retry_at: DateTime<Utc> },
    #[serde(rename = "webhook.dead_lettered", rename_all = "camelCase")]
    DeadLettered { attempts: u32 },
    #[serde(rename = "webhook.retry_requested", rename_all = "camelCase")]
    RetryRequested {
        attempt: u32,
        /// See [`SignatureMatch`].
        #[serde(skip_serializing_if = "Option::is_none", default)]
        provider_id: Option<ProviderId>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<Label>,
    },
}

aggregate!(Webhook, "webhook", WebhookCommand, WebhookEvent, WebhookError, {
    Received => "webhook.received" v 2,
    SignatureVerified => "webhook.signature_verified" v 1,
    Recorded => "webhook.recorded" v 1,
    ReceivedUnverified => "webhook.received_unverified" v 2,
    VerificationFailed => "webhook.verification_failed" v 1,
    Merged => "webhook.merged" v 1,
    Identified => "webhook.identified" v 1,
    TransmissionBound => "webhook.transmission_bound" v 1,
    Rejected => "webhook.rejected" v 2,
    DuplicateReceived => "webhook.duplicate_received" v 1,
    DuplicatesCounted => "webhook.duplicates_counted" v 1,
    DuplicateBodyKept => "webhook.duplicate_body_kept" v 1,
    AttemptStarted => "webhook.attempt_started" v 1,
    AttemptSucceeded => "webhook.attempt_succeeded" v 1,
    AttemptFailed => "webhook.attempt_failed" v 1,
    AttemptAbandoned => "webhook.attempt_abandoned" v 1,
    RetryScheduled => "webhook.retry_scheduled" v 1,
    DeadLettered => "webhook.dead_lettered" v 1,
    RetryRequested => "webhook.retry_requested" v 1,
});

/// Why a command is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("This webhook was already received.")]
    AlreadyReceived,
    #[error("Webhook not found.")]
    NotReceived,
    #[error("This webhook isn't waiting for verification.")]
    NotUnverified,
    #[error("Attempt {asked} can't start: the webhook is {phase} after attempt {last}.")]
    NotDue { asked: u32, last: u32, phase: Phase },
    #[error("Attempt {0} isn't running.")]
    NotRunning(u32),
    #[error("Attempt {0} can't succeed without a response from the destination.")]
    NotDelivered(u32),
    #[error("Only failed webhooks can be retried. This one is {0}.")]
    NotFailed(Phase),
}

impl Webhook {
    /// Decides a command; the time, the outcome and the delays come with it.
    pub fn decide(&self, command: WebhookCommand) -> Result<Vec<WebhookEvent>, WebhookError> {
        match command {
            WebhookCommand::Receive { receipt, verified, owed } => {
                self.expect_unknown()?;
                let mut events = vec![WebhookEvent::Received(receipt)];
                events.extend(Self::accept(SignatureMatch { owed: Some(owed), ..verified }));
                Ok(events)
            }
            WebhookCommand::ReceiveUnverified { receipt, event_webhook_id, owed } => {
                self.expect_unknown()?;
                Ok(vec![WebhookEvent::ReceivedUnverified { receipt, event_webhook_id, owed: Some(owed) }])
            }
            WebhookCommand::Verify { verified } => {
                self.expect_unverified()?;
                Ok(Self::accept(SignatureMatch { owed: self.owed, ..verified }).collect())
            }
            WebhookCommand::FailVerification { reason, detail } => {
                self.expect_unverified()?;
                Ok(vec![WebhookEvent::VerificationFailed { reason, detail }])
            }
            WebhookCommand::Merge { into } => {
                self.expect_unverified()?;
                Ok(vec![WebhookEvent::Merged { into }])
            }
            WebhookCommand::Reject { receipt, reason, detail } => {
                self.expect_unknown()?;
                Ok(vec![WebhookEvent::Rejected { receipt, reason, detail }])
            }
            WebhookCommand::ReceiveDuplicate { body_sha256, body_size } => {
                self.expect_known()?;
                let body_differs = body_sha256 != self.body_sha256;
                Ok(vec![WebhookEvent::DuplicateReceived { body_sha256, body_size, body_differs }])
            }
            WebhookCommand::StartAttempt { attempt } => self.start(attempt),
            WebhookCommand::SucceedAttempt { attempt, outcome } => {
                self.expect_running(attempt)?;
                if outcome.status_code.is_none() {
                    return Err(WebhookError::NotDelivered(attempt));
                }
                Ok(vec![WebhookEvent::AttemptSucceeded { attempt, outcome }])
            }
            WebhookCommand::FailAttempt { attempt, outcome, retry_at } => {
                self.expect_running(attempt)?;
                Ok(vec![WebhookEvent::AttemptFailed { attempt, outcome }, self.what_follows(attempt, retry_at)])
            }
            WebhookCommand::AbandonAttempt { attempt, retry_at } => {
                self.expect_running(attempt)?;
                Ok(vec![WebhookEvent::AttemptAbandoned { attempt }, self.what_follows(attempt, retry_at)])
            }
            WebhookCommand::RequestRetry { reason } => match self.phase {
                Phase::AwaitingRetry | Phase::DeadLettered => {
                    let (attempt, provider_id) = (self.attempt + 1, self.provider);
                    Ok(vec![WebhookEvent::RetryRequested { attempt, provider_id, reason }])
                }
                Phase::Unknown => Err(WebhookError::NotReceived),
                phase => Err(WebhookError::NotFailed(phase)),
            },
        }
    }

    /// A genuine webhook, which is a success at once where nothing but recording it is owed.
    fn accept(verified: SignatureMatch) -> impl Iterator<Item = WebhookEvent> {
        let recorded = (verified.owed == Some(Owed::Recording)).then_some(WebhookEvent::Recorded {});
        std::iter::once(WebhookEvent::SignatureVerified(verified)).chain(recorded)
    }

    fn expect_unknown(&self) -> Result<(), WebhookError> {
        if self.phase == Phase::Unknown { Ok(()) } else { Err(WebhookError::AlreadyReceived) }
    }

    fn expect_unverified(&self) -> Result<(), WebhookError> {
        if self.phase == Phase::Unverified { Ok(()) } else { Err(WebhookError::NotUnverified) }
    }

    fn expect_known(&self) -> Result<(), WebhookError> {
        if self.phase == Phase::Unknown { Err(WebhookError::NotReceived) } else { Ok(()) }
    }

    fn expect_running(&self, attempt: u32) -> Result<(), WebhookError> {
        let running = self.phase == Phase::Processing && self.attempt == attempt;
        if running { Ok(()) } else { Err(WebhookError::NotRunning(attempt)) }
    }

    fn start(&self, attempt: u32) -> Result<Vec<WebhookEvent>, WebhookError> {
        let due = matches!(self.phase, Phase::Pending | Phase::AwaitingRetry) && attempt == self.attempt + 1;
        if due {
            Ok(vec![WebhookEvent::AttemptStarted { attempt }])
        } else {
            Err(WebhookError::NotDue { asked: attempt, last: self.attempt, phase: self.phase })
        }
    }

    fn what_follows(&self, attempt: u32, retry_at: RetryAt) -> WebhookEvent {
        match retry_at {
            RetryAt::At(retry_at) if !self.requested => WebhookEvent::RetryScheduled { attempt: attempt + 1, retry_at },
            RetryAt::At(_) | RetryAt::Never => WebhookEvent::DeadLettered { attempts: attempt },
        }
    }

    /// Applies an event; public because workers fold partial streams.
    pub fn evolve(&mut self, event: &WebhookEvent) {
        match event {
            WebhookEvent::Received(receipt) => {
                self.phase = Phase::Received;
                self.provider = Some(receipt.provider_id);
                self.body_sha256.clone_from(&receipt.body_sha256);
            }
            WebhookEvent::SignatureVerified(_) => self.phase = Phase::Pending,
            WebhookEvent::Recorded {} => self.phase = Phase::Succeeded,
            WebhookEvent::ReceivedUnverified { receipt, owed, event_webhook_id: _ } => {
                self.phase = Phase::Unverified;
                self.owed = *owed;
                self.provider = Some(receipt.provider_id);
                self.body_sha256.clone_from(&receipt.body_sha256);
            }
            WebhookEvent::VerificationFailed { .. } => self.phase = Phase::Rejected,
            WebhookEvent::Merged { .. } => self.phase = Phase::Merged,
            // Streams of these events hold no webhook.
            WebhookEvent::Identified { .. }
            | WebhookEvent::TransmissionBound { .. }
            | WebhookEvent::DuplicateBodyKept { .. } => {}
            WebhookEvent::Rejected { receipt, .. } => {
                self.phase = Phase::Rejected;
                self.body_sha256.clone_from(&receipt.body_sha256);
            }
            WebhookEvent::DuplicateReceived { .. } | WebhookEvent::DuplicatesCounted { .. } => {}
            WebhookEvent::AttemptStarted { attempt } => {
                self.phase = Phase::Processing;
                self.attempt = *attempt;
            }
            WebhookEvent::AttemptSucceeded { .. } => self.phase = Phase::Succeeded,
            // The next event of the same unit says how it continues.
            WebhookEvent::AttemptFailed { .. } | WebhookEvent::AttemptAbandoned { .. } => {
                self.phase = Phase::AwaitingRetry;
            }
            WebhookEvent::RetryScheduled { retry_at, .. } => {
                self.phase = Phase::AwaitingRetry;
                self.retry_at = Some(*retry_at);
            }
            WebhookEvent::DeadLettered { .. } => self.phase = Phase::DeadLettered,
            WebhookEvent::RetryRequested { .. } => {
                self.phase = Phase::Pending;
                self.requested = true;
            }
        }
    }

    /// A webhook that waits for its next attempt, as a queue remembers it: everything that a worker needs to
    /// decide without reading the stream. The log still refuses decisions on stale memory.
    #[must_use]
    pub fn waiting(next_attempt: u32, requested: bool) -> Self {
        let phase = if requested || next_attempt <= 1 { Phase::Pending } else { Phase::AwaitingRetry };
        Self { phase, attempt: next_attempt.saturating_sub(1), requested, ..Self::default() }
    }

    /// SHA-256 of its body, in hex.
    #[must_use]
    pub fn body_sha256(&self) -> &str {
        &self.body_sha256
    }

    /// Whether a person requested the next or running attempt.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested
    }

    /// When its automatic retry is due, if it waits for one.
    #[must_use]
    pub fn retry_at(&self) -> Option<DateTime<Utc>> {
        self.retry_at
    }

    /// Where the webhook stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The number of the next attempt.
    #[must_use]
    pub fn next_attempt(&self) -> u32 {
        self.attempt + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> Receipt {
        Receipt {
            provider_id: ProviderId::default(),
            provider: ProviderName::Github,
            provider_event_id: Some(Label::new("1")),
            event_type: Some(Label::new("push")),
            body_sha256: "aa".into(),
            body_size: 2,
            headers_sha256: None,
            content_type: None,
            signature: None,
            duplicate_of: None,
            is_test: false,
            hops: 0,
        }
    }

    fn verified() -> SignatureMatch {
        SignatureMatch {
            scheme: SignatureScheme::HmacSha256,
            secret_version: 1,
            provider_id: None,
            owed: None,
            signed_at: None,
        }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    /// Runs commands in order, as the log would, and returns the last one's result.
    fn after(commands: Vec<WebhookCommand>) -> Webhook {
        let mut webhook = Webhook::default();
        for command in commands {
            for event in webhook.decide(command).unwrap() {
                webhook.evolve(&event);
            }
        }
        webhook
    }

    fn receive() -> WebhookCommand {
        WebhookCommand::Receive { receipt: receipt(), verified: verified(), owed: Owed::Delivery }
    }

    fn start(attempt: u32) -> WebhookCommand {
        WebhookCommand::StartAttempt { attempt }
    }

    fn fail(attempt: u32) -> WebhookCommand {
        let retry_at = RetryAt::after(&RetryPolicy::default(), attempt, at(0), 0, None);
        WebhookCommand::FailAttempt { attempt, outcome: Outcome::default(), retry_at }
    }

    fn dead_letter() -> Webhook {
        after(vec![receive(), start(1), fail(1), start(2), fail(2), start(3), fail(3), start(4), fail(4)])
    }

    #[test]
    fn a_webhook_is_received_once() {
        assert_eq!(after(vec![receive()]).decide(receive()), Err(WebhookError::AlreadyReceived));
    }

    #[test]
    fn a_duplicate_with_another_body_is_flagged() {
        let duplicate = |sha: &str| WebhookCommand::ReceiveDuplicate { body_sha256: sha.into(), body_size: 2 };
        let differs = |sha| match after(vec![receive()]).decide(duplicate(sha)).unwrap().remove(0) {
            WebhookEvent::DuplicateReceived { body_differs, .. } => body_differs,
            other => panic!("{other:?}"),
        };
        assert!(!differs("aa"));
        assert!(differs("bb"));
    }

    #[test]
    fn a_rejected_webhook_is_never_processed() {
        let reject = WebhookCommand::Reject {
            receipt: receipt(),
            reason: RejectionReason::SignatureInvalid,
            detail: Label::new("no signature matches"),
        };
        let rejected = after(vec![reject]);
        assert!(matches!(rejected.decide(start(1)), Err(WebhookError::NotDue { .. })));
        let refused = rejected.decide(WebhookCommand::RequestRetry { reason: None });
        assert_eq!(refused, Err(WebhookError::NotFailed(Phase::Rejected)));
        let sentence = "Only failed webhooks can be retried. This one is rejected.";
        assert_eq!(refused.map_err(|error| error.to_string()), Err(sentence.to_owned()));
    }

    #[test]
    fn what_is_not_verified_is_not_processed() {
        let unverified = || WebhookCommand::ReceiveUnverified {
            receipt: receipt(),
            event_webhook_id: WebhookId::default(),
            owed: Owed::Delivery,
        };
        let waiting = after(vec![unverified()]);
        assert!(matches!(waiting.decide(start(1)), Err(WebhookError::NotDue { .. })));
        assert_eq!(after(vec![unverified(), WebhookCommand::Verify { verified: verified() }]).phase(), Phase::Pending);
        let fail = WebhookCommand::FailVerification {
            reason: RejectionReason::SignatureInvalid,
            detail: Label::new("no signature matches"),
        };
        let failed = after(vec![unverified(), fail]);
        assert!(matches!(failed.decide(start(1)), Err(WebhookError::NotDue { .. })));
        assert_eq!(failed.decide(WebhookCommand::Verify { verified: verified() }), Err(WebhookError::NotUnverified));
        let merged = after(vec![unverified(), WebhookCommand::Merge { into: WebhookId::default() }]);
        assert!(matches!(merged.decide(start(1)), Err(WebhookError::NotDue { .. })));
    }

    #[test]
    fn the_third_failed_retry_is_a_dead_letter() {
        let webhook = dead_letter();
        assert_eq!(webhook.phase(), Phase::DeadLettered);
        assert_eq!(webhook.next_attempt(), 5);
    }

    #[test]
    fn a_person_gets_one_more_attempt() {
        let mut webhook = dead_letter();
        for command in [WebhookCommand::RequestRetry { reason: None }, start(5)] {
            for event in webhook.decide(command).unwrap() {
                webhook.evolve(&event);
            }
        }
        let retry_at = RetryAt::At(at(60));
        let events = webhook.decide(WebhookCommand::FailAttempt { attempt: 5, outcome: Outcome::default(), retry_at });
        assert!(matches!(events.unwrap()[..], [_, WebhookEvent::DeadLettered { attempts: 5 }]));
    }

    #[test]
    fn an_attempt_starts_and_ends_once() {
        let started = after(vec![receive(), start(1)]);
        assert!(matches!(started.decide(start(1)), Err(WebhookError::NotDue { .. })));
        let ended = after(vec![receive(), start(1), fail(1)]);
        assert_eq!(
            ended.decide(WebhookCommand::SucceedAttempt { attempt: 1, outcome: Outcome::default() }),
            Err(WebhookError::NotRunning(1))
        );
    }

    #[test]
    fn only_an_answer_makes_a_delivery_a_success() {
        assert_eq!(after(vec![receive()]).phase(), Phase::Pending);
        assert_eq!(
            after(vec![receive(), start(1)])
                .decide(WebhookCommand::SucceedAttempt { attempt: 1, outcome: Outcome::default() }),
            Err(WebhookError::NotDelivered(1))
        );
    }

    #[test]
    fn what_is_owed_no_delivery_is_a_success_with_its_receipt_and_never_retried() {
        let owed = Owed::Recording;
        let receive = WebhookCommand::Receive { receipt: receipt(), verified: verified(), owed };
        let events = Webhook::default().decide(receive.clone()).unwrap();
        assert!(matches!(events[..], [_, WebhookEvent::SignatureVerified(_), WebhookEvent::Recorded {}]), "{events:?}");
        let recorded = after(vec![receive]);
        assert_eq!(recorded.phase(), owed.accepted());
        assert!(matches!(recorded.decide(start(1)), Err(WebhookError::NotDue { .. })));
        let retry = recorded.decide(WebhookCommand::RequestRetry { reason: None });
        assert_eq!(retry, Err(WebhookError::NotFailed(Phase::Succeeded)));
    }

    #[test]
    fn what_is_owed_is_decided_when_the_webhook_is_received() {
        let receive = WebhookCommand::ReceiveUnverified {
            receipt: receipt(),
            event_webhook_id: WebhookId::default(),
            owed: Owed::Recording,
        };
        let verified = after(vec![receive, WebhookCommand::Verify { verified: verified() }]);
        assert_eq!(verified.phase(), Phase::Succeeded);
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
