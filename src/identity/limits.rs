//! Rate limits for links, invitations and exports, in bounded memory.

use std::time::Duration;

use hookledger_aggregates::{EmailClaimId, OrganizationId, UserId};

use crate::platform::rate::{Buckets, Rate, TooOften, network};

/// Links per address at once, and the rate after that. A request in somebody else's name ends that person's
/// last link, so it must not be possible all the time.
const PER_ADDRESS: Rate = Rate::new(5, Duration::from_secs(120));
/// Requests per client at once, and the rate after that. Many may share one behind a proxy.
const PER_CLIENT: Rate = Rate::new(60, Duration::from_secs(1));
/// The same for an address that many share.
const REQUESTS_PER_PROXY: Rate = Rate::new(1_000, Duration::from_millis(20));
/// Links that one client may try, each of which queries the store.
const TRIES_PER_CLIENT: Rate = Rate::new(60, Duration::from_secs(1));
/// The same for an address that many share.
const TRIES_PER_PROXY: Rate = Rate::new(1_000, Duration::from_millis(10));
/// Invitations per admin at once, and the rate after that.
const PER_INVITER: Rate = Rate::new(50, Duration::from_secs(20));
/// Test webhooks per person at once, and the rate after that: they count as any other of their organization.
const PER_TESTER: Rate = Rate::new(60, Duration::from_secs(2));
/// Exports per admin at once, and the rate after that.
const PER_EXPORTER: Rate = Rate::new(20, Duration::from_secs(10));

/// The limits on one node.
pub struct Limits {
    addresses: Buckets,
    clients: Buckets,
    proxies: Buckets,
    tries: Buckets,
    tries_by_proxy: Buckets,
    inviters: Buckets,
    invited: Buckets,
    testers: Buckets,
    exporters: Buckets,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            addresses: Buckets::new(PER_ADDRESS),
            clients: Buckets::new(PER_CLIENT),
            proxies: Buckets::new(REQUESTS_PER_PROXY),
            tries: Buckets::new(TRIES_PER_CLIENT),
            tries_by_proxy: Buckets::new(TRIES_PER_PROXY),
            inviters: Buckets::new(PER_INVITER),
            invited: Buckets::new(PER_ADDRESS),
            testers: Buckets::new(PER_TESTER),
            exporters: Buckets::new(PER_EXPORTER),
        }
    }
}

impl Limits {
    /// Counts a request for a link, whether or not the address has a user.
    pub fn ask_for_link(&self, address: EmailClaimId, client: &str, is_shared: bool) -> Result<(), TooOften> {
        let clients = if is_shared { &self.proxies } else { &self.clients };
        clients.check(&network(client))?;
        self.addresses.check(&address)
    }

    /// Counts a use of a link, whether or not the link exists.
    pub fn use_link(&self, client: &str, is_shared: bool) -> Result<(), TooOften> {
        let tries = if is_shared { &self.tries_by_proxy } else { &self.tries };
        tries.check(&network(client))
    }

    /// Counts an invitation. Its address is counted separately from requests for links and per organization,
    /// so that nobody learns what others do.
    pub fn invite(&self, inviter: UserId, organization: OrganizationId, address: EmailClaimId) -> Result<(), TooOften> {
        self.inviters.check(&inviter)?;
        self.invited.check(&address.within(organization))
    }

    /// Counts a test webhook.
    pub fn test(&self, tester: UserId) -> Result<(), TooOften> {
        self.testers.check(&tester)
    }

    /// Counts one export.
    pub fn export(&self, exporter: UserId) -> Result<(), TooOften> {
        self.exporters.check(&exporter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_asked_for_some_times_and_then_later() {
        let limits = Limits::default();
        let claim = |number| EmailClaimId::new(uuid::Uuid::from_u128(number));
        for client in 0..5 {
            assert_eq!(limits.ask_for_link(claim(1), &format!("192.0.2.{client}"), false), Ok(()));
        }
        let refused = limits.ask_for_link(claim(1), "192.0.2.9", false).unwrap_err();
        assert!((100..=120).contains(&refused.retry_after), "{refused:?}");
        assert_eq!(limits.ask_for_link(claim(2), "192.0.2.9", false), Ok(()));
    }

    #[test]
    fn links_are_tried_so_often_by_a_client_and_more_often_by_many_of_one_address() {
        let limits = Limits::default();
        let tried = |client: &str, is_shared| (0..2_000).filter(|_| limits.use_link(client, is_shared).is_ok()).count();
        assert!((60..=62).contains(&tried("192.0.2.1", false)));
        assert_eq!(limits.use_link("192.0.2.2", false), Ok(()));
        assert!((1_000..1_500).contains(&tried("127.0.0.1", true)));
    }

    #[test]
    fn a_client_is_its_network() {
        let limits = Limits::default();
        let asked = (0..100u32).filter(|n| {
            let claim = EmailClaimId::new(uuid::Uuid::from_u128(u128::from(*n)));
            limits.ask_for_link(claim, &format!("2001:db8::{n:x}"), false).is_ok()
        });
        let asked = asked.count();
        assert!((60..=62).contains(&asked), "{asked}");
    }
}
