//! From a started attempt to its end in the log, and the reconciliation of doubtful rows.

use std::sync::Arc;
use std::time::Duration;

use hookledger_aggregates::Phase;
use hookledger_aggregates::delivery::{Delivery, DeliveryCommand, RetryAt};
use tokio::time::Instant;

use super::attempt::{Message, Verdict, headers, judge};
use super::decide::{DecideError, decide};
use super::queue::{Due, Response, Settled, When};
use super::start::{Job, Sending};
use super::story::Story;
use super::worker::{Shared, lease};
use super::{failure_command, jitter_per_mille};
use crate::log::{AppendError, ReadError};
use crate::platform::egress::Outgoing;

/// How long an outcome is kept when the log does not accept it. Meanwhile no other node takes the delivery, as
/// long as this node's heartbeat continues. After that, the outcome is recorded as lost.
const HOLD: Duration = Duration::from_secs(15 * 60);
/// Pause between two tries to reach the log.
const BACKOFF: Duration = Duration::from_millis(250);

impl Shared {
    /// Sends, judges, and appends the outcome.
    pub(super) async fn attempt(self: Arc<Self>, job: Job, state: Delivery, sequence: i64, sending: Box<Sending>) {
        let due = job.due;
        let Some(verdict) = self.answer(&job, &sending).await else {
            // Another node may have taken the delivery and started again.
            return self.reconcile_now(job).await;
        };
        let label = if verdict.succeeded { "succeeded" } else { "failed" };
        metrics::counter!("hookledger_attempts_total", "outcome" => label).increment(1);
        tracing::debug!(
            webhook.id = %due.webhook, attempt.number = due.attempt, http.status = verdict.outcome.status_code,
            duration_ms = verdict.outcome.duration_ms, attempt.outcome = label, "attempt ended"
        );
        if let Some(circuit) = self.places.note(due.destination, verdict.health, Instant::now()) {
            self.tell(circuit).await;
        }
        self.conclude(due, state, sequence, verdict).await;
        drop(sending);
    }

    /// Sends the request. `None` if the lease ended before, because another node may have the delivery.
    async fn answer(&self, job: &Job, sending: &Sending) -> Option<Verdict> {
        let (due, destination) = (&job.due, &sending.destination);
        let timeout = destination.timeout.unwrap_or(self.settings.attempt_timeout);
        let now = due.read.now();
        let message = Message {
            webhook: due.webhook,
            provider: self.directory.provider_name(due.route),
            attempt: due.attempt,
            received: &sending.body,
        };
        let secrets = destination.secrets.as_deref().unwrap_or_default();
        let headers = headers(destination, secrets, message, now);
        let outgoing = Outgoing { headers, body: sending.body.body.clone(), timeout };
        let started = Instant::now();
        // True after a suspended process wakes up.
        if started + timeout > job.began + lease(timeout) {
            tracing::warn!(webhook.id = %due.webhook, attempt.number = due.attempt, "an attempt was not sent because its lease had ended");
            return None;
        }
        let sent = self.egress.send(&sending.target, outgoing).await;
        Some(judge(sent, started.elapsed(), due.read.now()))
    }

    /// Appends the end of an attempt, and keeps it for as long as the log can be neither read nor written.
    /// After a conflict, reads the log to see whether the attempt still runs: an end appended by another node, or
    /// a log that lost the start of the attempt, makes this end void.
    async fn conclude(&self, mut due: Due, state: Delivery, sequence: i64, verdict: Verdict) {
        let attempt = due.attempt;
        let command = self.end_command(&due, &verdict);
        let response = verdict.excerpt.map(|excerpt| Response { attempt, excerpt });
        let (mut story, until) = (Story { state, sequence, epoch: due.read.epoch }, Instant::now() + HOLD);
        while Instant::now() < until {
            let Story { state, sequence, epoch } = story.clone();
            let decided = match decide(due.organization, due.delivery, state, sequence, [command.clone()]) {
                Ok(decided) => decided,
                Err(DecideError::Refused(error)) => {
                    tracing::warn!(%error, webhook.id = %due.webhook, "ignored a late result of an attempt");
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, webhook.id = %due.webhook, "could not serialize the end of an attempt");
                    return;
                }
            };
            let appended = self.log.append_all(vec![decided.unit.decided_in(epoch)]).await;
            match appended.map(|mut verdicts| verdicts.pop()) {
                Ok(Some(Ok(_))) => return self.settle(&due, &decided.state, decided.sequence, response).await,
                Ok(Some(Err(AppendError::Conflict))) => {}
                Ok(_) | Err(_) => tokio::time::sleep(BACKOFF).await,
            }
            // Also after a failure, which may have been committed.
            while let Err(error) = self.look_again(&due, &mut story).await {
                tracing::warn!(%error, webhook.id = %due.webhook, "could not read the log; keeping the outcome of an attempt");
                if Instant::now() >= until {
                    break;
                }
                tokio::time::sleep(BACKOFF).await;
            }
            due.read.epoch = story.epoch;
            // Our own append, whose answer was lost.
            if let Some(settled) = ended(&story, &command) {
                return self.send_settlement(&due, settled, response).await;
            }
        }
        tracing::error!(webhook.id = %due.webhook, "could not append the end of an attempt; it will be recorded as lost");
    }

    /// Reads newer events; in another epoch of the log, reads from the beginning.
    async fn look_again(&self, due: &Due, story: &mut Story) -> Result<(), ReadError> {
        if story.epoch == self.log.epoch() {
            return story.go_on(&self.reader, due.organization, due.delivery).await;
        }
        *story = Story::read((&self.log, &self.reader), due.organization, due.delivery).await?;
        Ok(())
    }

    pub(super) fn end_command(&self, due: &Due, verdict: &Verdict) -> DeliveryCommand {
        let (attempt, outcome) = (due.attempt, verdict.outcome.clone());
        if verdict.succeeded {
            return DeliveryCommand::SucceedAttempt { attempt, outcome };
        }
        failure_command(&self.settings.policy, attempt, due.read.now(), outcome, verdict.retry_after)
    }

    /// Reconciles a delivery with the log, in a separate task.
    pub(super) fn reconcile(self: &Arc<Self>, job: Job) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move { shared.reconcile_now(job).await });
    }

    /// Reconciles a row with the log for as long as the lease lasts; after that the row is doubtful again.
    async fn reconcile_now(&self, job: Job) {
        let mut due = job.due;
        let until = job.began + lease(self.settings.attempt_timeout);
        while Instant::now() < until {
            match Story::since((&self.log, &self.reader), &due).await {
                Ok(story) => {
                    due.read.epoch = story.epoch;
                    if let Some(settled) = self.brought_in_line(&due, story).await {
                        return self.send_settlement(&due, settled, None).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, webhook.id = %due.webhook, "could not read a delivery's events; retrying");
                }
            }
            tokio::time::sleep(BACKOFF).await;
        }
    }

    /// The settlement of the row; `None` if the log has to be read again.
    async fn brought_in_line(&self, due: &Due, story: Story) -> Option<Settled> {
        match story.state.phase() {
            Phase::Processing => {
                let attempt = story.state.next_attempt().saturating_sub(1);
                // The row was lost while its attempt is still running here.
                if attempt != due.attempt && self.working.has(due.delivery, attempt) {
                    return None;
                }
                // The worker that started the attempt is gone.
                let retry_at = RetryAt::after(&self.settings.policy, attempt, due.read.now(), jitter_per_mille(), None);
                let settled = self.append_end(due, story, DeliveryCommand::AbandonAttempt { attempt, retry_at }).await;
                if settled.is_some() {
                    metrics::counter!("hookledger_attempts_total", "outcome" => "lost").increment(1);
                }
                settled
            }
            _ => Some(stands(&story)),
        }
    }

    /// Appends an end that needs no worker; `None` if another event came first or nothing was appended.
    async fn append_end(&self, due: &Due, story: Story, command: DeliveryCommand) -> Option<Settled> {
        let Story { state, sequence, epoch } = story;
        let decided = match decide(due.organization, due.delivery, state, sequence, [command]) {
            Ok(decided) => decided,
            Err(error) => {
                tracing::error!(%error, webhook.id = %due.webhook, "could not decide the end of an attempt");
                return None;
            }
        };
        match self.log.append_all(vec![decided.unit.decided_in(epoch)]).await.map(|mut verdicts| verdicts.pop()) {
            Ok(Some(Ok(_))) => Some(stands(&Story { state: decided.state, sequence: decided.sequence, epoch })),
            Ok(_) | Err(_) => None,
        }
    }
}

/// The settlement of a delivery without a running attempt.
fn stands(story: &Story) -> Settled {
    let (state, sequence) = (&story.state, story.sequence);
    let (attempt, requested) = (state.next_attempt(), state.is_requested());
    match state.phase() {
        Phase::Pending => Settled::Again { attempt, sequence, due: When::In(Instant::now()), requested, pending: true },
        Phase::AwaitingRetry | Phase::Processing => {
            let due = state.retry_at().map_or(When::In(Instant::now()), When::At);
            Settled::Again { attempt, sequence, due, requested, pending: false }
        }
        Phase::Unknown
        | Phase::Received
        | Phase::Unverified
        | Phase::Merged
        | Phase::Succeeded
        | Phase::DeadLettered
        | Phase::Cancelled
        | Phase::Rejected => Settled::Done { sequence },
    }
}

/// The settlement, if the attempt that `command` should end has ended with that outcome.
fn ended(story: &Story, command: &DeliveryCommand) -> Option<Settled> {
    let is_as_told = match command {
        DeliveryCommand::SucceedAttempt { .. } => story.state.phase() == Phase::Succeeded,
        DeliveryCommand::FailAttempt { .. } => {
            matches!(story.state.phase(), Phase::AwaitingRetry | Phase::DeadLettered)
        }
        _ => false,
    };
    is_as_told.then(|| stands(story))
}
