//! How often something may be done: so often at once, and then at a steady pace.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;

/// A rate. What is 0 counts as 1, and no time between as no limit.
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

    /// As the limiters of `governor` want it.
    #[must_use]
    pub fn quota(self) -> Quota {
        let pace = Quota::with_period(self.then_every).unwrap_or_else(|| Quota::per_second(NonZeroU32::MAX));
        pace.allow_burst(self.at_once)
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
}
