//! The worker of a node: takes what is due, fences each attempt in the log, sends it, and appends how
//! it ended.
//!
//! The log decides. `AttemptStarted` is appended at the sequence that follows what the queue knows,
//! and whoever loses that append never sends. A result that comes after somebody else ended the
//! attempt is in conflict too, and changes nothing.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use hookledger_aggregates::webhook::{RetryPolicy, WebhookCommand};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::decide::{Decided, decide_due, record};
use super::egress::Egress;
use super::places::{Place, Places};
use super::queue::{CircuitRow, Due, Queue, Settled, Settlement};
use super::timeout_command;
use crate::directory::{Destination, Directory};
use crate::log::{AppendError, FreshBodies, Log, Reader};

/// Webhooks that are started together.
const BATCH: usize = 64;
/// Webhooks that are claimed together.
const CLAIM: u32 = 256;
/// How often the queue is looked at when nobody tells of anything.
const POLL: Duration = Duration::from_millis(200);
/// After places were given back, more are let come: one look at the queue serves them all.
const COALESCE: Duration = Duration::from_millis(3);
/// How often this node tells that it is alive and looks for what is overdue.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A node that has not told for so long is taken for dead.
const DEAD_AFTER: Duration = Duration::from_secs(10);
/// How long a lease lasts beyond the time that a destination may take to answer.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
/// How long attempts in flight may take after a stop was asked for.
const STOP_LIMIT: Duration = Duration::from_secs(9);
/// Settlements that wait to be written, and that are written together.
const SETTLEMENTS: usize = 4_096;
const SETTLE_TOGETHER: usize = 256;
const SETTLE_GATHER: Duration = Duration::from_millis(5);
const SETTLE_TRIES: u32 = 5;
const BACKOFF: Duration = Duration::from_millis(500);

/// How long a webhook is leased whose destination may take that long.
#[must_use]
pub fn lease(timeout: Duration) -> Duration {
    timeout + LEASE_MARGIN
}

/// How webhooks are processed.
#[derive(Clone, Debug)]
pub struct Settings {
    pub policy: RetryPolicy,
    /// A webhook is pending for at most so long.
    pub pending_timeout: chrono::Duration,
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
    settlements: mpsc::Sender<Settlement>,
    tasks: TaskTracker,
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
        let mut settling = tokio::spawn(settle(queue.clone(), settlements));
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
        drop(shared);
        // Tasks that are still there hold a sender; what they settle later is left to the leases.
        let _ = tokio::time::timeout(STOP_LIMIT / 4, settling).await;
        log_failure("left", queue.leave().await);
    }
}

fn log_failure(what: &str, result: Result<(), sqlx::Error>) {
    if let Err(error) = result {
        tracing::warn!(%error, queue.what = what, "the queue of attempts could not be written; leases run out");
    }
}

/// Tells that this node is alive, and takes what has been pending for too long.
async fn beat(shared: Arc<Shared>, stop: CancellationToken) {
    let mut interval = tokio::time::interval(HEARTBEAT);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        log_failure("alive", shared.queue.keep_alive(DEAD_AFTER).await);
        let before = Utc::now() - shared.settings.pending_timeout;
        let lease = lease(shared.settings.attempt_timeout);
        loop {
            match shared.queue.claim_overdue(before, CLAIM, lease).await {
                Ok(overdue) if overdue.is_empty() => break,
                Ok(overdue) => shared.start(overdue.into_iter().map(|due| Taken { due, place: None }).collect()),
                Err(error) => {
                    log_failure("overdue", Err(error));
                    break;
                }
            }
        }
    }
}

/// Writes settlements, many at once.
async fn settle(queue: Queue, mut settlements: mpsc::Receiver<Settlement>) {
    let mut batch = Vec::with_capacity(SETTLE_TOGETHER);
    while settlements.recv_many(&mut batch, SETTLE_TOGETHER).await > 0 {
        for attempt in 1.. {
            match queue.settle(&batch).await {
                Ok(()) => break,
                Err(error) if attempt >= SETTLE_TRIES => {
                    log_failure("settled", Err(error));
                    break;
                }
                Err(_) => tokio::time::sleep(BACKOFF).await,
            }
        }
        batch.clear();
        tokio::time::sleep(SETTLE_GATHER).await;
    }
}

/// What is done about a webhook that is due.
enum Step {
    Send(Arc<Destination>, Place),
    /// Its end, or its next attempt, is in the same unit.
    End,
}

impl Shared {
    /// Takes from the queue until it is empty or there is no room.
    async fn claim(self: &Arc<Self>) {
        let lease = lease(self.settings.attempt_timeout);
        loop {
            let (room, free) = self.places.room(Utc::now());
            if free == 0 {
                return;
            }
            let limit = free.min(CLAIM);
            let due = match self.queue.claim(&room, 1, limit, lease).await {
                Ok(due) if due.is_empty() => return,
                Ok(due) => due,
                Err(error) => return log_failure("claimed", Err(error)),
            };
            // Of a destination that was not known to be in use, one webhook came: there may be more.
            let is_new = |due: &Due| room.iter().all(|room| room.provider != due.provider);
            let may_be_more = due.len() >= limit as usize || due.iter().any(is_new);
            let (mut taken, mut longer, mut returned) = (Vec::with_capacity(due.len()), Vec::new(), Vec::new());
            for due in due {
                let Some(destination) = self.directory.destination(due.provider).filter(|_| !due.is_doubtful) else {
                    taken.push(Taken { due, place: None });
                    continue;
                };
                match self.places.take(
                    due.organization,
                    due.provider,
                    destination.concurrency,
                    due.requested,
                    Utc::now(),
                ) {
                    Some(place) => {
                        if destination.timeout.is_some_and(|timeout| timeout > self.settings.attempt_timeout) {
                            longer.push((due, destination.timeout.unwrap_or_default()));
                        }
                        taken.push(Taken { due, place: Some(place) });
                    }
                    None => returned.push(due),
                }
            }
            for (due, timeout) in longer {
                log_failure("extended", self.queue.extend(&[due], self::lease(timeout)).await);
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

    /// Starts attempts together, in a task of their own.
    fn start(self: &Arc<Self>, batch: Vec<Taken>) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move { shared.start_now(batch).await });
    }

    async fn start_now(self: &Arc<Self>, batch: Vec<Taken>) {
        let (mut units, mut started) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        let began = Instant::now();
        for Taken { due, mut place } in batch {
            if due.is_doubtful {
                self.reconcile(due);
                continue;
            }
            if let Some(circuit) = place.as_mut().and_then(|place| place.circuit.take()) {
                self.tell(circuit).await;
            }
            match self.decide_start(&due, place) {
                Ok((Decided { unit, state, sequence }, step)) => {
                    units.push(unit);
                    started.push((due, state, sequence, step));
                }
                Err(error) => {
                    tracing::error!(%error, webhook.id = %due.webhook, "an attempt cannot be started");
                    self.reconcile(due);
                }
            }
        }
        if units.is_empty() {
            return;
        }
        let verdicts = match self.log.append_all(units).await {
            Ok(verdicts) => verdicts,
            Err(error) => started.iter().map(|_| Err(error)).collect(),
        };
        let mut returned = Vec::new();
        for ((due, state, sequence, step), verdict) in started.into_iter().zip(verdicts) {
            match (verdict, step) {
                (Ok(_), Step::Send(destination, place)) => {
                    let attempt = self.clone().attempt(due, state, sequence, destination, place, began);
                    self.tasks.spawn(attempt);
                }
                (Ok(_), Step::End) => self.settle(&due, &state, sequence, None).await,
                (Err(AppendError::Conflict), _) => self.reconcile(due),
                (Err(AppendError::Overloaded | AppendError::Failed | AppendError::OverLimit(_)), _) => {
                    returned.push(due);
                }
            }
        }
        if !returned.is_empty() {
            // Whether the start was committed may be unknown: whoever takes these next asks the log.
            tokio::time::sleep(BACKOFF).await;
            log_failure("doubted", self.queue.doubt(&returned).await);
        }
    }

    /// What becomes of a webhook that is due: an attempt, or an end without one.
    fn decide_start(&self, due: &Due, place: Option<Place>) -> Result<(Decided, Step), super::decide::DecideError> {
        let attempt = due.attempt;
        let now = Utc::now();
        if due.pending_since.is_some_and(|since| now - since > self.settings.pending_timeout) {
            let commands =
                [WebhookCommand::StartAttempt { attempt }, timeout_command(&self.settings.policy, attempt, now)];
            return Ok((decide_due(due, commands)?, Step::End));
        }
        match (self.directory.destination(due.provider), place) {
            (Some(destination), Some(place)) => {
                let decided = decide_due(due, [WebhookCommand::StartAttempt { attempt }])?;
                Ok((decided, Step::Send(destination, place)))
            }
            // The destination was removed since: recording it is the processing.
            _ => Ok((record(due)?, Step::End)),
        }
    }

    /// Notes in the queue where the log left a webhook.
    pub(super) async fn settle(
        &self,
        due: &Due,
        state: &hookledger_aggregates::webhook::Webhook,
        sequence: i64,
        response: Option<super::queue::Response>,
    ) {
        let settled = match state.retry_at() {
            Some(due_at) if state.phase() == hookledger_aggregates::webhook::Phase::AwaitingRetry => {
                let (attempt, requested) = (state.next_attempt(), state.is_requested());
                Settled::Again { attempt, sequence, due_at, requested, pending_since: None }
            }
            _ => Settled::Done { sequence },
        };
        self.send_settlement(due, settled, response).await;
    }

    pub(super) async fn send_settlement(&self, due: &Due, settled: Settled, response: Option<super::queue::Response>) {
        let settlement = Settlement { organization: due.organization, webhook: due.webhook, settled, response };
        // Nobody listens any more when the node stops: the lease runs out then.
        let _ = self.settlements.send(settlement).await;
    }

    pub(super) async fn tell(&self, circuit: CircuitRow) {
        tracing::info!(
            provider.id = %circuit.provider, circuit.state = circuit.state, circuit.failures = circuit.failures,
            "the circuit of a destination moved"
        );
        log_failure("circuit", self.queue.note_circuit(&circuit).await);
    }

    /// Asks the log about a webhook, in a task of its own.
    pub(super) fn reconcile(self: &Arc<Self>, due: Due) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move { shared.reconcile_now(due).await });
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
