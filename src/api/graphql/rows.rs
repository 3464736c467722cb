//! Loads what many objects of one answer have in common, once for all of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use async_graphql::dataloader::{DataLoader, Loader};
use async_graphql::parser::types::{ExecutableDocument, OperationType};
use async_graphql::runtime::{TokioSpawner, TokioTimer};
use async_graphql::{Context, Error, Request};
use chrono::{DateTime, Duration, Utc};
use hookledger_aggregates::destination::{DestinationEvent, DestinationSettings};
use hookledger_aggregates::{
    DeliveryId, DestinationId, Event, OrganizationId, ProviderId, RecordedEvent, UserId, WebhookId,
};
use hookledger_projections::{
    destinations, organizations, routes, summaries, users, webhook_providers, webhook_retries,
};

use super::context::App;
use super::errors::{Code, failed, internal};
use super::guards::allowance::{Allowance, TooManyReads};
use super::guards::rights::Viewer;
use crate::deliver;
use crate::identity::Session;
use crate::log::{self, ReadError};
use crate::platform::store::{Busy, Reading, Tenant, TenantError, Tenants};

/// Maximum number of events shown of one stream.
const MAX_EVENTS: i64 = 1_000;
/// Maximum number of events of all webhooks in one answer.
const MAX_EVENTS_TOGETHER: usize = 20_000;

/// Why rows could not be loaded.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("{0}")]
    Failed(Arc<ReadError>),
    #[error("A response can hold at most {MAX_EVENTS_TOGETHER} events. Ask for fewer webhooks at once.")]
    TooManyEvents,
    #[error(transparent)]
    TooManyReads(#[from] TooManyReads),
    #[error(transparent)]
    Busy(#[from] Busy),
}

impl From<TenantError> for LoadError {
    fn from(error: TenantError) -> Self {
        match error {
            TenantError::Busy(busy) => Self::Busy(busy),
            TenantError::Database(error) => error.into(),
        }
    }
}

impl From<ReadError> for LoadError {
    fn from(error: ReadError) -> Self {
        Self::Failed(Arc::new(error))
    }
}

impl From<sqlx::Error> for LoadError {
    fn from(error: sqlx::Error) -> Self {
        ReadError::from(error).into()
    }
}

impl LoadError {
    fn told(self) -> Error {
        match self {
            Self::Failed(error) => failed(&*error),
            Self::Busy(busy) => internal(busy),
            Self::TooManyReads(error) => error.told(),
            Self::TooManyEvents => Code::LimitExceeded.error(self.to_string()),
        }
    }
}

/// Loads what many webhooks of one answer have in common.
pub struct Rows {
    tenants: Tenants,
    viewer: Viewer,
    allowance: Arc<Allowance>,
}

impl Rows {
    async fn tenant(&self, organization: OrganizationId) -> Result<Tenant, LoadError> {
        self.allowance.reads(1)?;
        Ok(self.tenants.of(self.viewer.confined(organization)).await?)
    }
}

/// A request with everything that its resolvers need: the viewer, the loaders, the allowance. Its answer
/// holds memory for as long as the allowance lives.
pub fn with_viewer(mut request: Request, app: &App, viewer: &Viewer) -> (Request, Arc<Allowance>) {
    let subscribes = |document: &ExecutableDocument| {
        document.operations.iter().any(|(_, operation)| operation.node.ty == OperationType::Subscription)
    };
    let reading = if request.parsed_query().is_ok_and(subscribes) { Reading::Subscription } else { Reading::Page };
    let allowance = Allowance::of_viewer(viewer, app.rendering.clone());
    let tenants = app.tenants.asked_by(viewer.asker(), reading);
    let rows = Rows { tenants, viewer: viewer.clone(), allowance: Arc::clone(&allowance) };
    let loader = DataLoader::new(rows, TokioSpawner::current(), TokioTimer::default());
    (request.data(viewer.clone()).data(loader).data(Arc::clone(&allowance)), allowance)
}

/// The row of a key, loaded together with others requested at the same time.
pub(super) async fn load<K>(context: &Context<'_>, key: K) -> Result<Option<<Rows as Loader<K>>::Value>, Error>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    Rows: Loader<K, Error = LoadError>,
{
    let loader = context.data::<DataLoader<Rows>>().map_err(|_| internal("a request has no loaders"))?;
    loader.load_one(key).await.map_err(LoadError::told)
}

/// Defines a key type, whose rows belong to an organization, and its loader.
macro_rules! loader {
    ($(#[$doc:meta])* $key:ident($id:ty) -> $value:ty, |$tenant:ident, $organization:ident, $ids:ident| $load:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub(super) struct $key(pub(super) OrganizationId, pub(super) $id);

        impl Loader<$key> for Rows {
            type Value = $value;
            type Error = LoadError;

            async fn load(&self, keys: &[$key]) -> Result<HashMap<$key, Self::Value>, Self::Error> {
                let mut found = HashMap::new();
                let mut groups: HashMap<OrganizationId, Vec<$id>> = HashMap::new();
                keys.iter().for_each(|key| groups.entry(key.0).or_default().push(key.1));
                for ($organization, $ids) in groups {
                    let mut $tenant = self.tenant($organization).await?;
                    let rows: HashMap<$id, $value> = $load;
                    found.extend(rows.into_iter().map(|(id, value)| ($key($organization, id), value)));
                }
                Ok(found)
            }
        }
    };
}

loader!(
    /// An organization's own row; the second ID repeats the first.
    OrganizationOf(OrganizationId) -> organizations::Organization, |tenant, organization, _ids| {
        let row = organizations::find(&mut *tenant, organization).await?;
        row.map(|row| (organization, row)).into_iter().collect()
    }
);

loader!(
    /// A user of an organization.
    UserOf(UserId) -> users::User, |tenant, organization, ids| {
        let rows = users::find_many(&mut *tenant, organization, &ids).await?;
        rows.into_iter().map(|row| (UserId::new(row.id), row)).collect()
    }
);

loader!(
    /// A user's sessions.
    SessionsOf(UserId) -> Vec<Session>, |tenant, organization, ids| {
        let rows = Session::of_users(&mut *tenant, organization, &ids).await?;
        grouped(rows, |row| UserId::new(row.user_id))
    }
);

loader!(
    /// A provider, including deleted ones.
    ProviderOf(ProviderId) -> webhook_providers::WebhookProvider, |tenant, organization, ids| {
        let rows = webhook_providers::find_many(&mut *tenant, organization, &ids).await?;
        rows.into_iter().map(|row| (ProviderId::new(row.id), row)).collect()
    }
);

loader!(
    /// The versions of a provider's secret.
    SecretsOf(ProviderId) -> Vec<webhook_providers::SecretVersion>, |tenant, organization, ids| {
        let rows = webhook_providers::secrets(&mut *tenant, organization, &ids).await?;
        grouped(rows, |row| ProviderId::new(row.provider_id))
    }
);

loader!(
    /// A destination, including deleted ones.
    DestinationOf(DestinationId) -> destinations::Destination, |tenant, organization, ids| {
        let rows = destinations::find_many(&mut *tenant, organization, &ids).await?;
        rows.into_iter().map(|row| (DestinationId::new(row.id), row)).collect()
    }
);

loader!(
    /// The provider of a destination's first route.
    SenderTo(DestinationId) -> ProviderId, |tenant, organization, ids| {
        let rows = routes::to_destinations(&mut *tenant, organization, &ids).await?;
        let pair = |row: routes::Route| (DestinationId::new(row.destination_id), ProviderId::new(row.provider_id));
        rows.into_iter().rev().map(pair).collect()
    }
);

loader!(
    /// The versions of the secret that signs deliveries to a destination.
    SigningSecretsOf(DestinationId) -> Vec<destinations::SigningSecretVersion>, |tenant, organization, ids| {
        let rows = destinations::secrets(&mut *tenant, organization, &ids).await?;
        grouped(rows, |row| DestinationId::new(row.destination_id))
    }
);

/// The settings of a destination, from a time on.
type SettingsSince = (DateTime<Utc>, DestinationSettings);

loader!(
    /// A destination's settings, by time of change, oldest first.
    SettingsOf(DestinationId) -> Vec<SettingsSince>, |tenant, organization, ids| {
        let events = log::destination_changes(&mut *tenant, organization, &ids).await?;
        let mut groups: HashMap<DestinationId, Vec<SettingsSince>> = HashMap::new();
        for recorded in events {
            if let Event::Destination(DestinationEvent::Set(settings)) = recorded.event {
                let id = DestinationId::new(recorded.aggregate_id);
                groups.entry(id).or_default().push((recorded.recorded_at, settings));
            }
        }
        groups
    }
);

loader!(
    /// A provider's health in the last day.
    HealthOf(ProviderId) -> summaries::ProviderHealth, |tenant, organization, ids| {
        let since = Utc::now() - Duration::days(1);
        let rows = summaries::health(&mut *tenant, organization, &ids, since).await?;
        rows.into_iter().map(|row| (ProviderId::new(row.provider_id), row)).collect()
    }
);

loader!(
    /// The circuits of a destination.
    CircuitsOf(DestinationId) -> Vec<deliver::CircuitNote>, |tenant, organization, ids| {
        let rows = deliver::circuits_of(&mut *tenant, organization, &ids).await?;
        grouped(rows, |row| DestinationId::new(row.destination_id))
    }
);

loader!(
    /// Number of deliveries that wait for an attempt at a destination.
    WaitingOf(DestinationId) -> i64, |tenant, organization, ids| {
        deliver::waiting_of(&mut *tenant, organization, &ids).await?.into_iter().collect()
    }
);

/// Response to the attempt with that number at a delivery.
type Excerpt = (DeliveryId, i32, Arc<Vec<u8>>);

loader!(
    /// Responses of destinations to a webhook's attempts.
    ResponsesOf(WebhookId) -> Vec<Excerpt>, |tenant, organization, ids| {
        let rows = deliver::responses_of(&mut *tenant, organization, &ids).await?;
        let mut groups: HashMap<WebhookId, Vec<Excerpt>> = HashMap::new();
        for (webhook, delivery, attempt, excerpt) in rows {
            groups.entry(webhook).or_default().push((delivery, attempt, Arc::new(excerpt)));
        }
        groups
    }
);

loader!(
    /// The conditions that the queued deliveries of a webhook wait for.
    WaitsOf(WebhookId) -> Vec<deliver::Wait>, |tenant, organization, ids| {
        let mut groups: HashMap<WebhookId, Vec<deliver::Wait>> = HashMap::new();
        for (webhook, _, wait) in deliver::waits_of(&mut *tenant, organization, &ids).await? {
            groups.entry(webhook).or_default().push(wait);
        }
        groups
    }
);

loader!(
    /// The attempts of a webhook.
    AttemptsOf(WebhookId) -> Vec<webhook_retries::WebhookAttempt>, |tenant, organization, ids| {
        let rows = webhook_retries::of_webhooks(&mut *tenant, organization, &ids).await?;
        grouped(rows, |row| WebhookId::new(row.webhook_id))
    }
);

loader!(
    /// The bytes of a webhook's body, by its position, while they are stored.
    BodyOf(i64) -> Arc<Vec<u8>>, |tenant, organization, positions| {
        let bodies = log::bodies_of(&mut *tenant, organization, &positions).await?;
        bodies.into_iter().map(|(position, body)| (position, Arc::new(body))).collect()
    }
);

loader!(
    /// The headers of a webhook, by its position, while they are stored.
    HeadersOf(i64) -> Vec<(String, String)>, |tenant, organization, positions| {
        log::headers_of(&mut *tenant, organization, &positions).await?.into_iter().collect()
    }
);

loader!(
    /// The events of a webhook and its deliveries, from its beginning.
    EventsOf(WebhookId) -> Vec<RecordedEvent>, |tenant, organization, ids| {
        let most = i64::try_from(MAX_EVENTS_TOGETHER + 1).unwrap_or(i64::MAX);
        let stories = log::stories_of(&mut tenant, organization, &ids, MAX_EVENTS, most).await?;
        if stories.values().map(Vec::len).sum::<usize>() > MAX_EVENTS_TOGETHER {
            return Err(LoadError::TooManyEvents);
        }
        stories
    }
);

fn grouped<K: Eq + Hash, V>(rows: Vec<V>, key: impl Fn(&V) -> K) -> HashMap<K, Vec<V>> {
    let mut groups: HashMap<K, Vec<V>> = HashMap::new();
    rows.into_iter().for_each(|row| groups.entry(key(&row)).or_default().push(row));
    groups
}
