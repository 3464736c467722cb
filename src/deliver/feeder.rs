//! From the log to the queue: a follower that takes every webhook that becomes pending.
//!
//! If a webhook only needs to be recorded, its success is appended here. Every other webhook enters the queue
//! in the transaction that moves the checkpoint. If its destination has a free place, it goes directly to
//! this node's worker after the commit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use hookledger_aggregates::webhook::{Owed, WebhookCommand, WebhookEvent};
use hookledger_aggregates::{Event, OrganizationId, ProviderId, RecordedEvent, WebhookId};
use sqlx::PgConnection;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::clock::Reading;
use super::decide::{Decided, decide, record};
use super::places::Places;
use super::queue::{Entry, Queue};
use super::story::{Story, owed_at};
use super::worker::{Taken, lease};
use crate::directory::{Directory, Standing};
use crate::log::follow::{Handler, HandlerError};
use crate::log::{AppendError, Epoch, Log, LogPosition, ReadError, Reader, Scope};

/// Name of its checkpoints.
pub(super) const NAME: &str = "processing";
/// Webhooks whose success is appended together.
const PORTION: usize = 32;
/// Shorter than that of projections, because a webhook is pending for this time.
const GATHER: Duration = Duration::from_millis(20);
/// How long a batch waits for the directory to read up to its events. Afterwards, a missing destination only
/// holds a webhook for a moment.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// How many times a success is decided when duplicates keep coming first.
const TRIES: u32 = 40;

/// Feeds the queue.
pub struct Feeder {
    log: Log,
    reader: Reader,
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

/// Counts how many webhooks of a batch fit at their destinations.
struct Rooms<'a> {
    places: &'a Places,
    now: Instant,
    left: u32,
    taken: HashMap<ProviderId, u32>,
}

impl Rooms<'_> {
    fn take(&mut self, entry: &Entry, concurrency: u32) -> bool {
        let free = self.places.free_at(entry.provider, concurrency, entry.requested, self.now);
        let taken = self.taken.entry(entry.provider).or_default();
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
        log: Log,
        reader: Reader,
        directory: Directory,
        queue: Queue,
        places: Arc<Places>,
        attempt_timeout: Duration,
        worker: mpsc::Sender<Taken>,
    ) -> Self {
        Self { log, reader, directory, queue, places, attempt_timeout, worker, plan: Mutex::default() }
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The webhook and what it is owed, if this event makes it pending.
    async fn pending(&self, recorded: &RecordedEvent) -> Result<Option<(Entry, Owed)>, HandlerError> {
        let (provider, attempt, requested, owed) = match &recorded.event {
            Event::Webhook(WebhookEvent::SignatureVerified(matched)) => (matched.provider_id, 1, false, matched.owed),
            Event::Webhook(WebhookEvent::RetryRequested { attempt, provider_id, owed, .. }) => {
                (*provider_id, *attempt, true, *owed)
            }
            Event::Webhook(_)
            | Event::Organization(_)
            | Event::User(_)
            | Event::EmailClaim(_)
            | Event::Team(_)
            | Event::Retention(_)
            | Event::Access(_)
            | Event::Usage(_)
            | Event::Provider(_) => return Ok(None),
        };
        let (organization, webhook) = (recorded.organization, WebhookId::new(recorded.aggregate_id));
        let (provider, owed) = match (provider, owed) {
            (Some(provider), Some(owed)) => (provider, owed),
            // Written by an earlier release, without this information.
            (Some(provider), None) if !requested => {
                let owed = owed_at(&self.reader, organization, provider, recorded.position).await.map_err(unread)?;
                (provider, owed)
            }
            _ => self.story_of(organization, webhook).await?,
        };
        let entry = Entry {
            organization,
            webhook,
            provider,
            attempt,
            sequence: recorded.sequence,
            requested,
            pending_since: recorded.recorded_at,
        };
        Ok(Some((entry, owed)))
    }

    async fn story_of(&self, organization: OrganizationId, id: WebhookId) -> Result<(ProviderId, Owed), HandlerError> {
        let Story { state, .. } = Story::read((&self.log, &self.reader), organization, id).await.map_err(unread)?;
        state
            .provider()
            .zip(state.owed())
            .ok_or_else(|| HandlerError::Unappliable(format!("the webhook {id} was never received")))
    }

    /// Whether the provider's webhooks can be delivered, according to a directory that has read up to the
    /// event.
    async fn standing(&self, provider: ProviderId, recorded: &RecordedEvent, until: Instant) -> Standing {
        let standing = self.directory.standing(provider);
        if matches!(standing, Standing::Ready(_)) {
            return standing;
        }
        let at = LogPosition { partition: recorded.partition, position: recorded.position };
        let _ = tokio::time::timeout_at(until, self.directory.wait_for(at)).await;
        self.directory.standing(provider)
    }

    /// Appends the success of webhooks that only need to be recorded.
    async fn record(&self, pending: Vec<Entry>, epoch: Epoch) -> Result<(), HandlerError> {
        let mut units = Vec::with_capacity(pending.len());
        for entry in &pending {
            let Decided { unit, .. } = record(entry).map_err(|error| HandlerError::Unappliable(error.to_string()))?;
            units.push(unit.decided_in(epoch));
        }
        // In portions, which the writer accepts besides the webhooks that providers wait for.
        let mut portions = Vec::new();
        while !units.is_empty() {
            let rest = units.split_off(PORTION.min(units.len()));
            portions.push(self.log.append_all(std::mem::replace(&mut units, rest)));
        }
        let verdicts = futures::future::try_join_all(portions).await.map_err(transient)?;
        for (entry, verdict) in pending.into_iter().zip(verdicts.into_iter().flatten()) {
            match verdict {
                Ok(_) => {}
                Err(AppendError::Conflict) => self.record_again(&entry).await?,
                Err(error) => return Err(transient(error)),
            }
        }
        Ok(())
    }

    /// Records a success again after another event came first: most likely a duplicate, or this very success.
    async fn record_again(&self, entry: &Entry) -> Result<(), HandlerError> {
        let (organization, webhook) = (entry.organization, entry.webhook);
        for _ in 0..TRIES {
            let story = Story::read((&self.log, &self.reader), organization, webhook).await.map_err(unread)?;
            let Story { state, sequence, epoch } = story;
            // A refusal means that it was processed already.
            let Ok(decided) = decide(organization, webhook, state, sequence, [WebhookCommand::Record]) else {
                return Ok(());
            };
            match self.log.append_all(vec![decided.unit.decided_in(epoch)]).await.map_err(transient)?.pop() {
                Some(Ok(_)) => return Ok(()),
                Some(Err(AppendError::Conflict)) | None => {}
                Some(Err(error)) => return Err(transient(error)),
            }
        }
        Err(transient("duplicates of a webhook keep coming first"))
    }
}

fn transient(error: impl std::fmt::Display) -> HandlerError {
    HandlerError::Transient(error.to_string())
}

/// Waiting does not help to decode an event of a later release.
fn unread(error: ReadError) -> HandlerError {
    match error {
        ReadError::Decode { .. } => HandlerError::Unappliable(error.to_string()),
        ReadError::Database(_) | ReadError::Gap { .. } => transient(error),
    }
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
            let epoch = self.log.epoch();
            let (mut recorded, mut planned) = (Vec::new(), Vec::new());
            let (places, now) = (&*self.places, Instant::now());
            let mut rooms = Rooms { places, now, left: places.free(), taken: HashMap::new() };
            for event in events {
                let Some((entry, owed)) = self.pending(event).await? else { continue };
                if owed == Owed::Recording {
                    recorded.push(entry);
                    continue;
                }
                let room = match self.standing(entry.provider, event, now + LOOK_LIMIT).await {
                    Standing::Ready(destination) => rooms
                        .take(&entry, destination.concurrency)
                        .then(|| (lease(destination.timeout.unwrap_or(self.attempt_timeout)), destination.concurrency)),
                    Standing::Held(_) => None,
                };
                planned.push(Planned { entry, room });
            }
            if !recorded.is_empty() {
                self.record(recorded, epoch).await?;
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
            let (organization, provider) = (entry.organization, entry.provider);
            // Another task may have taken the place since; then the row is given back.
            let place = self.places.take(organization, provider, concurrency, entry.requested, Instant::now());
            // The channel has as many slots as there are places; when a worker stops, the row's lease ends.
            let _ = self.worker.try_send(Taken { due: entry.due(read), place });
        }
    }
}
