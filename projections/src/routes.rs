//! `routes`: from which provider to which destination.

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::provider::ProviderEvent;
use hookledger_aggregates::route::RouteEvent;
use hookledger_aggregates::{DestinationId, Event, OrganizationId, ProviderId, RecordedEvent};
use sqlx::{FromRow, PgConnection, PgExecutor};
use uuid::Uuid;

use crate::{Interest, Projection, ProjectionError};

/// A row of `routes`.
#[derive(Clone, Debug, FromRow)]
pub struct Route {
    /// The organization that it belongs to.
    pub organization_id: Uuid,
    /// Random, or derived from the provider.
    pub id: Uuid,
    /// Whose webhooks go by it.
    pub provider_id: Uuid,
    /// Where they go.
    pub destination_id: Uuid,
    /// Given by a person.
    pub name: String,
    /// Counts its changes, from 1.
    pub version: i32,
    /// Whether new webhooks go by it.
    pub is_enabled: bool,
    /// When it was first set.
    pub created_at: DateTime<Utc>,
    /// Time of its last change.
    pub updated_at: DateTime<Utc>,
    /// When it or its provider was deleted; `None` unless it is.
    pub deleted_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "organization_id, id, provider_id, destination_id, name, version, is_enabled, created_at, \
                       updated_at, deleted_at";

/// The routes of providers, oldest first.
pub async fn of_providers(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    providers: &[ProviderId],
) -> Result<Vec<Route>, sqlx::Error> {
    let ids: Vec<Uuid> = providers.iter().map(|id| id.uuid()).collect();
    sqlx::query_as(&format!(
        "select {COLUMNS} from routes
         where organization_id = $1 and provider_id = any ($2) and deleted_at is null
         order by provider_id, created_at, id limit 10000"
    ))
    .bind(organization.uuid())
    .bind(ids)
    .fetch_all(executor)
    .await
}

/// The routes to destinations, including deleted ones, oldest first.
pub async fn to_destinations(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    destinations: &[DestinationId],
) -> Result<Vec<Route>, sqlx::Error> {
    let ids: Vec<Uuid> = destinations.iter().map(|id| id.uuid()).collect();
    sqlx::query_as(&format!(
        "select {COLUMNS} from routes where organization_id = $1 and destination_id = any ($2)
         order by destination_id, created_at, id limit 10000"
    ))
    .bind(organization.uuid())
    .bind(ids)
    .fetch_all(executor)
    .await
}

/// Maintains `routes`.
#[derive(Debug)]
pub struct Routes;

impl Projection for Routes {
    fn name(&self) -> &'static str {
        "routes"
    }

    fn interest(&self) -> Interest {
        Interest::Administrative
    }

    fn shows(&self) -> &'static [&'static str] {
        // Routes end with their provider.
        &[RouteEvent::AGGREGATE, ProviderEvent::AGGREGATE]
    }

    fn tables(&self) -> &'static [&'static str] {
        &["routes"]
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            for recorded in events {
                match &recorded.event {
                    Event::Route(event) => apply_one(connection, recorded, event).await?,
                    Event::Provider(ProviderEvent::Deleted {}) => end_with_provider(connection, recorded).await?,
                    Event::Provider(_)
                    | Event::Organization(_)
                    | Event::User(_)
                    | Event::EmailClaim(_)
                    | Event::Team(_)
                    | Event::Retention(_)
                    | Event::Access(_)
                    | Event::Destination(_)
                    | Event::Webhook(_)
                    | Event::Delivery(_)
                    | Event::Usage(_) => {}
                }
            }
            Ok(())
        })
    }
}

async fn apply_one(
    connection: &mut PgConnection,
    recorded: &RecordedEvent,
    event: &RouteEvent,
) -> Result<(), sqlx::Error> {
    let (version, enabled, deleted_at) = match event {
        RouteEvent::Set { settings, version } => {
            return sqlx::query(
                "insert into routes as r (organization_id, id, provider_id, destination_id, name, version, is_enabled,
                                          created_at, updated_at, applied_position)
                 values ($1, $2, $5, $6, $7, $8, true, $4, $4, $3)
                 on conflict (organization_id, id) do update
                 set destination_id = excluded.destination_id, name = excluded.name, version = excluded.version,
                     is_enabled = r.is_enabled or r.deleted_at is not null, updated_at = excluded.updated_at,
                     deleted_at = null, applied_position = excluded.applied_position
                 where r.applied_position < excluded.applied_position",
            )
            .bind(recorded.organization.uuid())
            .bind(recorded.aggregate_id)
            .bind(recorded.position)
            .bind(recorded.recorded_at)
            .bind(settings.provider_id.uuid())
            .bind(settings.destination_id.uuid())
            .bind(settings.name.as_str())
            .bind(version.cast_signed())
            .execute(connection)
            .await
            .map(drop);
        }
        RouteEvent::Enabled { version } => (version, true, None),
        RouteEvent::Disabled { version } => (version, false, None),
        RouteEvent::Deleted { version } => (version, false, Some(recorded.recorded_at)),
    };
    sqlx::query(
        "update routes
         set version = $5, is_enabled = $6, deleted_at = coalesce($7, deleted_at), updated_at = $4,
             applied_position = $3
         where organization_id = $1 and id = $2 and applied_position < $3",
    )
    .bind(recorded.organization.uuid())
    .bind(recorded.aggregate_id)
    .bind(recorded.position)
    .bind(recorded.recorded_at)
    .bind(version.cast_signed())
    .bind(enabled)
    .bind(deleted_at)
    .execute(connection)
    .await
    .map(drop)
}

async fn end_with_provider(connection: &mut PgConnection, recorded: &RecordedEvent) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update routes set deleted_at = $4, updated_at = $4, applied_position = $3
         where organization_id = $1 and provider_id = $2 and deleted_at is null and applied_position < $3",
    )
    .bind(recorded.organization.uuid())
    .bind(recorded.aggregate_id)
    .bind(recorded.position)
    .bind(recorded.recorded_at)
    .execute(connection)
    .await
    .map(drop)
}
