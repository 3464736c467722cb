//! The directory: organizations, providers and their opened secrets, in memory on every node.
//!
//! It is a fold of the log's administrative events, kept current by following them, so that answering a
//! webhook needs no query before its append. A change is in force on every node within a second.

mod follow;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hookledger_aggregates::destination::DestinationEvent;
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::ids::PARTITIONS;
use hookledger_aggregates::organization::OrganizationEvent;
use hookledger_aggregates::provider::{Provider, ProviderEvent};
use hookledger_aggregates::route::RouteEvent;
use hookledger_aggregates::routing::{Match, Unmatched, UnmatchedReason};
use hookledger_aggregates::signature::SigningSecret;
use hookledger_aggregates::user::UserEvent;
use hookledger_aggregates::{
    ConnectionId, DeliveryId, DestinationId, OrganizationId, Partition, ProviderId, ProviderName, RouteId, Routing,
    WebhookId,
};
use tokio::sync::watch;

use crate::log::{LogPosition, MonthlyLimit, Positions};

pub use follow::{DirectoryError, DirectoryFollower};

/// Aggregates that it is built from.
pub const HOLDS: [&str; 5] = [
    OrganizationEvent::AGGREGATE,
    ProviderEvent::AGGREGATE,
    DestinationEvent::AGGREGATE,
    RouteEvent::AGGREGATE,
    UserEvent::AGGREGATE,
];

/// A provider, as receiving needs it.
#[derive(Debug)]
pub struct ProviderEntry {
    pub id: ProviderId,
    /// The current connection; it changes when the provider is deleted and connected again.
    pub connection: ConnectionId,
    pub name: ProviderName,
    pub is_active: bool,
    /// Opened secrets; `None` if one could not be opened, so that nothing can be verified.
    pub secrets: Option<Vec<SigningSecret>>,
    /// Where its webhooks go, the oldest route first.
    pub routes: Vec<RouteEntry>,
}

impl ProviderEntry {
    /// Where a webhook goes that it sends now.
    #[must_use]
    pub fn routing(&self, webhook: WebhookId) -> Routing {
        let mut routing = Routing::default();
        for RouteEntry { id: route_id, version, destination: destination_id, is_enabled } in self.routes.iter().copied()
        {
            if is_enabled {
                let delivery_id = DeliveryId::derive(webhook, route_id);
                routing.matched.push(Match { delivery_id, route_id, version, destination_id });
            } else {
                let reason = UnmatchedReason::RouteDisabled;
                routing.unmatched.push(Unmatched { route_id, version, reason });
            }
        }
        routing
    }
}

/// A route, as receiving needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    pub id: RouteId,
    pub version: u32,
    pub destination: DestinationId,
    pub is_enabled: bool,
}

/// A destination, as delivering needs it.
#[derive(Debug)]
pub struct Destination {
    pub url: String,
    /// `None` for the deployment's default.
    pub timeout: Option<Duration>,
    /// Concurrent attempts per node.
    pub concurrency: u32,
    /// Additional headers of deliveries; values are marked as sensitive.
    pub headers: http::HeaderMap,
    /// Whether deliveries include the sender's signature.
    pub original_signature: bool,
    /// Signing secrets, the newest first; `None` if one could not be opened, so that nothing is sent.
    pub secrets: Option<Vec<SigningSecret>>,
}

/// An organization, as receiving needs it.
#[derive(Clone, Debug)]
pub struct OrganizationEntry {
    pub id: OrganizationId,
    pub is_active: bool,
    /// Monthly limit of webhooks; `None` for unlimited.
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
    /// Its webhooks come from people who test the provider; they are marked and kept apart from the sender's.
    pub is_for_tests: bool,
}

/// Whether what was routed can be delivered now.
#[derive(Clone, Debug)]
pub enum Standing {
    Ready(Arc<Destination>),
    Held(Hold),
}

/// Why deliveries are held until a person acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    DestinationRemoved,
    RouteRemoved,
    RouteDisabled,
    ProviderDeleted,
    ProviderDisabled,
    OrganizationDisabled,
    /// A secret cannot be opened, or this release does not understand one of the events.
    SecretUnreadable,
}

impl Hold {
    pub const ALL: [Self; 7] = [
        Self::DestinationRemoved,
        Self::RouteRemoved,
        Self::RouteDisabled,
        Self::ProviderDeleted,
        Self::ProviderDisabled,
        Self::OrganizationDisabled,
        Self::SecretUnreadable,
    ];

    /// Its name in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DestinationRemoved => "destination_removed",
            Self::RouteRemoved => "route_removed",
            Self::RouteDisabled => "route_disabled",
            Self::ProviderDeleted => "provider_deleted",
            Self::ProviderDisabled => "provider_disabled",
            Self::OrganizationDisabled => "organization_disabled",
            Self::SecretUnreadable => "secret_unreadable",
        }
    }
}

/// A provider by its ID, for code that has a webhook but not its URL.
#[derive(Clone, Debug)]
struct Sender {
    organization: OrganizationId,
    name: ProviderName,
    is_connected: bool,
    is_active: bool,
}

/// A route, as delivering needs it.
#[derive(Clone, Copy, Debug)]
struct Way {
    provider: ProviderId,
    is_enabled: bool,
    is_deleted: bool,
}

/// Shared, current knowledge of providers, organizations and destinations.
#[derive(Clone, Debug)]
pub struct Directory {
    organizations: Arc<RwLock<HashMap<String, OrganizationEntry>>>,
    senders: Arc<RwLock<HashMap<ProviderId, Sender>>>,
    ways: Arc<RwLock<HashMap<RouteId, Way>>>,
    destinations: Arc<RwLock<HashMap<DestinationId, Arc<Destination>>>>,
    disabled: Arc<RwLock<HashSet<OrganizationId>>>,
    /// The position up to which each partition was read.
    looked: watch::Sender<Positions>,
    /// Log positions that somebody waits for.
    wanted: watch::Sender<Positions>,
    is_too_old: Arc<AtomicBool>,
}

impl Default for Directory {
    fn default() -> Self {
        let start = || watch::Sender::new([0; PARTITIONS as usize]);
        Self {
            organizations: Arc::default(),
            senders: Arc::default(),
            ways: Arc::default(),
            destinations: Arc::default(),
            disabled: Arc::default(),
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
        let organizations = self.organizations.read().unwrap_or_else(PoisonError::into_inner);
        let organization = organizations.get(slug)?;
        let provider = Arc::clone(organization.providers.get(&provider)?);
        Some(Endpoint {
            organization: organization.id,
            organization_is_active: organization.is_active,
            limit: organization.limit,
            provider,
            is_for_tests: false,
        })
    }

    /// The endpoint of a provider, if it is connected.
    #[must_use]
    pub fn endpoint_of(&self, organization: OrganizationId, provider: ProviderId) -> Option<Endpoint> {
        let slug = {
            let organizations = self.organizations.read().unwrap_or_else(PoisonError::into_inner);
            organizations.iter().find(|(_, entry)| entry.id == organization).map(|(slug, _)| slug.clone())?
        };
        let name = ProviderName::ALL.into_iter().find(|name| ProviderId::derive(organization, *name) == provider)?;
        self.endpoint(&slug, name)
    }

    /// Whether what was routed that way can be delivered to that destination now.
    #[must_use]
    pub fn standing(&self, route: RouteId, destination: DestinationId) -> Standing {
        let destinations = self.destinations.read().unwrap_or_else(PoisonError::into_inner);
        let destination = destinations.get(&destination);
        let ways = self.ways.read().unwrap_or_else(PoisonError::into_inner);
        let Some(way) = ways.get(&route) else { return Standing::Held(Hold::RouteRemoved) };
        let senders = self.senders.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = senders.get(&way.provider).filter(|sender| sender.is_connected) else {
            return Standing::Held(Hold::ProviderDeleted);
        };
        let disabled = self.disabled.read().unwrap_or_else(PoisonError::into_inner);
        match destination {
            _ if disabled.contains(&sender.organization) => Standing::Held(Hold::OrganizationDisabled),
            _ if !sender.is_active => Standing::Held(Hold::ProviderDisabled),
            None => Standing::Held(Hold::DestinationRemoved),
            _ if way.is_deleted => Standing::Held(Hold::RouteRemoved),
            _ if !way.is_enabled => Standing::Held(Hold::RouteDisabled),
            Some(destination) if destination.secrets.is_none() => Standing::Held(Hold::SecretUnreadable),
            Some(destination) => Standing::Ready(Arc::clone(destination)),
        }
    }

    /// The service whose webhooks go by a route.
    #[must_use]
    pub fn provider_name(&self, route: RouteId) -> Option<ProviderName> {
        let provider = self.ways.read().unwrap_or_else(PoisonError::into_inner).get(&route)?.provider;
        let senders = self.senders.read().unwrap_or_else(PoisonError::into_inner);
        senders.get(&provider).map(|sender| sender.name)
    }

    /// Whether the log has events that this release does not understand, perhaps of an endpoint that it does
    /// not know.
    #[must_use]
    pub fn is_too_old(&self) -> bool {
        self.is_too_old.load(Ordering::Relaxed)
    }

    /// The position up to which this node has read: the directory contains every change up to it.
    #[must_use]
    pub fn looked_to(&self, partition: Partition) -> i64 {
        self.looked.borrow()[partition.index()]
    }

    /// Waits until this node has read up to `place`, which is in the log; the caller sets the limit.
    pub async fn wait_for(&self, place: LogPosition) {
        let index = place.partition.index();
        let mut looked = self.looked.subscribe();
        if looked.borrow_and_update()[index] >= place.position {
            return;
        }
        // Triggers the next look at once.
        self.wanted.send_if_modified(|wanted| {
            let is_new = wanted[index] < place.position;
            wanted[index] = wanted[index].max(place.position);
            is_new
        });
        // The sender lives as long as the directory.
        let _ = looked.wait_for(|looked| looked[index] >= place.position).await;
    }

    /// Adopts the content of another directory.
    fn replace(&self, other: &Self) {
        let organizations = std::mem::take(&mut *other.organizations.write().unwrap_or_else(PoisonError::into_inner));
        *self.organizations.write().unwrap_or_else(PoisonError::into_inner) = organizations;
        let senders = std::mem::take(&mut *other.senders.write().unwrap_or_else(PoisonError::into_inner));
        *self.senders.write().unwrap_or_else(PoisonError::into_inner) = senders;
        let ways = std::mem::take(&mut *other.ways.write().unwrap_or_else(PoisonError::into_inner));
        *self.ways.write().unwrap_or_else(PoisonError::into_inner) = ways;
        let destinations = std::mem::take(&mut *other.destinations.write().unwrap_or_else(PoisonError::into_inner));
        *self.destinations.write().unwrap_or_else(PoisonError::into_inner) = destinations;
        let disabled = std::mem::take(&mut *other.disabled.write().unwrap_or_else(PoisonError::into_inner));
        *self.disabled.write().unwrap_or_else(PoisonError::into_inner) = disabled;
        self.is_too_old.store(other.is_too_old.load(Ordering::Relaxed), Ordering::Relaxed);
        self.wanted.send_replace(Positions::default());
        self.looked.send_replace(*other.looked.borrow());
    }

    fn change(&self, slug: &str, change: impl FnOnce(&mut OrganizationEntry)) {
        let mut organizations = self.organizations.write().unwrap_or_else(PoisonError::into_inner);
        let id = OrganizationId::from_slug(slug);
        let new = || OrganizationEntry { id, is_active: true, limit: None, providers: HashMap::new() };
        let organization = organizations.entry(slug.to_owned()).or_insert_with(new);
        change(organization);
        let mut disabled = self.disabled.write().unwrap_or_else(PoisonError::into_inner);
        if organization.is_active {
            disabled.remove(&id);
        } else {
            disabled.insert(id);
        }
    }

    fn put_provider(&self, slug: &str, provider: &Provider, entry: ProviderEntry) {
        let sender = Sender {
            organization: OrganizationId::from_slug(slug),
            name: entry.name,
            is_connected: provider.is_connected(),
            is_active: entry.is_active,
        };
        self.senders.write().unwrap_or_else(PoisonError::into_inner).insert(entry.id, sender);
        self.change(slug, |organization| {
            if provider.is_connected() {
                organization.providers.insert(entry.name, Arc::new(entry));
            } else {
                organization.providers.remove(&entry.name);
            }
        });
    }

    fn put_way(&self, route: RouteId, way: Way) {
        self.ways.write().unwrap_or_else(PoisonError::into_inner).insert(route, way);
    }

    /// `None` if it was deleted.
    fn put_destination(&self, id: DestinationId, destination: Option<Destination>) {
        let mut destinations = self.destinations.write().unwrap_or_else(PoisonError::into_inner);
        match destination {
            Some(destination) => drop(destinations.insert(id, Arc::new(destination))),
            None => drop(destinations.remove(&id)),
        }
    }
}
