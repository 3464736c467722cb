//! Deliveries: sends each to its destination, at least once, on schedule, whatever the destination does.
//!
//! ```text
//! log ─▶ Feeder ─▶ queue (delivery_due) ─▶ Worker ─▶ append AttemptStarted ─▶ HTTP ─▶ append the end
//! ```
//!
//! A delivery whose destination or route is gone, or whose provider or organization is disabled, is held: it stays in
//! the queue with the reason. Only the database's clock determines ages and due times (`clock`).
//!
//! `attempt`, `circuit` and `decide` are pure; `queue` has the SQL; `egress` the HTTP.

mod attempt;
mod beat;
mod circuit;
mod clock;
mod conclude;
mod decide;
mod feeder;
mod overview;
mod places;
mod queue;
mod retries;
mod start;
mod story;
mod sweeper;
mod worker;
mod working;

use chrono::{DateTime, Duration, Utc};
use hookledger_aggregates::Label;
use hookledger_aggregates::delivery::{DeliveryCommand, Outcome, PENDING_TIMEOUT, RetryAt, RetryPolicy};

use attempt::Verdict;
pub use attempt::{header_names, is_reserved};
use circuit::Health;
pub use feeder::Feeder;
pub use overview::{Backlog, OpenCircuit, backlog, open_circuits};
pub use places::Places;
pub use queue::{
    Busy, BusyReason, CircuitNote, CircuitState, Queue, Room, Wait, circuits_of, responses_of, waiting_of, waits_of,
};
pub use retries::{Retried, Retries, RetryError};
pub use sweeper::Sweeper;
pub use worker::{Parts, Settings, Worker};

/// The command that records a failed attempt, with its retry if one is left.
fn failure_command(
    policy: &RetryPolicy,
    attempt: u32,
    now: DateTime<Utc>,
    outcome: Outcome,
    asked: Option<Duration>,
) -> DeliveryCommand {
    let retry_at = RetryAt::after(policy, attempt, now, jitter_per_mille(), asked);
    DeliveryCommand::FailAttempt { attempt, outcome, retry_at }
}

/// The command that records an attempt that no worker started in time.
fn timeout_command(policy: &RetryPolicy, attempt: u32, now: DateTime<Utc>) -> DeliveryCommand {
    let outcome = Outcome { error: Some(Label::new(PENDING_TIMEOUT)), ..Outcome::default() };
    failure_command(policy, attempt, now, outcome, None)
}

/// A failure on our side or in the configuration.
fn failed_before_sending(reason: &str) -> Verdict {
    Verdict {
        succeeded: false,
        outcome: Outcome { error: Some(Label::cut(reason, 500)), ..Outcome::default() },
        retry_after: None,
        excerpt: None,
        health: Health::Untried,
    }
}

/// Spreads retries of deliveries that failed together.
fn jitter_per_mille() -> i32 {
    rand::random_range(0..=100)
}
