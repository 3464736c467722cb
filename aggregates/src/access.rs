//! Facts about people for auditors: refused actions, exports, deliveries of duplicates. They depend on no
//! state and change none. The stream has the person's ID. It is separate from the user's own stream, which
//! every decision reads and which must not grow with refused attempts.

use std::convert::Infallible;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decision::aggregate;
use crate::{Label, WebhookId};

/// Recording a fact needs no state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Access {}

/// Records a fact.
#[derive(Clone, Debug)]
pub enum AccessCommand {
    /// Records the event unchanged.
    Note(AccessEvent),
}

/// A person's refused action, export, verification, or delivery of a duplicate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessEvent {
    /// The role does not allow it. `action` is a name of ours, like `deleteProvider`.
    #[serde(rename = "access.action_refused")]
    ActionRefused {
        /// The field of the GraphQL schema, or the action of an HTTP route.
        action: Label,
    },
    /// A sign-in link of the person did not work.
    #[serde(rename = "access.sign_in_refused")]
    SignInRefused {
        /// The cause.
        reason: SignInRefusal,
    },
    /// Number of refusals since then that were counted instead of recorded individually.
    #[serde(rename = "access.refusals_suppressed")]
    RefusalsSuppressed {
        /// Number of refusals.
        count: u64,
        /// The time of the first of them.
        since: DateTime<Utc>,
    },
    /// `filter` is JSON of ours, as requested.
    #[serde(rename = "access.audit_exported")]
    AuditExported {
        /// `csv` or `json` for the audit trail, `ledger` for the ledger.
        format: Label,
        /// The requested selection.
        filter: Label,
    },
    /// The body of one of the webhook's duplicates was delivered as a separate webhook. The stream has the ID
    /// of the original.
    #[serde(rename = "access.duplicate_delivered", rename_all = "camelCase")]
    DuplicateDelivered {
        /// Digest of the duplicate's body, in hex.
        body_sha256: String,
        /// The webhook that was created from it.
        delivered_as: WebhookId,
        /// The reason that the person gave.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<Label>,
    },
    /// The log was verified against its ledger.
    #[serde(rename = "access.ledger_verified")]
    LedgerVerified {
        /// Number of organizations whose ledger was verified.
        ledgers: u64,
        /// Number of verified events.
        events: u64,
        /// The first problem, in a sentence; `None` if there was none.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        finding: Option<Label>,
    },
}

/// Why a person with an account could not sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignInRefusal {
    /// The user or the organization is deactivated.
    Deactivated,
    /// The link is too old.
    LinkExpired,
    /// The link was used before.
    LinkUsed,
}

aggregate!(Access, "access", AccessCommand, AccessEvent, Infallible, {
    ActionRefused => "access.action_refused" v 1,
    SignInRefused => "access.sign_in_refused" v 1,
    RefusalsSuppressed => "access.refusals_suppressed" v 1,
    AuditExported => "access.audit_exported" v 1,
    DuplicateDelivered => "access.duplicate_delivered" v 1,
    LedgerVerified => "access.ledger_verified" v 1,
});

impl Access {
    /// Records every fact unchanged.
    pub fn decide(&self, command: AccessCommand) -> Result<Vec<AccessEvent>, Infallible> {
        let AccessCommand::Note(event) = command;
        Ok(vec![event])
    }

    #[expect(clippy::unused_self, reason = "as every aggregate takes events in; here nothing is remembered")]
    fn evolve(&mut self, _event: &AccessEvent) {}
}
