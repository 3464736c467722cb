//! Counts a flood of rejections instead of logging each.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, Utc};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use hookledger_aggregates::provider::ProviderEvent;
use hookledger_aggregates::{Metadata, OrganizationId, ProviderId};
use tokio_util::sync::CancellationToken;

use crate::log::{Log, NewEvent, Sequence, Unit};
use crate::platform::rate::Rate;

/// Rejections per endpoint that are logged at once, and then per second.
const LOGGED: Rate = Rate::new(120, Duration::from_millis(500));
/// Interval of logging counts.
const REPORT: Duration = Duration::from_secs(60);

/// Rejections that were counted instead of logged.
#[derive(Clone, Copy, Debug)]
struct Suppressed {
    count: u64,
    since: DateTime<Utc>,
}

/// Decides which rejections are logged. The keys are existing endpoints, so the map is bounded.
#[derive(Debug)]
pub struct Rejections {
    limiter: DefaultKeyedRateLimiter<ProviderId>,
    suppressed: Mutex<HashMap<(OrganizationId, ProviderId), Suppressed>>,
}

impl Default for Rejections {
    fn default() -> Self {
        Self { limiter: RateLimiter::keyed(LOGGED.quota()), suppressed: Mutex::default() }
    }
}

impl Rejections {
    /// Whether to log one more rejection of this endpoint. Otherwise it is counted, and the error is the
    /// number of seconds until the next one is logged.
    pub fn admit(&self, organization: OrganizationId, provider: ProviderId) -> Result<(), u64> {
        let Err(not_until) = self.limiter.check_key(&provider) else { return Ok(()) };
        self.count(organization, provider);
        Err(not_until.wait_time_from(DefaultClock::default().now()).as_secs().max(1))
    }

    /// Counts a rejection that is not logged.
    pub fn count(&self, organization: OrganizationId, provider: ProviderId) {
        self.add(organization, provider, Suppressed { count: 1, since: Utc::now() });
    }

    fn add(&self, organization: OrganizationId, provider: ProviderId, more: Suppressed) {
        let mut suppressed = self.suppressed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let entry = suppressed.entry((organization, provider)).or_insert(Suppressed { count: 0, since: more.since });
        entry.count += more.count;
        entry.since = entry.since.min(more.since);
    }

    fn take(&self) -> Vec<((OrganizationId, ProviderId), Suppressed)> {
        self.suppressed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).drain().collect()
    }
}

/// Logs once a minute how many rejections were not logged individually.
pub struct RejectionCounter {
    rejections: std::sync::Arc<Rejections>,
    log: Log,
}

impl RejectionCounter {
    #[must_use]
    pub fn new(rejections: std::sync::Arc<Rejections>, log: Log) -> Self {
        Self { rejections, log }
    }

    /// Reports until stopped, and a last time then.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let stopped = stop.run_until_cancelled(tokio::time::sleep(REPORT)).await.is_none();
            self.report().await;
            if stopped {
                return;
            }
        }
    }

    async fn report(&self) {
        let (mut units, mut counted) = (Vec::new(), Vec::new());
        for ((organization, provider), suppressed) in self.rejections.take() {
            let event = ProviderEvent::RejectionsSuppressed { count: suppressed.count, since: suppressed.since };
            match NewEvent::of(organization, provider.uuid(), Sequence::End, &event, &Metadata::default()) {
                Ok(event) => {
                    units.push(Unit::new(vec![event]));
                    counted.push((organization, provider, suppressed));
                }
                Err(error) => tracing::error!(%error, "could not serialize an event"),
            }
        }
        if units.is_empty() {
            return;
        }
        let verdicts = self.log.append_all(units).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "could not append the counts of suppressed rejections; retrying");
            Vec::new()
        });
        // A count that was not appended is added to the next report. If a flush failed but was committed, its
        // counts are added twice: rather too many than too few.
        let mut verdicts = verdicts.into_iter();
        for (organization, provider, suppressed) in counted {
            if !matches!(verdicts.next(), Some(Ok(_))) {
                self.rejections.add(organization, provider, suppressed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_per_endpoint() {
        let rejections = Rejections::default();
        let organization = OrganizationId::from_slug("a");
        let (flooded, quiet) = (ProviderId::new(uuid::Uuid::from_u128(1)), ProviderId::new(uuid::Uuid::from_u128(2)));
        let logged = (0..200).filter(|_| rejections.admit(organization, flooded).is_ok()).count();
        assert!((120..140).contains(&logged), "{logged}");
        assert!(rejections.admit(organization, quiet).is_ok());
        assert_eq!(rejections.take()[0].1.count, 200 - logged as u64);
    }
}
