//! Carries out the removals that the log records.

use std::time::Duration;

use futures::future::BoxFuture;
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::retention::RetentionEvent;
use hookledger_aggregates::user::UserEvent;
use hookledger_aggregates::{Event, OrganizationId, RecordedEvent, UserId, WebhookId};
use sqlx::PgPool;

use crate::identity;
use crate::log::follow::{Handler, HandlerError, STATEMENT_LIMIT, within};
use crate::log::{Scope, remove_bodies, remove_body};

/// Name of its checkpoints.
pub const FOLLOWER: &str = "retention";
/// Aggregates whose events cause removals.
pub const REMOVES_FOR: [&str; 2] = [RetentionEvent::AGGREGATE, UserEvent::AGGREGATE];
/// How long a portion may take.
const PORTION_LIMIT: Duration = Duration::from_secs(30);

/// Follows the log. It removes in separate transactions, before the checkpoint moves: removals persist even
/// if the rest of the batch fails, and repeating them is harmless.
pub struct Eraser {
    pool: PgPool,
}

impl Eraser {
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    async fn remove(&self, recorded: &RecordedEvent) -> Result<(), sqlx::Error> {
        let organization: OrganizationId = recorded.organization;
        let connection = &mut *within(STATEMENT_LIMIT, self.pool.acquire()).await?;
        match &recorded.event {
            Event::Retention(RetentionEvent::BodiesRemoved { after_position, to_position, .. }) => {
                while within(PORTION_LIMIT, remove_bodies(connection, organization, *after_position, *to_position))
                    .await?
                {}
            }
            Event::Retention(RetentionEvent::BodyErased { position, .. }) => {
                let webhook = WebhookId::new(recorded.aggregate_id);
                within(PORTION_LIMIT, remove_body(connection, organization, webhook, *position)).await?;
            }
            Event::User(UserEvent::Erased {}) => {
                let user = UserId::new(recorded.aggregate_id);
                within(PORTION_LIMIT, identity::forget(connection, organization, user, recorded.recorded_at)).await?;
            }
            Event::User(_)
            | Event::Organization(_)
            | Event::EmailClaim(_)
            | Event::Destination(_)
            | Event::Route(_)
            | Event::Delivery(_)
            | Event::Usage(_)
            | Event::Team(_)
            | Event::Access(_)
            | Event::Provider(_)
            | Event::Webhook(_) => {}
        }
        Ok(())
    }
}

impl Handler for Eraser {
    fn name(&self) -> &'static str {
        FOLLOWER
    }

    fn scope(&self) -> Scope {
        Scope::Administrative
    }

    /// Removing a month of bodies takes a while.
    fn patience(&self) -> Duration {
        Duration::from_secs(1_800)
    }

    fn react<'a>(&'a self, events: &'a [RecordedEvent]) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            for recorded in events {
                // Nothing in the data can be wrong here, so every error is transient.
                self.remove(recorded).await.map_err(|error| HandlerError::Transient(error.to_string()))?;
            }
            Ok(())
        })
    }
}
