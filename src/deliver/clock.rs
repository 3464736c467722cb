//! The database's clock, which alone tells ages and due times: nodes disagree about the time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::log::Epoch;

/// What the database's clock showed, and when this node had asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    database: DateTime<Utc>,
    asked: Instant,
    /// In which epoch of the log that was, and what was read with it.
    pub(super) epoch: Epoch,
}

impl Reading {
    #[must_use]
    pub fn new(database: DateTime<Utc>, (asked, epoch): (Instant, Epoch)) -> Self {
        Self { database, asked, epoch }
    }

    /// The database's time now: later than its clock shows by no more than the answer took, never
    /// earlier.
    #[must_use]
    pub fn now(self) -> DateTime<Utc> {
        self.database + chrono::Duration::from_std(self.elapsed()).unwrap_or_default()
    }

    /// How long ago a time of the database's was when the clock was read.
    #[must_use]
    pub fn age(self, time: DateTime<Utc>) -> Duration {
        (self.database - time).to_std().unwrap_or_default()
    }

    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.asked.elapsed()
    }
}

/// Waits for the database no longer than a statement of the queue may take: where the network swallows
/// packets no answer comes.
pub(super) async fn within<T, E: From<sqlx::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    crate::log::follow::within(LIMIT, work).await
}

const LIMIT: Duration = Duration::from_secs(10);
