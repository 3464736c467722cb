//! The read models: one file each, with its rows, how events change them, and its queries.
//!
//! A projection is handed events in order and writes its rows in the transaction that also moves
//! its checkpoint; every row remembers the position that it was last changed at, so that events
//! which come again change nothing. Queries take the organization first.
//!
//! What deliberately does not live here: the `events` table, HTTP, GraphQL.

pub mod analytics;
pub mod audit_logs;
pub mod histogram;
pub mod order;
pub mod organizations;
pub mod page;
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

/// Which events a projection is handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Every event.
    All,
    /// What people and operators did, without the traffic of webhooks.
    Administrative,
}

#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("{table}.{column} holds {value:?}, which is not possible")]
    Corrupt { table: &'static str, column: &'static str, value: String },
}

/// A read model that follows the log.
pub trait Projection: Send + Sync + 'static {
    /// Under this name its checkpoint is kept.
    fn name(&self) -> &'static str;

    /// Which events it needs.
    fn interest(&self) -> Interest;

    /// Types of the aggregates of which a person sees a change here: who changed one waits for this read model.
    fn shows(&self) -> &'static [&'static str];

    /// Its tables, so that a rebuild can empty them.
    fn tables(&self) -> &'static [&'static str];

    /// Changes the rows as the events say, in the caller's transaction. Events of one partition
    /// are in order; the same events may come again.
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
        Box::new(audit_logs::AuditLogs),
        Box::new(webhook_logs::WebhookLogs),
    ]
}

/// Names of the read models in which a change of this type of aggregate is seen. Those of administrative interest
/// see one of a webhook only where it `is_administrative`, and never come as far as any other.
pub fn showing(aggregate_type: &str, is_administrative: bool) -> impl Iterator<Item = &'static str> {
    let sees = move |model: &dyn Projection| {
        model.shows().contains(&aggregate_type) && (is_administrative || model.interest() == Interest::All)
    };
    all().into_iter().filter(move |model| sees(&**model)).map(|model| model.name())
}
