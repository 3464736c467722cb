//! The handler that a follower passes events to.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::RecordedEvent;
use sqlx::PgConnection;

use super::limit::is_late;
use crate::log::{Batch, LogPosition, ReadError, Reader, Scope};

/// Pause after a batch, to gather more events: applying them together costs one transaction, and a webhook
/// whose events are all in one batch costs one row instead of a row and its updates. The first event after a
/// rest is applied at once.
const GATHER: Duration = Duration::from_millis(100);
/// How long a handler may react to a batch, unless it states another limit.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Nothing is wrong with the events; a later try may succeed.
    #[error("{0}")]
    Transient(String),
    /// It took too long; fewer events at once may not.
    #[error("{0}")]
    Late(String),
    /// The events cannot be applied: the partition stops here.
    #[error("{0}")]
    Unappliable(String),
}

/// Waiting does not repair errors in the data: classes 22 (data exception) and 23 (constraint). Everything
/// else, such as a lost connection or a deadlock, is transient.
impl From<sqlx::Error> for HandlerError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code.as_deref().map(|code| &code[..2.min(code.len())]) {
            Some("22" | "23") => Self::Unappliable(error.to_string()),
            _ if is_late(&error) => Self::Late(error.to_string()),
            _ => Self::Transient(error.to_string()),
        }
    }
}

/// How a follower steps back while acknowledgements need the machine.
#[derive(Clone, Copy, Debug)]
pub struct UnderPressure {
    /// Events per partition and batch.
    pub batch: i64,
    /// It then rests this many times as long as it worked.
    pub rest: u32,
    /// It does not step back if the events that it applies are older than this.
    pub oldest: chrono::Duration,
}

impl Default for UnderPressure {
    fn default() -> Self {
        Self { batch: 100, rest: 8, oldest: chrono::Duration::seconds(10) }
    }
}

/// An event as its followers see it, and how they read it.
pub trait Followed: Sized + Send + Sync + 'static {
    fn at(&self) -> LogPosition;
    /// Nothing where it is no time that there is.
    fn recorded_at(&self) -> Option<DateTime<Utc>>;

    /// Up to `limit` events of each partition after its cursor.
    fn read<'a>(
        reader: &'a Reader,
        cursors: &'a [LogPosition],
        scope: Scope,
        limit: i64,
    ) -> BoxFuture<'a, Result<Batch<Self>, ReadError>>;
}

impl Followed for RecordedEvent {
    fn at(&self) -> LogPosition {
        LogPosition { partition: self.partition, position: self.position }
    }

    fn recorded_at(&self) -> Option<DateTime<Utc>> {
        Some(self.recorded_at)
    }

    fn read<'a>(
        reader: &'a Reader,
        cursors: &'a [LogPosition],
        scope: Scope,
        limit: i64,
    ) -> BoxFuture<'a, Result<Batch<Self>, ReadError>> {
        Box::pin(reader.after(cursors, scope, limit))
    }
}

/// A handler of the log's events, with a name.
pub trait Handler<E: Followed = RecordedEvent>: Send + Sync + 'static {
    /// Name of its lease and checkpoints.
    fn name(&self) -> &'static str;

    /// Which events it receives.
    fn scope(&self) -> Scope;

    /// Pause after a batch, to gather more events.
    fn gather(&self) -> Duration {
        GATHER
    }

    /// How it steps back while acknowledgements need the machine.
    fn under_pressure(&self) -> UnderPressure {
        UnderPressure::default()
    }

    /// How long it may react to a batch. If no step succeeds for a little longer, the vitals report it.
    fn patience(&self) -> Duration {
        PATIENCE
    }

    /// Called after the checkpoints were read again: its memory of the log may be void.
    fn begin(&self) {}

    /// Up to `limit` events of each partition after its cursor, from any source.
    fn read<'a>(
        &'a self,
        reader: &'a Reader,
        cursors: &'a [LogPosition],
        limit: i64,
    ) -> BoxFuture<'a, Result<Batch<E>, ReadError>> {
        E::read(reader, cursors, self.scope(), limit)
    }

    /// Carries out the events' effects, outside any transaction. It may be called again with the same events,
    /// so it has to be idempotent.
    fn react<'a>(&'a self, _events: &'a [E]) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Writes rows in the transaction that also moves the checkpoint.
    fn apply<'a>(
        &'a self,
        _connection: &'a mut PgConnection,
        _events: &'a [E],
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Called when the rows of the last `apply` and the checkpoint are committed.
    fn committed(&self) {}
}
