//! `webhook_providers`, and the versions of their secrets, without the secrets themselves.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::provider::ProviderEvent;
use hookledger_aggregates::{Event, Label, OrganizationId, ProviderId, RecordedEvent};
use sqlx::{FromRow, PgConnection, PgExecutor, QueryBuilder};
use uuid::Uuid;

use crate::order::{self, Column, Field, Kind};
use crate::{Interest, Order, Page, PageRequest, Place, Projection, ProjectionError, Sorted};

/// A row of `webhook_providers`.
#[derive(Clone, Debug, FromRow)]
pub struct WebhookProvider {
    /// The organization that connected it.
    pub organization_id: Uuid,
    /// Derived from the organization and the name.
    pub id: Uuid,
    /// A [`ProviderName`](hookledger_aggregates::ProviderName), as text.
    pub provider_name: String,
    /// Whether it accepts webhooks.
    pub is_active: bool,
    /// When it was first connected.
    pub created_at: DateTime<Utc>,
    /// Time of its last change.
    pub updated_at: DateTime<Utc>,
    /// When it was deleted; `None` while it is connected.
    pub deleted_at: Option<DateTime<Utc>>,
}

/// One version of a secret, without the secret itself.
#[derive(Clone, Debug, FromRow)]
pub struct SecretVersion {
    /// The provider that it belongs to.
    pub provider_id: Uuid,
    /// 1, 2, 3… in the order of creation; signing and outgoing secrets share the numbers.
    pub version: i32,
    /// A label given by a person; signing secrets have none.
    pub label: Option<String>,
    /// When it was set.
    pub set_at: DateTime<Utc>,
    /// When it stops being valid; `None` while no end is set.
    pub expires_at: Option<DateTime<Utc>>,
    /// Time of the last webhook that it verified; `None` for outgoing secrets.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A selection of providers of all organizations.
#[derive(Clone, Debug, Default)]
pub struct ProviderFilter {
    /// Part of the organization's name or slug, or of the URL of one of its destinations.
    pub search: Option<String>,
    /// A service, such as `github`.
    pub provider_name: Option<&'static str>,
    /// Only active or only inactive ones; `None` for both.
    pub is_active: Option<bool>,
}

/// Fields that providers of all organizations can be sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProviderField {
    /// When the provider was first connected.
    #[default]
    CreatedAt,
    /// The service.
    ProviderName,
    /// Absent if the organization has not been read yet, because the two read models follow the log
    /// independently.
    OrganizationName,
}

impl Field for ProviderField {
    fn column(self) -> Column {
        match self {
            Self::CreatedAt => Column { tag: b'c', kind: Kind::Time, value: "p.created_at", present: None },
            Self::ProviderName => Column { tag: b'p', kind: Kind::Text, value: "p.provider_name", present: None },
            Self::OrganizationName => {
                Column { tag: b'o', kind: Kind::Text, value: "o.name_key", present: Some("o.id") }
            }
        }
    }
}

const COLUMNS: &str = "p.organization_id, p.id, p.provider_name, p.is_active, p.created_at, p.updated_at, \
                       p.deleted_at";

/// The providers of one organization.
static SELECT: LazyLock<String> =
    LazyLock::new(|| format!("select {COLUMNS} from webhook_providers p where p.organization_id = $1"));

/// The connected providers of an organization, newest first.
pub async fn list(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
) -> Result<Vec<WebhookProvider>, sqlx::Error> {
    sqlx::query_as(&format!("{} and deleted_at is null order by created_at desc, id", *SELECT))
        .bind(organization.uuid())
        .fetch_all(executor)
        .await
}

/// Connected providers of every organization: for super admins only.
pub async fn list_everywhere(
    connection: &mut PgConnection,
    filter: &ProviderFilter,
    order: Order<ProviderField>,
    page: &PageRequest<Place>,
) -> Result<Page<Sorted<WebhookProvider>>, sqlx::Error> {
    order::read(connection, order, page, "p.id", |value, _| {
        let mut query = QueryBuilder::new(format!(
            "select {COLUMNS}, {value} as sorted_by
             from webhook_providers p left join organizations o on o.id = p.organization_id
             where p.deleted_at is null"
        ));
        if let Some(name) = filter.provider_name {
            query.push(" and p.provider_name = ").push_bind(name);
        }
        if let Some(is_active) = filter.is_active {
            query.push(" and p.is_active = ").push_bind(is_active);
        }
        if let Some(search) = &filter.search {
            query.push(" and (exists (select from routes r join destinations d on d.organization_id = r.organization_id and d.id = r.destination_id");
            query.push(" where r.organization_id = p.organization_id and r.provider_id = p.id and r.deleted_at is null");
            query.push(" and position(lower(").push_bind(search).push(") in lower(d.url)) > 0)");
            query.push(" or position(lower(").push_bind(search).push(") in o.name_key) > 0");
            query.push(" or position(lower(").push_bind(search).push(") in o.slug) > 0)");
        }
        query
    })
    .await
}

/// Providers by ID, including deleted ones, which old webhooks still refer to.
pub async fn find_many(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    providers: &[ProviderId],
) -> Result<Vec<WebhookProvider>, sqlx::Error> {
    let ids: Vec<Uuid> = providers.iter().map(|id| id.uuid()).collect();
    sqlx::query_as(&format!("{} and id = any ($2)", *SELECT))
        .bind(organization.uuid())
        .bind(ids)
        .fetch_all(executor)
        .await
}

/// The current and former secrets that verify requests, newest first.
pub async fn secrets(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    providers: &[ProviderId],
) -> Result<Vec<SecretVersion>, sqlx::Error> {
    let ids: Vec<Uuid> = providers.iter().map(|id| id.uuid()).collect();
    sqlx::query_as(
        "select s.provider_id, s.version, s.label, s.set_at, s.expires_at, u.last_used_at
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

/// Maintains `webhook_providers` and `provider_secret_versions`.
#[derive(Debug)]
pub struct WebhookProviders;

impl Projection for WebhookProviders {
    fn name(&self) -> &'static str {
        "webhook_providers"
    }

    fn interest(&self) -> Interest {
        Interest::Administrative
    }

    fn shows(&self) -> &'static [&'static str] {
        &[ProviderEvent::AGGREGATE]
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
                    | Event::Retention(_)
                    | Event::Access(_)
                    | Event::Destination(_)
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
        ProviderEvent::SecretAdded { secret_version, label, secret_id: _ } => {
            if let Some(label) = label {
                insert_labelled(connection, recorded, *secret_version, label).await?;
            }
            touch(connection, recorded, None, None).await?;
            insert_secret(connection, recorded, *secret_version).await
        }
        ProviderEvent::SecretLabelled { secret_version, label } => {
            let changed = SecretChange { version: *secret_version, label: Some(label), expire_at: None };
            change_secret(connection, recorded, changed).await?;
            touch(connection, recorded, None, None).await
        }
        ProviderEvent::SecretRevoked { secret_version, expire_at } => {
            let changed = SecretChange { version: *secret_version, label: None, expire_at: Some(*expire_at) };
            change_secret(connection, recorded, changed).await?;
            touch(connection, recorded, None, None).await
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

async fn insert_labelled(
    connection: &mut PgConnection,
    recorded: &RecordedEvent,
    version: u32,
    label: &Label,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into provider_secret_versions (organization_id, provider_id, version, set_at, label)
         values ($1, $2, $3, $4, $5) on conflict do nothing",
    )
    .bind(recorded.organization.uuid())
    .bind(recorded.aggregate_id)
    .bind(version.cast_signed())
    .bind(recorded.recorded_at)
    .bind(label.as_str())
    .execute(connection)
    .await
    .map(drop)
}

/// A new label or an end of one incoming secret.
struct SecretChange<'a> {
    version: u32,
    label: Option<&'a Label>,
    expire_at: Option<DateTime<Utc>>,
}

/// Only if the event is new to the provider, as with [`expire_secrets`].
async fn change_secret(
    connection: &mut PgConnection,
    recorded: &RecordedEvent,
    change: SecretChange<'_>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update provider_secret_versions s
         set label = coalesce($5, s.label), expires_at = least(s.expires_at, $6)
         from webhook_providers p
         where s.organization_id = $1 and s.provider_id = $2 and s.version = $3
           and p.organization_id = $1 and p.id = $2 and p.applied_position < $4",
    )
    .bind(recorded.organization.uuid())
    .bind(recorded.aggregate_id)
    .bind(change.version.cast_signed())
    .bind(recorded.position)
    .bind(change.label.map(Label::as_str))
    .bind(change.expire_at)
    .execute(connection)
    .await
    .map(drop)
}

/// Only if the event is new to the provider: a repeated event must not expire later secrets.
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
