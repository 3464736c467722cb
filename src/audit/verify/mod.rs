//! Verifies that nothing was altered, removed or reordered: in a store against the signed heads ([`store`]),
//! and in an export with nothing but the file ([`crate::audit::export`]).
//!
//! [`TreeCheck`] and [`explain`] decide what is wrong with a tree, [`EventCheck`] what is wrong with the
//! order of events and with the requests stored beside them. They are pure. The result is a [`Verification`],
//! which is printed as text and as a page that an auditor can file ([`report`]).

mod blame;
mod events;
mod finding;
mod promises;
pub mod report;
mod signatures;
pub mod store;
mod stored;
mod tally;
mod tree;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

pub use blame::{Suspect, explain};
pub(crate) use events::{Digests, has_request};
pub use events::{EventCheck, Request};
pub use finding::{Finding, Findings, Kind};
pub use tally::Tally;
pub use tree::{Promise, StoredTile, TreeCheck};

use hookledger_aggregates::OrganizationId;

use super::LedgerId;
use super::checkpoint::{Checkpoint, PublicKey};
use super::loss::{Loss, LostHead};
use crate::log::stored_event::StoredEvent;

/// Heads of trees that are listed.
const HEADS: usize = 100;
/// Organizations whose slug is remembered.
const NAMES: usize = 10_000;

/// The verified database or file.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A database: every organization, or one.
    Store { organization: Option<String> },
    /// An export, and the organization that it claims to be from.
    File { path: String, organization: String },
}

/// Origin of the keys that verified the checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Given by a person who knows them.
    Given,
    /// Derived from the deployment's master keys.
    Deployment,
    /// Named by the file itself.
    File,
}

impl KeySource {
    /// The sentence of the report about what such keys prove.
    #[must_use]
    pub fn proves(self) -> &'static str {
        match self {
            Self::Given => "The key was given on the command line: nothing that it signed has changed since.",
            Self::Deployment => {
                "The keys come from this deployment's master keys: this proves that nobody without them changed \
                 anything. If you don't trust the operator, supply a public key that you saved earlier (--public-key)."
            }
            Self::File => {
                "The keys come from the file itself: this proves that the file is complete and unchanged since \
                 somebody with these keys wrote it. Compare them with keys that you got from the deployment earlier, \
                 or supply one (--public-key)."
            }
        }
    }
}

/// Signed heads outside the database that differ from the log's and are not declared lost.
#[derive(Clone, Debug, Default)]
pub struct Undeclared {
    /// With the proved leaves before each, and the position of the last of them.
    pub lost: Vec<(LedgerId, Promise, (u64, i64))>,
    /// Valid heads that are missing from the database.
    pub unrecorded: Vec<(LedgerId, LostHead)>,
}

/// Result of a verification.
#[derive(Clone, Debug)]
pub struct Verification {
    pub subject: Subject,
    pub checked_at: DateTime<Utc>,
    pub keys: Vec<PublicKey>,
    pub key_source: KeySource,
    pub tally: Tally,
    /// Rebuilt trees.
    pub ledgers: u64,
    /// Checkpoints with a correct signature and root.
    pub checkpoints: u64,
    /// The last checkpoint of each tree, of the first 100.
    pub heads: Vec<Checkpoint>,
    /// Events after the last checkpoint of their tree.
    pub unsigned: u64,
    pub findings: Findings,
    /// Declared losses.
    pub losses: Vec<Loss>,
    /// Losses that could be declared, if requested.
    pub undeclared: Option<Undeclared>,
    /// Slugs of organizations, from the log.
    pub names: BTreeMap<Uuid, String>,
    /// Remarks for the reader of the result.
    pub notes: Vec<String>,
}

impl Verification {
    #[must_use]
    pub fn new(subject: Subject, checked_at: DateTime<Utc>, keys: Vec<PublicKey>, key_source: KeySource) -> Self {
        Self {
            subject,
            checked_at,
            keys,
            key_source,
            tally: Tally::default(),
            ledgers: 0,
            checkpoints: 0,
            heads: Vec::new(),
            unsigned: 0,
            findings: Findings::default(),
            losses: Vec::new(),
            undeclared: None,
            names: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// Remembers the head of a tree.
    pub fn note_head(&mut self, head: Checkpoint) {
        if self.heads.len() < HEADS {
            self.heads.push(head);
        }
    }

    /// Remembers an organization's slug, from the event that created it.
    pub fn note_name<T: AsRef<str>>(&mut self, event: &StoredEvent<T>) {
        #[derive(serde::Deserialize)]
        struct Created {
            slug: String,
        }
        if event.event_type.as_ref() == "organization.created"
            && self.names.len() < NAMES
            && let Ok(created) = serde_json::from_str::<Created>(event.payload.as_ref())
        {
            self.names.insert(event.organization, created.slug);
        }
    }

    /// A tree's name for people.
    #[must_use]
    pub fn name_of(&self, ledger: LedgerId) -> String {
        match self.names.get(&ledger.uuid()) {
            Some(slug) => format!("organization {slug}"),
            None if ledger == LedgerId::organization(OrganizationId::PLATFORM) => {
                "the platform's own events".to_owned()
            }
            None if ledger.is_of_many() => format!("claims on email addresses in partition {}", ledger.partition()),
            None => format!("organization {ledger}"),
        }
    }

    /// Whether no problem was found.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty()
    }
}
