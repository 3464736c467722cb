//! Removes what the log says is removed.

use futures::future::BoxFuture;
use hookledger_aggregates::retention::RetentionEvent;
use hookledger_aggregates::user::UserEvent;
use hookledger_aggregates::{Event, OrganizationId, RecordedEvent, UserId, WebhookId};
use sqlx::PgConnection;

use crate::follow::{Handler, HandlerError};
use crate::identity;
use crate::log::{Scope, remove_bodies, remove_body};

/// Under this name its checkpoints are kept.
pub const FOLLOWER: &str = "retention";
/// Requests that go in one statement. Each may have 25 MiB.
const PORTION: i64 = 500;

/// Follows the log. What is removed already is removed once more, and nothing happens.
pub struct Eraser;

impl Handler for Eraser {
    fn name(&self) -> &'static str {
        FOLLOWER
    }

    fn scope(&self) -> Scope {
        Scope::Administrative
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            for recorded in events {
                let removed = match &recorded.event {
                    Event::Retention(event) => remove(connection, recorded, event).await,
                    Event::User(UserEvent::Erased {}) => {
                        let user = UserId::new(recorded.aggregate_id);
                        identity::forget(connection, recorded.organization, user).await
                    }
                    Event::User(_)
                    | Event::Organization(_)
                    | Event::EmailClaim(_)
                    | Event::Usage(_)
                    | Event::Team(_)
                    | Event::Access(_)
                    | Event::Provider(_)
                    | Event::Webhook(_) => Ok(()),
                };
                // What the data cannot satisfy here would be a policy that refuses, never an event of ours.
                removed.map_err(|error| HandlerError::Transient(error.to_string()))?;
            }
            Ok(())
        })
    }
}

async fn remove(
    connection: &mut PgConnection,
    recorded: &RecordedEvent,
    event: &RetentionEvent,
) -> Result<(), sqlx::Error> {
    let organization: OrganizationId = recorded.organization;
    match event {
        RetentionEvent::BodiesRemoved { after_position, to_position, .. } => {
            while remove_bodies(connection, organization, *after_position, *to_position, PORTION).await? == PORTION {}
            Ok(())
        }
        RetentionEvent::BodyErased { position, .. } => {
            remove_body(connection, organization, WebhookId::new(recorded.aggregate_id), *position).await
        }
    }
}
