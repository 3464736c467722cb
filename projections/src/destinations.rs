//! `destinations`, and what may be known of the secrets that sign deliveries to them.

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::destination::{DestinationEvent, DestinationSettings};
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::{DestinationId, Event, OrganizationId, RecordedEvent};
use sqlx::{FromRow, PgConnection, PgExecutor};
use uuid::Uuid;

use crate::{Interest, Projection, ProjectionError};

/// A row of `destinations`.
#[derive(Clone, Debug, FromRow)]
pub struct Destination {
    /// The organization that it belongs to.
    pub organization_id: Uuid,
    /// Random, or derived from the provider that it was set with.
    pub id: Uuid,
    /// Given by a person, or the host of the first URL.
    pub name: String,
    /// Where to.
    pub url: String,
    /// Seconds that it has to answer; `None` for the deployment's default.
    pub timeout_seconds: Option<i32>,
    /// Maximum number of attempts at the same time, per node.
    pub concurrency: i32,
    /// Names of the headers that deliveries carry besides. Their values are secrets.
    pub header_names: Vec<String>,
    /// Whether deliveries also carry the sender's signature header.
    pub original_signature: bool,
    /// When it was first set.
    pub created_at: DateTime<Utc>,
    /// Time of its last change.
    pub updated_at: DateTime<Utc>,
    /// When its settings were last changed.
    pub set_at: DateTime<Utc>,
    /// When it was deleted; `None` unless it is.
    pub deleted_at: Option<DateTime<Utc>>,
}

/// The public facts of one version of a signing secret; never the secret.
#[derive(Clone, Debug, FromRow)]
pub struct SigningSecretVersion {
    /// The destination that it belongs to.
    pub destination_id: Uuid,
    /// 1, 2, 3… in the order of creation, with the versions of its headers.
    pub version: i32,
    /// When it was set.
    pub set_at: DateTime<Utc>,
    /// When it stops signing; `None` for the current one.
    pub expires_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "organization_id, id, name, url, timeout_seconds, concurrency, header_names, \
                       original_signature, created_at, updated_at, set_at, deleted_at";

/// Destinations by ID, including deleted ones.
pub async fn find_many(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    destinations: &[DestinationId],
) -> Result<Vec<Destination>, sqlx::Error> {
    sqlx::query_as(&format!("select {COLUMNS} from destinations where organization_id = $1 and id = any ($2)"))
        .bind(organization.uuid())
        .bind(uuids(destinations))
        .fetch_all(executor)
        .await
}

/// The current and former secrets that sign deliveries, newest first.
pub async fn secrets(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    destinations: &[DestinationId],
) -> Result<Vec<SigningSecretVersion>, sqlx::Error> {
    sqlx::query_as(
        "select destination_id, version, set_at, expires_at
         from destination_secret_versions where organization_id = $1 and destination_id = any ($2)
         order by destination_id, version desc limit 10000",
    )
    .bind(organization.uuid())
    .bind(uuids(destinations))
    .fetch_all(executor)
    .await
}

fn uuids(destinations: &[DestinationId]) -> Vec<Uuid> {
    destinations.iter().map(|id| id.uuid()).collect()
}

/// Maintains `destinations` and `destination_secret_versions`.
#[derive(Debug)]
pub struct Destinations;

impl Projection for Destinations {
    fn name(&self) -> &'static str {
        "destinations"
    }

    fn interest(&self) -> Interest {
        Interest::Administrative
    }

    fn shows(&self) -> &'static [&'static str] {
        &[DestinationEvent::AGGREGATE]
    }

    fn tables(&self) -> &'static [&'static str] {
        &["destinations", "destination_secret_versions"]
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            for recorded in events {
                match &recorded.event {
                    Event::Destination(event) => apply_one(connection, recorded, event).await?,
                    Event::Organization(_)
                    | Event::User(_)
                    | Event::EmailClaim(_)
                    | Event::Team(_)
                    | Event::Retention(_)
                    | Event::Access(_)
                    | Event::Provider(_)
                    | Event::Route(_)
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
    event: &DestinationEvent,
) -> Result<(), sqlx::Error> {
    match event {
        DestinationEvent::Set(settings) => set(connection, recorded, settings).await,
        DestinationEvent::SecretSet { secret, previous_expire_at } => {
            if let Some(at) = previous_expire_at {
                expire_secrets(connection, recorded, *at).await?;
            }
            touch(connection, recorded, None).await?;
            insert_secret(connection, recorded, secret.secret_version).await
        }
        DestinationEvent::Deleted { secrets_end } => {
            if *secrets_end {
                expire_secrets(connection, recorded, recorded.recorded_at).await?;
            }
            touch(connection, recorded, Some(recorded.recorded_at)).await
        }
    }
}

async fn set(
    connection: &mut PgConnection,
    recorded: &RecordedEvent,
    settings: &DestinationSettings,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into destinations as d (organization_id, id, name, url, timeout_seconds, concurrency, header_names,
                                        original_signature, created_at, updated_at, set_at, applied_position)
         values ($1, $2, $5, $6, $7, $8, $9, $10, $4, $4, $4, $3)
         on conflict (organization_id, id) do update
         set name = excluded.name, url = excluded.url, timeout_seconds = excluded.timeout_seconds,
             concurrency = excluded.concurrency, header_names = excluded.header_names,
             original_signature = excluded.original_signature, updated_at = excluded.updated_at,
             set_at = excluded.set_at, deleted_at = null, applied_position = excluded.applied_position
         where d.applied_position < excluded.applied_position",
    )
    .bind(recorded.organization.uuid())
    .bind(recorded.aggregate_id)
    .bind(recorded.position)
    .bind(recorded.recorded_at)
    .bind(settings.name.as_str())
    .bind(&settings.url)
    .bind(settings.timeout_seconds.map(u32::cast_signed))
    .bind(settings.concurrency.cast_signed())
    .bind(&settings.header_names)
    .bind(settings.original_signature)
    .execute(connection)
    .await
    .map(drop)
}

async fn insert_secret(
    connection: &mut PgConnection,
    recorded: &RecordedEvent,
    version: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into destination_secret_versions (organization_id, destination_id, version, set_at)
         values ($1, $2, $3, $4) on conflict do nothing",
    )
    .bind(recorded.organization.uuid())
    .bind(recorded.aggregate_id)
    .bind(version.cast_signed())
    .bind(recorded.recorded_at)
    .execute(connection)
    .await
    .map(drop)
}

/// Only if the event is new to the destination: a repeated event must not expire later secrets.
async fn expire_secrets(
    connection: &mut PgConnection,
    recorded: &RecordedEvent,
    at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update destination_secret_versions s set expires_at = least(coalesce(s.expires_at, $3), $3)
         from destinations d
         where s.organization_id = $1 and s.destination_id = $2
           and d.organization_id = $1 and d.id = $2 and d.applied_position < $4",
    )
    .bind(recorded.organization.uuid())
    .bind(recorded.aggregate_id)
    .bind(at)
    .bind(recorded.position)
    .execute(connection)
    .await
    .map(drop)
}

async fn touch(
    connection: &mut PgConnection,
    recorded: &RecordedEvent,
    deleted_at: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update destinations set deleted_at = coalesce($5, deleted_at), updated_at = $4, applied_position = $3
         where organization_id = $1 and id = $2 and applied_position < $3",
    )
    .bind(recorded.organization.uuid())
    .bind(recorded.aggregate_id)
    .bind(recorded.position)
    .bind(recorded.recorded_at)
    .bind(deleted_at)
    .execute(connection)
    .await
    .map(drop)
}
