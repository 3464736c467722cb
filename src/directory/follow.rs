//! Keeping the directory current: every node follows for itself, from the beginning of the log.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::DateTime;
use cqrs_es::Aggregate as _;
use hookledger_aggregates::ids::PARTITIONS;
use hookledger_aggregates::organization::{Organization, OrganizationEvent};
use hookledger_aggregates::provider::{self, Provider, ProviderEvent, SecretRef, SecretState};
use hookledger_aggregates::signature::SigningSecret;
use hookledger_aggregates::{ConnectionId, Event, OrganizationId, Partition, ProviderId, ProviderName, RecordedEvent};
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretSlice};
use tokio_util::sync::CancellationToken;

use super::{Destination, Directory, ProviderEntry};
use crate::follow::within;
use crate::log::{Broken, Heads, LogPosition, MonthlyLimit, Positions, ReadError, Reader, Scope};
use crate::secrets::vault::{Vault, VaultError};
use crate::vitals::Vitals;

const BATCH: i64 = 2_000;
/// How long a retired secret is known, so that a refusal can say that it was used.
const RETIRED_FOR: chrono::Duration = chrono::Duration::days(7);
const POLL: Duration = Duration::from_millis(250);
/// How long one look may take, and how long ago the last good one may be.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
const LONGEST_BLIND: Duration = Duration::from_secs(5);
/// Under this name the node's vitals miss it, and say that the node is too old.
const NAME: &str = "directory";
const TOO_OLD: &str = "release";

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

/// The fold, and how far it has come.
pub struct DirectoryFollower {
    directory: Directory,
    reader: Reader,
    heads: Heads,
    vault: Vault,
    cursors: Vec<LogPosition>,
    /// Providers that changed and are not in the directory yet.
    unpublished: HashSet<ProviderId>,
    unjudged: Unjudged,
    vitals: Vitals,
    slugs: HashMap<OrganizationId, String>,
    providers: HashMap<ProviderId, (ProviderName, OrganizationId, Provider)>,
}

impl DirectoryFollower {
    #[must_use]
    pub fn new(directory: Directory, reader: Reader, heads: Heads, vault: Vault) -> Self {
        let cursors = Partition::all().map(|partition| LogPosition { partition, position: 0 }).collect();
        Self {
            directory,
            reader,
            heads,
            vault,
            cursors,
            unpublished: HashSet::new(),
            unjudged: Unjudged::default(),
            vitals: Vitals::default(),
            slugs: HashMap::new(),
            providers: HashMap::new(),
        }
    }

    /// Told there when the log cannot be read, and when this release is too old for it.
    #[must_use]
    pub fn watched(self, vitals: Vitals) -> Self {
        Self { vitals, ..self }
    }

    /// Reads everything there is, once, and opens every secret.
    ///
    /// # Errors
    /// When the log cannot be read, or a secret not be opened: then the keys are wrong, and the
    /// server must not start.
    pub async fn load(&mut self) -> Result<(), DirectoryError> {
        while self.step(OnUnopened::Fail).await? > 0 {}
        Ok(())
    }

    /// Follows until stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut wake = self.heads.wake(Scope::Administrative);
        let mut wanted = self.directory.wanted.subscribe();
        self.vitals.expect_looks(NAME, LONGEST_BLIND);
        while !stop.is_cancelled() {
            wanted.mark_unchanged();
            let looked = within(LOOK_LIMIT, self.step(OnUnopened::Disable)).await;
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
                    tracing::error!(%error, "the directory cannot follow the log; trying again");
                    let _ = stop.run_until_cancelled(tokio::time::sleep(POLL * 4)).await;
                }
            }
        }
        self.vitals.expect_no_looks(NAME);
    }

    async fn step(&mut self, on_unopened: OnUnopened) -> Result<usize, DirectoryError> {
        // In the log before it is read, so what is read holds everything up to there.
        let there = self.there();
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
        while let Some(provider) = self.unpublished.iter().next().copied() {
            self.publish(provider, on_unopened).await?;
            self.unpublished.remove(&provider);
        }
        for (cursor, (there, count)) in self.cursors.iter_mut().zip(there.iter().zip(counts)) {
            // What follows an event that is not known is not in the batch.
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

    /// An event that this release does not know. What it says of an organization or a provider cannot be
    /// judged, so nothing is accepted from there or sent there on this node. The other aggregates that
    /// this release knows say nothing to the directory. What others say nobody here can know.
    fn pass_over(&mut self, broken: &Broken) {
        let place = format!("{}:{}", broken.at.partition, broken.at.position);
        let id = broken.aggregate_id.parse::<uuid::Uuid>().ok();
        match broken.aggregate_type.as_str() {
            Organization::TYPE => {
                self.unjudged.organizations.insert(broken.organization);
                let of_organization =
                    |(_, (_, organization, _)): &(_, &(_, OrganizationId, _))| *organization == broken.organization;
                self.unpublished.extend(self.providers.iter().filter(of_organization).map(|(id, _)| *id));
            }
            Provider::TYPE => {
                let id = id.map(ProviderId::new);
                self.unjudged.providers.extend(id);
                self.unpublished.extend(id);
            }
            known if Event::types().any(|(event, _)| event.split('.').next() == Some(known)) => {
                tracing::warn!(log.place = place, reason = broken.reason, "the directory passes over an event");
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

    /// How far the log goes, as far as anybody on this node knows.
    fn there(&self) -> Positions {
        let (heads, wanted) = (self.heads.now(), *self.directory.wanted.borrow());
        std::array::from_fn(|index| heads[index].max(wanted[index]))
    }

    fn fold(&mut self, recorded: &RecordedEvent) {
        match &recorded.event {
            Event::Organization(event) => self.fold_organization(recorded, event),
            Event::Provider(event) => {
                let id = ProviderId::new(recorded.aggregate_id);
                if !id.belongs_to(recorded.organization) {
                    tracing::error!(provider.id = %id, "the log tells of a provider under a foreign organization");
                    return;
                }
                if let ProviderEvent::Connected { provider_name, .. } = event {
                    let new = || (*provider_name, recorded.organization, Provider::default());
                    self.providers.entry(id).or_insert_with(new);
                }
                if let Some((_, _, provider)) = self.providers.get_mut(&id) {
                    provider.evolve(event);
                    self.unpublished.insert(id);
                }
            }
            Event::User(_)
            | Event::EmailClaim(_)
            | Event::Team(_)
            | Event::Retention(_)
            | Event::Access(_)
            | Event::Webhook(_)
            | Event::Usage(_) => {}
        }
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

    async fn publish(&self, id: ProviderId, on_unopened: OnUnopened) -> Result<(), DirectoryError> {
        let Some((name, organization, provider)) = self.providers.get(&id) else { return Ok(()) };
        let Some(slug) = self.slugs.get(organization) else { return Ok(()) };
        let secrets = self.opened(*organization, id, provider.secrets(), on_unopened).await?;
        let destination = match provider.destination() {
            Some(destination) => Some(self.destination(*organization, id, provider, destination, on_unopened).await?),
            None => None,
        };
        let connection = ConnectionId::new(id, provider.generation());
        let entry =
            ProviderEntry { id, connection, name: *name, is_active: provider.is_active(), secrets, destination };
        self.directory.put_provider(slug, provider, entry);
        Ok(())
    }

    async fn destination(
        &self,
        organization: OrganizationId,
        id: ProviderId,
        provider: &Provider,
        destination: &provider::Destination,
        on_unopened: OnUnopened,
    ) -> Result<Arc<Destination>, DirectoryError> {
        let mut secrets = self.opened(organization, id, provider.outgoing(), on_unopened).await?;
        let mut headers = HeaderMap::new();
        if let Some(SecretRef { secret_id, secret_version }) = destination.headers {
            let state = SecretState { id: secret_id, expires_at: None };
            let sealed = self.opened(organization, id, &BTreeMap::from([(secret_version, state)]), on_unopened).await?;
            match sealed.as_deref() {
                Some([values]) => headers = header_map(&values.value),
                // Without its credentials nothing is sent.
                _ => secrets = None,
            }
        }
        Ok(Arc::new(Destination {
            url: destination.url.clone(),
            timeout: destination.timeout_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            concurrency: destination.concurrency,
            headers,
            secrets,
        }))
    }

    /// Opened secrets, or nothing where one cannot be opened and that is not a reason to stop.
    async fn opened(
        &self,
        organization: OrganizationId,
        id: ProviderId,
        secrets: &BTreeMap<u32, SecretState>,
        on_unopened: OnUnopened,
    ) -> Result<Option<Vec<SigningSecret>>, DirectoryError> {
        if self.unjudged.organizations.contains(&organization) || self.unjudged.providers.contains(&id) {
            return Ok(None);
        }
        match self.open(organization, id, secrets).await {
            Ok(secrets) => Ok(Some(secrets)),
            Err(error @ VaultError::Database(_)) => Err(error.into()),
            Err(error) if on_unopened == OnUnopened::Fail => Err(error.into()),
            Err(error) => {
                tracing::error!(%error, provider.id = %id, "a provider's secrets cannot be opened");
                Ok(None)
            }
        }
    }

    async fn open(
        &self,
        organization: OrganizationId,
        id: ProviderId,
        secrets: &BTreeMap<u32, SecretState>,
    ) -> Result<Vec<SigningSecret>, VaultError> {
        let mut opened = Vec::new();
        // Newest first: it is the one that most requests are signed with.
        for (version, secret) in secrets.iter().rev() {
            // One that was retired lately verifies nothing, but tells why.
            if secret.expires_at.is_some_and(|at| at + RETIRED_FOR <= chrono::Utc::now()) {
                continue;
            }
            let value = self.vault.open(organization, id, *version, secret.id).await?;
            opened.push(SigningSecret { version: *version, value, expires_at: secret.expires_at });
        }
        Ok(opened)
    }
}

/// Headers as they were sealed: a JSON object of names and values, checked when they were set.
fn header_map(sealed: &SecretSlice<u8>) -> HeaderMap {
    let pairs: BTreeMap<String, String> = serde_json::from_slice(sealed.expose_secret()).unwrap_or_default();
    let header = |(name, value): (String, String)| {
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
    };
    pairs.into_iter().filter_map(header).collect()
}

/// Who has events that this release does not know.
#[derive(Default)]
struct Unjudged {
    organizations: HashSet<OrganizationId>,
    providers: HashSet<ProviderId>,
}

/// What to do about a secret that cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnUnopened {
    Fail,
    Disable,
}
