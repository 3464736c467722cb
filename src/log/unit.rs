//! Units of events, which are appended whole or not at all.

use bytes::Bytes;
use chrono::{DateTime, Months, NaiveDate, Utc};
use hookledger_aggregates::event::{Stored, payload};
use hookledger_aggregates::{Metadata, OrganizationId, Partition, WebhookId};
use uuid::Uuid;

use super::heads::Epoch;

/// Partition and position of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    pub partition: Partition,
    pub position: i64,
}

/// Where in its stream an event is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// At this sequence: the unit is in conflict if another event has it already.
    At(i64),
    /// After the last event, for facts that depend on no state.
    End,
}

impl Sequence {
    /// In the notation of the append functions.
    pub(super) fn number(self) -> i64 {
        match self {
            Self::At(sequence) => sequence,
            Self::End => 0,
        }
    }
}

/// One event to append.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub partition: Partition,
    pub organization: OrganizationId,
    pub aggregate_type: &'static str,
    pub aggregate_id: Uuid,
    pub sequence: Sequence,
    pub event_type: String,
    pub event_version: String,
    /// JSON text.
    pub payload: String,
    /// JSON text, an object of strings.
    pub metadata: String,
}

/// Whether an event belongs to `Scope::Administrative`.
pub(super) fn is_administrative(aggregate_type: &str, event_type: &str) -> bool {
    !matches!(aggregate_type, "webhook" | "delivery")
        || matches!(event_type, "delivery.retry_requested" | "delivery.cancelled")
}

impl NewEvent {
    /// Whether it belongs to `Scope::Administrative`.
    pub(super) fn is_administrative(&self) -> bool {
        is_administrative(self.aggregate_type, &self.event_type)
    }

    /// An event of an organization in the organization's partition.
    pub fn of<E: Stored>(
        organization: OrganizationId,
        aggregate_id: Uuid,
        sequence: Sequence,
        event: &E,
        metadata: &Metadata,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            partition: organization.partition(),
            organization,
            aggregate_type: E::AGGREGATE,
            aggregate_id,
            sequence,
            event_type: event.stored_type().to_owned(),
            event_version: event.stored_version().to_owned(),
            payload: payload(event)?,
            metadata: metadata.to_json()?,
        })
    }
}

/// The request that belongs to a unit's first event, stored under that event's position.
#[derive(Clone, Debug)]
pub struct Body {
    pub organization: OrganizationId,
    pub webhook: WebhookId,
    /// `name:value` lines.
    pub headers: Bytes,
    pub body: Bytes,
}

/// Events that are appended whole or not at all. They may span streams and partitions.
#[derive(Clone, Debug)]
pub struct Unit {
    pub events: Vec<NewEvent>,
    pub body: Option<Body>,
    /// Set if appending counts towards the organization's monthly limit.
    pub limit: Option<MonthlyLimit>,
    /// Epoch of the state that the unit was decided on; `None` if it depends on no state.
    pub epoch: Option<Epoch>,
}

/// How many webhooks an organization may have per calendar month (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonthlyLimit {
    pub allowed: u32,
    /// Since when the organization has had a limit, whatever its number.
    pub since: DateTime<Utc>,
}

/// Monthly usage of an organization with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedMonth {
    /// The first day of the month.
    pub month: NaiveDate,
    pub accepted: i64,
}

impl UsedMonth {
    /// When the next month begins.
    #[must_use]
    pub fn resets_at(self) -> DateTime<Utc> {
        let next = self.month.checked_add_months(Months::new(1)).unwrap_or(self.month);
        next.and_time(chrono::NaiveTime::MIN).and_utc()
    }
}

impl Unit {
    /// A unit without a request.
    #[must_use]
    pub fn new(events: Vec<NewEvent>) -> Self {
        Self { events, body: None, limit: None, epoch: None }
    }

    /// Decided on state of that epoch. In another epoch it is in conflict and has to be decided again.
    #[must_use]
    pub fn decided_in(self, epoch: Epoch) -> Self {
        Self { epoch: Some(epoch), ..self }
    }

    /// Whether it continues streams that were read before, and therefore has to state its epoch.
    pub(super) fn goes_on(&self) -> bool {
        let begins = |event: &NewEvent| {
            self.events
                .iter()
                .any(|other| other.aggregate_id == event.aggregate_id && other.sequence == Sequence::At(1))
        };
        let placed = self.events.iter().filter(|event| matches!(event.sequence, Sequence::At(_)));
        placed.into_iter().any(|event| !begins(event))
    }

    /// The stream of its last event.
    pub(super) fn last_stream(&self) -> Option<Uuid> {
        self.events.last().map(|event| event.aggregate_id)
    }

    /// Bytes that this unit holds in memory, roughly.
    pub(super) fn weight(&self) -> usize {
        let events: usize = self.events.iter().map(|event| event.payload.len() + 256).sum();
        events + self.body.as_ref().map_or(0, |body| body.body.len() + body.headers.len())
    }

    /// Whether it belongs to `Scope::Administrative`.
    pub(super) fn is_administrative(&self) -> bool {
        self.events.iter().any(NewEvent::is_administrative)
    }

    /// That position in the partition of its last event.
    pub(super) fn place(&self, position: i64) -> Option<LogPosition> {
        self.events.last().map(|event| LogPosition { partition: event.partition, position })
    }

    /// Whether only the checked append can determine its sequences.
    pub(super) fn needs_placing(&self) -> bool {
        self.events.iter().any(|event| event.sequence == Sequence::End)
    }
}

/// Result of appending a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Log position of its last event.
    pub last: LogPosition,
    /// Monthly usage of its organization now, if the unit has a limit.
    pub used: Option<UsedMonth>,
}
