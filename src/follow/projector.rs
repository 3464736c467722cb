//! A projection as a follower.

use futures::future::BoxFuture;
use hookledger_aggregates::RecordedEvent;
use hookledger_projections::{Interest, Projection, ProjectionError};
use sqlx::PgConnection;

use super::follower::{Handler, HandlerError};
use crate::log::Scope;

/// Applies a projection's changes as a follower of the log.
pub struct Projector(pub Box<dyn Projection>);

impl Handler for Projector {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn scope(&self) -> Scope {
        match self.0.interest() {
            Interest::All => Scope::All,
            Interest::Administrative => Scope::Administrative,
        }
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move { self.0.apply(connection, events).await.map_err(|error| classify(&error)) })
    }
}

/// What the data itself cannot satisfy will not get better by waiting: classes 22 (data exception)
/// and 23 (constraint). Everything else, a lost connection or a deadlock, may.
fn classify(error: &ProjectionError) -> HandlerError {
    let told = error.to_string();
    match error {
        ProjectionError::Corrupt { .. } => HandlerError::Unappliable(told),
        ProjectionError::Database(error) => {
            let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
            match code.as_deref().map(|code| &code[..2.min(code.len())]) {
                Some("22" | "23") => HandlerError::Unappliable(told),
                _ => HandlerError::Transient(told),
            }
        }
    }
}
