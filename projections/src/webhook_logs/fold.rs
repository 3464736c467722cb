//! A batch of events as one change per webhook. Pure.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use hookledger_aggregates::signature::SINGLE_USE;
use hookledger_aggregates::webhook::{Receipt, RejectionReason, WebhookEvent};
use hookledger_aggregates::{Event, Label, RecordedEvent};
use uuid::Uuid;

use super::{MAX_RETRIES, WebhookStatus};
use crate::analytics::Tally;
use crate::webhook_retries::{Attempts, WORKER_LOST};

/// Changes of one webhook in a batch.
pub(super) struct Change<'a> {
    /// Set if the batch contains the webhook's first event: the row is created from it.
    pub(super) first: Option<First<'a>>,
    pub(super) last_position: i64,
    pub(super) last_at: DateTime<Utc>,
    pub(super) state: Option<State>,
    /// Set if it turned out to be a duplicate of a known webhook: the row is removed.
    pub(super) merged: bool,
    pub(super) duplicates: Vec<Duplicates>,
}

/// Duplicates recorded by one event.
pub(super) struct Duplicates {
    pub(super) position: i64,
    pub(super) count: u64,
    /// One of them had another body.
    pub(super) differ: bool,
}

pub(super) struct First<'a> {
    pub(super) receipt: &'a Receipt,
    pub(super) position: i64,
    pub(super) at: DateTime<Utc>,
    pub(super) valid: bool,
    pub(super) rejection: Option<RejectionReason>,
}

/// The columns that determine a webhook's status; each event that changes it sets all of them.
#[derive(Clone)]
pub(super) struct State {
    pub(super) status: WebhookStatus,
    pub(super) retry_count: i32,
    pub(super) error: Option<String>,
    pub(super) rejection: Option<RejectionReason>,
    /// The error came in an earlier batch, and stays.
    pub(super) keeps_error: bool,
    pub(super) processed_at: Option<DateTime<Utc>>,
    pub(super) next_retry_at: Option<DateTime<Utc>>,
    pub(super) dead_lettered_at: Option<DateTime<Utc>>,
}

impl State {
    pub(super) fn at(status: WebhookStatus, attempt: u32) -> Self {
        let retry_count = i32::try_from(attempt.saturating_sub(1)).unwrap_or(MAX_RETRIES).min(MAX_RETRIES);
        Self {
            status,
            retry_count,
            error: None,
            rejection: None,
            keeps_error: false,
            processed_at: None,
            next_retry_at: None,
            dead_lettered_at: None,
        }
    }

    fn succeeded(recorded: &RecordedEvent, attempt: u32) -> Self {
        Self { processed_at: Some(recorded.recorded_at), ..Self::at(WebhookStatus::Success, attempt) }
    }

    /// Failed at that attempt, as an earlier batch said.
    pub(super) fn failed_before(attempt: u32) -> Self {
        Self { keeps_error: true, ..Self::at(WebhookStatus::Failed, attempt) }
    }
}

#[derive(Default)]
pub(super) struct Fold<'a> {
    pub(super) changes: HashMap<(Uuid, Uuid), Change<'a>>,
    pub(super) attempts: Attempts,
    pub(super) tally: Tally,
    /// Last use of each secret version: (organization, provider, version).
    pub(super) uses: BTreeMap<(Uuid, Uuid, u32), DateTime<Utc>>,
    pub(super) providers: HashMap<Uuid, Uuid>,
    /// Verifications whose receipt came in an earlier batch.
    pub(super) later: Vec<VerifiedLater>,
}

/// A webhook's state after one of its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookState {
    /// Number of its last event in the webhook's stream.
    pub sequence: i64,
    /// When its last event was recorded.
    pub at: DateTime<Utc>,
    /// Whether a secret verified it.
    pub signature_valid: bool,
    /// The status that the list shows.
    pub status: WebhookStatus,
    /// Automatic retries so far, 0 to 3.
    pub retry_count: i32,
    /// The error of the last attempt, or the code and detail of the rejection.
    pub error_message: Option<String>,
    /// When an attempt succeeded.
    pub processed_at: Option<DateTime<Utc>>,
    /// When the next automatic retry is due.
    pub next_retry_at: Option<DateTime<Utc>>,
    /// When its last retry failed.
    pub dead_lettered_at: Option<DateTime<Utc>>,
    /// Number of further deliveries of the same event.
    pub duplicate_count: i32,
    /// A duplicate had another body.
    pub body_differs: bool,
}

/// A webhook's state after its own events from the first on, as its row says then. `None` if they do not
/// begin with a receipt, or it was merged into another.
#[must_use]
pub fn state_after(events: &[RecordedEvent]) -> Option<WebhookState> {
    let mut fold = Fold::default();
    for recorded in events {
        if let Event::Webhook(event) = &recorded.event {
            fold.note(recorded, event);
        }
    }
    let last = events.last()?;
    let change = fold.changes.remove(&(last.organization.uuid(), last.aggregate_id))?;
    let (first, state) = (change.first?, change.state?);
    (!change.merged).then(|| WebhookState {
        sequence: last.sequence,
        at: last.recorded_at,
        signature_valid: first.valid,
        status: state.status,
        retry_count: state.retry_count,
        error_message: state.error,
        processed_at: state.processed_at,
        next_retry_at: state.next_retry_at,
        dead_lettered_at: state.dead_lettered_at,
        duplicate_count: count(&change.duplicates),
        body_differs: differ(&change.duplicates),
    })
}

pub(super) struct VerifiedLater {
    pub(super) organization: Uuid,
    pub(super) webhook: Uuid,
    pub(super) position: i64,
    pub(super) secret_version: u32,
    pub(super) at: DateTime<Utc>,
}

impl<'a> Fold<'a> {
    pub(super) fn note(&mut self, recorded: &'a RecordedEvent, event: &'a WebhookEvent) {
        self.attempts.note(recorded, event);
        self.tally.note(recorded, event);
        let key = (recorded.organization.uuid(), recorded.aggregate_id);
        if is_of_no_webhook(event) {
            return;
        }
        let change = self.changes.entry(key).or_insert_with(|| Change {
            first: None,
            last_position: 0,
            last_at: recorded.recorded_at,
            state: None,
            merged: false,
            duplicates: Vec::new(),
        });
        change.last_position = recorded.position;
        change.last_at = recorded.recorded_at;
        let first = |receipt, valid, rejection| {
            Some(First { receipt, position: recorded.position, at: recorded.recorded_at, valid, rejection })
        };
        match event {
            WebhookEvent::Received(receipt) => {
                change.first = first(receipt, true, None);
                change.state = Some(State::at(WebhookStatus::Pending, 0));
                self.providers.insert(recorded.aggregate_id, receipt.provider_id.uuid());
            }
            WebhookEvent::SignatureVerified(matched) => {
                let (version, at) = (matched.secret_version, recorded.recorded_at);
                match self.providers.get(&recorded.aggregate_id) {
                    _ if version == SINGLE_USE => {}
                    Some(provider) => drop(self.uses.insert((key.0, *provider, version), at)),
                    None => self.later.push(VerifiedLater {
                        organization: key.0,
                        webhook: key.1,
                        position: recorded.position,
                        secret_version: version,
                        at,
                    }),
                }
                if let Some(first) = &mut change.first {
                    first.valid = true;
                }
            }
            WebhookEvent::Recorded {} => change.state = Some(State::succeeded(recorded, 0)),
            WebhookEvent::ReceivedUnverified { receipt, event_webhook_id: _, owed: _ } => {
                change.first = first(receipt, false, None);
                change.state = Some(State::at(WebhookStatus::Pending, 0));
                self.providers.insert(recorded.aggregate_id, receipt.provider_id.uuid());
            }
            WebhookEvent::VerificationFailed { reason, detail } => {
                let error = Some(rejection(*reason, detail));
                change.state = Some(State { error, rejection: Some(*reason), ..State::at(WebhookStatus::Failed, 0) });
                if let Some(first) = &mut change.first {
                    first.rejection = Some(*reason);
                }
            }
            WebhookEvent::Merged { into: _ } => change.merged = true,
            WebhookEvent::Identified { .. }
            | WebhookEvent::TransmissionBound { .. }
            | WebhookEvent::DuplicateBodyKept { .. } => {}
            WebhookEvent::Rejected { receipt, reason, detail } => {
                change.first = first(receipt, false, Some(*reason));
                let error = Some(rejection(*reason, detail));
                change.state = Some(State { error, ..State::at(WebhookStatus::Failed, 0) });
            }
            WebhookEvent::DuplicateReceived { body_differs, .. } => {
                change.duplicates.push(Duplicates { position: recorded.position, count: 1, differ: *body_differs });
            }
            WebhookEvent::DuplicatesCounted { count, differing, since: _ } => {
                let (count, differ) = (*count, *differing > 0);
                change.duplicates.push(Duplicates { position: recorded.position, count, differ });
            }
            WebhookEvent::AttemptStarted { attempt } => {
                change.state = Some(State::at(WebhookStatus::Processing, *attempt));
            }
            WebhookEvent::AttemptSucceeded { attempt, .. } => {
                change.state = Some(State::succeeded(recorded, *attempt));
            }
            WebhookEvent::AttemptFailed { attempt, outcome } => {
                let error = outcome.error.as_ref().map(|error| error.as_str().to_owned());
                change.state = Some(State { error, ..State::at(WebhookStatus::Failed, *attempt) });
            }
            WebhookEvent::AttemptAbandoned { attempt } => {
                let error = Some(WORKER_LOST.to_owned());
                change.state = Some(State { error, ..State::at(WebhookStatus::Failed, *attempt) });
            }
            // These two follow a failure in the same unit and keep its error.
            WebhookEvent::RetryScheduled { attempt, retry_at } => {
                let failed = change.state.take().unwrap_or_else(|| State::failed_before(attempt.saturating_sub(1)));
                change.state = Some(State { next_retry_at: Some(*retry_at), ..failed });
            }
            WebhookEvent::DeadLettered { attempts } => {
                let failed = change.state.take().unwrap_or_else(|| State::failed_before(*attempts));
                change.state = Some(State { dead_lettered_at: Some(recorded.recorded_at), ..failed });
            }
            WebhookEvent::RetryRequested { attempt, .. } => {
                change.state = Some(State::at(WebhookStatus::Pending, *attempt));
            }
        }
    }
}

/// Whether its stream holds no webhook.
fn is_of_no_webhook(event: &WebhookEvent) -> bool {
    matches!(
        event,
        WebhookEvent::Identified { .. }
            | WebhookEvent::TransmissionBound { .. }
            | WebhookEvent::DuplicateBodyKept { .. }
    )
}

pub(super) fn rejection(reason: RejectionReason, detail: &Label) -> String {
    format!("{}: {}", reason.as_str(), detail.as_str())
}

pub(super) fn count(duplicates: &[Duplicates]) -> i32 {
    let count = duplicates.iter().fold(0_u64, |sum, told| sum.saturating_add(told.count));
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(super) fn differ(duplicates: &[Duplicates]) -> bool {
    duplicates.iter().any(|told| told.differ)
}
