//! An overview of the deliveries of all organizations, for super admins only.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgExecutor};
use uuid::Uuid;

use super::CircuitNote;

/// The queue of all organizations.
#[derive(Clone, Debug, FromRow)]
pub struct Backlog {
    /// Deliveries that wait for an attempt, or whose attempt is running.
    pub waiting: i64,
    /// Of those, deliveries whose attempt is running.
    pub running: i64,
    /// Due time of the longest overdue attempt.
    pub overdue_since: Option<DateTime<Utc>>,
    /// Nodes that deliver.
    pub nodes: i64,
}

/// Length of the queue.
pub async fn backlog(executor: impl PgExecutor<'_>) -> Result<Backlog, sqlx::Error> {
    sqlx::query_as(
        "select count(*) as waiting, count(holder) as running,
                min(due_at) filter (where holder is null and due_at < now()) as overdue_since,
                (select count(*) from delivery_nodes) as nodes
         from delivery_due",
    )
    .fetch_one(executor)
    .await
}

/// A circuit that is not closed.
#[derive(Clone, Debug, FromRow)]
pub struct OpenCircuit {
    pub organization_id: Uuid,
    #[sqlx(flatten)]
    pub circuit: CircuitNote,
}

/// Circuits that are not closed, the latest first.
pub async fn open_circuits(executor: impl PgExecutor<'_>) -> Result<Vec<OpenCircuit>, sqlx::Error> {
    sqlx::query_as(
        "select organization_id, destination_id, node, state, failures, opened_at, probe_at, changed_at
         from destination_circuits where state <> 'closed' order by changed_at desc limit 100",
    )
    .fetch_all(executor)
    .await
}
