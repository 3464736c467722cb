//! A webhook: from its receipt to the decision where it goes. Its deliveries have streams of their own.
//!
//! ```text
//! received → verified → routed ─▶ a delivery for each route that it matched
//! ```

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decision::aggregate;
use crate::{Label, Phase, Routing, WebhookId};

pub use crate::receipt::{Receipt, RejectionReason, SignatureMatch, SignatureScheme};

/// Maximum number of stored bodies of duplicates that differ from the webhook's own and from each other.
pub const MAX_DUPLICATE_BODIES: usize = 16;

/// The state of one webhook.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Webhook {
    /// Once it is routed, its deliveries go on from here.
    phase: Phase,
    body_sha256: String,
    /// Where it goes once it is verified; known only while it waits for that.
    #[serde(default)]
    routing: Option<Routing>,
}

/// Receives a webhook, or moves it along.
#[derive(Clone, Debug)]
pub enum WebhookCommand {
    /// A genuine request, received for the first time.
    Receive { receipt: Receipt, verified: SignatureMatch, routing: Routing },
    /// A request that cannot be verified yet; its ID is random, because it may be a forgery.
    ReceiveUnverified { receipt: Receipt, event_webhook_id: WebhookId, routing: Routing },
    /// A waiting request is genuine.
    Verify { verified: SignatureMatch },
    /// A waiting request is not genuine, or came too late.
    FailVerification { reason: RejectionReason, detail: Label },
    /// A waiting request is genuine, and a duplicate.
    Merge { into: WebhookId },
    /// A rejected request; its ID is random.
    Reject { receipt: Receipt, reason: RejectionReason, detail: Label },
    /// A genuine request for an event that was received before.
    ReceiveDuplicate { body_sha256: String, body_size: u64 },
}

/// A step of a webhook, from its receipt to the decision where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WebhookEvent {
    #[serde(rename = "webhook.received")]
    Received(Receipt),
    #[serde(rename = "webhook.signature_verified")]
    SignatureVerified(SignatureMatch),
    /// Where it goes. In the unit that verifies it, if nothing has to be evaluated.
    #[serde(rename = "webhook.routed")]
    Routed(Routing),
    #[serde(rename = "webhook.received_unverified", rename_all = "camelCase")]
    ReceivedUnverified {
        #[serde(flatten)]
        receipt: Receipt,
        /// The ID of this provider event, which is taken only once the request is verified.
        event_webhook_id: WebhookId,
        /// Decided with the receipt.
        routing: Routing,
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
}

aggregate!(Webhook, "webhook", WebhookCommand, WebhookEvent, WebhookError, {
    Received => "webhook.received" v 2,
    SignatureVerified => "webhook.signature_verified" v 1,
    Routed => "webhook.routed" v 1,
    ReceivedUnverified => "webhook.received_unverified" v 2,
    VerificationFailed => "webhook.verification_failed" v 1,
    Merged => "webhook.merged" v 1,
    Identified => "webhook.identified" v 1,
    TransmissionBound => "webhook.transmission_bound" v 1,
    Rejected => "webhook.rejected" v 2,
    DuplicateReceived => "webhook.duplicate_received" v 1,
    DuplicatesCounted => "webhook.duplicates_counted" v 1,
    DuplicateBodyKept => "webhook.duplicate_body_kept" v 1,
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
}

impl Webhook {
    /// Decides a command; the time and the routing come with it.
    pub fn decide(&self, command: WebhookCommand) -> Result<Vec<WebhookEvent>, WebhookError> {
        match command {
            WebhookCommand::Receive { receipt, verified, routing } => {
                self.expect_unknown()?;
                let verified = WebhookEvent::SignatureVerified(verified);
                Ok(vec![WebhookEvent::Received(receipt), verified, WebhookEvent::Routed(routing)])
            }
            WebhookCommand::ReceiveUnverified { receipt, event_webhook_id, routing } => {
                self.expect_unknown()?;
                Ok(vec![WebhookEvent::ReceivedUnverified { receipt, event_webhook_id, routing }])
            }
            WebhookCommand::Verify { verified } => {
                self.expect_unverified()?;
                let routing = self.routing.clone().unwrap_or_default();
                Ok(vec![WebhookEvent::SignatureVerified(verified), WebhookEvent::Routed(routing)])
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

    /// Applies an event; public because receiving folds partial streams.
    pub fn evolve(&mut self, event: &WebhookEvent) {
        match event {
            WebhookEvent::Received(receipt) => {
                self.phase = Phase::Received;
                self.body_sha256.clone_from(&receipt.body_sha256);
            }
            WebhookEvent::SignatureVerified(_) => self.phase = Phase::Pending,
            WebhookEvent::Routed(routing) => {
                self.phase = routing.phase();
                self.routing = None;
            }
            WebhookEvent::ReceivedUnverified { receipt, routing, event_webhook_id: _ } => {
                self.phase = Phase::Unverified;
                self.routing = Some(routing.clone());
                self.body_sha256.clone_from(&receipt.body_sha256);
            }
            WebhookEvent::VerificationFailed { .. } => self.phase = Phase::Rejected,
            WebhookEvent::Merged { .. } => self.phase = Phase::Merged,
            WebhookEvent::Rejected { receipt, .. } => {
                self.phase = Phase::Rejected;
                self.body_sha256.clone_from(&receipt.body_sha256);
            }
            // Streams of the first three hold no webhook.
            WebhookEvent::Identified { .. }
            | WebhookEvent::TransmissionBound { .. }
            | WebhookEvent::DuplicateBodyKept { .. }
            | WebhookEvent::DuplicateReceived { .. }
            | WebhookEvent::DuplicatesCounted { .. } => {}
        }
    }

    /// SHA-256 of its body, in hex.
    #[must_use]
    pub fn body_sha256(&self) -> &str {
        &self.body_sha256
    }

    /// Where the webhook stands according to its own stream: pending, if it has deliveries.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::Match;
    use crate::{DeliveryId, DestinationId, ProviderId, ProviderName, RouteId};

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
        SignatureMatch { scheme: SignatureScheme::HmacSha256, secret_version: 1, provider_id: None, signed_at: None }
    }

    fn routing() -> Routing {
        let to = Match {
            delivery_id: DeliveryId::default(),
            route_id: RouteId::default(),
            version: 1,
            destination_id: DestinationId::default(),
        };
        Routing { matched: vec![to], unmatched: vec![] }
    }

    /// Runs commands in order, as the log would.
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
        WebhookCommand::Receive { receipt: receipt(), verified: verified(), routing: routing() }
    }

    fn receive_unverified(routing: Routing) -> WebhookCommand {
        WebhookCommand::ReceiveUnverified { receipt: receipt(), event_webhook_id: WebhookId::default(), routing }
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
    fn what_is_not_verified_is_not_routed() {
        let waiting = after(vec![receive_unverified(routing())]);
        assert_eq!(waiting.phase(), Phase::Unverified);
        let verified_later = vec![receive_unverified(routing()), WebhookCommand::Verify { verified: verified() }];
        assert_eq!(after(verified_later).phase(), Phase::Pending);
        let fail = WebhookCommand::FailVerification {
            reason: RejectionReason::SignatureInvalid,
            detail: Label::new("no signature matches"),
        };
        let failed = after(vec![receive_unverified(routing()), fail]);
        assert_eq!(failed.phase(), Phase::Rejected);
        assert_eq!(failed.decide(WebhookCommand::Verify { verified: verified() }), Err(WebhookError::NotUnverified));
        let into = WebhookId::default();
        let merged = after(vec![receive_unverified(routing()), WebhookCommand::Merge { into }]);
        assert_eq!(merged.decide(WebhookCommand::Verify { verified: verified() }), Err(WebhookError::NotUnverified));
    }

    #[test]
    fn what_no_route_takes_is_a_success_with_its_receipt() {
        let routing = Routing::default();
        let receive = WebhookCommand::Receive { receipt: receipt(), verified: verified(), routing };
        let events = Webhook::default().decide(receive.clone()).unwrap();
        assert!(matches!(events[..], [_, WebhookEvent::SignatureVerified(_), WebhookEvent::Routed(_)]), "{events:?}");
        assert_eq!(after(vec![receive]).phase(), Phase::Succeeded);
    }

    #[test]
    fn where_a_webhook_goes_is_decided_when_it_is_received() {
        let waiting = after(vec![receive_unverified(routing())]);
        let events = waiting.decide(WebhookCommand::Verify { verified: verified() }).unwrap();
        assert_eq!(events[1], WebhookEvent::Routed(routing()));
        let waiting = after(vec![receive_unverified(Routing::default())]);
        let events = waiting.decide(WebhookCommand::Verify { verified: verified() }).unwrap();
        assert_eq!(events[1], WebhookEvent::Routed(Routing::default()));
    }
}
