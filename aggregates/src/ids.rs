//! Every id of the system, each a type of its own, and how those that are derived are derived.
//!
//! Derived ids (UUIDv5) make the log's primary key do the work of unique constraints: one
//! organization per slug, one provider per organization and kind, one webhook per provider event.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ProviderName;

/// Namespace of every derived id. Never change it: ids in the log depend on it.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b1f_4f0e_52a7_4d1c_9c3e_8f0a_7d5b_2e91);

/// How many logical partitions the log has. Fixed for the life of a log.
pub const PARTITIONS: u8 = 16;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps an id that was read from the log, a read model or a request.
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
    /// A customer company, the tenant. Derived from its slug.
    OrganizationId,
    /// A person who signs in. Random, since an address may change hands.
    UserId,
    /// One organization's connection to one third-party service.
    ProviderId,
    /// One delivery from a provider. Derived from the connection and the provider's own event id; random
    /// if rejected.
    WebhookId,
    /// One transmission of a provider that signs little more than its id. Derived from both.
    TransmissionId,
    /// The stream of the bodies that a webhook's duplicates had and it had not. Derived from its id.
    DuplicateBodiesId,
    /// One version of a provider's signing secret.
    SecretId,
    /// One signed-in session of a user.
    SessionId,
    /// One organization's usage of one calendar month. Derived from both.
    UsageId,
    /// The claim of one e-mail address, derived from a keyed hash of it.
    EmailClaimId,
}

impl OrganizationId {
    /// The organization of platform events: super admins belong to it, no customer does.
    pub const PLATFORM: Self = Self(Uuid::nil());

    /// The one id that a slug can have.
    #[must_use]
    pub fn from_slug(slug: &str) -> Self {
        Self(derive(b"organization", &[slug.as_bytes()]))
    }

    /// The partition that holds everything of this organization, totally ordered.
    #[must_use]
    pub fn partition(self) -> Partition {
        Partition::of(self.0)
    }
}

impl ProviderId {
    /// The one id that an organization's connection to a service can have.
    #[must_use]
    pub fn derive(organization: OrganizationId, name: ProviderName) -> Self {
        Self(derive(b"provider", &[organization.0.as_bytes(), name.as_str().as_bytes()]))
    }
}

impl ProviderId {
    /// Whether it is the id of one of this organization's connections. Ids are derived, so one that
    /// somebody put together with another organization's is told apart without asking anybody.
    #[must_use]
    pub fn belongs_to(self, organization: OrganizationId) -> bool {
        ProviderName::ALL.into_iter().any(|name| Self::derive(organization, name) == self)
    }
}

/// A provider as one sender. Deleted and connected anew, with other secrets, it is another one, whose
/// event ids are its own. A rotation of secrets changes nothing.
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

    /// People who try the connection: their event ids are never the sender's.
    #[must_use]
    pub const fn for_tests(self) -> Self {
        Self { is_test: true, ..self }
    }
}

/// What makes two deliveries of one sender the same event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventIdentity {
    /// The sender's own id of the event, or a digest of the body where it sent none.
    pub event: Vec<u8>,
    /// Which of the sender's subscriptions it is for, where they share event ids.
    pub subscription: Option<Vec<u8>>,
}

impl WebhookId {
    /// The one id that a sender's event can have, for ever and on any node.
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
    /// The one id that a webhook can have which a person had delivered from a duplicate's body.
    #[must_use]
    pub fn of_duplicate(original: Self, body_sha256: &str) -> Self {
        Self(derive(b"delivered_duplicate", &[original.0.as_bytes(), body_sha256.as_bytes()]))
    }
}

impl DuplicateBodiesId {
    /// The one id that the stream of a webhook's can have.
    #[must_use]
    pub fn of(webhook: WebhookId) -> Self {
        Self(derive(b"duplicate_bodies", &[webhook.0.as_bytes()]))
    }
}

impl TransmissionId {
    /// The one id that a provider's transmission can have; `id` is the provider's own of it.
    #[must_use]
    pub fn derive(provider: ProviderId, id: &[u8]) -> Self {
        Self(derive(b"transmission", &[provider.0.as_bytes(), id]))
    }
}

impl UsageId {
    /// The one id that an organization's month can have; `month` is its first day.
    #[must_use]
    pub fn derive(organization: OrganizationId, month: chrono::NaiveDate) -> Self {
        Self(derive(b"usage", &[organization.0.as_bytes(), month.to_string().as_bytes()]))
    }
}

impl EmailClaimId {
    /// The claim id of an address, from the first 16 bytes of its keyed hash.
    #[must_use]
    pub fn from_keyed_hash(hash: &[u8; 32]) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The claim of the same address within one organization: it is invited there once.
    #[must_use]
    pub fn within(self, organization: OrganizationId) -> Self {
        Self(derive(b"email_claim", &[organization.0.as_bytes(), self.0.as_bytes()]))
    }

    /// Claims are no organization's, so their partition comes from themselves.
    #[must_use]
    pub fn partition(self) -> Partition {
        Partition::of(self.0)
    }
}

/// Each part is preceded by its length, so that no two lists of parts make the same name.
fn derive(kind: &[u8], parts: &[&[u8]]) -> Uuid {
    let mut name = Vec::with_capacity(kind.len() + parts.iter().map(|p| p.len() + 8).sum::<usize>());
    name.extend_from_slice(kind);
    for part in parts {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part);
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

/// One of the log's partitions. Positions are contiguous within it, and only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(u8);

impl Partition {
    /// All partitions, in the order in which their heads are locked.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PARTITIONS).map(Self)
    }

    /// The partition of that number, if there is one.
    #[must_use]
    pub fn new(number: i32) -> Option<Self> {
        u8::try_from(number).ok().filter(|n| *n < PARTITIONS).map(Self)
    }

    // The last byte of a UUIDv5 or v8 is hash output; its version bits lie elsewhere.
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
