//! A batch of events as one change per webhook. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use hookledger_aggregates::delivery::DeliveryEvent;
use hookledger_aggregates::signature::SINGLE_USE;
use hookledger_aggregates::webhook::{Receipt, RejectionReason, WebhookEvent};
use hookledger_aggregates::{Event, Label, Phase, RecordedEvent};
use uuid::Uuid;

use super::{MAX_RETRIES, WebhookStatus};
use crate::analytics::Tally;
use crate::deliveries::{Deliveries, Folded, Key};
use crate::webhook_retries::Attempts;

/// Changes of one webhook in a batch.
pub(super) struct Change<'a> {
    /// Set if the batch contains the webhook's first event: the row is created from it.
    pub(super) first: Option<First<'a>>,
    pub(super) last_position: i64,
    pub(super) last_at: DateTime<Utc>,
    pub(super) state: Option<State>,
    /// Its number of deliveries, once it is routed.
    pub(super) deliveries: Option<i32>,
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
    pub(super) processed_at: Option<DateTime<Utc>>,
    pub(super) next_retry_at: Option<DateTime<Utc>>,
    pub(super) dead_lettered_at: Option<DateTime<Utc>>,
}

impl State {
    fn at(status: WebhookStatus) -> Self {
        Self {
            status,
            retry_count: 0,
            error: None,
            rejection: None,
            processed_at: None,
            next_retry_at: None,
            dead_lettered_at: None,
        }
    }

    /// The state of a routed webhook: what its deliveries have in common.
    fn of(deliveries: &[&Folded]) -> Self {
        let status = Phase::of_webhook(deliveries.iter().map(|delivery| delivery.phase)).status();
        let has_failed = status == WebhookStatus::Failed;
        let rows = || deliveries.iter().map(|delivery| &delivery.row);
        let attempt = rows().map(|row| row.attempt).max().unwrap_or_default();
        let failed = rows().filter(|row| has_failed && row.processed_at.is_none());
        let last = failed.clone().filter(|row| row.error_message.is_some()).max_by_key(|row| row.applied_position);
        Self {
            retry_count: (attempt - 1).clamp(0, MAX_RETRIES),
            error: last.and_then(|row| row.error_message.clone()),
            processed_at: rows().filter_map(|row| row.processed_at).max().filter(|_| status == WebhookStatus::Success),
            next_retry_at: failed.clone().filter_map(|row| row.next_retry_at).min(),
            dead_lettered_at: failed.filter_map(|row| row.dead_lettered_at).max(),
            ..Self::at(status)
        }
    }
}

#[derive(Default)]
pub(super) struct Fold<'a> {
    pub(super) changes: HashMap<Key, Change<'a>>,
    /// Those that the batch routes; those of earlier batches come from the table.
    pub(super) deliveries: Deliveries,
    pub(super) delivery_events: Vec<(&'a RecordedEvent, &'a DeliveryEvent)>,
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

/// A webhook's state after its events and those of its deliveries from the first on, in order, as its row says
/// then. `None` if they do not begin with a receipt, or it was merged into another. `sequence` counts them.
#[must_use]
pub fn state_after(events: &[RecordedEvent]) -> Option<WebhookState> {
    let mut fold = Fold::default();
    for recorded in events {
        fold.note(recorded);
    }
    fold.fold_deliveries();
    let (first, last) = (events.first()?, events.last()?);
    let change = fold.changes.remove(&(first.organization.uuid(), first.aggregate_id))?;
    let (receipt, state) = (change.first?, change.state?);
    (!change.merged).then(|| WebhookState {
        sequence: i64::try_from(events.len()).unwrap_or(i64::MAX),
        at: last.recorded_at,
        signature_valid: receipt.valid,
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
    pub(super) fn note(&mut self, recorded: &'a RecordedEvent) {
        match &recorded.event {
            Event::Webhook(event) => self.note_webhook(recorded, event),
            Event::Delivery(event) => self.delivery_events.push((recorded, event)),
            Event::Provider(event) => self.tally.note_provider(recorded, event),
            Event::Organization(_)
            | Event::User(_)
            | Event::EmailClaim(_)
            | Event::Team(_)
            | Event::Destination(_)
            | Event::Route(_)
            | Event::Retention(_)
            | Event::Access(_)
            | Event::Usage(_) => {}
        }
    }

    /// Applies the events of deliveries, once all rows are there, and folds each touched webhook.
    pub(super) fn fold_deliveries(&mut self) {
        let mut touched: BTreeSet<Key> = BTreeSet::new();
        for (recorded, event) in std::mem::take(&mut self.delivery_events) {
            let organization = recorded.organization.uuid();
            // The log may have lost the routing of a delivery that a node was attempting.
            let Some(folded) = self.deliveries.get_mut((organization, recorded.aggregate_id)) else { continue };
            let webhook = folded.row.webhook_id;
            self.attempts.note(recorded, webhook, event);
            self.tally.note_delivery(recorded, webhook, event);
            if folded.note(recorded, event) {
                let change = Change::of(&mut self.changes, (organization, webhook), recorded);
                change.last_position = change.last_position.max(recorded.position);
                change.last_at = change.last_at.max(recorded.recorded_at);
                touched.insert((organization, webhook));
            }
        }
        touched.extend(self.changes.iter().filter(|(_, change)| change.deliveries.is_some()).map(|(key, _)| *key));
        for key in touched {
            let Some(change) = self.changes.get_mut(&key) else { continue };
            if let Some(deliveries) = self.deliveries.of_webhook(key) {
                change.state = Some(State::of(&deliveries.collect::<Vec<_>>()));
            }
        }
    }

    fn note_webhook(&mut self, recorded: &'a RecordedEvent, event: &'a WebhookEvent) {
        self.tally.note(recorded, event);
        let key = (recorded.organization.uuid(), recorded.aggregate_id);
        if is_of_no_webhook(event) {
            return;
        }
        let change = Change::of(&mut self.changes, key, recorded);
        change.last_position = recorded.position;
        change.last_at = recorded.recorded_at;
        let first = |receipt, valid, rejection| {
            Some(First { receipt, position: recorded.position, at: recorded.recorded_at, valid, rejection })
        };
        match event {
            WebhookEvent::Received(receipt) => {
                change.first = first(receipt, true, None);
                change.state = Some(State::at(WebhookStatus::Pending));
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
            WebhookEvent::Routed(routing) => {
                change.deliveries = Some(i32::try_from(routing.matched.len()).unwrap_or(i32::MAX));
                if routing.matched.is_empty() {
                    let processed_at = Some(recorded.recorded_at);
                    change.state = Some(State { processed_at, ..State::at(WebhookStatus::Success) });
                }
                routing.matched.iter().for_each(|to| self.deliveries.put(Folded::new(recorded, to)));
            }
            WebhookEvent::ReceivedUnverified { receipt, event_webhook_id: _, routing: _ } => {
                change.first = first(receipt, false, None);
                change.state = Some(State::at(WebhookStatus::Pending));
                self.providers.insert(recorded.aggregate_id, receipt.provider_id.uuid());
            }
            WebhookEvent::VerificationFailed { reason, detail } => {
                let error = Some(rejection(*reason, detail));
                change.state = Some(State { error, rejection: Some(*reason), ..State::at(WebhookStatus::Failed) });
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
                change.state = Some(State { error, ..State::at(WebhookStatus::Failed) });
            }
            WebhookEvent::DuplicateReceived { body_differs, .. } => {
                change.duplicates.push(Duplicates { position: recorded.position, count: 1, differ: *body_differs });
            }
            WebhookEvent::DuplicatesCounted { count, differing, since: _ } => {
                let (count, differ) = (*count, *differing > 0);
                change.duplicates.push(Duplicates { position: recorded.position, count, differ });
            }
        }
    }
}

impl Change<'_> {
    fn of<'b>(changes: &'b mut HashMap<Key, Self>, key: Key, recorded: &RecordedEvent) -> &'b mut Self {
        changes.entry(key).or_insert_with(|| Change {
            first: None,
            last_position: 0,
            last_at: recorded.recorded_at,
            state: None,
            deliveries: None,
            merged: false,
            duplicates: Vec::new(),
        })
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
