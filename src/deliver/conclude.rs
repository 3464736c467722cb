//! From a started attempt to its end in the log; and the way back from doubt.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use hookledger_aggregates::webhook::{Outcome, Phase, RetryAt, Webhook, WebhookCommand};
use hookledger_aggregates::{Event, Label};
use http::header::HeaderValue;
use tokio::time::Instant;

use super::attempt::{Delivery, Verdict, headers, judge};
use super::circuit::Health;
use super::decide::{DecideError, decide};
use super::egress::{Outgoing, Target};
use super::places::{BodyRoom, Place};
use super::queue::{Due, Response, Settled};
use super::worker::{Shared, lease};
use super::{failure_command, jitter_per_mille};
use crate::directory::Destination;
use crate::log::{AppendError, FreshBody, ReadError};

/// Events of one webhook's stream that are read to decide again; duplicates make streams long.
const STREAM_LIMIT: i64 = 100_000;
/// How often an end is decided again while others append to the stream, or the log takes nothing.
const TRIES: u32 = 40;
const BACKOFF: Duration = Duration::from_millis(250);

/// How far the log says that a webhook came.
struct Known {
    state: Webhook,
    sequence: i64,
    pending_since: Option<chrono::DateTime<Utc>>,
}

impl Shared {
    /// Sends, judges, and appends how it ended.
    pub(super) async fn attempt(
        self: Arc<Self>,
        due: Due,
        state: Webhook,
        sequence: i64,
        destination: Arc<Destination>,
        place: Place,
        began: Instant,
    ) {
        let timeout = destination.timeout.unwrap_or(self.settings.attempt_timeout);
        let verdict = self.send(&due, &destination, timeout, began + lease(timeout)).await;
        let Some(verdict) = verdict else { return };
        let label = if verdict.succeeded { "succeeded" } else { "failed" };
        metrics::counter!("hookledger_attempts_total", "outcome" => label).increment(1);
        tracing::debug!(
            webhook.id = %due.webhook, attempt.number = due.attempt, http.status = verdict.outcome.status_code,
            duration_ms = verdict.outcome.duration_ms, attempt.outcome = label, "attempt ended"
        );
        if let Some(circuit) = self.places.note(due.provider, verdict.health, Utc::now()) {
            self.tell(circuit).await;
        }
        self.conclude(&due, state, sequence, verdict).await;
        drop(place);
    }

    /// Nothing where the lease ran out before anything was sent: others may have the webhook.
    async fn send(&self, due: &Due, destination: &Destination, timeout: Duration, until: Instant) -> Option<Verdict> {
        let started = Instant::now();
        let fail = |reason: &str| Some(failed_before_sending(reason));
        let Some(secrets) = destination.secrets.as_deref() else {
            return fail("the destination's secrets cannot be opened; nothing was sent");
        };
        let target = match Target::parse(&destination.url, self.egress.allow_list()) {
            Ok(target) => target,
            Err(error) => return fail(&error.to_string()),
        };
        let (fresh, _room) = match self.body(due).await {
            Ok(Some(body)) => body,
            Ok(None) => return fail("the webhook's body is not kept any more; nothing was sent"),
            Err(error) => {
                tracing::error!(%error, webhook.id = %due.webhook, "a body cannot be read");
                return fail("the webhook's body could not be read; nothing was sent");
            }
        };
        let now = Utc::now();
        let delivery = Delivery {
            webhook: due.webhook,
            provider: self.directory.provider_name(due.provider),
            attempt: due.attempt,
            content_type: fresh.content_type.as_ref(),
            body: &fresh.body,
        };
        let outgoing = Outgoing { headers: headers(destination, secrets, delivery, now), body: fresh.body, timeout };
        // A process that was stopped for a while wakes up here.
        if Instant::now() + timeout > until {
            tracing::warn!(webhook.id = %due.webhook, attempt.number = due.attempt, "an attempt came too late to be sent");
            return None;
        }
        let sent = self.egress.send(&target, outgoing).await;
        Some(judge(sent, started.elapsed(), Utc::now()))
    }

    /// The body, from memory where it was received a moment ago, with room for it where it is read.
    async fn body(&self, due: &Due) -> Result<Option<(FreshBody, Option<BodyRoom>)>, ReadError> {
        // A moment only: later the body may have been erased.
        if let Some(fresh) = self.fresh.take(due.webhook).filter(|_| due.attempt == 1) {
            return Ok(Some((fresh, None)));
        }
        let Some(size) = self.reader.body_size(due.organization, due.webhook).await? else { return Ok(None) };
        let room = self.places.body_room(due.provider, size).await;
        let Some(raw) = self.reader.body(due.organization, due.webhook).await? else { return Ok(None) };
        let content_type = raw.header("content-type").and_then(|value| HeaderValue::from_bytes(value).ok());
        Ok(Some((FreshBody { content_type, body: Bytes::from(raw.body) }, room)))
    }

    /// Appends the end of an attempt. In conflict, the log is asked whether it still runs: a duplicate
    /// that came in between changes nothing, an end that somebody else appended makes ours void.
    async fn conclude(&self, due: &Due, mut state: Webhook, mut sequence: i64, verdict: Verdict) {
        let attempt = due.attempt;
        let command = self.end_command(attempt, &verdict);
        let response = verdict.excerpt.map(|excerpt| Response { attempt, excerpt });
        for _ in 0..TRIES {
            let decided = match decide(due.organization, due.webhook, state, sequence, [command.clone()]) {
                Ok(decided) => decided,
                Err(DecideError::Refused(error)) => {
                    tracing::warn!(%error, webhook.id = %due.webhook, "a result came too late, and changes nothing");
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, webhook.id = %due.webhook, "the end of an attempt cannot be written");
                    return;
                }
            };
            let appended = self.log.append_all(vec![decided.unit]).await;
            match appended.map(|mut verdicts| verdicts.pop()) {
                Ok(Some(Ok(_))) => return self.settle(due, &decided.state, decided.sequence, response).await,
                Ok(Some(Err(AppendError::Conflict))) => {}
                Ok(_) | Err(_) => tokio::time::sleep(BACKOFF).await,
            }
            // Also where it failed: whether it was committed may be unknown.
            match self.known(due).await {
                Ok(known) => (state, sequence) = (known.state, known.sequence),
                Err(error) => {
                    tracing::error!(%error, webhook.id = %due.webhook, "a webhook's events cannot be read");
                    tokio::time::sleep(BACKOFF).await;
                    return;
                }
            }
        }
        tracing::error!(webhook.id = %due.webhook, "the end of an attempt could not be appended; it will be recorded as lost");
    }

    fn end_command(&self, attempt: u32, verdict: &Verdict) -> WebhookCommand {
        let outcome = verdict.outcome.clone();
        if verdict.succeeded {
            return WebhookCommand::SucceedAttempt { attempt, outcome };
        }
        failure_command(&self.settings.policy, attempt, Utc::now(), outcome, verdict.retry_after)
    }

    async fn known(&self, due: &Due) -> Result<Known, ReadError> {
        let stream = self.reader.stream(due.organization, "webhook", due.webhook.uuid(), STREAM_LIMIT).await?;
        let (mut state, mut sequence, mut pending_since) = (Webhook::default(), 0, None);
        for recorded in &stream {
            let Event::Webhook(event) = &recorded.event else { continue };
            let before = state.phase();
            state.evolve(event);
            sequence = recorded.sequence;
            if state.phase() == Phase::Pending && before != Phase::Pending {
                pending_since = Some(recorded.recorded_at);
            }
        }
        Ok(Known { state, sequence, pending_since })
    }

    /// Brings a row in line with the log, which is asked how far the webhook came.
    pub(super) async fn reconcile_now(self: Arc<Self>, due: Due) {
        for _ in 0..TRIES {
            let known = match self.known(&due).await {
                Ok(known) => known,
                Err(error) => {
                    tracing::error!(%error, webhook.id = %due.webhook, "a webhook's events cannot be read");
                    return;
                }
            };
            let (attempt, requested) = (known.state.next_attempt(), known.state.is_requested());
            let again = |due_at, pending_since| Settled::Again {
                attempt,
                sequence: known.sequence,
                due_at,
                requested,
                pending_since,
            };
            let settled = match known.state.phase() {
                Phase::Pending => again(Utc::now(), known.pending_since),
                Phase::AwaitingRetry => again(known.state.retry_at().unwrap_or_else(Utc::now), None),
                Phase::Processing => {
                    if self.abandon(&due, known).await {
                        return;
                    }
                    continue;
                }
                Phase::Unknown
                | Phase::Received
                | Phase::Unverified
                | Phase::Merged
                | Phase::Succeeded
                | Phase::DeadLettered
                | Phase::Rejected => Settled::Done { sequence: known.sequence },
            };
            return self.send_settlement(&due, settled, None).await;
        }
    }

    /// The worker that started the attempt is gone; false where something came first.
    async fn abandon(&self, due: &Due, known: Known) -> bool {
        let attempt = known.state.next_attempt().saturating_sub(1);
        let retry_at = RetryAt::after(&self.settings.policy, attempt, Utc::now(), jitter_per_mille(), None);
        let command = WebhookCommand::AbandonAttempt { attempt, retry_at };
        let decided = match decide(due.organization, due.webhook, known.state, known.sequence, [command]) {
            Ok(decided) => decided,
            Err(error) => {
                tracing::error!(%error, webhook.id = %due.webhook, "a lost attempt cannot be given up");
                return true;
            }
        };
        match self.log.append_all(vec![decided.unit]).await.map(|mut verdicts| verdicts.pop()) {
            Ok(Some(Ok(_))) => {
                metrics::counter!("hookledger_attempts_total", "outcome" => "lost").increment(1);
                self.settle(due, &decided.state, decided.sequence, None).await;
                true
            }
            Ok(Some(Err(AppendError::Conflict))) => false,
            Ok(_) | Err(_) => {
                tokio::time::sleep(BACKOFF).await;
                false
            }
        }
    }
}

/// A failure that is ours or the configuration's.
fn failed_before_sending(reason: &str) -> Verdict {
    Verdict {
        succeeded: false,
        outcome: Outcome { error: Some(Label::cut(reason, 500)), ..Outcome::default() },
        retry_after: None,
        excerpt: None,
        health: Health::Untried,
    }
}
