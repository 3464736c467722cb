//! A projection as a follower.

use futures::future::BoxFuture;
use hookledger_aggregates::RecordedEvent;
use hookledger_projections::{Interest, Projection, ProjectionError};
use sqlx::PgConnection;

use super::handler::{Handler, HandlerError};
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
        Box::pin(async move { self.0.apply(connection, events).await.map_err(classify) })
    }
}

fn classify(error: ProjectionError) -> HandlerError {
    match error {
        ProjectionError::Corrupt { .. } => HandlerError::Unappliable(error.to_string()),
        ProjectionError::Database(error) => error.into(),
    }
}
