//! The worker of a node: takes what is due, fences each attempt in the log, sends it, and appends how
//! it ended.
//!
//! The log decides. `AttemptStarted` is appended at the sequence that follows what the queue knows,
//! and whoever loses that append never sends. A result that comes after somebody else ended the
//! attempt is in conflict too, and changes nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookledger_aggregates::ProviderId;
use hookledger_aggregates::webhook::{Phase, RetryPolicy, Webhook};
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

/// Webhooks that are started together.
pub(super) const BATCH: usize = 64;
/// Webhooks that are claimed together.
pub(super) const CLAIM: u32 = 256;
/// How often the queue is looked at when nobody tells of anything.
const POLL: Duration = Duration::from_millis(200);
/// After places were given back, more are let come: one look at the queue serves them all.
const COALESCE: Duration = Duration::from_millis(3);
/// How long a lease lasts beyond the time that a destination may take to answer.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
/// How long attempts in flight may take after a stop was asked for.
const STOP_LIMIT: Duration = Duration::from_secs(9);
/// Settlements that wait to be written, and that are written together.
const SETTLEMENTS: usize = 4_096;
const SETTLE_TOGETHER: usize = 256;
const SETTLE_GATHER: Duration = Duration::from_millis(5);
pub(super) const BACKOFF: Duration = Duration::from_millis(500);

/// How long a webhook is leased whose destination may take that long.
#[must_use]
pub fn lease(timeout: Duration) -> Duration {
    timeout + LEASE_MARGIN
}

/// How webhooks are processed.
#[derive(Clone, Debug)]
pub struct Settings {
    pub policy: RetryPolicy,
    /// A webhook is pending for at most so long, unless it waits for its destination.
    pub pending_timeout: Duration,
    /// How long a destination may take that says nothing else.
    pub attempt_timeout: Duration,
}

/// A webhook that this node works on, and its place at its destination.
#[derive(Debug)]
pub struct Taken {
    pub due: Due,
    /// Nothing where nothing will be sent.
    pub place: Option<Place>,
}

/// What attempts need.
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
    /// Circuits that moved and could not be told of yet.
    untold: Mutex<HashMap<ProviderId, CircuitRow>>,
    settlements: mpsc::Sender<Settlement>,
    pub(super) tasks: TaskTracker,
}

/// Takes, starts, and settles.
pub struct Worker {
    shared: Arc<Shared>,
    handed: mpsc::Receiver<Taken>,
    settlements: mpsc::Receiver<Settlement>,
}

/// What a worker is made of.
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
    /// A worker, and the way to hand it what the queue's feeder took.
    #[must_use]
    pub fn new(parts: Parts) -> (mpsc::Sender<Taken>, Self) {
        // Every seat needs a place, and places are bounded.
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

    /// Works until stopped; then attempts in flight finish within a limit, and what is left is given
    /// up for others to take.
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
                // Neither ends before the stop, but by a panic: the worker is of no use without.
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
            tracing::warn!("attempts were still in flight when the time to finish was over; they are recorded as lost");
        }
        stopped.cancel();
        drop(shared);
        // Tasks that are still there hold a sender; what they settle later is left to the leases.
        let _ = tokio::time::timeout(STOP_LIMIT / 4, settling).await;
        log_failure("left", queue.leave().await);
    }
}

pub(super) fn log_failure(what: &str, result: Result<(), sqlx::Error>) {
    if let Err(error) = result {
        tracing::warn!(%error, queue.what = what, "the queue of attempts could not be written or read; trying again");
    }
}

/// Writes settlements, many at once, for as long as it takes: what is not written is in doubt later, and
/// what a destination answered would be lost.
async fn settle(queue: Queue, mut settlements: mpsc::Receiver<Settlement>, stopped: CancellationToken) {
    let mut batch = Vec::with_capacity(SETTLE_TOGETHER);
    while settlements.recv_many(&mut batch, SETTLE_TOGETHER).await > 0 {
        loop {
            // Where the log lost its end, the row may have to be worked on again: its lease runs out.
            batch.retain(|settlement| settlement.epoch == queue.epoch());
            let Err(error) = queue.settle(&batch).await else { break };
            log_failure("settled", Err(error));
            // Each by itself: something in one of them may never be written.
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

/// Those that could not be written for a reason that waiting may end; nothing where the first shows that
/// none can be written now.
async fn one_by_one(queue: &Queue, batch: &[Settlement]) -> Option<Vec<Settlement>> {
    let mut left = Vec::new();
    for settlement in batch {
        match queue.settle(std::slice::from_ref(settlement)).await {
            Ok(()) => {}
            Err(error) if is_of_the_data(&error) => {
                tracing::error!(%error, webhook.id = %settlement.webhook, "the queue's row of a webhook cannot be written");
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
    /// Takes from the queue until it is empty or there is no room.
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
            // Of a destination that was not known to be in use, one webhook came, and of the others their
            // share: there may be more.
            let is_new = |due: &Due| rooms.iter().all(|room| room.provider != due.provider);
            let may_be_more = due.len() > 1 || due.iter().any(is_new);
            let (mut taken, mut returned) = (Vec::with_capacity(due.len()), Vec::new());
            for due in due {
                match self.directory.standing(due.provider) {
                    _ if due.is_doubtful => taken.push(Taken { due, place: None }),
                    Standing::Held(hold) => {
                        self.send_settlement(&due, Settled::Held(hold), None).await;
                        // All that is due there would come, one after the other.
                        log_failure("held", self.queue.hold(due.provider, hold).await.map(drop));
                    }
                    Standing::Ready(destination) => {
                        let (organization, requested, now) = (due.organization, due.requested, Instant::now());
                        let concurrency = destination.concurrency;
                        match self.places.take(organization, due.provider, concurrency, requested, now) {
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

    /// Notes in the queue where the log left a webhook.
    pub(super) async fn settle(&self, due: &Due, state: &Webhook, sequence: i64, response: Option<Response>) {
        let settled = match state.retry_at() {
            Some(retry_at) if state.phase() == Phase::AwaitingRetry => {
                // Counted from now by this node's monotonic clock, and told to the database as a wait.
                let wait = (retry_at - due.read.now()).to_std().unwrap_or_default();
                let (attempt, requested) = (state.next_attempt(), state.is_requested());
                Settled::Again { attempt, sequence, due: When::In(Instant::now() + wait), requested, pending: false }
            }
            _ => Settled::Done { sequence },
        };
        self.send_settlement(due, settled, response).await;
    }

    pub(super) async fn send_settlement(&self, due: &Due, settled: Settled, response: Option<Response>) {
        let (organization, webhook, epoch) = (due.organization, due.webhook, due.read.epoch);
        let settlement = Settlement { epoch, organization, webhook, settled, response };
        // Nobody listens any more when the node stops: the lease runs out then.
        let _ = self.settlements.send(settlement).await;
    }

    pub(super) async fn tell(&self, circuit: CircuitRow) {
        tracing::info!(
            provider.id = %circuit.provider, circuit.state = circuit.state, circuit.failures = circuit.failures,
            "the circuit of a destination moved"
        );
        self.write_down(circuit).await;
    }

    /// Tells of circuits that could not be told of when they moved.
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
            untold.insert(circuit.provider, circuit);
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
