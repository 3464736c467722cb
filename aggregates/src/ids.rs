//! All IDs of the system, each with its own type, and the derivation of derived ones.
//!
//! Derived IDs (UUIDv5) let the log's primary key act as a unique constraint: one organization per slug, one
//! provider per organization and kind, one webhook per provider event.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ProviderName;

/// Namespace of all derived IDs. Never change it: the IDs in the log depend on it.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b1f_4f0e_52a7_4d1c_9c3e_8f0a_7d5b_2e91);

/// Number of logical partitions of the log. Fixed for the life of a log.
pub const PARTITIONS: u8 = 16;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps an ID from the log, a read model or a request.
            #[must_use]
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// The bare UUID, for the edges (SQL, GraphQL).
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )+};
}

ids! {
    /// A customer company. Derived from its slug.
    OrganizationId,
    /// A person who signs in. Random, because an address may change hands.
    UserId,
    /// An organization's connection to one third-party service.
    ProviderId,
    /// One event of a provider. Derived from the connection and the provider's own event ID; random if
    /// rejected.
    WebhookId,
    /// Where an organization's webhooks are sent. Random, or derived for a provider's own one.
    DestinationId,
    /// A way from a provider to a destination. Random, or derived for a provider's own one.
    RouteId,
    /// One webhook on one route. Derived from both.
    DeliveryId,
    /// One transmission of a provider whose signature covers little more than its ID. Derived from both.
    TransmissionId,
    /// The stream of bodies of a webhook's duplicates that differ from its own. Derived from its ID.
    DuplicateBodiesId,
    /// One version of a provider's signing secret.
    SecretId,
    /// A user's session.
    SessionId,
    /// An organization's usage in one calendar month. Derived from both.
    UsageId,
    /// The claim on an email address, derived from a keyed hash of it.
    EmailClaimId,
}

impl OrganizationId {
    /// The organization of platform events: super admins belong to it, but no customer does.
    pub const PLATFORM: Self = Self(Uuid::nil());

    /// The only ID that a slug can have.
    #[must_use]
    pub fn from_slug(slug: &str) -> Self {
        Self(derive(b"organization", &[slug.as_bytes()]))
    }

    /// The partition of all events of this organization, which are totally ordered.
    #[must_use]
    pub fn partition(self) -> Partition {
        Partition::of(self.0)
    }
}

impl ProviderId {
    /// The only ID that an organization's connection to a service can have.
    #[must_use]
    pub fn derive(organization: OrganizationId, name: ProviderName) -> Self {
        Self(derive(b"provider", &[organization.0.as_bytes(), name.as_str().as_bytes()]))
    }
}

impl ProviderId {
    /// Whether this is the ID of one of the organization's connections. IDs are derived, so a wrong
    /// combination is detected without a lookup.
    #[must_use]
    pub fn belongs_to(self, organization: OrganizationId) -> bool {
        ProviderName::ALL.into_iter().any(|name| Self::derive(organization, name) == self)
    }
}

/// A provider as one sender. After a deletion and a new connection, with other secrets, it is another one
/// with its own event IDs. Rotating secrets changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    provider: ProviderId,
    generation: u32,
    is_test: bool,
}

impl ConnectionId {
    /// `generation` counts the provider's connects, from 1.
    #[must_use]
    pub const fn new(provider: ProviderId, generation: u32) -> Self {
        Self { provider, generation, is_test: false }
    }

    /// The connection for tests by people, whose event IDs never equal the sender's.
    #[must_use]
    pub const fn for_tests(self) -> Self {
        Self { is_test: true, ..self }
    }
}

/// Identifies an event of a sender: equal identities are duplicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventIdentity {
    /// The sender's own event ID, or a digest of the body if there is none.
    pub event: Vec<u8>,
    /// The sender's subscription, if several share event IDs.
    pub subscription: Option<Vec<u8>>,
}

impl WebhookId {
    /// The only ID that a sender's event can have, forever and on any node.
    #[must_use]
    pub fn derive(connection: ConnectionId, identity: &EventIdentity) -> Self {
        let generation = connection.generation.to_be_bytes();
        let parts = [connection.provider.0.as_bytes(), &generation[..], &identity.event];
        let subscription = identity.subscription.as_deref();
        let kind: &[u8] = if connection.is_test { b"test_webhook" } else { b"webhook" };
        Self(derive(kind, &parts.into_iter().chain(subscription).collect::<Vec<_>>()))
    }
}

impl WebhookId {
    /// The only ID of a webhook that a person created from a duplicate's body.
    #[must_use]
    pub fn of_duplicate(original: Self, body_sha256: &str) -> Self {
        Self(derive(b"delivered_duplicate", &[original.0.as_bytes(), body_sha256.as_bytes()]))
    }
}

impl DestinationId {
    /// The only ID of the destination that was set with a provider.
    #[must_use]
    pub fn of_provider(provider: ProviderId) -> Self {
        Self(derive(b"destination", &[provider.0.as_bytes()]))
    }
}

impl RouteId {
    /// The only ID of the route from a provider to the destination that was set with it.
    #[must_use]
    pub fn of_provider(provider: ProviderId) -> Self {
        Self(derive(b"route", &[provider.0.as_bytes()]))
    }
}

impl DeliveryId {
    /// The only ID that the delivery of a webhook by a route can have.
    #[must_use]
    pub fn derive(webhook: WebhookId, route: RouteId) -> Self {
        Self(derive(b"delivery", &[webhook.0.as_bytes(), route.0.as_bytes()]))
    }
}

impl DuplicateBodiesId {
    /// The only ID of a webhook's stream.
    #[must_use]
    pub fn of(webhook: WebhookId) -> Self {
        Self(derive(b"duplicate_bodies", &[webhook.0.as_bytes()]))
    }
}

impl TransmissionId {
    /// The only ID of a provider's transmission; `id` is the provider's own.
    #[must_use]
    pub fn derive(provider: ProviderId, id: &[u8]) -> Self {
        Self(derive(b"transmission", &[provider.0.as_bytes(), id]))
    }
}

impl UsageId {
    /// The only ID of an organization's month; `month` is its first day.
    #[must_use]
    pub fn derive(organization: OrganizationId, month: chrono::NaiveDate) -> Self {
        Self(derive(b"usage", &[organization.0.as_bytes(), month.to_string().as_bytes()]))
    }
}

impl EmailClaimId {
    /// The ID of the claim on an address, from the first 16 bytes of its keyed hash.
    #[must_use]
    pub fn from_keyed_hash(hash: &[u8; 32]) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The claim on the same address within one organization, which can invite it once.
    #[must_use]
    pub fn within(self, organization: OrganizationId) -> Self {
        Self(derive(b"email_claim", &[organization.0.as_bytes(), self.0.as_bytes()]))
    }

    /// Claims belong to no organization, so their partition follows from the claim.
    #[must_use]
    pub fn partition(self) -> Partition {
        Partition::of(self.0)
    }
}

/// Each part is preceded by its length, so that different lists of parts have different names.
fn derive(kind: &[u8], parts: &[&[u8]]) -> Uuid {
    let mut name = Vec::with_capacity(kind.len() + parts.iter().map(|p| p.len() + 8).sum::<usize>());
    name.extend_from_slice(kind);
    for part in parts {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part);
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

/// A partition of the log. Positions are contiguous only within a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(u8);

impl Partition {
    /// All partitions, in the order in which their heads are locked.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PARTITIONS).map(Self)
    }

    /// The partition with that number, if it exists.
    #[must_use]
    pub fn new(number: i32) -> Option<Self> {
        u8::try_from(number).ok().filter(|n| *n < PARTITIONS).map(Self)
    }

    // The last byte of a UUIDv5 or v8 is hash output; its version bits are elsewhere.
    fn of(id: Uuid) -> Self {
        Self(id.as_bytes()[15] % PARTITIONS)
    }

    /// Its number, 0 to 15.
    #[must_use]
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }

    /// Its number as an index into an array of [`PARTITIONS`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_never_change() {
        let organization = OrganizationId::from_slug("acme");
        let provider = ProviderId::derive(organization, ProviderName::Github);
        let event = b"72d3162e-cc78-11e3-81ab-4c9367dc0958";
        let webhook = |generation, hook: Option<&[u8]>| {
            let identity = EventIdentity { event: event.to_vec(), subscription: hook.map(<[u8]>::to_vec) };
            WebhookId::derive(ConnectionId::new(provider, generation), &identity).to_string()
        };
        assert_eq!(organization.to_string(), "c5f5a3e7-dd99-5b32-9cad-e28dcaba9836");
        assert_eq!(provider.to_string(), "acec9064-1d88-53de-a4b7-d0c1d398a766");
        assert_eq!(webhook(1, None), "4c4e2536-d163-5c3d-b691-d3b17463b848");
        assert_eq!(webhook(2, None), "911c353f-1e91-51c9-9b63-27894d29456f");
        assert_eq!(webhook(1, Some(b"292430182")), "937c8d46-8cfd-597e-bd52-5b1b7a1398a4");
    }

    #[test]
    fn parts_of_different_lengths_never_make_the_same_id() {
        assert_ne!(derive(b"k", &[b"ab", b"c"]), derive(b"k", &[b"a", b"bc"]));
    }

    #[test]
    fn partitions_are_numbered_from_zero_to_fifteen() {
        assert_eq!(Partition::all().count(), 16);
        assert_eq!(Partition::new(16), None);
        assert_eq!(Partition::new(-1), None);
        assert_eq!(OrganizationId::PLATFORM.partition().number(), 0);
    }
}
