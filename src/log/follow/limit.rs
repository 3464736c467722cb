//! Limits on the client's side: when the network drops packets, no answer ever comes, and only the client can
//! notice.

use std::io;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};

/// How long a statement on a few rows may take.
pub(crate) const STATEMENT_LIMIT: Duration = Duration::from_secs(5);
/// How long reading a batch may take.
pub(crate) const READ_LIMIT: Duration = Duration::from_secs(10);

/// Waits for the database no longer than `limit`.
pub(crate) async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(late(limit).into()),
    }
}

fn late(limit: Duration) -> sqlx::Error {
    let sentence = format!("the database did not answer within {} s", limit.as_secs());
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, sentence))
}

/// Whether something took too long, here or in the database (57014, `query_canceled`). A smaller request may
/// not.
pub(crate) fn is_late(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::TimedOut,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code == "57014"),
        _ => false,
    }
}

/// A connection that is closed instead of returned to its pool, unless its user calls it sound: nobody knows
/// whether an interrupted connection ever answers.
pub(super) struct Borrowed {
    connection: PoolConnection<Postgres>,
    sound: bool,
}

impl Borrowed {
    pub(super) async fn from(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: within(STATEMENT_LIMIT, pool.acquire()).await?, sound: false })
    }

    pub(super) fn get(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    pub(super) fn connection(&self) -> &PgConnection {
        &self.connection
    }

    /// Marks the connection as fit to return to its pool, because it answered its last request.
    pub(super) fn is_sound(&mut self) {
        self.sound = true;
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if !self.sound {
            self.connection.close_on_drop();
        }
    }
}
