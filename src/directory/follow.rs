//! Keeping the directory current: every node follows the log by itself, from the beginning.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::DateTime;
use cqrs_es::Aggregate as _;
use hookledger_aggregates::destination::{self, DestinationEvent, DestinationSettings};
use hookledger_aggregates::ids::PARTITIONS;
use hookledger_aggregates::organization::{Organization, OrganizationEvent};
use hookledger_aggregates::provider::{Provider, ProviderEvent, SecretRef, SecretState};
use hookledger_aggregates::route::{Route, RouteEvent};
use hookledger_aggregates::signature::SigningSecret;
use hookledger_aggregates::{
    ConnectionId, DestinationId, Event, OrganizationId, Partition, ProviderId, ProviderName, RecordedEvent, RouteId,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretSlice};
use tokio_util::sync::CancellationToken;

use super::{Destination, Directory, ProviderEntry, RouteEntry, Way};
use crate::log::follow::within;
use crate::log::{Broken, Epoch, Heads, LogPosition, MonthlyLimit, Positions, ReadError, Reader, Scope};
use crate::platform::secrets::master::KeyError;
use crate::platform::secrets::vault::{SecretOwner, Vault, VaultError};
use crate::platform::vitals::Vitals;

const BATCH: i64 = 2_000;
/// How long a retired secret is remembered, so that a refusal can say that it was used.
const RETIRED_FOR: chrono::Duration = chrono::Duration::days(7);
/// How many of them: each costs a digest of every body that is refused.
const RETIRED: usize = 4;
const POLL: Duration = Duration::from_millis(250);
/// How long one look may take, and the maximum age of the last successful one.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
const LONGEST_BLIND: Duration = Duration::from_secs(5);
/// Name in the node's vitals, which also report that the node is too old.
const NAME: &str = "directory";
const TOO_OLD: &str = "release";
const UNOPENED: &str = "secrets";
/// Interval of retries for secrets that cannot be opened, and how many of their owners are logged.
const TRY_AGAIN: Duration = Duration::from_secs(10);
const TOLD: usize = 5;

impl From<sqlx::Error> for DirectoryError {
    fn from(error: sqlx::Error) -> Self {
        Self::Read(error.into())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// The fold, and its position in the log.
pub struct DirectoryFollower {
    directory: Directory,
    reader: Reader,
    heads: Heads,
    vault: Vault,
    /// Epoch of the log in which all this is valid.
    epoch: Epoch,
    cursors: Vec<LogPosition>,
    /// Changed providers and destinations that are not in the directory yet.
    unpublished: HashSet<SecretOwner>,
    /// Providers that do not receive and destinations that get nothing, because one of their secrets cannot be
    /// opened.
    unopened: BTreeSet<SecretOwner>,
    tried: Instant,
    unjudged: Unjudged,
    vitals: Vitals,
    slugs: HashMap<OrganizationId, String>,
    providers: HashMap<ProviderId, (ProviderName, OrganizationId, Provider)>,
    destinations: HashMap<DestinationId, (OrganizationId, destination::Destination)>,
    routes: HashMap<RouteId, RouteState>,
    /// Routes of each provider, the oldest first.
    routes_of: HashMap<ProviderId, Vec<RouteId>>,
}

/// A route, and whether its provider's deletion ended it.
#[derive(Default)]
struct RouteState {
    route: Route,
    provider: ProviderId,
    has_ended: bool,
}

impl DirectoryFollower {
    #[must_use]
    pub fn new(directory: Directory, reader: Reader, heads: Heads, vault: Vault) -> Self {
        let cursors = Partition::all().map(|partition| LogPosition { partition, position: 0 }).collect();
        let epoch = heads.epoch();
        Self {
            directory,
            reader,
            heads,
            vault,
            epoch,
            cursors,
            unpublished: HashSet::new(),
            unopened: BTreeSet::new(),
            tried: Instant::now(),
            unjudged: Unjudged::default(),
            vitals: Vitals::default(),
            slugs: HashMap::new(),
            providers: HashMap::new(),
            destinations: HashMap::new(),
            routes: HashMap::new(),
            routes_of: HashMap::new(),
        }
    }

    /// Reports to `vitals` when the log cannot be read, and when this release is too old for it.
    #[must_use]
    pub fn watched(self, vitals: Vitals) -> Self {
        Self { vitals, ..self }
    }

    /// Reads the whole log once, and opens every secret. A secret that cannot be opened disables its
    /// provider.
    ///
    /// # Errors
    /// Fails if the log cannot be read, or if a master key is missing that this store requires: the server
    /// must not start.
    pub async fn load(&mut self) -> Result<(), DirectoryError> {
        while self.step(OnMissingKey::Fail).await? > 0 {}
        Ok(())
    }

    /// Follows until stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut wake = self.heads.wake(Scope::Administrative);
        let mut wanted = self.directory.wanted.subscribe();
        self.vitals.expect_looks(NAME, LONGEST_BLIND);
        while !stop.is_cancelled() {
            wanted.mark_unchanged();
            if self.tried.elapsed() >= TRY_AGAIN {
                // An expired secret is no longer needed, and a lost key may have been restored.
                self.tried = Instant::now();
                self.unpublished.extend(&self.unopened);
            }
            let looked = self.follow().await;
            if looked.is_ok() {
                self.vitals.seen(NAME);
            }
            match looked {
                Ok(0) => {
                    let sleep = async {
                        tokio::select! {
                            () = wake.wait(POLL) => {}
                            _ = wanted.changed() => {}
                        }
                    };
                    let _ = stop.run_until_cancelled(sleep).await;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "the directory could not follow the log; retrying");
                    let _ = stop.run_until_cancelled(tokio::time::sleep(POLL * 4)).await;
                }
            }
        }
        self.vitals.expect_no_looks(NAME);
    }

    async fn follow(&mut self) -> Result<usize, DirectoryError> {
        if self.heads.epoch() == self.epoch {
            return within(LOOK_LIMIT, self.step(OnMissingKey::Disable)).await;
        }
        // Builds a second directory; the current one is in force until everything is read.
        let (reader, heads, vault) = (self.reader.clone(), self.heads.clone(), self.vault.clone());
        let mut again = Self::new(Directory::default(), reader, heads, vault).watched(self.vitals.clone());
        self.vitals.fine(TOO_OLD);
        while within(LOOK_LIMIT, again.step(OnMissingKey::Disable)).await? > 0 {}
        self.directory.replace(&again.directory);
        let directory = self.directory.clone();
        *self = Self { directory, ..again };
        tracing::info!(log.epoch = %self.epoch, "read the directory again from the beginning of the log");
        Ok(0)
    }

    async fn step(&mut self, on_missing: OnMissingKey) -> Result<usize, DirectoryError> {
        // Taken before reading, so that everything up to it is read.
        let there = self.there().await?;
        let batch = self.reader.after(&self.cursors, Scope::Administrative, BATCH).await?;
        let mut counts = [0; PARTITIONS as usize];
        for recorded in &batch.events {
            self.fold(recorded);
            self.cursors[recorded.partition.index()].position = recorded.position;
            counts[recorded.partition.index()] += 1;
        }
        for broken in &batch.broken {
            self.pass_over(broken);
            self.cursors[broken.at.partition.index()].position = broken.at.position;
        }
        while let Some(changed) = self.unpublished.iter().next().copied() {
            match changed {
                SecretOwner::Provider(provider) => self.publish_provider(provider, on_missing).await?,
                SecretOwner::Destination(destination) => self.publish_destination(destination, on_missing).await?,
            }
            self.unpublished.remove(&changed);
        }
        for (cursor, (there, count)) in self.cursors.iter_mut().zip(there.iter().zip(counts)) {
            // The batch ends before an unknown event.
            let is_broken = batch.broken.iter().any(|broken| broken.at.partition == cursor.partition);
            if count < BATCH && !is_broken {
                cursor.position = cursor.position.max(*there);
            }
        }
        let cursors = &self.cursors;
        self.directory.looked.send_modify(|looked| {
            cursors.iter().for_each(|cursor| looked[cursor.partition.index()] = cursor.position);
        });
        Ok(batch.events.len() + batch.broken.len())
    }

    /// Handles an event that this release does not know. If it concerns an organization, a provider, a
    /// destination or a route, this node neither accepts from it nor sends to it. The other known aggregates do not concern the directory;
    /// unknown aggregates cannot be judged here.
    fn pass_over(&mut self, broken: &Broken) {
        let place = format!("{}:{}", broken.at.partition, broken.at.position);
        let id = broken.aggregate_id.parse::<uuid::Uuid>().ok();
        match broken.aggregate_type.as_str() {
            Organization::TYPE => {
                self.unjudged.organizations.insert(broken.organization);
                self.publish_all_of(broken.organization);
            }
            Provider::TYPE => {
                let id = id.map(|id| SecretOwner::Provider(ProviderId::new(id)));
                self.unjudged.owners.extend(id);
                self.unpublished.extend(id);
            }
            destination::Destination::TYPE => {
                let id = id.map(|id| SecretOwner::Destination(DestinationId::new(id)));
                self.unjudged.owners.extend(id);
                self.unpublished.extend(id);
            }
            // Nobody knows where its provider's webhooks go.
            Route::TYPE => {
                let route = id.and_then(|id| self.routes.get(&RouteId::new(id)));
                if let Some(provider) = route.map(|route| SecretOwner::Provider(route.provider)) {
                    self.unjudged.owners.insert(provider);
                    self.unpublished.insert(provider);
                } else {
                    self.unjudged.organizations.insert(broken.organization);
                    self.publish_all_of(broken.organization);
                }
            }
            known if Event::types().any(|(event, _)| event.split('.').next() == Some(known)) => {
                tracing::warn!(
                    log.place = place,
                    reason = broken.reason,
                    "the directory skips an event that it cannot decode"
                );
                return;
            }
            _ => {}
        }
        self.directory.is_too_old.store(true, Ordering::Relaxed);
        tracing::error!(
            log.place = place, reason = broken.reason, organization.id = %broken.organization,
            "this release is too old for the log; upgrade this node"
        );
        let sentence = format!("this release is too old for the log: {} at {place}; upgrade this node", broken.reason);
        self.vitals.trouble(TOO_OLD, sentence);
    }

    fn publish_all_of(&mut self, organization: OrganizationId) {
        let providers = self.providers.iter().filter(|(_, (_, of, _))| *of == organization);
        self.unpublished.extend(providers.map(|(id, _)| SecretOwner::Provider(*id)));
        let destinations = self.destinations.iter().filter(|(_, (of, _))| *of == organization);
        self.unpublished.extend(destinations.map(|(id, _)| SecretOwner::Destination(*id)));
    }

    /// The head of the log, and at least the position that somebody waits for, if the log reaches it. A
    /// position in a database that was replaced may never be reached.
    async fn there(&self) -> Result<Positions, ReadError> {
        let wanted = *self.directory.wanted.borrow();
        if wanted.iter().zip(self.heads.now()).any(|(wanted, head)| *wanted > head) {
            self.reader.refresh(&self.heads).await?;
        }
        Ok(self.heads.now())
    }

    fn fold(&mut self, recorded: &RecordedEvent) {
        match &recorded.event {
            Event::Organization(event) => self.fold_organization(recorded, event),
            Event::Provider(event) => {
                let id = ProviderId::new(recorded.aggregate_id);
                if !id.belongs_to(recorded.organization) {
                    tracing::error!(provider.id = %id, "the log has events of one provider in two organizations");
                    return;
                }
                if let ProviderEvent::Connected { provider_name, .. } = event {
                    let new = || (*provider_name, recorded.organization, Provider::default());
                    self.providers.entry(id).or_insert_with(new);
                }
                if let Some((_, _, provider)) = self.providers.get_mut(&id) {
                    provider.evolve(event);
                    self.unpublished.insert(SecretOwner::Provider(id));
                    // Their secrets are read again with its own.
                    let to = self.routes(id).into_iter().map(|route| SecretOwner::Destination(route.destination));
                    self.unpublished.extend(to);
                }
                if *event == (ProviderEvent::Deleted {}) {
                    self.end_routes_of(id);
                }
            }
            Event::Destination(event) => self.fold_destination(recorded, event),
            Event::Route(event) => self.fold_route(recorded, event),
            Event::User(_)
            | Event::EmailClaim(_)
            | Event::Team(_)
            | Event::Retention(_)
            | Event::Access(_)
            | Event::Webhook(_)
            | Event::Delivery(_)
            | Event::Usage(_) => {}
        }
    }

    fn fold_destination(&mut self, recorded: &RecordedEvent, event: &DestinationEvent) {
        let id = DestinationId::new(recorded.aggregate_id);
        let new = || (recorded.organization, destination::Destination::default());
        let (organization, destination) = self.destinations.entry(id).or_insert_with(new);
        if *organization != recorded.organization {
            tracing::error!(destination.id = %id, "the log has events of one destination in two organizations");
            return;
        }
        destination.evolve(event);
        self.unpublished.insert(SecretOwner::Destination(id));
    }

    fn fold_route(&mut self, recorded: &RecordedEvent, event: &RouteEvent) {
        let id = RouteId::new(recorded.aggregate_id);
        if let RouteEvent::Set { settings, .. } = event {
            if !settings.provider_id.belongs_to(recorded.organization) {
                tracing::error!(route.id = %id, "a route leads from another organization's provider");
                return;
            }
            let state = self.routes.entry(id).or_default();
            (state.provider, state.has_ended) = (settings.provider_id, false);
            let routes = self.routes_of.entry(settings.provider_id).or_default();
            if !routes.contains(&id) {
                routes.push(id);
            }
        }
        let Some(state) = self.routes.get_mut(&id) else { return };
        state.route.evolve(event);
        let provider = state.provider;
        self.publish_way(id);
        self.unpublished.insert(SecretOwner::Provider(provider));
    }

    fn end_routes_of(&mut self, provider: ProviderId) {
        for id in self.routes_of.get(&provider).cloned().unwrap_or_default() {
            if let Some(state) = self.routes.get_mut(&id) {
                state.has_ended = true;
            }
            self.publish_way(id);
        }
    }

    fn publish_way(&self, id: RouteId) {
        let Some(state) = self.routes.get(&id) else { return };
        let is_deleted = state.has_ended || state.route.settings().is_none();
        let way = Way { provider: state.provider, is_enabled: state.route.is_enabled(), is_deleted };
        self.directory.put_way(id, way);
    }

    /// The routes of a provider that webhooks may go by.
    fn routes(&self, provider: ProviderId) -> Vec<RouteEntry> {
        let ids = self.routes_of.get(&provider).into_iter().flatten();
        let entry = |id: &RouteId| {
            let state = self.routes.get(id).filter(|state| !state.has_ended)?;
            let (version, is_enabled) = (state.route.version(), state.route.is_enabled());
            let destination = state.route.settings()?.destination_id;
            Some(RouteEntry { id: *id, version, destination, is_enabled })
        };
        ids.filter_map(entry).collect()
    }

    fn fold_organization(&mut self, recorded: &RecordedEvent, event: &OrganizationEvent) {
        let id = recorded.organization;
        if let OrganizationEvent::Created { slug, .. } = event {
            self.slugs.insert(id, slug.clone());
        }
        let Some(slug) = self.slugs.get(&id) else { return };
        match event {
            OrganizationEvent::Created { webhook_limit, .. } => {
                // Nothing was received before it, so there is nothing to count.
                let since = DateTime::UNIX_EPOCH;
                let limit = webhook_limit.map(|allowed| MonthlyLimit { allowed, since });
                self.directory.change(slug, |organization| organization.limit = limit);
            }
            OrganizationEvent::PlanChanged { webhook_limit, plan: _ } => {
                self.directory.change(slug, |organization| {
                    let since = organization.limit.map_or(recorded.recorded_at, |limit| limit.since);
                    organization.limit = webhook_limit.map(|allowed| MonthlyLimit { allowed, since });
                });
            }
            OrganizationEvent::Activated {} => {
                self.directory.change(slug, |organization| organization.is_active = true);
            }
            OrganizationEvent::Deactivated {} => {
                self.directory.change(slug, |organization| organization.is_active = false);
            }
            OrganizationEvent::Renamed { .. } => {}
        }
    }

    async fn publish_provider(&mut self, id: ProviderId, on_missing: OnMissingKey) -> Result<(), DirectoryError> {
        let Some((name, organization, provider)) = self.providers.get(&id) else { return Ok(()) };
        let Some(slug) = self.slugs.get(organization) else { return Ok(()) };
        let owner = SecretOwner::Provider(id);
        let secrets = self.opened(*organization, owner, provider.secrets(), on_missing).await?;
        let is_unopened = provider.is_connected() && self.is_judged(*organization, owner) && secrets.is_none();
        let connection = ConnectionId::new(id, provider.generation());
        let routes = self.routes(id);
        let entry = ProviderEntry { id, connection, name: *name, is_active: provider.is_active(), secrets, routes };
        self.directory.put_provider(slug, provider, entry);
        self.tell(owner, is_unopened);
        Ok(())
    }

    async fn publish_destination(&mut self, id: DestinationId, on_missing: OnMissingKey) -> Result<(), DirectoryError> {
        let Some((organization, state)) = self.destinations.get(&id) else { return Ok(()) };
        let (organization, owner) = (*organization, SecretOwner::Destination(id));
        let destination = match state.settings() {
            Some(settings) => Some(self.destination(organization, owner, state, settings, on_missing).await?),
            None => None,
        };
        let is_unopened = destination.as_ref().is_some_and(|to| to.secrets.is_none());
        self.directory.put_destination(id, destination);
        self.tell(owner, is_unopened && self.is_judged(organization, owner));
        Ok(())
    }

    fn is_judged(&self, organization: OrganizationId, owner: SecretOwner) -> bool {
        !self.unjudged.organizations.contains(&organization) && !self.unjudged.owners.contains(&owner)
    }

    /// Notes for the operator whether all secrets of an owner can be opened.
    fn tell(&mut self, id: SecretOwner, is_unopened: bool) {
        let has_changed = if is_unopened { self.unopened.insert(id) } else { self.unopened.remove(&id) };
        if !has_changed {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "for a graph")]
        metrics::gauge!("hookledger_secrets_unopened").set(self.unopened.len() as f64);
        if self.unopened.is_empty() {
            self.vitals.unwarn(UNOPENED);
            return;
        }
        let ids: Vec<String> = self.unopened.iter().take(TOLD).map(ToString::to_string).collect();
        let more = if self.unopened.len() > TOLD { ", …" } else { "" };
        let sentence = format!(
            "a secret cannot be opened: set new ones for {}{more}; until then nothing is received or delivered there",
            ids.join(", ")
        );
        self.vitals.warn(UNOPENED, sentence);
    }

    async fn destination(
        &self,
        organization: OrganizationId,
        owner: SecretOwner,
        state: &destination::Destination,
        settings: &DestinationSettings,
        on_missing: OnMissingKey,
    ) -> Result<Destination, DirectoryError> {
        let mut secrets = self.opened(organization, owner, state.outgoing(), on_missing).await?;
        let mut headers = HeaderMap::new();
        if let Some(SecretRef { secret_id, secret_version }) = settings.headers {
            let version = SecretState { id: secret_id, expires_at: None };
            let versions = BTreeMap::from([(secret_version, version)]);
            match self.opened(organization, owner, &versions, on_missing).await?.as_deref() {
                Some([values]) => headers = header_map(&values.value),
                // Nothing is sent without its credentials.
                _ => secrets = None,
            }
        }
        Ok(Destination {
            url: settings.url.clone(),
            timeout: settings.timeout_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            concurrency: settings.concurrency,
            headers,
            original_signature: settings.original_signature,
            secrets,
        })
    }

    /// The opened secrets, or `None` if one cannot be opened and that is no reason to stop.
    async fn opened(
        &self,
        organization: OrganizationId,
        owner: SecretOwner,
        secrets: &BTreeMap<u32, SecretState>,
        on_missing: OnMissingKey,
    ) -> Result<Option<Vec<SigningSecret>>, DirectoryError> {
        if !self.is_judged(organization, owner) {
            return Ok(None);
        }
        match self.open(organization, owner, secrets).await {
            Ok(secrets) => Ok(Some(secrets)),
            Err(error @ VaultError::Database(_)) => Err(error.into()),
            Err(VaultError::Key(KeyError::Missing(key)))
                if on_missing == OnMissingKey::Fail && self.vault.knows_key(&key).await? =>
            {
                Err(VaultError::Key(KeyError::Missing(key)).into())
            }
            Err(error) => {
                if !self.unopened.contains(&owner) {
                    let slug = self.slugs.get(&organization);
                    tracing::error!(
                        %error, secret.owner = %owner, organization.slug = slug,
                        "a secret cannot be opened, so its provider receives nothing, or its destination gets nothing; \
                         restore the master key or set new secrets"
                    );
                }
                Ok(None)
            }
        }
    }

    async fn open(
        &self,
        organization: OrganizationId,
        owner: SecretOwner,
        secrets: &BTreeMap<u32, SecretState>,
    ) -> Result<Vec<SigningSecret>, VaultError> {
        let (mut opened, mut retired) = (Vec::new(), 0);
        // Newest first, because most requests are signed with it.
        for (version, secret) in secrets.iter().rev() {
            // A recently retired secret verifies nothing but explains a failure, so it may be missing.
            let now = chrono::Utc::now();
            if secret.expires_at.is_some_and(|at| at + RETIRED_FOR <= now) {
                continue;
            }
            let is_retired = secret.expires_at.is_some_and(|at| at <= now);
            retired += usize::from(is_retired);
            if is_retired && retired > RETIRED {
                continue;
            }
            let value = match self.vault.open(organization, owner, *version, secret.id).await {
                Err(VaultError::Key(_) | VaultError::Absent(_)) if is_retired => continue,
                value => value?,
            };
            opened.push(SigningSecret { version: *version, value, expires_at: secret.expires_at });
        }
        Ok(opened)
    }
}

/// Decodes sealed headers: a JSON object of names and values, checked when they were set.
fn header_map(sealed: &SecretSlice<u8>) -> HeaderMap {
    let pairs: BTreeMap<String, String> = serde_json::from_slice(sealed.expose_secret()).unwrap_or_default();
    let header = |(name, value): (String, String)| {
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
    };
    pairs.into_iter().filter_map(header).collect()
}

/// Organizations, providers and destinations with events that this release does not know.
#[derive(Default)]
struct Unjudged {
    organizations: HashSet<OrganizationId>,
    owners: HashSet<SecretOwner>,
}

/// How to treat a secret whose master key this store requires but this node does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnMissingKey {
    Fail,
    Disable,
}
