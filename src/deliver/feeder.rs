//! From the log to the queue: a follower that takes every delivery that becomes pending.
//!
//! Each enters the queue in the transaction that moves the checkpoint. If its destination has a free place,
//! it goes directly to this node's worker after the commit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use hookledger_aggregates::delivery::DeliveryEvent;
use hookledger_aggregates::routing::Match;
use hookledger_aggregates::webhook::WebhookEvent;
use hookledger_aggregates::{DeliveryId, DestinationId, Event, RecordedEvent, WebhookId};
use sqlx::PgConnection;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::clock::Reading;
use super::places::Places;
use super::queue::{Entry, Queue};
use super::worker::{Taken, lease};
use crate::directory::{Directory, Standing};
use crate::log::follow::{Handler, HandlerError};
use crate::log::{LogPosition, Scope};

/// Name of its checkpoints.
pub(super) const NAME: &str = "processing";
/// Shorter than that of projections, because a delivery is pending for this time.
const GATHER: Duration = Duration::from_millis(20);
/// How long a batch waits for the directory to read up to its events. Afterwards, a missing destination only
/// holds a delivery for a moment.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// Feeds the queue.
pub struct Feeder {
    directory: Directory,
    queue: Queue,
    places: Arc<Places>,
    attempt_timeout: Duration,
    worker: mpsc::Sender<Taken>,
    plan: Mutex<Plan>,
}

/// Entries of a batch for the queue, decided before the transaction. It occupies no places, so a follower
/// that loses its lease in between leaves nothing behind.
#[derive(Default)]
struct Plan {
    planned: Vec<Planned>,
    /// The database's clock, read in the transaction.
    read: Option<Reading>,
}

#[derive(Clone, Copy)]
struct Planned {
    entry: Entry,
    /// Set if the destination has room: the length of the lease, and the destination's concurrency.
    room: Option<(Duration, u32)>,
}

/// Counts how many deliveries of a batch fit at their destinations.
struct Rooms<'a> {
    places: &'a Places,
    now: Instant,
    left: u32,
    taken: HashMap<DestinationId, u32>,
}

impl Rooms<'_> {
    fn take(&mut self, entry: &Entry, concurrency: u32) -> bool {
        let free = self.places.free_at(entry.destination, concurrency, entry.requested, self.now);
        let taken = self.taken.entry(entry.destination).or_default();
        let has_room = self.left > 0 && *taken < free;
        if has_room {
            *taken += 1;
            self.left -= 1;
        }
        has_room
    }
}

impl Feeder {
    #[must_use]
    pub fn new(
        directory: Directory,
        queue: Queue,
        places: Arc<Places>,
        attempt_timeout: Duration,
        worker: mpsc::Sender<Taken>,
    ) -> Self {
        Self { directory, queue, places, attempt_timeout, worker, plan: Mutex::default() }
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it can be delivered, according to a directory that has read up to the event.
    async fn standing(&self, entry: &Entry, recorded: &RecordedEvent, until: Instant) -> Standing {
        let standing = self.directory.standing(entry.route, entry.destination);
        if matches!(standing, Standing::Ready(_)) {
            return standing;
        }
        let at = LogPosition { partition: recorded.partition, position: recorded.position };
        let _ = tokio::time::timeout_at(until, self.directory.wait_for(at)).await;
        self.directory.standing(entry.route, entry.destination)
    }
}

/// The deliveries that this event makes pending.
fn pending(recorded: &RecordedEvent) -> Vec<Entry> {
    let (organization, pending_since) = (recorded.organization, recorded.recorded_at);
    match &recorded.event {
        Event::Webhook(WebhookEvent::Routed(routing)) => {
            let entry = |to: &Match| Entry {
                organization,
                delivery: to.delivery_id,
                webhook: WebhookId::new(recorded.aggregate_id),
                route: to.route_id,
                destination: to.destination_id,
                attempt: 1,
                sequence: 0,
                requested: false,
                pending_since,
            };
            routing.matched.iter().map(entry).collect()
        }
        Event::Delivery(DeliveryEvent::RetryRequested { attempt, webhook_id, route_id, destination_id, reason: _ }) => {
            vec![Entry {
                organization,
                delivery: DeliveryId::new(recorded.aggregate_id),
                webhook: *webhook_id,
                route: *route_id,
                destination: *destination_id,
                attempt: *attempt,
                sequence: recorded.sequence,
                requested: true,
                pending_since,
            }]
        }
        Event::Webhook(_)
        | Event::Delivery(_)
        | Event::Organization(_)
        | Event::User(_)
        | Event::EmailClaim(_)
        | Event::Team(_)
        | Event::Retention(_)
        | Event::Access(_)
        | Event::Usage(_)
        | Event::Provider(_)
        | Event::Destination(_)
        | Event::Route(_) => Vec::new(),
    }
}

fn transient(error: impl std::fmt::Display) -> HandlerError {
    HandlerError::Transient(error.to_string())
}

impl Handler for Feeder {
    fn name(&self) -> &'static str {
        NAME
    }

    fn scope(&self) -> Scope {
        Scope::Pending
    }

    fn gather(&self) -> Duration {
        GATHER
    }

    fn react<'a>(&'a self, events: &'a [RecordedEvent]) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            let mut planned = Vec::new();
            let (places, now) = (&*self.places, Instant::now());
            let mut rooms = Rooms { places, now, left: places.free(), taken: HashMap::new() };
            for event in events {
                for entry in pending(event) {
                    let room = match self.standing(&entry, event, now + LOOK_LIMIT).await {
                        Standing::Ready(to) => rooms
                            .take(&entry, to.concurrency)
                            .then(|| (lease(to.timeout.unwrap_or(self.attempt_timeout)), to.concurrency)),
                        Standing::Held(_) => None,
                    };
                    planned.push(Planned { entry, room });
                }
            }
            *self.plan() = Plan { planned, read: None };
            Ok(())
        })
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        _events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            let rows: Vec<_> = {
                let plan = self.plan();
                plan.planned.iter().map(|planned| (planned.entry, planned.room.map(|(lease, _)| lease))).collect()
            };
            if !rows.is_empty() {
                let read = self.queue.put(connection, &rows).await.map_err(transient)?;
                self.plan().read = Some(read);
            }
            Ok(())
        })
    }

    fn committed(&self) {
        let Plan { planned, read } = std::mem::take(&mut *self.plan());
        let Some(read) = read else { return };
        for Planned { entry, room } in planned {
            let Some((_, concurrency)) = room else { continue };
            let (organization, destination) = (entry.organization, entry.destination);
            // Another task may have taken the place since; then the row is given back.
            let place = self.places.take(organization, destination, concurrency, entry.requested, Instant::now());
            // The channel has as many slots as there are places; when a worker stops, the row's lease ends.
            let _ = self.worker.try_send(Taken { due: entry.due(read), place });
        }
    }
}
