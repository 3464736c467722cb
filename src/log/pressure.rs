//! How hard providers and people press on the writer, so that followers can step back.
//!
//! Acknowledgements come first: a sender may give up, a read model may be late. While flushes are
//! full of units that somebody waits for, followers take a share of the time instead of all they
//! can get; see `follow`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So many waiting units in one flush mean that the writer is the bottleneck.
const BUSY_UNITS: usize = 24;
/// A flush tells about the present for so long.
const MEMORY: Duration = Duration::from_millis(100);

/// Shared by the writer, who notes, and followers, who ask.
#[derive(Clone, Debug)]
pub struct Pressure {
    since: Instant,
    /// When a busy flush ended last, in microseconds after `since`; 0 is never.
    busy_at: Arc<AtomicU64>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self { since: Instant::now(), busy_at: Arc::default() }
    }
}

impl Pressure {
    pub(super) fn note(&self, waiting_units: usize) {
        if waiting_units >= BUSY_UNITS {
            self.busy_at.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Whether acknowledgements need all that the machine has.
    #[must_use]
    pub fn is_high(&self) -> bool {
        let busy_at = self.busy_at.load(Ordering::Relaxed);
        busy_at != 0 && self.now() - busy_at < u64::try_from(MEMORY.as_micros()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_flush_is_remembered_for_a_moment() {
        let pressure = Pressure::default();
        pressure.note(BUSY_UNITS - 1);
        assert!(!pressure.is_high());
        pressure.note(BUSY_UNITS);
        assert!(pressure.is_high());
        std::thread::sleep(MEMORY);
        assert!(!pressure.is_high());
    }
}
