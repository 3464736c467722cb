//! A node's worker: takes due deliveries, records the start of each attempt in the log, sends it, and appends
//! the outcome.
//!
//! The log decides. `AttemptStarted` is appended at the sequence after the one that the queue knows; a worker
//! that loses this append never sends. A result that arrives after another node ended the attempt is in
//! conflict, too, and changes nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookledger_aggregates::delivery::{Delivery, RetryPolicy};
use hookledger_aggregates::{DestinationId, Phase};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::beat::beat;
use super::places::{Place, Places};
use super::queue::{CircuitRow, Due, Queue, Response, Settled, Settlement, When};
use super::working::Working;
use crate::directory::{Directory, Standing};
use crate::log::{FreshBodies, Log, Reader};
use crate::platform::egress::Egress;

/// Deliveries that are started together.
pub(super) const BATCH: usize = 64;
/// Deliveries that are claimed together.
pub(super) const CLAIM: u32 = 256;
/// Interval of looks at the queue without a notification.
const POLL: Duration = Duration::from_millis(200);
/// Pause after places were given back, so that one look at the queue fills several.
const COALESCE: Duration = Duration::from_millis(3);
/// Length of a lease beyond the timeout of the destination.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
/// How long running attempts may continue after a request to stop.
const STOP_LIMIT: Duration = Duration::from_secs(9);
/// Settlements in the channel, and settlements written together.
const SETTLEMENTS: usize = 4_096;
const SETTLE_TOGETHER: usize = 256;
const SETTLE_GATHER: Duration = Duration::from_millis(5);
pub(super) const BACKOFF: Duration = Duration::from_millis(500);

/// Length of the lease for a destination with that timeout.
#[must_use]
pub fn lease(timeout: Duration) -> Duration {
    timeout + LEASE_MARGIN
}

/// Settings for deliveries.
#[derive(Clone, Debug)]
pub struct Settings {
    pub policy: RetryPolicy,
    /// How long a delivery may be pending, unless it waits for its destination.
    pub pending_timeout: Duration,
    /// Timeout of destinations that do not set their own.
    pub attempt_timeout: Duration,
}

/// A delivery that this node processes, and its place at its destination.
#[derive(Debug)]
pub struct Taken {
    pub due: Due,
    /// `None` if nothing will be sent.
    pub place: Option<Place>,
}

/// Shared by all attempts.
pub struct Shared {
    pub log: Log,
    pub reader: Reader,
    pub directory: Directory,
    pub queue: Queue,
    pub places: Arc<Places>,
    pub egress: Egress,
    pub fresh: Arc<FreshBodies>,
    pub settings: Settings,
    pub(super) working: Working,
    /// Changes of circuits that could not be recorded yet.
    untold: Mutex<HashMap<DestinationId, CircuitRow>>,
    settlements: mpsc::Sender<Settlement>,
    pub(super) tasks: TaskTracker,
}

/// Takes, starts, and settles deliveries.
pub struct Worker {
    shared: Arc<Shared>,
    handed: mpsc::Receiver<Taken>,
    settlements: mpsc::Receiver<Settlement>,
}

/// Parts of a worker.
pub struct Parts {
    pub log: Log,
    pub reader: Reader,
    pub directory: Directory,
    pub queue: Queue,
    pub places: Arc<Places>,
    pub egress: Egress,
    pub fresh: Arc<FreshBodies>,
    pub settings: Settings,
}

impl Worker {
    /// A worker, and the channel through which the feeder hands it deliveries.
    #[must_use]
    pub fn new(parts: Parts) -> (mpsc::Sender<Taken>, Self) {
        // Each message holds a place, and places are bounded.
        let (hand, handed) = mpsc::channel(SETTLEMENTS);
        let (settle, settlements) = mpsc::channel(SETTLEMENTS);
        let Parts { log, reader, directory, queue, places, egress, fresh, settings } = parts;
        let shared = Shared {
            log,
            reader,
            directory,
            queue,
            places,
            egress,
            fresh,
            settings,
            working: Working::default(),
            untold: Mutex::default(),
            settlements: settle,
            tasks: TaskTracker::new(),
        };
        (hand, Self { shared: Arc::new(shared), handed, settlements })
    }

    /// Works until stopped. Running attempts then finish within a limit, and the rest is given up for other
    /// nodes.
    pub async fn run(self, stop: CancellationToken) {
        let Self { shared, mut handed, settlements } = self;
        let queue = shared.queue.clone();
        let stopped = CancellationToken::new();
        let mut settling = tokio::spawn(settle(queue.clone(), settlements, stopped.clone()));
        let mut beating = tokio::spawn(beat(Arc::clone(&shared), stop.clone()));
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                // Neither task ends before the stop except by a panic, and the worker is of no use without
                // it.
                _ = &mut settling => return,
                _ = &mut beating => return,
                count = handed.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    shared.start(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)));
                }
                () = shared.places.freed() => {
                    tokio::time::sleep(COALESCE).await;
                    shared.claim().await;
                }
                _ = poll.tick() => shared.claim().await,
            }
        }
        let _ = beating.await;
        handed.close();
        while let Ok(Taken { due, .. }) = handed.try_recv() {
            log_failure("given back", queue.release(&[due]).await);
        }
        shared.tasks.close();
        if tokio::time::timeout(STOP_LIMIT, shared.tasks.wait()).await.is_err() {
            tracing::warn!("attempts were still running at the time limit for stopping; they will be recorded as lost");
        }
        stopped.cancel();
        drop(shared);
        // Tasks that are still running hold a sender; their later settlements are left to the leases.
        let _ = tokio::time::timeout(STOP_LIMIT / 4, settling).await;
        log_failure("left", queue.leave().await);
    }
}

pub(super) fn log_failure(what: &str, result: Result<(), sqlx::Error>) {
    if let Err(error) = result {
        tracing::warn!(%error, queue.what = what, "could not access the queue of attempts; retrying");
    }
}

/// Writes settlements in batches, retrying for as long as necessary: an unwritten one would become doubtful
/// later, and the destination's answer would be lost.
async fn settle(queue: Queue, mut settlements: mpsc::Receiver<Settlement>, stopped: CancellationToken) {
    let mut batch = Vec::with_capacity(SETTLE_TOGETHER);
    while settlements.recv_many(&mut batch, SETTLE_TOGETHER).await > 0 {
        loop {
            // If the log lost its end, the row may have to be processed again: its lease ends.
            batch.retain(|settlement| settlement.epoch == queue.epoch());
            let Err(error) = queue.settle(&batch).await else { break };
            log_failure("settled", Err(error));
            // One at a time, because one of them may never be writable.
            if let Some(alone) = one_by_one(&queue, &batch).await {
                batch = alone;
            }
            if batch.is_empty() || stopped.is_cancelled() {
                break;
            }
            tokio::time::sleep(BACKOFF).await;
        }
        batch.clear();
        tokio::time::sleep(SETTLE_GATHER).await;
    }
}

/// Settlements that failed for a transient reason; `None` if the first one shows that nothing can be written
/// now.
async fn one_by_one(queue: &Queue, batch: &[Settlement]) -> Option<Vec<Settlement>> {
    let mut left = Vec::new();
    for settlement in batch {
        match queue.settle(std::slice::from_ref(settlement)).await {
            Ok(()) => {}
            Err(error) if is_of_the_data(&error) => {
                tracing::error!(%error, webhook.id = %settlement.webhook, "could not update a delivery's row in the queue");
            }
            Err(_) if left.is_empty() => return None,
            Err(_) => left.push(settlement.clone()),
        }
    }
    Some(left)
}

/// Waiting does not help: classes 22 (data exception) and 23 (constraint).
fn is_of_the_data(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
}

impl Shared {
    /// Takes from the queue until it is empty or no place is free.
    async fn claim(self: &Arc<Self>) {
        let lease = lease(self.settings.attempt_timeout);
        loop {
            let (rooms, free) = self.places.room(Instant::now());
            if free == 0 {
                return;
            }
            let limit = free.min(CLAIM);
            let due = match self.queue.claim(&rooms, 1, limit, lease).await {
                Ok(due) if due.is_empty() => return,
                Ok(due) => due,
                Err(error) => return log_failure("claimed", Err(error)),
            };
            // A destination that was not known to be in use gave one delivery, and the others gave their
            // share: there may be more.
            let is_new = |due: &Due| rooms.iter().all(|room| room.destination != due.destination);
            let may_be_more = due.len() > 1 || due.iter().any(is_new);
            let (mut taken, mut returned) = (Vec::with_capacity(due.len()), Vec::new());
            for due in due {
                match self.directory.standing(due.route, due.destination) {
                    _ if due.is_doubtful => taken.push(Taken { due, place: None }),
                    Standing::Held(hold) => {
                        self.send_settlement(&due, Settled::Held(hold), None).await;
                        // Otherwise, everything due to it would arrive one by one.
                        log_failure("held", self.queue.hold(due.route, due.destination, hold).await.map(drop));
                    }
                    Standing::Ready(to) => {
                        let (organization, requested, now) = (due.organization, due.requested, Instant::now());
                        let concurrency = to.concurrency;
                        match self.places.take(organization, due.destination, concurrency, requested, now) {
                            Some(place) => taken.push(Taken { due, place: Some(place) }),
                            None => returned.push(due),
                        }
                    }
                }
            }
            let is_stuck = taken.is_empty() || !may_be_more;
            for batch in chunks(taken) {
                self.start(batch);
            }
            if !returned.is_empty() {
                log_failure("released", self.queue.release(&returned).await);
            }
            if is_stuck {
                return;
            }
        }
    }

    /// Settles a delivery's row according to its state in the log.
    pub(super) async fn settle(&self, due: &Due, state: &Delivery, sequence: i64, response: Option<Response>) {
        let settled = match state.retry_at() {
            Some(retry_at) if state.phase() == Phase::AwaitingRetry => {
                // Counted from now by this node's monotonic clock, and passed to the database as a delay.
                let wait = (retry_at - due.read.now()).to_std().unwrap_or_default();
                let (attempt, requested) = (state.next_attempt(), state.is_requested());
                Settled::Again { attempt, sequence, due: When::In(Instant::now() + wait), requested, pending: false }
            }
            _ => Settled::Done { sequence },
        };
        self.send_settlement(due, settled, response).await;
    }

    pub(super) async fn send_settlement(&self, due: &Due, settled: Settled, response: Option<Response>) {
        let Due { organization, delivery, webhook, .. } = *due;
        let epoch = due.read.epoch;
        let settlement = Settlement { epoch, organization, delivery, webhook, settled, response };
        // The receiver is gone when the node stops; the lease then ends.
        let _ = self.settlements.send(settlement).await;
    }

    pub(super) async fn tell(&self, circuit: CircuitRow) {
        tracing::info!(
            destination.id = %circuit.destination, circuit.state = circuit.state, circuit.failures = circuit.failures,
            "a destination's circuit changed its state"
        );
        self.write_down(circuit).await;
    }

    /// Records changes of circuits that could not be recorded when they happened.
    pub(super) async fn tell_again(&self) {
        let untold = std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner));
        for circuit in untold.into_values() {
            self.write_down(circuit).await;
        }
    }

    async fn write_down(&self, circuit: CircuitRow) {
        if let Err(error) = self.queue.note_circuit(&circuit).await {
            log_failure("circuit", Err(error));
            let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
            untold.insert(circuit.destination, circuit);
        }
    }
}

fn chunks(mut taken: Vec<Taken>) -> Vec<Vec<Taken>> {
    let mut chunks = Vec::new();
    while !taken.is_empty() {
        let rest = taken.split_off(BATCH.min(taken.len()));
        chunks.push(std::mem::replace(&mut taken, rest));
    }
    chunks
}
