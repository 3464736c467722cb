//! From the log to the queue: a follower that takes every webhook that becomes pending.
//!
//! Where its provider has no destination, recording it is the processing, and that is appended here.
//! Everything else is put into the queue, in the transaction that moves the checkpoint; what there is
//! a place for at once is handed to this node's worker when that is committed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use futures::future::BoxFuture;
use hookledger_aggregates::webhook::{Webhook, WebhookEvent};
use hookledger_aggregates::{Event, OrganizationId, ProviderId, RecordedEvent, WebhookId};
use sqlx::PgConnection;
use tokio::sync::mpsc;

use super::decide::{Decided, record};
use super::places::{Place, Places};
use super::queue::{Due, Queue};
use super::worker::{Taken, lease};
use crate::directory::{Destination, Directory};
use crate::follow::{Handler, HandlerError};
use crate::log::{AppendError, Log, ReadError, Reader, Scope};

/// Under this name its checkpoints are kept.
pub(super) const NAME: &str = "processing";
/// Webhooks whose success is appended together.
const PORTION: usize = 32;
/// Processing waits less than projections do: it is what a webhook's pending time is made of.
const GATHER: Duration = Duration::from_millis(20);

/// Feeds the queue.
pub struct Feeder {
    log: Log,
    reader: Reader,
    directory: Directory,
    queue: Queue,
    places: Arc<Places>,
    attempt_timeout: Duration,
    worker: mpsc::Sender<Taken>,
    plan: Mutex<Vec<Planned>>,
}

/// What a batch puts into the queue; decided once, before the transaction.
struct Planned {
    due: Due,
    /// With the lease that it takes.
    taken: Option<(Place, Duration)>,
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

    fn plan(&self) -> std::sync::MutexGuard<'_, Vec<Planned>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The webhook, if this event makes it pending.
    async fn pending(&self, recorded: &RecordedEvent) -> Result<Option<Due>, HandlerError> {
        let (provider, attempt, requested) = match &recorded.event {
            Event::Webhook(WebhookEvent::SignatureVerified(matched)) => (matched.provider_id, 1, false),
            Event::Webhook(WebhookEvent::RetryRequested { attempt, provider_id, .. }) => (*provider_id, *attempt, true),
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
        let provider = match provider {
            Some(provider) => provider,
            // An earlier release did not say it here.
            None => self.provider_of(organization, webhook).await?,
        };
        Ok(Some(Due {
            organization,
            webhook,
            provider,
            attempt,
            sequence: recorded.sequence,
            requested,
            pending_since: Some(recorded.recorded_at),
            is_doubtful: false,
        }))
    }

    async fn provider_of(&self, organization: OrganizationId, id: WebhookId) -> Result<ProviderId, HandlerError> {
        let first = self.reader.stream(organization, "webhook", id.uuid(), 1).await.map_err(unread)?;
        let mut webhook = Webhook::default();
        if let Some(Event::Webhook(event)) = first.first().map(|recorded| &recorded.event) {
            webhook.evolve(event);
        }
        webhook.provider().ok_or_else(|| HandlerError::Unappliable(format!("the webhook {id} was never received")))
    }

    /// A place at the destination, where there is one at once.
    fn take(&self, due: &Due, destination: &Destination) -> Option<(Place, Duration)> {
        let place =
            self.places.take(due.organization, due.provider, destination.concurrency, due.requested, Utc::now())?;
        Some((place, lease(destination.timeout.unwrap_or(self.attempt_timeout))))
    }

    /// Appends the success of webhooks without a destination. Where something else was appended to a
    /// stream first, a duplicate most likely, the worker decides again, for that webhook alone.
    async fn record(&self, pending: Vec<Due>) -> Result<Vec<Due>, HandlerError> {
        let mut units = Vec::with_capacity(pending.len());
        for due in &pending {
            let Decided { unit, .. } = record(due).map_err(|error| HandlerError::Unappliable(error.to_string()))?;
            units.push(unit);
        }
        // In portions, which the writer lets in beside what providers wait for.
        let mut portions = Vec::new();
        while !units.is_empty() {
            let rest = units.split_off(PORTION.min(units.len()));
            portions.push(self.log.append_all(std::mem::replace(&mut units, rest)));
        }
        let verdicts = futures::future::try_join_all(portions).await.map_err(transient)?;
        let mut again = Vec::new();
        for (due, verdict) in pending.into_iter().zip(verdicts.into_iter().flatten()) {
            match verdict {
                Ok(_) => {}
                Err(AppendError::Conflict) => again.push(Due { is_doubtful: true, ..due }),
                Err(error) => return Err(transient(error)),
            }
        }
        Ok(again)
    }
}

fn transient(error: impl std::fmt::Display) -> HandlerError {
    HandlerError::Transient(error.to_string())
}

/// An event of a later release will not be understood by waiting.
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
            self.plan().clear();
            let (mut recorded, mut planned) = (Vec::new(), Vec::new());
            for event in events {
                let Some(due) = self.pending(event).await? else { continue };
                match self.directory.destination(due.provider) {
                    None if !due.requested => recorded.push(due),
                    None => planned.push(Planned { due, taken: None }),
                    Some(destination) => planned.push(Planned { taken: self.take(&due, &destination), due }),
                }
            }
            if !recorded.is_empty() {
                let again = self.record(recorded).await?;
                planned.extend(again.into_iter().map(|due| Planned { due, taken: None }));
            }
            *self.plan() = planned;
            Ok(())
        })
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        _events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            let rows: Vec<_> = self
                .plan()
                .iter()
                .map(|planned| (planned.due, planned.taken.as_ref().map(|(_, lease)| *lease)))
                .collect();
            if rows.is_empty() {
                return Ok(());
            }
            self.queue.put(connection, &rows).await.map_err(transient)
        })
    }

    fn committed(&self) {
        for Planned { due, taken } in self.plan().drain(..) {
            let Some((place, _)) = taken else { continue };
            // There are as many seats as places; a worker that stops leaves the row to its lease.
            let _ = self.worker.try_send(Taken { due, place: Some(place) });
        }
    }
}
