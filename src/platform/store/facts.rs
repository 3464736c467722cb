//! Facts about the database as a whole.

use sqlx::{FromRow, PgExecutor};

/// An overview of the database.
#[derive(Clone, Debug, FromRow)]
pub struct Facts {
    /// PostgreSQL's own text for its version.
    pub version: String,
    /// Size of this database on disk in bytes.
    pub size: i64,
    /// Connections to this database, of all nodes and others.
    pub connections: i64,
    pub max_connections: i64,
}

/// Queries the facts.
pub async fn facts(executor: impl PgExecutor<'_>) -> Result<Facts, sqlx::Error> {
    sqlx::query_as(
        "select current_setting('server_version') as version, pg_database_size(current_database()) as size,
                (select count(*) from pg_stat_activity where datname = current_database()) as connections,
                current_setting('max_connections')::bigint as max_connections",
    )
    .fetch_one(executor)
    .await
}
