//! From a due delivery to an attempt that the log knows.
//!
//! Everything that can fail on our side comes before the attempt starts, so a body that cannot be read now
//! does not use up an attempt.

use std::sync::Arc;
use std::time::Duration;

use hookledger_aggregates::delivery::{Delivery, DeliveryCommand};
use tokio::time::Instant;

use super::attempt::Verdict;
use super::clock::within;
use super::decide::{DecideError, Decided, decide_due};
use super::places::{BodyRoom, Place};
use super::queue::{Due, Settled};
use super::worker::{BACKOFF, Shared, Taken, lease};
use super::working::InHand;
use super::{failed_before_sending, timeout_command};
use crate::directory::{Destination, Standing};
use crate::log::{AppendError, FreshBody, ReadError};
use crate::platform::egress::Target;

/// Delay after which a row that could not be processed is due again.
const GIVEN_BACK: Duration = Duration::from_secs(1);

/// A delivery in progress.
pub(super) struct Job {
    pub due: Due,
    pub began: Instant,
    _in_hand: InHand,
}

/// Everything that an attempt needs.
pub(super) struct Sending {
    pub destination: Arc<Destination>,
    pub target: Target,
    pub body: FreshBody,
    pub _place: Place,
    pub _room: Option<BodyRoom>,
}

/// The next step of a due delivery.
enum Step {
    Send(Box<Sending>),
    /// The same unit contains its end, or its next attempt.
    End,
}

/// Result of the preparation of an attempt.
enum Prepared {
    Send(Box<Sending>),
    /// It fails without sending anything.
    Fail(Box<Verdict>),
    /// It is not started now.
    Back(Settled),
    /// Its body has to be read first.
    Read(Arc<Destination>, Target, Place),
}

/// A start to append.
struct Start {
    job: Job,
    decided: Decided,
    step: Step,
}

impl Shared {
    /// Starts attempts together, in a separate task.
    pub(super) fn start(self: &Arc<Self>, batch: Vec<Taken>) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move { shared.start_now(batch).await });
    }

    async fn start_now(self: &Arc<Self>, batch: Vec<Taken>) {
        let mut starts = Vec::with_capacity(batch.len());
        for Taken { due, mut place } in batch {
            // Its lease ended while this node was working on it, and taking it renewed the lease.
            let Some(in_hand) = self.working.take(&due) else { continue };
            let job = Job { due, began: Instant::now(), _in_hand: in_hand };
            if let Some(circuit) = place.as_mut().and_then(|place| place.circuit.take()) {
                self.tell(circuit).await;
            }
            if due.is_doubtful {
                self.reconcile(job);
                continue;
            }
            if self.is_overdue(&due) {
                let command = timeout_command(&self.settings.policy, due.attempt, due.read.now());
                self.decided(job, vec![command], Step::End, &mut starts);
                continue;
            }
            match self.prepare(&due, place) {
                Prepared::Read(destination, target, place) => self.read_first(job, destination, target, place),
                prepared => self.decide_start(job, prepared, &mut starts).await,
            }
        }
        self.append_starts(starts).await;
    }

    /// Whether no worker started it in time. Held deliveries and requested retries are never overdue.
    fn is_overdue(&self, due: &Due) -> bool {
        matches!(self.directory.standing(due.route, due.destination), Standing::Ready(_))
            && due.pending_for.is_some_and(|pending| pending + due.read.elapsed() > self.settings.pending_timeout)
    }

    fn prepare(&self, due: &Due, place: Option<Place>) -> Prepared {
        let fail = |reason: &str| Prepared::Fail(Box::new(failed_before_sending(reason)));
        let (destination, place) = match (self.directory.standing(due.route, due.destination), place) {
            (Standing::Held(hold), _) => return Prepared::Back(Settled::Held(hold)),
            (Standing::Ready(_), None) => {
                return Prepared::Back(Settled::Back { pause: Duration::ZERO, waits_anew: false });
            }
            (Standing::Ready(destination), Some(place)) => (destination, place),
        };
        let target = match Target::parse(&destination.url, self.egress.allow_list()) {
            Ok(target) => target,
            Err(error) => return fail(&error.to_string()),
        };
        // Fresh bodies live for a moment only, because a body may be erased later.
        match (due.attempt == 1).then(|| self.fresh.take(due.webhook)).flatten() {
            Some(body) => Prepared::Send(Box::new(Sending { destination, target, body, _place: place, _room: None })),
            None => Prepared::Read(destination, target, place),
        }
    }

    /// Reads the body, for as long as the lease lasts, and starts the attempt.
    fn read_first(self: &Arc<Self>, job: Job, destination: Arc<Destination>, target: Target, place: Place) {
        let shared = Arc::clone(self);
        let until = job.began + lease(destination.timeout.unwrap_or(self.settings.attempt_timeout));
        self.tasks.spawn(async move {
            let prepared = loop {
                match shared.body(&job.due).await {
                    Ok(Some((body, room))) => {
                        break Prepared::Send(Box::new(Sending { destination, target, body, _place: place, _room: room }));
                    }
                    Ok(None) => {
                        let reason = "The webhook's body is no longer stored, so nothing was sent.";
                        break Prepared::Fail(Box::new(failed_before_sending(reason)));
                    }
                    Err(error) if Instant::now() + BACKOFF < until && !shared.tasks.is_closed() => {
                        tracing::debug!(%error, webhook.id = %job.due.webhook, "could not read a body; retrying");
                        tokio::time::sleep(BACKOFF).await;
                    }
                    Err(error) => {
                        tracing::error!(%error, webhook.id = %job.due.webhook, "could not read a body; its attempt waits");
                        break Prepared::Back(Settled::Back { pause: GIVEN_BACK, waits_anew: true });
                    }
                }
            };
            let mut starts = Vec::with_capacity(1);
            shared.decide_start(job, prepared, &mut starts).await;
            shared.append_starts(starts).await;
        });
    }

    /// The body, with memory reserved for it.
    async fn body(&self, due: &Due) -> Result<Option<(FreshBody, Option<BodyRoom>)>, ReadError> {
        let Some(size) = within(self.reader.body_size(due.organization, due.webhook)).await? else { return Ok(None) };
        let room = self.places.body_room(due.destination, size).await;
        Ok(within(self.reader.deliverable(due.organization, due.webhook)).await?.map(|body| (body, room)))
    }

    async fn decide_start(self: &Arc<Self>, job: Job, prepared: Prepared, starts: &mut Vec<Start>) {
        match prepared {
            Prepared::Send(sending) => self.decided(job, Vec::new(), Step::Send(sending), starts),
            Prepared::Fail(verdict) => {
                let command = self.end_command(&job.due, &verdict);
                self.decided(job, vec![command], Step::End, starts);
            }
            Prepared::Back(settled) => self.send_settlement(&job.due, settled, None).await,
            Prepared::Read(destination, target, place) => self.read_first(job, destination, target, place),
        }
    }

    fn decided(self: &Arc<Self>, job: Job, then: Vec<DeliveryCommand>, step: Step, starts: &mut Vec<Start>) {
        let start = DeliveryCommand::StartAttempt { attempt: job.due.attempt };
        let decided: Result<Decided, DecideError> = decide_due(&job.due, std::iter::once(start).chain(then));
        match decided {
            Ok(decided) => starts.push(Start { job, decided, step }),
            Err(error) => {
                tracing::error!(%error, webhook.id = %job.due.webhook, "could not start an attempt");
                self.reconcile(job);
            }
        }
    }

    async fn append_starts(self: &Arc<Self>, starts: Vec<Start>) {
        if starts.is_empty() {
            return;
        }
        let (mut units, mut begun) = (Vec::with_capacity(starts.len()), Vec::with_capacity(starts.len()));
        for Start { job, decided: Decided { unit, state, sequence }, step } in starts {
            units.push(unit.decided_in(job.due.read.epoch));
            begun.push((job, state, sequence, step));
        }
        let verdicts = match self.log.append_all(units).await {
            Ok(verdicts) => verdicts,
            Err(error) => begun.iter().map(|_| Err(error)).collect(),
        };
        let mut doubtful: Vec<Job> = Vec::new();
        for ((job, state, sequence, step), verdict) in begun.into_iter().zip(verdicts) {
            match (verdict, step) {
                (Ok(_), Step::Send(sending)) => self.send(job, state, sequence, sending),
                (Ok(_), Step::End) => self.settle(&job.due, &state, sequence, None).await,
                (Err(AppendError::Conflict), _) => self.reconcile(job),
                (Err(AppendError::Overloaded | AppendError::Failed | AppendError::OverLimit(_)), _) => {
                    doubtful.push(job);
                }
            }
        }
        if !doubtful.is_empty() {
            // The start may have been committed, so the next holder asks the log.
            tokio::time::sleep(BACKOFF).await;
            for job in doubtful {
                self.send_settlement(&job.due, Settled::Doubtful, None).await;
            }
        }
    }

    fn send(self: &Arc<Self>, job: Job, state: Delivery, sequence: i64, sending: Box<Sending>) {
        let attempt = Arc::clone(self).attempt(job, state, sequence, sending);
        self.tasks.spawn(attempt);
    }
}
