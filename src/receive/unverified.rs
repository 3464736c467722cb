//! What waits for a certificate: how much of it there may be, and what is wanted.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, RateLimiter};
use hookledger_aggregates::ProviderId;
use hookledger_aggregates::signature::CertificateUrl;
use tokio::sync::Notify;

use crate::rate::Rate;

/// Webhooks of one endpoint that are accepted unverified at once, and then one in each period.
const ADMITTED: Rate = Rate::new(60, Duration::from_secs(5));
/// Certificates that are wanted at once.
const WANTED: usize = 64;

/// Shared by requests and by the verifier.
#[derive(Debug)]
pub struct WaitingRoom {
    limiter: DefaultKeyedRateLimiter<ProviderId>,
    wanted: Mutex<HashSet<CertificateUrl>>,
    notify: Notify,
}

impl Default for WaitingRoom {
    fn default() -> Self {
        Self { limiter: RateLimiter::keyed(ADMITTED.quota()), wanted: Mutex::default(), notify: Notify::new() }
    }
}

impl WaitingRoom {
    /// Whether there is room for one more of this endpoint.
    pub(super) fn admit(&self, provider: ProviderId) -> bool {
        self.limiter.check_key(&provider).is_ok()
    }

    /// Has a certificate fetched, whether or not the request that needs it finds room.
    pub(super) fn want(&self, certificate: CertificateUrl) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.len() < WANTED && wanted.insert(certificate) {
            self.notify.notify_one();
        }
    }

    /// What is wanted now; it is not wanted any more.
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
