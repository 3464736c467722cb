//! What many objects of one answer have in common, loaded once for all of them; and how much of
//! bodies one answer may load.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_graphql::dataloader::{DataLoader, Loader};
use async_graphql::runtime::{TokioSpawner, TokioTimer};
use async_graphql::{Context, Error, Request};
use chrono::{DateTime, Duration, Utc};
use hookledger_aggregates::provider::{Destination, ProviderEvent};
use hookledger_aggregates::{Event, OrganizationId, ProviderId, RecordedEvent, UserId, WebhookId};
use hookledger_projections::{organizations, summaries, users, webhook_providers, webhook_retries};

use super::context::{App, Viewer};
use super::errors::{Code, failed, internal};
use crate::deliver;
use crate::identity::Session;
use crate::log::{self, ReadError};
use crate::store::{Tenant, Tenants};

/// Bytes of bodies that one answer loads at most. A body that is shown parsed counts four times:
/// that is about what it takes.
const MAX_BODY_BYTES: i64 = 64 << 20;
/// Events of one webhook that are shown.
const MAX_EVENTS: i64 = 1_000;
/// Webhooks of one answer that look for the one before them, or for why they have no body.
const MAX_LOOK_BACKS: i64 = 20;
/// Events of all webhooks of one answer.
const MAX_EVENTS_TOGETHER: usize = 20_000;

/// How much of bodies an answer may still load.
#[derive(Clone)]
pub(super) struct Bodies(Arc<AtomicI64>);

impl Bodies {
    pub(super) fn of<'a>(context: &Context<'a>) -> Result<&'a Self, Error> {
        context.data().map_err(|_| internal("a request has no limit on bodies"))
    }

    /// Another answer begins.
    pub(super) fn begin(&self) {
        self.0.store(MAX_BODY_BYTES, Ordering::Relaxed);
    }

    /// Counts a body in, before it is loaded.
    pub(super) fn take(&self, bytes: i64) -> Result<(), Error> {
        if self.0.fetch_sub(bytes, Ordering::Relaxed) >= bytes {
            return Ok(());
        }
        Err(Code::LimitExceeded.error(format!(
            "one answer loads at most {} MiB of bodies: ask for fewer webhooks at once, or for rawBody instead of payload",
            MAX_BODY_BYTES >> 20
        )))
    }
}

/// How many webhooks of an answer may still look for the one before them, which reads many rows each.
pub(super) struct LookBacks(AtomicI64);

impl LookBacks {
    pub(super) fn of<'a>(context: &Context<'a>) -> Result<&'a Self, Error> {
        context.data().map_err(|_| internal("a request has no limit on looking back"))
    }

    pub(super) fn take(&self) -> Result<(), Error> {
        self.take_several(1)
    }

    /// Takes what is as dear as so many.
    pub(super) fn take_several(&self, count: i64) -> Result<(), Error> {
        if self.0.fetch_sub(count, Ordering::Relaxed) >= count {
            return Ok(());
        }
        let sentence = format!(
            "previousOfType, bodyRemoval and duplicateOf are told of at most {MAX_LOOK_BACKS} webhooks at once, duplicateBodies of 4"
        );
        Err(Code::LimitExceeded.error(sentence))
    }
}

/// Why rows could not be loaded.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("{0}")]
    Failed(Arc<ReadError>),
    #[error("one answer shows at most {MAX_EVENTS_TOGETHER} events: ask for those of fewer webhooks at once")]
    TooManyEvents,
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
            Self::TooManyEvents => Code::LimitExceeded.error(self.to_string()),
        }
    }
}

/// Loads what many webhooks of one answer have in common, once.
pub struct Rows {
    tenants: Tenants,
    viewer: Viewer,
}

impl Rows {
    async fn tenant(&self, organization: OrganizationId) -> Result<Tenant, sqlx::Error> {
        self.tenants.of(self.viewer.confined(organization)).await
    }
}

/// A request with what its resolvers need: who asks, the loaders, the limit on bodies.
pub fn with_viewer(request: Request, app: &App, viewer: &Viewer) -> Request {
    let rows = Rows { tenants: app.tenants.clone(), viewer: viewer.clone() };
    let loader = DataLoader::new(rows, TokioSpawner::current(), TokioTimer::default());
    let bodies = Bodies(Arc::new(AtomicI64::new(MAX_BODY_BYTES)));
    request.data(viewer.clone()).data(loader).data(bodies).data(LookBacks(AtomicI64::new(MAX_LOOK_BACKS)))
}

/// What a key stands for, together with the others that are asked for at the same moment.
pub(super) async fn load<K>(context: &Context<'_>, key: K) -> Result<Option<<Rows as Loader<K>>::Value>, Error>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    Rows: Loader<K, Error = LoadError>,
{
    let loader = context.data::<DataLoader<Rows>>().map_err(|_| internal("a request has no loaders"))?;
    loader.load_one(key).await.map_err(LoadError::told)
}

/// Makes a key type, whose rows are those of an organization, and its loader.
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
    /// An organization's own row; the second id is the same again.
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
    /// Where a user is signed in.
    SessionsOf(UserId) -> Vec<Session>, |tenant, organization, ids| {
        let rows = Session::of_users(&mut *tenant, organization, &ids).await?;
        grouped(rows, |row| UserId::new(row.user_id))
    }
);

loader!(
    /// A provider, deleted ones among them.
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
    /// The versions of the secret that signs a provider's deliveries.
    OutgoingSecretsOf(ProviderId) -> Vec<webhook_providers::SecretVersion>, |tenant, organization, ids| {
        let rows = webhook_providers::outgoing_secrets(&mut *tenant, organization, &ids).await?;
        grouped(rows, |row| ProviderId::new(row.provider_id))
    }
);

/// A destination, or that there was none, from a time on.
type DestinationSince = (DateTime<Utc>, Option<Destination>);

loader!(
    /// Where a provider's webhooks were forwarded to, by when that changed, oldest first.
    DestinationsOf(ProviderId) -> Vec<DestinationSince>, |tenant, organization, ids| {
        let events = log::destination_changes(&mut *tenant, organization, &ids).await?;
        let mut groups: HashMap<ProviderId, Vec<DestinationSince>> = HashMap::new();
        for recorded in events {
            let destination = match recorded.event {
                Event::Provider(ProviderEvent::DestinationSet(destination)) => Some(destination),
                _ => None,
            };
            groups.entry(ProviderId::new(recorded.aggregate_id)).or_default().push((recorded.recorded_at, destination));
        }
        groups
    }
);

loader!(
    /// How a provider fared in the last day.
    HealthOf(ProviderId) -> summaries::ProviderHealth, |tenant, organization, ids| {
        let since = Utc::now() - Duration::days(1);
        let rows = summaries::health(&mut *tenant, organization, &ids, since).await?;
        rows.into_iter().map(|row| (ProviderId::new(row.provider_id), row)).collect()
    }
);

loader!(
    /// The circuits of a provider's destination.
    CircuitsOf(ProviderId) -> Vec<deliver::CircuitNote>, |tenant, organization, ids| {
        let rows = deliver::circuits_of(&mut *tenant, organization, &ids).await?;
        grouped(rows, |row| ProviderId::new(row.provider_id))
    }
);

loader!(
    /// How many webhooks wait for an attempt at a provider's destination.
    WaitingOf(ProviderId) -> i64, |tenant, organization, ids| {
        deliver::waiting_of(&mut *tenant, organization, &ids).await?.into_iter().collect()
    }
);

/// What was answered to an attempt of that number.
type Excerpt = (i32, Arc<Vec<u8>>);

loader!(
    /// What destinations answered to a webhook's attempts, by attempt.
    ResponsesOf(WebhookId) -> Vec<Excerpt>, |tenant, organization, ids| {
        let rows = deliver::responses_of(&mut *tenant, organization, &ids).await?;
        let mut groups: HashMap<WebhookId, Vec<Excerpt>> = HashMap::new();
        for (webhook, attempt, excerpt) in rows {
            groups.entry(webhook).or_default().push((attempt, Arc::new(excerpt)));
        }
        groups
    }
);

loader!(
    /// What a webhook in the queue waits for.
    WaitOf(WebhookId) -> deliver::Wait, |tenant, organization, ids| {
        deliver::waits_of(&mut *tenant, organization, &ids).await?.into_iter().collect()
    }
);

loader!(
    /// The attempts at a webhook.
    AttemptsOf(WebhookId) -> Vec<webhook_retries::WebhookAttempt>, |tenant, organization, ids| {
        let rows = webhook_retries::of_webhooks(&mut *tenant, organization, &ids).await?;
        grouped(rows, |row| WebhookId::new(row.webhook_id))
    }
);

loader!(
    /// The bytes of a webhook's body, by its position, while they are kept.
    BodyOf(i64) -> Arc<Vec<u8>>, |tenant, organization, positions| {
        let bodies = log::bodies_of(&mut *tenant, organization, &positions).await?;
        bodies.into_iter().map(|(position, body)| (position, Arc::new(body))).collect()
    }
);

loader!(
    /// The headers of a webhook, by its position, while they are kept.
    HeadersOf(i64) -> Vec<(String, String)>, |tenant, organization, positions| {
        log::headers_of(&mut *tenant, organization, &positions).await?.into_iter().collect()
    }
);

loader!(
    /// What the log says of a webhook, from its beginning.
    EventsOf(WebhookId) -> Vec<RecordedEvent>, |tenant, organization, ids| {
        let most = i64::try_from(MAX_EVENTS_TOGETHER + 1).unwrap_or(i64::MAX);
        let events = log::streams_of(&mut *tenant, organization, "webhook", &ids, MAX_EVENTS, most).await?;
        if events.len() > MAX_EVENTS_TOGETHER {
            return Err(LoadError::TooManyEvents);
        }
        grouped(events, |event| WebhookId::new(event.aggregate_id))
    }
);

fn grouped<K: Eq + Hash, V>(rows: Vec<V>, key: impl Fn(&V) -> K) -> HashMap<K, Vec<V>> {
    let mut groups: HashMap<K, Vec<V>> = HashMap::new();
    rows.into_iter().for_each(|row| groups.entry(key(&row)).or_default().push(row));
    groups
}
