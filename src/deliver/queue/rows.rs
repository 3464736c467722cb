//! Entries of the queue, rows that are taken from it, and their settlement.

use std::time::Duration;

use chrono::{DateTime, Utc};
use hookledger_aggregates::{DeliveryId, DestinationId, OrganizationId, RouteId, WebhookId};
use sqlx::FromRow;
use tokio::time::Instant;
use uuid::Uuid;

use crate::deliver::clock::Reading;
use crate::directory::Hold;
use crate::log::Epoch;

/// A delivery to put into the queue, because the log says that it is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub organization: OrganizationId,
    pub delivery: DeliveryId,
    pub webhook: WebhookId,
    pub route: RouteId,
    pub destination: DestinationId,
    /// The next attempt.
    pub attempt: u32,
    /// Last known sequence of the delivery's stream.
    pub sequence: i64,
    /// A person requested the attempt.
    pub requested: bool,
    pub pending_since: DateTime<Utc>,
}

impl Entry {
    /// As it was put in.
    #[must_use]
    pub fn due(self, read: Reading) -> Due {
        Due {
            organization: self.organization,
            delivery: self.delivery,
            webhook: self.webhook,
            route: self.route,
            destination: self.destination,
            attempt: self.attempt,
            sequence: self.sequence,
            requested: self.requested,
            pending_for: (!self.requested).then(|| read.age(self.pending_since)),
            is_doubtful: false,
            read,
        }
    }
}

/// A delivery that this node took from the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub organization: OrganizationId,
    pub delivery: DeliveryId,
    pub webhook: WebhookId,
    pub route: RouteId,
    pub destination: DestinationId,
    /// The next attempt.
    pub attempt: u32,
    /// Last known sequence of the delivery's stream.
    pub sequence: i64,
    /// A person requested the attempt.
    pub requested: bool,
    /// How long it had been waiting for a worker at the reading; `None` if waiting is no failure.
    pub pending_for: Option<Duration>,
    /// Its previous holder is gone, so only the log knows how far it came.
    pub is_doubtful: bool,
    /// Reading of the database's clock with this row.
    pub read: Reading,
}

#[derive(FromRow)]
pub(super) struct Row {
    organization_id: Uuid,
    delivery_id: Uuid,
    webhook_id: Uuid,
    route_id: Uuid,
    destination_id: Uuid,
    attempt: i32,
    sequence: i64,
    requested: bool,
    /// Seconds.
    pending_for: Option<f64>,
    had_holder: bool,
    clock: DateTime<Utc>,
}

impl Row {
    pub(super) fn due(self, asked: (Instant, Epoch)) -> Due {
        let pending_for = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Due {
            organization: OrganizationId::new(self.organization_id),
            delivery: DeliveryId::new(self.delivery_id),
            webhook: WebhookId::new(self.webhook_id),
            route: RouteId::new(self.route_id),
            destination: DestinationId::new(self.destination_id),
            attempt: self.attempt.cast_unsigned(),
            sequence: self.sequence,
            requested: self.requested,
            pending_for: self.pending_for.map(pending_for),
            is_doubtful: self.had_holder,
            read: Reading::new(self.clock, asked),
        }
    }
}

/// When a row is due again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// By this node's monotonic clock.
    In(Instant),
    /// A time from the log.
    At(DateTime<Utc>),
}

/// The end of a row's lease: how its holder is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The log has the end, as this event of the stream or an earlier one.
    Done { sequence: i64 },
    /// Another attempt is due. `pending`: a worker could take it from that time.
    Again { attempt: u32, sequence: i64, due: When, requested: bool, pending: bool },
    /// Nothing was started: the row is given back, and is due after a pause. `waits_anew`: the cause was on
    /// our side, so the time it has been pending does not count.
    Back { pause: Duration, waits_anew: bool },
    /// Unknown whether the attempt was started: the next holder asks the log.
    Doubtful,
    /// It cannot be delivered until a person acts.
    Held(Hold),
}

/// A row's settlement, and the destination's answer.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Epoch of the log in which its row was read; void in another one.
    pub epoch: Epoch,
    pub organization: OrganizationId,
    pub delivery: DeliveryId,
    pub webhook: WebhookId,
    pub settled: Settled,
    pub response: Option<Response>,
}

/// The beginning of a response body.
#[derive(Clone, Debug)]
pub struct Response {
    pub attempt: u32,
    pub excerpt: bytes::Bytes,
}

/// Free places of a destination on this node.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub organization: OrganizationId,
    pub destination: DestinationId,
    /// Running attempts.
    pub running: u32,
    pub free: u32,
}

/// A destination that cannot take more attempts on this node at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Busy {
    pub organization: OrganizationId,
    pub destination: DestinationId,
    pub reason: BusyReason,
}

/// Why a destination cannot take more attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BusyReason {
    Concurrency,
    CircuitOpen,
}

impl BusyReason {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::CircuitOpen => "circuit_open",
        }
    }
}
