//! Rate limits: a burst, and then a steady pace.
//!
//! Keys are hashed, with a secret of this process, into a fixed number of buckets. So requests in the names
//! of millions cost no memory, and no client can choose whose bucket it shares.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Buckets of each kind, at about 100 bytes each.
const BUCKETS: u64 = 1 << 17;

/// A rate. A burst of 0 counts as 1, and a period of 0 as no limit.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    at_once: NonZeroU32,
    then_every: Duration,
}

impl Rate {
    #[must_use]
    pub const fn new(at_once: u32, then_every: Duration) -> Self {
        Self { at_once: NonZeroU32::MIN.saturating_add(at_once.saturating_sub(1)), then_every }
    }

    /// As a quota of `governor`.
    #[must_use]
    pub fn quota(self) -> Quota {
        let pace = Quota::with_period(self.then_every).unwrap_or_else(|| Quota::per_second(NonZeroU32::MAX));
        pace.allow_burst(self.at_once)
    }
}

/// The rate is exceeded; the number of seconds until the next attempt is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOften {
    pub retry_after: u64,
}

/// The /64 network of an IPv6 address, because its owner has all 2⁶⁴ addresses of it.
pub(crate) fn network(client: &str) -> String {
    match client.parse() {
        Ok(IpAddr::V6(address)) => format!("{:x}", address.to_bits() >> 64),
        _ => client.to_owned(),
    }
}

/// Rate limits for any number of keys in bounded memory.
pub(crate) struct Buckets {
    limiter: DefaultKeyedRateLimiter<u64>,
    hasher: RandomState,
}

impl Buckets {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { limiter: RateLimiter::keyed(rate.quota()), hasher: RandomState::new() }
    }

    pub(crate) fn check(&self, key: &impl Hash) -> Result<(), TooOften> {
        let bucket = self.hasher.hash_one(key) % BUCKETS;
        self.limiter.check_key(&bucket).map_err(|not_until| TooOften {
            retry_after: not_until.wait_time_from(DefaultClock::default().now()).as_secs().max(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_burst_and_a_pace() {
        let quota = Rate::new(5, Duration::from_secs(120)).quota();
        assert_eq!((quota.burst_size().get(), quota.replenish_interval()), (5, Duration::from_secs(120)));
        assert_eq!(Rate::new(0, Duration::ZERO).quota().burst_size().get(), 1);
    }

    #[test]
    fn a_million_addresses_take_no_more_memory_than_the_buckets() {
        let buckets = Buckets::new(Rate::new(5, Duration::from_secs(120)));
        for n in 0..1_000_000_u64 {
            let _ = buckets.check(&n);
        }
        assert!(buckets.limiter.len() <= usize::try_from(BUCKETS).unwrap());
    }
}
