//! `webhook_providers` and what may be known of their secrets.

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::provider::ProviderEvent;
use hookledger_aggregates::{Event, OrganizationId, ProviderId, RecordedEvent};
use sqlx::{FromRow, PgConnection, PgExecutor};
use uuid::Uuid;

use crate::{Interest, Projection, ProjectionError};

/// A row of `webhook_providers`.
#[derive(Clone, Debug, FromRow)]
pub struct WebhookProvider {
    pub organization_id: Uuid,
    pub id: Uuid,
    pub provider_name: String,
    pub is_active: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub deleted_at: Option<DateTime<Utc>>,
}

/// What may be known of one version of a signing secret; never the secret.
#[derive(Clone, Debug, FromRow)]
pub struct SecretVersion {
    pub provider_id: Uuid,
    pub version: i32,
    pub set_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
}

const SELECT: &str = "select organization_id, id, provider_name, is_active, created_at, updated_at, deleted_at \
                      from webhook_providers where organization_id = $1";

/// The connected providers of an organization, newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
) -> Result<Vec<WebhookProvider>, sqlx::Error> {
    sqlx::query_as(&format!("{SELECT} and deleted_at is null order by created_at desc, id"))
        .bind(organization.uuid())
        .fetch_all(executor)
        .await
}

/// Providers by id, deleted ones among them: a webhook still tells where it came from.
///
/// # Errors
/// When the database does not answer.
pub async fn find_many(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    providers: &[ProviderId],
) -> Result<Vec<WebhookProvider>, sqlx::Error> {
    let ids: Vec<Uuid> = providers.iter().map(|id| id.uuid()).collect();
    sqlx::query_as(&format!("{SELECT} and id = any ($2)")).bind(organization.uuid()).bind(ids).fetch_all(executor).await
}

/// The secrets of providers that verify now or did, newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn secrets(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    providers: &[ProviderId],
) -> Result<Vec<SecretVersion>, sqlx::Error> {
    let ids: Vec<Uuid> = providers.iter().map(|id| id.uuid()).collect();
    sqlx::query_as(
        "select s.provider_id, s.version, s.set_at, s.expires_at, u.last_used_at
         from provider_secret_versions s
         left join provider_secret_uses u using (organization_id, provider_id, version)
         where s.organization_id = $1 and s.provider_id = any ($2)
         order by s.version desc limit 1000",
    )
    .bind(organization.uuid())
    .bind(ids)
    .fetch_all(executor)
    .await
}

/// Keeps `webhook_providers` and `provider_secret_versions`.
#[derive(Debug)]
pub struct WebhookProviders;

impl Projection for WebhookProviders {
    fn name(&self) -> &'static str {
        "webhook_providers"
    }

    fn interest(&self) -> Interest {
        Interest::Administrative
    }

    fn tables(&self) -> &'static [&'static str] {
        &["webhook_providers", "provider_secret_versions"]
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            for recorded in events {
                match &recorded.event {
                    Event::Provider(event) => apply_one(connection, recorded, event).await?,
                    Event::Organization(_)
                    | Event::User(_)
                    | Event::EmailClaim(_)
                    | Event::Team(_)
                    | Event::Access(_)
                    | Event::Webhook(_)
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
    event: &ProviderEvent,
) -> Result<(), sqlx::Error> {
    match event {
        ProviderEvent::Connected { provider_name, secret_version, secret_id: _ } => {
            upsert_connected(connection, recorded, provider_name.as_str()).await?;
            insert_secret(connection, recorded, *secret_version).await
        }
        ProviderEvent::SecretRotated { secret_version, previous_expire_at, secret_id: _ } => {
            expire_secrets(connection, recorded, *previous_expire_at).await?;
            touch(connection, recorded, None, None).await?;
            insert_secret(connection, recorded, *secret_version).await
        }
        ProviderEvent::Activated {} => touch(connection, recorded, Some(true), None).await,
        ProviderEvent::Deactivated {} => touch(connection, recorded, Some(false), None).await,
        ProviderEvent::Deleted {} => {
            expire_secrets(connection, recorded, recorded.recorded_at).await?;
            touch(connection, recorded, Some(false), Some(recorded.recorded_at)).await
        }
        ProviderEvent::RejectionsSuppressed { .. } => Ok(()),
    }
}

async fn upsert_connected(
    connection: &mut PgConnection,
    recorded: &RecordedEvent,
    provider_name: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into webhook_providers (organization_id, id, provider_name, is_active,
                                        created_at, updated_at, applied_position)
         values ($1, $2, $5, true, $4, $4, $3)
         on conflict (organization_id, id) do update
         set is_active = true, updated_at = $4, deleted_at = null, applied_position = $3
         where webhook_providers.applied_position < $3",
    )
    .bind(recorded.organization.uuid())
    .bind(recorded.aggregate_id)
    .bind(recorded.position)
    .bind(recorded.recorded_at)
    .bind(provider_name)
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
        "insert into provider_secret_versions (organization_id, provider_id, version, set_at)
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

/// Only while the event is new to the provider: a replay must not expire what came after it.
async fn expire_secrets(
    connection: &mut PgConnection,
    recorded: &RecordedEvent,
    at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update provider_secret_versions s set expires_at = least(coalesce(s.expires_at, $3), $3)
         from webhook_providers p
         where s.organization_id = $1 and s.provider_id = $2
           and p.organization_id = $1 and p.id = $2 and p.applied_position < $4",
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
    active: Option<bool>,
    deleted_at: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update webhook_providers
         set is_active = coalesce($5, is_active), deleted_at = coalesce($6, deleted_at),
             updated_at = $4, applied_position = $3
         where organization_id = $1 and id = $2 and applied_position < $3",
    )
    .bind(recorded.organization.uuid())
    .bind(recorded.aggregate_id)
    .bind(recorded.position)
    .bind(recorded.recorded_at)
    .bind(active)
    .bind(deleted_at)
    .execute(connection)
    .await
    .map(drop)
}
