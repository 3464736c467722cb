//! A delivery: one webhook on one route, from pending to success, dead letter or cancelled.
//!
//! ```text
//! pending → processing → success
//!             │  ▲
//!             ▼  │ retry
//!           failed ──(last retry failed)──▶ dead letter ──(a person)──▶ pending
//! ```
//!
//! The webhook's stream says that it is owed (`webhook.routed`), so its own stream begins with its first attempt.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decision::aggregate;
use crate::{DestinationId, Label, Phase, RouteId, WebhookId};

pub use crate::attempt::{Outcome, PENDING_TIMEOUT, RetryAt, RetryPolicy};

/// The state of one delivery. One without events waits for its first attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delivery {
    phase: Phase,
    /// The running or the last attempt.
    attempt: u32,
    /// Whether a person requested the next attempt, which no automatic retries follow.
    requested: bool,
    #[serde(default)]
    retry_at: Option<DateTime<Utc>>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self { phase: Phase::Pending, attempt: 0, requested: false, retry_at: None }
    }
}

/// Moves a delivery along.
#[derive(Clone, Debug)]
pub enum DeliveryCommand {
    StartAttempt {
        attempt: u32,
    },
    /// The destination took it: the outcome has its answer.
    SucceedAttempt {
        attempt: u32,
        outcome: Outcome,
    },
    /// `retry_at` is the policy's, including the jitter.
    FailAttempt {
        attempt: u32,
        outcome: Outcome,
        retry_at: RetryAt,
    },
    /// The worker that started the attempt is gone.
    AbandonAttempt {
        attempt: u32,
        retry_at: RetryAt,
    },
    /// A person wants one more attempt.
    RequestRetry {
        webhook_id: WebhookId,
        route_id: RouteId,
        destination_id: DestinationId,
        reason: Option<Label>,
    },
    /// A person wants no more attempts.
    Cancel {
        reason: Option<Label>,
    },
}

/// A step of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryEvent {
    #[serde(rename = "delivery.attempt_started", rename_all = "camelCase")]
    AttemptStarted { attempt: u32 },
    #[serde(rename = "delivery.attempt_succeeded", rename_all = "camelCase")]
    AttemptSucceeded {
        attempt: u32,
        #[serde(flatten)]
        outcome: Outcome,
    },
    #[serde(rename = "delivery.attempt_failed", rename_all = "camelCase")]
    AttemptFailed {
        attempt: u32,
        #[serde(flatten)]
        outcome: Outcome,
    },
    #[serde(rename = "delivery.attempt_abandoned", rename_all = "camelCase")]
    AttemptAbandoned { attempt: u32 },
    #[serde(rename = "delivery.retry_scheduled", rename_all = "camelCase")]
    RetryScheduled { attempt: u32, retry_at: DateTime<Utc> },
    #[serde(rename = "delivery.dead_lettered", rename_all = "camelCase")]
    DeadLettered { attempts: u32 },
    /// Names what it delivers and where, so that readers of this event need no other.
    #[serde(rename = "delivery.retry_requested", rename_all = "camelCase")]
    RetryRequested {
        attempt: u32,
        webhook_id: WebhookId,
        route_id: RouteId,
        destination_id: DestinationId,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<Label>,
    },
    #[serde(rename = "delivery.cancelled", rename_all = "camelCase")]
    Cancelled {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<Label>,
    },
}

aggregate!(Delivery, "delivery", DeliveryCommand, DeliveryEvent, DeliveryError, {
    AttemptStarted => "delivery.attempt_started" v 1,
    AttemptSucceeded => "delivery.attempt_succeeded" v 1,
    AttemptFailed => "delivery.attempt_failed" v 1,
    AttemptAbandoned => "delivery.attempt_abandoned" v 1,
    RetryScheduled => "delivery.retry_scheduled" v 1,
    DeadLettered => "delivery.dead_lettered" v 1,
    RetryRequested => "delivery.retry_requested" v 1,
    Cancelled => "delivery.cancelled" v 1,
});

/// Why a command is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    #[error("Attempt {asked} can't start: the delivery is {phase} after attempt {last}.")]
    NotDue { asked: u32, last: u32, phase: Phase },
    #[error("Attempt {0} isn't running.")]
    NotRunning(u32),
    #[error("Attempt {0} can't succeed without a response from the destination.")]
    NotDelivered(u32),
    #[error("Only failed webhooks can be retried. This one is {0}.")]
    NotFailed(Phase),
    #[error("Only deliveries that wait can be cancelled. This one is {0}.")]
    NotWaiting(Phase),
}

impl Delivery {
    /// Decides a command; the time, the outcome and the delays come with it.
    pub fn decide(&self, command: DeliveryCommand) -> Result<Vec<DeliveryEvent>, DeliveryError> {
        match command {
            DeliveryCommand::StartAttempt { attempt } => self.start(attempt),
            DeliveryCommand::SucceedAttempt { attempt, outcome } => {
                self.expect_running(attempt)?;
                if outcome.status_code.is_none() {
                    return Err(DeliveryError::NotDelivered(attempt));
                }
                Ok(vec![DeliveryEvent::AttemptSucceeded { attempt, outcome }])
            }
            DeliveryCommand::FailAttempt { attempt, outcome, retry_at } => {
                self.expect_running(attempt)?;
                Ok(vec![DeliveryEvent::AttemptFailed { attempt, outcome }, self.what_follows(attempt, retry_at)])
            }
            DeliveryCommand::AbandonAttempt { attempt, retry_at } => {
                self.expect_running(attempt)?;
                Ok(vec![DeliveryEvent::AttemptAbandoned { attempt }, self.what_follows(attempt, retry_at)])
            }
            DeliveryCommand::RequestRetry { webhook_id, route_id, destination_id, reason } => match self.phase {
                Phase::AwaitingRetry | Phase::DeadLettered | Phase::Cancelled => {
                    let attempt = self.attempt + 1;
                    Ok(vec![DeliveryEvent::RetryRequested { attempt, webhook_id, route_id, destination_id, reason }])
                }
                phase => Err(DeliveryError::NotFailed(phase)),
            },
            DeliveryCommand::Cancel { reason } => match self.phase {
                Phase::Pending | Phase::AwaitingRetry => Ok(vec![DeliveryEvent::Cancelled { reason }]),
                phase => Err(DeliveryError::NotWaiting(phase)),
            },
        }
    }

    fn expect_running(&self, attempt: u32) -> Result<(), DeliveryError> {
        let running = self.phase == Phase::Processing && self.attempt == attempt;
        if running { Ok(()) } else { Err(DeliveryError::NotRunning(attempt)) }
    }

    fn start(&self, attempt: u32) -> Result<Vec<DeliveryEvent>, DeliveryError> {
        let due = matches!(self.phase, Phase::Pending | Phase::AwaitingRetry) && attempt == self.attempt + 1;
        if due {
            Ok(vec![DeliveryEvent::AttemptStarted { attempt }])
        } else {
            Err(DeliveryError::NotDue { asked: attempt, last: self.attempt, phase: self.phase })
        }
    }

    fn what_follows(&self, attempt: u32, retry_at: RetryAt) -> DeliveryEvent {
        match retry_at {
            RetryAt::At(retry_at) if !self.requested => {
                DeliveryEvent::RetryScheduled { attempt: attempt + 1, retry_at }
            }
            RetryAt::At(_) | RetryAt::Never => DeliveryEvent::DeadLettered { attempts: attempt },
        }
    }

    /// Applies an event; public because workers fold partial streams.
    pub fn evolve(&mut self, event: &DeliveryEvent) {
        match event {
            DeliveryEvent::AttemptStarted { attempt } => {
                self.phase = Phase::Processing;
                self.attempt = *attempt;
            }
            DeliveryEvent::AttemptSucceeded { .. } => self.phase = Phase::Succeeded,
            // The next event of the same unit says how it continues.
            DeliveryEvent::AttemptFailed { .. } | DeliveryEvent::AttemptAbandoned { .. } => {
                self.phase = Phase::AwaitingRetry;
            }
            DeliveryEvent::RetryScheduled { retry_at, .. } => {
                self.phase = Phase::AwaitingRetry;
                self.retry_at = Some(*retry_at);
            }
            DeliveryEvent::DeadLettered { .. } => self.phase = Phase::DeadLettered,
            DeliveryEvent::RetryRequested { .. } => {
                self.phase = Phase::Pending;
                self.requested = true;
            }
            DeliveryEvent::Cancelled { .. } => self.phase = Phase::Cancelled,
        }
    }

    /// A delivery that waits for its next attempt, as a queue remembers it: everything that a worker needs to
    /// decide without reading the stream. The log still refuses decisions on stale memory.
    #[must_use]
    pub fn waiting(next_attempt: u32, requested: bool) -> Self {
        let phase = if requested || next_attempt <= 1 { Phase::Pending } else { Phase::AwaitingRetry };
        Self { phase, attempt: next_attempt.saturating_sub(1), requested, retry_at: None }
    }

    /// Whether a person requested the next or running attempt.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested
    }

    /// When its automatic retry is due, if it waits for one.
    #[must_use]
    pub fn retry_at(&self) -> Option<DateTime<Utc>> {
        self.retry_at
    }

    /// Where the delivery stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The number of the next attempt.
    #[must_use]
    pub fn next_attempt(&self) -> u32 {
        self.attempt + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    /// Runs commands in order, as the log would.
    fn after(commands: Vec<DeliveryCommand>) -> Delivery {
        let mut delivery = Delivery::default();
        for command in commands {
            for event in delivery.decide(command).unwrap() {
                delivery.evolve(&event);
            }
        }
        delivery
    }

    fn start(attempt: u32) -> DeliveryCommand {
        DeliveryCommand::StartAttempt { attempt }
    }

    fn fail(attempt: u32) -> DeliveryCommand {
        let retry_at = RetryAt::after(&RetryPolicy::default(), attempt, at(0), 0, None);
        DeliveryCommand::FailAttempt { attempt, outcome: Outcome::default(), retry_at }
    }

    fn succeed(attempt: u32) -> DeliveryCommand {
        let outcome = Outcome { status_code: Some(200), ..Outcome::default() };
        DeliveryCommand::SucceedAttempt { attempt, outcome }
    }

    fn retry() -> DeliveryCommand {
        DeliveryCommand::RequestRetry {
            webhook_id: WebhookId::default(),
            route_id: RouteId::default(),
            destination_id: DestinationId::default(),
            reason: None,
        }
    }

    fn four_failures() -> Vec<DeliveryCommand> {
        vec![start(1), fail(1), start(2), fail(2), start(3), fail(3), start(4), fail(4)]
    }

    #[test]
    fn the_third_failed_retry_is_a_dead_letter() {
        let delivery = after(four_failures());
        assert_eq!(delivery.phase(), Phase::DeadLettered);
        assert_eq!(delivery.next_attempt(), 5);
    }

    #[test]
    fn a_person_gets_one_more_attempt() {
        let delivery = after([four_failures(), vec![retry(), start(5)]].concat());
        let retry_at = RetryAt::At(at(60));
        let events =
            delivery.decide(DeliveryCommand::FailAttempt { attempt: 5, outcome: Outcome::default(), retry_at });
        assert!(matches!(events.unwrap()[..], [_, DeliveryEvent::DeadLettered { attempts: 5 }]));
    }

    #[test]
    fn an_attempt_starts_and_ends_once() {
        let started = after(vec![start(1)]);
        assert!(matches!(started.decide(start(1)), Err(DeliveryError::NotDue { .. })));
        let ended = after(vec![start(1), fail(1)]);
        assert_eq!(ended.decide(succeed(1)), Err(DeliveryError::NotRunning(1)));
    }

    #[test]
    fn only_an_answer_makes_a_delivery_a_success() {
        assert_eq!(Delivery::default().phase(), Phase::Pending);
        let unanswered = DeliveryCommand::SucceedAttempt { attempt: 1, outcome: Outcome::default() };
        assert_eq!(after(vec![start(1)]).decide(unanswered), Err(DeliveryError::NotDelivered(1)));
    }

    #[test]
    fn what_succeeded_is_not_retried() {
        let succeeded = after(vec![start(1), succeed(1)]);
        let refused = succeeded.decide(retry());
        assert_eq!(refused, Err(DeliveryError::NotFailed(Phase::Succeeded)));
        let sentence = "Only failed webhooks can be retried. This one is already successful.";
        assert_eq!(refused.map_err(|error| error.to_string()), Err(sentence.to_owned()));
    }

    #[test]
    fn what_waits_is_cancelled_and_can_be_delivered_again() {
        let cancel = || DeliveryCommand::Cancel { reason: None };
        for waiting in [vec![], vec![start(1), fail(1)]] {
            let cancelled = after([waiting, vec![cancel()]].concat());
            assert_eq!(cancelled.phase(), Phase::Cancelled);
            assert!(matches!(cancelled.decide(start(1)), Err(DeliveryError::NotDue { .. })));
            assert!(cancelled.decide(retry()).is_ok());
        }
        assert_eq!(after(vec![start(1)]).decide(cancel()), Err(DeliveryError::NotWaiting(Phase::Processing)));
    }
}
