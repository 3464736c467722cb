//! The database's clock, the only one for ages and due times, because the nodes' clocks differ.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::log::Epoch;

/// A reading of the database's clock, and when this node requested it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    database: DateTime<Utc>,
    asked: Instant,
    /// Epoch of the log at the reading and of the rows read with it.
    pub(super) epoch: Epoch,
}

impl Reading {
    #[must_use]
    pub fn new(database: DateTime<Utc>, (asked, epoch): (Instant, Epoch)) -> Self {
        Self { database, asked, epoch }
    }

    /// The database's time now: never early, and late by at most the duration of the query.
    #[must_use]
    pub fn now(self) -> DateTime<Utc> {
        self.database + chrono::Duration::from_std(self.elapsed()).unwrap_or_default()
    }

    /// Age of a database time when the clock was read.
    #[must_use]
    pub fn age(self, time: DateTime<Utc>) -> Duration {
        (self.database - time).to_std().unwrap_or_default()
    }

    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.asked.elapsed()
    }
}

/// Limits a database call to the time that a statement of the queue may take, because a network that drops
/// packets never answers.
pub(super) async fn within<T, E: From<sqlx::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    crate::log::follow::within(LIMIT, work).await
}

const LIMIT: Duration = Duration::from_secs(10);
