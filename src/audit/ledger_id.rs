//! The tree that an event belongs to.

use std::fmt;

use hookledger_aggregates::{OrganizationId, Partition};
use uuid::Uuid;

/// Identifies a tree.
///
/// An organization has one tree, with all events of its partition in the order of positions. The platform's
/// own events (super admins) belong to the nil organization and have a tree likewise. Claims on email
/// addresses have their own partitions, outside their organization's order; such strays are in a tree of that
/// partition, which belongs to the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LedgerId(Uuid);

/// A UUID of version 8, which no organization has (5, or nil). The partition is added to it.
const STRAYS: u128 = 0x0000_0000_0000_8000_8000_0000_0000_0000;

impl LedgerId {
    /// The tree of an organization's event in that partition.
    #[must_use]
    pub fn of(organization: OrganizationId, partition: Partition) -> Self {
        if organization.partition() == partition { Self::organization(organization) } else { Self::strays(partition) }
    }

    /// The tree of an organization; for the nil organization, that of the platform.
    #[must_use]
    pub fn organization(organization: OrganizationId) -> Self {
        Self(organization.uuid())
    }

    /// The tree of a partition's events that belong to organizations of other partitions.
    #[must_use]
    pub fn strays(partition: Partition) -> Self {
        Self(Uuid::from_u128(STRAYS + partition.index() as u128))
    }

    /// From the ID in origins and tables.
    #[must_use]
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.0
    }

    /// The partition of all its events.
    #[must_use]
    pub fn partition(self) -> Partition {
        Partition::all().find(|partition| Self::strays(*partition) == self).unwrap_or_else(|| self.owner().partition())
    }

    /// The trees that belong to no organization.
    pub fn of_the_platform() -> impl Iterator<Item = Self> {
        std::iter::once(Self::organization(OrganizationId::PLATFORM)).chain(Partition::all().map(Self::strays))
    }

    /// Whether it has events of many organizations.
    #[must_use]
    pub fn is_of_many(self) -> bool {
        Partition::all().any(|partition| Self::strays(partition) == self)
    }

    /// The organization that it belongs to.
    #[must_use]
    pub fn owner(self) -> OrganizationId {
        if self.is_of_many() { OrganizationId::PLATFORM } else { OrganizationId::new(self.0) }
    }
}

impl fmt::Display for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_in_one_tree() {
        let acme = OrganizationId::from_slug("acme");
        let home = acme.partition();
        assert_eq!(LedgerId::of(acme, home), LedgerId::organization(acme));
        for partition in Partition::all().filter(|partition| *partition != home) {
            let strays = LedgerId::of(acme, partition);
            assert_eq!(strays, LedgerId::strays(partition));
            let other = OrganizationId::from_slug("other");
            assert_eq!(strays == LedgerId::of(other, partition), other.partition() != partition);
            assert_eq!((strays.partition(), strays.owner()), (partition, OrganizationId::PLATFORM));
        }
        assert_eq!(LedgerId::organization(acme).partition(), home);
        assert!(!LedgerId::organization(acme).is_of_many());
        assert!(LedgerId::strays(home).is_of_many());
        assert_eq!(LedgerId::of_the_platform().count(), 17);
    }

    #[test]
    fn ids_never_change() {
        let third = Partition::new(3).unwrap();
        assert_eq!(LedgerId::strays(third).to_string(), "00000000-0000-8000-8000-000000000003");
    }
}
