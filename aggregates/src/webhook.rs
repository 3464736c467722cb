//! A webhook: from its receipt to success or the dead letter queue.
//!
//! ```text
//! received → pending → processing → success
//!                        │  ▲
//!                        ▼  │ retry
//!                      failed ──(third retry failed)──▶ dead letter ──(a person)──▶ pending
//! ```

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use crate::decision::aggregate;
use crate::{Label, ProviderId, ProviderName, WebhookId};

/// What was received, whichever way it went. The bytes themselves lie beside the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    pub provider_id: ProviderId,
    pub provider: ProviderName,
    /// The provider's own id of the event, where it sent one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider_event_id: Option<Label>,
    /// The provider's own name of the event, `push` or `charge.succeeded`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub event_type: Option<Label>,
    /// SHA-256 of the raw body, in hex.
    pub body_sha256: String,
    /// Bytes.
    pub body_size: u64,
    /// SHA-256 of the headers that are kept, as they are kept, in hex. Version 1 left it out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub headers_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_type: Option<Label>,
    /// The signature header as it came, cut to a bound.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signature: Option<Label>,
    /// The webhook whose duplicate had this body, where a person had that delivered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub duplicate_of: Option<WebhookId>,
    /// A person sent it to try the provider.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub is_test: bool,
    /// How often an installation of ours had delivered it before it came here.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub hops: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Which secret verified a webhook, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignatureMatch {
    pub scheme: SignatureScheme,
    pub secret_version: u32,
    /// Who sent it, so that whoever reads this event needs no other. Earlier releases left it out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider_id: Option<ProviderId>,
    /// What processing it means, decided for ever. Earlier releases left it out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owed: Option<Owed>,
    /// When the sender says it signed, where the scheme signs that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signed_at: Option<DateTime<Utc>>,
}

/// What a webhook is owed: decided by what its provider had when the webhook was accepted. A change to
/// the provider after that holds a delivery, and never turns it into a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owed {
    /// There was no destination: recording the webhook is the processing.
    Recording,
    /// A delivery to the provider's destination.
    Delivery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureScheme {
    HmacSha256,
    Ed25519,
    RsaSha256,
}

/// Why a request was refused after its provider was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectionReason {
    SignatureMissing,
    SignatureInvalid,
    TimestampOutOfTolerance,
    ProviderDisabled,
    OrganizationDisabled,
    MonthlyLimitReached,
    /// The id of a transmission came before, with another body: a security event.
    TransmissionReplayed,
    /// It was delivered from one installation to another too often: destinations form a loop.
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

/// How one try ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// HTTP status, where there was an answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status_code: Option<u16>,
    #[serde(default)]
    pub duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<Label>,
    /// Bytes of the answer's body that were kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub response_size: Option<u32>,
    /// SHA-256 of these bytes, in hex.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub response_sha256: Option<String>,
}

/// How many bodies of a webhook's duplicates are kept that differ from its own and from each other.
pub const MAX_DUPLICATE_BODIES: usize = 16;

/// What is said of an attempt that no worker took in time.
pub const PENDING_TIMEOUT: &str = "pending timeout";

/// When failed attempts are tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The wait before retry 1, 2, 3…; as many retries as there are delays.
    pub delays: Vec<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { delays: [1, 5, 15].map(Duration::minutes).to_vec() }
    }
}

/// Where a webhook stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    #[default]
    Unknown,
    /// Received; that it is verified stands in the next event of the same unit.
    Received,
    /// Accepted before it could be verified. Not processed until it is.
    Unverified,
    Pending,
    Processing,
    Succeeded,
    /// Failed, and waiting for its retry.
    AwaitingRetry,
    DeadLettered,
    Rejected,
    /// Found to be another delivery of a webhook that is known.
    Merged,
}

/// State of one webhook.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Webhook {
    phase: Phase,
    #[serde(default)]
    provider: Option<ProviderId>,
    body_sha256: String,
    /// The attempt that is running, or was the last to run.
    attempt: u32,
    /// A person asked for the coming attempt: it is not followed by automatic ones.
    requested: bool,
    #[serde(default)]
    owed: Option<Owed>,
    #[serde(default)]
    retry_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug)]
pub enum WebhookCommand {
    /// A genuine delivery, seen for the first time.
    Receive {
        receipt: Receipt,
        verified: SignatureMatch,
        owed: Owed,
    },
    /// A delivery that cannot be verified yet; its id is fresh, since a forger may have sent it.
    ReceiveUnverified {
        receipt: Receipt,
        event_webhook_id: WebhookId,
        owed: Owed,
    },
    /// What was not verified yet is genuine.
    Verify {
        verified: SignatureMatch,
    },
    /// What was not verified yet is not genuine, or came too late.
    FailVerification {
        reason: RejectionReason,
        detail: Label,
    },
    /// What was not verified yet is genuine, and known already.
    Merge {
        into: WebhookId,
    },
    /// A delivery that is refused; its id is fresh.
    Reject {
        receipt: Receipt,
        reason: RejectionReason,
        detail: Label,
    },
    /// A genuine delivery of an event that was received before.
    ReceiveDuplicate {
        body_sha256: String,
        body_size: u64,
    },
    StartAttempt {
        attempt: u32,
    },
    /// Processes a webhook that is owed nothing but being recorded.
    Record,
    /// The destination took it: the outcome has its answer.
    SucceedAttempt {
        attempt: u32,
        outcome: Outcome,
    },
    /// `retry_after` has the delay of the policy lengthened or jittered already.
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

/// What the policy says of a failed attempt; see [`RetryAt::after`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAt {
    At(DateTime<Utc>),
    Never,
}

impl RetryAt {
    /// When attempt `attempt + 1` is due after `attempt` failed at `failed_at`.
    ///
    /// `jitter_per_mille` lengthens the delay by up to 10 % (0 to 100); `asked` is the receiver's
    /// `Retry-After`, honoured to at most double the delay.
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WebhookEvent {
    #[serde(rename = "webhook.received")]
    Received(Receipt),
    #[serde(rename = "webhook.signature_verified")]
    SignatureVerified(SignatureMatch),
    #[serde(rename = "webhook.received_unverified", rename_all = "camelCase")]
    ReceivedUnverified {
        #[serde(flatten)]
        receipt: Receipt,
        /// The id that this provider event has, which is taken only once it is verified.
        event_webhook_id: WebhookId,
        /// As in [`SignatureMatch`].
        #[serde(skip_serializing_if = "Option::is_none", default)]
        owed: Option<Owed>,
    },
    #[serde(rename = "webhook.verification_failed", rename_all = "camelCase")]
    VerificationFailed { reason: RejectionReason, detail: Label },
    #[serde(rename = "webhook.merged", rename_all = "camelCase")]
    Merged { into: WebhookId },
    /// The only event of its stream, whose id is that of the provider event: the webhook that it
    /// became has another, because it was accepted before it was verified.
    #[serde(rename = "webhook.identified", rename_all = "camelCase")]
    Identified { webhook_id: WebhookId },
    /// The only event of its stream, whose id is that of a transmission: good for this body alone.
    /// A stream of this kind, so that those who follow people need not read such traffic.
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
    /// Duplicates beyond a rate, counted instead of logged one by one; of these so many had another body.
    #[serde(rename = "webhook.duplicates_counted", rename_all = "camelCase")]
    DuplicatesCounted { count: u64, differing: u64, since: DateTime<Utc> },
    /// The body of a duplicate that differed from all before, which lies beside the log as each. In a
    /// stream of such bodies alone, so that none comes in twice and there are at most [`MAX_DUPLICATE_BODIES`].
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
        /// As in [`SignatureMatch`].
        #[serde(skip_serializing_if = "Option::is_none", default)]
        provider_id: Option<ProviderId>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        owed: Option<Owed>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<Label>,
    },
}

aggregate!(Webhook, "webhook", WebhookCommand, WebhookEvent, WebhookError, {
    Received => "webhook.received" v 2,
    SignatureVerified => "webhook.signature_verified" v 1,
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

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("This webhook was already received.")]
    AlreadyReceived,
    #[error("Webhook not found.")]
    NotReceived,
    #[error("This webhook isn't waiting for verification.")]
    NotUnverified,
    #[error("Attempt {asked} can't start: the webhook is {phase:?} after attempt {last}.")]
    NotDue { asked: u32, last: u32, phase: Phase },
    #[error("Attempt {0} isn't running.")]
    NotRunning(u32),
    #[error("Attempt {0} can't succeed without a response from the destination.")]
    NotDelivered(u32),
    #[error("This webhook has a destination, so storing it isn't enough.")]
    DeliveryOwed,
    #[error("Only failed webhooks can be retried. This one is {0:?}.")]
    NotFailed(Phase),
}

impl Webhook {
    pub fn decide(&self, command: WebhookCommand) -> Result<Vec<WebhookEvent>, WebhookError> {
        match command {
            WebhookCommand::Receive { receipt, verified, owed } => {
                self.expect_unknown()?;
                let verified = SignatureMatch { owed: Some(owed), ..verified };
                Ok(vec![WebhookEvent::Received(receipt), WebhookEvent::SignatureVerified(verified)])
            }
            WebhookCommand::ReceiveUnverified { receipt, event_webhook_id, owed } => {
                self.expect_unknown()?;
                Ok(vec![WebhookEvent::ReceivedUnverified { receipt, event_webhook_id, owed: Some(owed) }])
            }
            WebhookCommand::Verify { verified } => {
                self.expect_unverified()?;
                Ok(vec![WebhookEvent::SignatureVerified(SignatureMatch { owed: self.owed, ..verified })])
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
            WebhookCommand::Record if self.owed != Some(Owed::Recording) => Err(WebhookError::DeliveryOwed),
            WebhookCommand::Record => {
                let attempt = self.next_attempt();
                let mut events = self.start(attempt)?;
                events.push(WebhookEvent::AttemptSucceeded { attempt, outcome: Outcome::default() });
                Ok(events)
            }
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
                    let (attempt, provider_id, owed) = (self.attempt + 1, self.provider, self.owed);
                    Ok(vec![WebhookEvent::RetryRequested { attempt, provider_id, owed, reason }])
                }
                Phase::Unknown => Err(WebhookError::NotReceived),
                phase => Err(WebhookError::NotFailed(phase)),
            },
        }
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

    /// Applies an event; public because workers fold the little that they read.
    pub fn evolve(&mut self, event: &WebhookEvent) {
        match event {
            WebhookEvent::Received(receipt) => {
                self.phase = Phase::Received;
                self.provider = Some(receipt.provider_id);
                self.body_sha256.clone_from(&receipt.body_sha256);
            }
            WebhookEvent::SignatureVerified(verified) => {
                self.phase = Phase::Pending;
                self.owed = verified.owed.or(self.owed);
            }
            WebhookEvent::ReceivedUnverified { receipt, owed, event_webhook_id: _ } => {
                self.phase = Phase::Unverified;
                self.owed = *owed;
                self.provider = Some(receipt.provider_id);
                self.body_sha256.clone_from(&receipt.body_sha256);
            }
            WebhookEvent::VerificationFailed { .. } => self.phase = Phase::Rejected,
            WebhookEvent::Merged { .. } => self.phase = Phase::Merged,
            // Streams of these hold no webhook.
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
            // What follows stands in the next event of the same unit.
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

    /// A webhook that waits for its next attempt, as a queue remembers it: what a worker needs to
    /// decide without reading the stream. The log still refuses what was decided on stale memory.
    #[must_use]
    pub fn waiting(next_attempt: u32, requested: bool, owed: Owed) -> Self {
        let phase = if requested || next_attempt <= 1 { Phase::Pending } else { Phase::AwaitingRetry };
        Self {
            phase,
            provider: None,
            body_sha256: String::new(),
            attempt: next_attempt.saturating_sub(1),
            requested,
            owed: Some(owed),
            retry_at: None,
        }
    }

    /// The same webhook, where its events do not say what it is owed and the log was asked.
    #[must_use]
    pub fn owing(self, owed: Owed) -> Self {
        Self { owed: self.owed.or(Some(owed)), ..self }
    }

    /// What processing it means; nothing where an earlier release received it.
    #[must_use]
    pub fn owed(&self) -> Option<Owed> {
        self.owed
    }

    /// Who sent it.
    #[must_use]
    pub fn provider(&self) -> Option<ProviderId> {
        self.provider
    }

    /// SHA-256 of its body, in hex.
    #[must_use]
    pub fn body_sha256(&self) -> &str {
        &self.body_sha256
    }

    /// Whether a person asked for the coming attempt, or the one that runs.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested
    }

    /// When its automatic retry is due, where it waits for one.
    #[must_use]
    pub fn retry_at(&self) -> Option<DateTime<Utc>> {
        self.retry_at
    }

    /// Where the webhook stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The attempt that would come next.
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

    /// Runs commands in order, as the log would, and returns the last one's answer.
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
        assert!(matches!(
            rejected.decide(WebhookCommand::RequestRetry { reason: None }),
            Err(WebhookError::NotFailed(Phase::Rejected))
        ));
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
        let pending = after(vec![receive()]);
        assert_eq!(pending.decide(WebhookCommand::Record), Err(WebhookError::DeliveryOwed));
        assert_eq!(
            after(vec![receive(), start(1)])
                .decide(WebhookCommand::SucceedAttempt { attempt: 1, outcome: Outcome::default() }),
            Err(WebhookError::NotDelivered(1))
        );
        let owed = Owed::Recording;
        let stored = after(vec![WebhookCommand::Receive { receipt: receipt(), verified: verified(), owed }]);
        assert!(matches!(
            stored.decide(WebhookCommand::Record).unwrap()[..],
            [WebhookEvent::AttemptStarted { attempt: 1 }, WebhookEvent::AttemptSucceeded { attempt: 1, .. }]
        ));
    }

    #[test]
    fn what_is_owed_is_decided_when_the_webhook_is_received() {
        let receive = WebhookCommand::ReceiveUnverified {
            receipt: receipt(),
            event_webhook_id: WebhookId::default(),
            owed: Owed::Recording,
        };
        let verified = after(vec![receive, WebhookCommand::Verify { verified: verified() }]);
        assert_eq!(verified.owed(), Some(Owed::Recording));
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
