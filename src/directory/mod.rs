//! The directory: organizations, providers and their opened secrets, in memory on every node.
//!
//! It is a fold of the log's administrative events, kept current by following them, so that the
//! path of an answer asks the database nothing before it appends. A change is in force on every
//! node within a second.

mod follow;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use hookledger_aggregates::ids::PARTITIONS;
use hookledger_aggregates::provider::Provider;
use hookledger_aggregates::signature::SigningSecret;
use hookledger_aggregates::{ConnectionId, OrganizationId, Partition, ProviderId, ProviderName};
use tokio::sync::watch;

use crate::log::{LogPosition, MonthlyLimit, Positions};

pub use follow::{DirectoryError, DirectoryFollower};

/// One provider as receiving needs it.
#[derive(Debug)]
pub struct ProviderEntry {
    pub id: ProviderId,
    /// Which sender it is now: connected anew, it is another.
    pub connection: ConnectionId,
    pub name: ProviderName,
    pub is_active: bool,
    /// Opened secrets; nothing where one could not be opened, and then nothing can be verified.
    pub secrets: Option<Vec<SigningSecret>>,
    /// Where its webhooks are forwarded to, where anywhere.
    pub destination: Option<Arc<Destination>>,
}

/// A destination as delivering needs it.
#[derive(Debug)]
pub struct Destination {
    pub url: String,
    /// Nothing: the deployment's own.
    pub timeout: Option<Duration>,
    /// Attempts at the same time, per node.
    pub concurrency: u32,
    /// Headers that deliveries carry besides; values are marked as sensitive.
    pub headers: http::HeaderMap,
    /// Secrets that sign, the newest first; nothing where one could not be opened, and then nothing
    /// is sent.
    pub secrets: Option<Vec<SigningSecret>>,
}

/// One organization as receiving needs it.
#[derive(Clone, Debug)]
pub struct OrganizationEntry {
    pub id: OrganizationId,
    pub is_active: bool,
    /// How many webhooks it may have in a month; nothing where it may have any number.
    pub limit: Option<MonthlyLimit>,
    providers: HashMap<ProviderName, Arc<ProviderEntry>>,
}

/// An organization's endpoint for one provider.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub organization: OrganizationId,
    pub organization_is_active: bool,
    pub limit: Option<MonthlyLimit>,
    pub provider: Arc<ProviderEntry>,
}

/// Destinations by their providers, and which service each is.
type Destinations = HashMap<ProviderId, (ProviderName, Arc<Destination>)>;

/// Shared, current knowledge of who may send what where.
#[derive(Clone, Debug)]
pub struct Directory {
    organizations: Arc<RwLock<HashMap<String, OrganizationEntry>>>,
    /// Destinations by their providers, for those who know a webhook and not its URL.
    destinations: Arc<RwLock<Destinations>>,
    /// Up to where each partition was looked through.
    looked: watch::Sender<Positions>,
    /// Places of the log that somebody waits for.
    wanted: watch::Sender<Positions>,
    is_too_old: Arc<AtomicBool>,
}

impl Default for Directory {
    fn default() -> Self {
        let start = || watch::Sender::new([0; PARTITIONS as usize]);
        Self {
            organizations: Arc::default(),
            destinations: Arc::default(),
            looked: start(),
            wanted: start(),
            is_too_old: Arc::default(),
        }
    }
}

impl Directory {
    /// The endpoint at `/webhooks/{slug}/{provider}`, if there is one.
    #[must_use]
    pub fn endpoint(&self, slug: &str, provider: ProviderName) -> Option<Endpoint> {
        let organizations = self.organizations.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let organization = organizations.get(slug)?;
        let provider = Arc::clone(organization.providers.get(&provider)?);
        Some(Endpoint {
            organization: organization.id,
            organization_is_active: organization.is_active,
            limit: organization.limit,
            provider,
        })
    }

    /// The endpoint of a provider, if it is connected.
    #[must_use]
    pub fn endpoint_of(&self, organization: OrganizationId, provider: ProviderId) -> Option<Endpoint> {
        let slug = {
            let organizations = self.organizations.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            organizations.iter().find(|(_, entry)| entry.id == organization).map(|(slug, _)| slug.clone())?
        };
        let name = ProviderName::ALL.into_iter().find(|name| ProviderId::derive(organization, *name) == provider)?;
        self.endpoint(&slug, name)
    }

    /// Where a provider's webhooks are forwarded to; nothing where recording them is the processing.
    #[must_use]
    pub fn destination(&self, provider: ProviderId) -> Option<Arc<Destination>> {
        let destinations = self.destinations.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        destinations.get(&provider).map(|(_, destination)| Arc::clone(destination))
    }

    /// Which service a provider with a destination is.
    #[must_use]
    pub fn provider_name(&self, provider: ProviderId) -> Option<ProviderName> {
        let destinations = self.destinations.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        destinations.get(&provider).map(|(name, _)| *name)
    }

    /// Whether the log says something that this release does not understand, of an endpoint perhaps that it
    /// does not know.
    #[must_use]
    pub fn is_too_old(&self) -> bool {
        self.is_too_old.load(Ordering::Relaxed)
    }

    /// How far this node has looked: the directory holds every change up to that position of the partition.
    #[must_use]
    pub fn looked_to(&self, partition: Partition) -> i64 {
        self.looked.borrow()[partition.index()]
    }

    /// Waits until this node has looked up to `place`, which is in the log; the caller sets the limit.
    pub async fn wait_for(&self, place: LogPosition) {
        let index = place.partition.index();
        let mut looked = self.looked.subscribe();
        if looked.borrow_and_update()[index] >= place.position {
            return;
        }
        // The next look comes at once.
        self.wanted.send_if_modified(|wanted| {
            let is_new = wanted[index] < place.position;
            wanted[index] = wanted[index].max(place.position);
            is_new
        });
        // The sender lives as long as the directory.
        let _ = looked.wait_for(|looked| looked[index] >= place.position).await;
    }

    fn change(&self, slug: &str, change: impl FnOnce(&mut OrganizationEntry)) {
        let mut organizations = self.organizations.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let id = OrganizationId::from_slug(slug);
        let new = || OrganizationEntry { id, is_active: true, limit: None, providers: HashMap::new() };
        change(organizations.entry(slug.to_owned()).or_insert_with(new));
    }

    fn put_provider(&self, slug: &str, provider: &Provider, entry: ProviderEntry) {
        let mut destinations = self.destinations.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &entry.destination {
            Some(destination) => drop(destinations.insert(entry.id, (entry.name, Arc::clone(destination)))),
            None => drop(destinations.remove(&entry.id)),
        }
        drop(destinations);
        self.change(slug, |organization| {
            if provider.is_connected() {
                organization.providers.insert(entry.name, Arc::new(entry));
            } else {
                organization.providers.remove(&entry.name);
            }
        });
    }
}
