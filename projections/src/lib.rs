//! The read models: one file each, with its rows, the effects of events on them, and its queries.
//!
//! A projection receives events in order and writes its rows in the transaction that also moves its
//! checkpoint. Every row remembers the position of its last change, so that repeated events change nothing.
//! Queries take the organization first.
//!
//! Deliberately elsewhere: the log, HTTP, GraphQL.

pub mod analytics;
pub mod audit_logs;
pub mod deliveries;
pub mod destinations;
pub mod histogram;
pub mod order;
pub mod organizations;
pub mod page;
pub mod routes;
pub mod summaries;
pub mod unfinished;
pub mod usage;
pub mod users;
pub mod webhook_logs;
pub mod webhook_providers;
pub mod webhook_retries;

use futures::future::BoxFuture;
use hookledger_aggregates::RecordedEvent;
use sqlx::PgConnection;

pub use order::{Order, Place, Sorted};
pub use page::{Page, PageRequest};

/// The events that a projection receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Every event.
    All,
    /// Events caused by people and operators, without the traffic of webhooks.
    Administrative,
}

/// Why an event cannot be applied, or a row cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// PostgreSQL did not answer, or refused the statement.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// A column holds a value that no release writes.
    #[error("{table}.{column} holds {value:?}, which is not possible")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// Its column.
        column: &'static str,
        /// The value, as text.
        value: String,
    },
}

/// A read model that follows the log.
pub trait Projection: Send + Sync + 'static {
    /// Name of its checkpoint.
    fn name(&self) -> &'static str;

    /// The events that it needs.
    fn interest(&self) -> Interest;

    /// Aggregates whose changes are visible here: after a change, its author waits for this read model.
    fn shows(&self) -> &'static [&'static str];

    /// Its tables, so that a rebuild can empty them.
    fn tables(&self) -> &'static [&'static str];

    /// Applies events to the rows, in the caller's transaction. Events of one partition are in order; the
    /// same events may come again.
    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(), ProjectionError>>;
}

/// Every projection. To add a read model: a file, a migration, a line here.
#[must_use]
pub fn all() -> Vec<Box<dyn Projection>> {
    vec![
        Box::new(organizations::Organizations),
        Box::new(users::Users),
        Box::new(webhook_providers::WebhookProviders),
        Box::new(destinations::Destinations),
        Box::new(routes::Routes),
        Box::new(audit_logs::AuditLogs),
        Box::new(webhook_logs::WebhookLogs),
    ]
}

/// Names of the read models that show a change of this type of aggregate. Those of administrative interest
/// show a webhook's change only if it `is_administrative`, and never reach the position of any other.
pub fn showing(aggregate_type: &str, is_administrative: bool) -> impl Iterator<Item = &'static str> {
    let sees = move |model: &dyn Projection| {
        model.shows().contains(&aggregate_type) && (is_administrative || model.interest() == Interest::All)
    };
    all().into_iter().filter(move |model| sees(&**model)).map(|model| model.name())
}
