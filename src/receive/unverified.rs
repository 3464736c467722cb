//! Webhooks waiting for a certificate: limits on their number, and the certificates they need.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, RateLimiter};
use hookledger_aggregates::ProviderId;
use hookledger_aggregates::signature::CertificateUrl;
use tokio::sync::Notify;

use crate::platform::rate::{Buckets, Rate, network};

/// Unverified webhooks per endpoint that are accepted at once, and then one per period.
const ADMITTED: Rate = Rate::new(60, Duration::from_secs(5));
/// The same per client, and for all endpoints together.
const PER_CLIENT: Rate = Rate::new(30, Duration::from_secs(10));
const TOGETHER: Rate = Rate::new(300, Duration::from_secs(1));
/// Maximum number of certificates waiting to be fetched.
const WANTED: usize = 64;

/// Shared between requests and the verifier.
pub struct WaitingRoom {
    limiter: DefaultKeyedRateLimiter<ProviderId>,
    clients: Buckets,
    together: Buckets,
    wanted: Mutex<HashSet<CertificateUrl>>,
    notify: Notify,
}

impl Default for WaitingRoom {
    fn default() -> Self {
        Self {
            limiter: RateLimiter::keyed(ADMITTED.quota()),
            clients: Buckets::new(PER_CLIENT),
            together: Buckets::new(TOGETHER),
            wanted: Mutex::default(),
            notify: Notify::new(),
        }
    }
}

impl std::fmt::Debug for WaitingRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitingRoom").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl WaitingRoom {
    /// Whether this client may send one more. Checked first, so that one client does not use up the shared
    /// limit.
    pub(super) fn admit_client(&self, client: &str) -> bool {
        self.clients.check(&network(client)).is_ok()
    }

    /// Whether there is room for one more of this endpoint, and in total.
    pub(super) fn admit(&self, provider: ProviderId) -> bool {
        self.limiter.check_key(&provider).is_ok() && self.together.check(&()).is_ok()
    }

    /// Requests a certificate, whether or not the webhook that needs it finds room.
    pub(super) fn want(&self, certificate: CertificateUrl) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.len() < WANTED && wanted.insert(certificate) {
            self.notify.notify_one();
        }
    }

    /// Takes the requested certificates.
    pub(super) fn wanted(&self) -> HashSet<CertificateUrl> {
        std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn notify(&self) {
        self.notify.notify_one();
    }

    pub(super) async fn notified(&self) {
        self.notify.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_leaves_room_for_others_and_all_together_are_bounded() {
        let room = WaitingRoom::default();
        let provider = |n| ProviderId::new(uuid::Uuid::from_u128(n));
        let admitted = |client: &str| (0..100).filter(|_| room.admit_client(client)).count();
        assert!((30..40).contains(&admitted("192.0.2.1")));
        assert!((30..40).contains(&admitted("192.0.2.2")));
        // An IPv6 client counts as its network.
        let network = (0..100).filter(|n| room.admit_client(&format!("2001:db8::{n:x}"))).count();
        assert!((30..40).contains(&network), "{network}");
        let together = (0..1_000).filter(|n| room.admit(provider(*n))).count();
        assert!((300..400).contains(&together), "{together}");
    }
}
