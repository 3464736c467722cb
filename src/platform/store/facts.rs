//! What may be known of the database as a whole.

use sqlx::{FromRow, PgExecutor};

/// The database at a glance.
#[derive(Clone, Debug, FromRow)]
pub struct Facts {
    /// As PostgreSQL tells its version.
    pub version: String,
    /// Bytes of this database on disk.
    pub size: i64,
    /// Connections to this database, of all nodes and others.
    pub connections: i64,
    pub max_connections: i64,
}

/// Asks for it.
pub async fn facts(executor: impl PgExecutor<'_>) -> Result<Facts, sqlx::Error> {
    sqlx::query_as(
        "select current_setting('server_version') as version, pg_database_size(current_database()) as size,
                (select count(*) from pg_stat_activity where datname = current_database()) as connections,
                current_setting('max_connections')::bigint as max_connections",
    )
    .fetch_one(executor)
    .await
}
