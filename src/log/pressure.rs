//! How busy the writer is with providers and people, so that followers can step back.
//!
//! Acknowledgements come first: a sender may give up, whereas a read model may be late. While flushes are
//! full of units that somebody waits for, followers limit themselves to a share of the time; see `follow`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// This many waiting units in one flush mean that the writer is the bottleneck.
const BUSY_UNITS: usize = 24;
/// How long a flush is taken as a measure of the present.
const MEMORY: Duration = Duration::from_millis(100);

/// Shared between the writer, which reports, and the followers, which ask.
#[derive(Clone, Debug)]
pub struct Pressure {
    since: Instant,
    /// End of the last busy flush, in microseconds after `since`; 0 for none.
    busy_at: Arc<AtomicU64>,
    /// Start of the running flush, in microseconds after `since`; 0 for none.
    flushing_since: Arc<AtomicU64>,
    /// Moving average of the microseconds per waiting unit in busy flushes.
    unit_micros: Arc<AtomicU64>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            busy_at: Arc::default(),
            flushing_since: Arc::default(),
            unit_micros: Arc::default(),
        }
    }
}

impl Pressure {
    pub(super) fn note_begin(&self) {
        self.flushing_since.store(self.now(), Ordering::Relaxed);
    }

    pub(super) fn note_end(&self, waiting_units: usize) {
        let now = self.now();
        let began = self.flushing_since.swap(0, Ordering::Relaxed);
        if waiting_units < BUSY_UNITS {
            return;
        }
        self.busy_at.store(now, Ordering::Relaxed);
        let took = now.saturating_sub(began) / u64::try_from(waiting_units).unwrap_or(u64::MAX);
        let before = self.unit_micros.load(Ordering::Relaxed);
        let average = if before == 0 { took } else { (before * 7 + took) / 8 };
        self.unit_micros.store(average.max(1), Ordering::Relaxed);
    }

    /// Expected wait of a unit behind `queued` others: their time, and the age of the running flush, which a
    /// hanging disk makes long.
    #[must_use]
    pub fn expected_wait(&self, queued: usize) -> Duration {
        let ahead = self.unit_micros.load(Ordering::Relaxed).saturating_mul(queued as u64);
        let flushing = match self.flushing_since.load(Ordering::Relaxed) {
            0 => 0,
            began => self.now().saturating_sub(began),
        };
        Duration::from_micros(ahead.saturating_add(flushing))
    }

    /// Whether acknowledgements need the whole machine.
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
        pressure.note_begin();
        pressure.note_end(BUSY_UNITS - 1);
        assert!(!pressure.is_high());
        // True unless the machine needed longer than a moment to get here.
        assert!((0..1_000).any(|_| {
            pressure.note_begin();
            pressure.note_end(BUSY_UNITS);
            pressure.is_high()
        }));
        std::thread::sleep(MEMORY);
        assert!(!pressure.is_high());
    }

    #[test]
    fn a_wait_is_expected_from_the_queue_and_from_a_flush_that_hangs() {
        let pressure = Pressure::default();
        assert_eq!(pressure.expected_wait(1_000), Duration::ZERO);
        pressure.note_begin();
        std::thread::sleep(Duration::from_millis(50));
        assert!(pressure.expected_wait(0) >= Duration::from_millis(50));
        pressure.note_end(50);
        assert_eq!(pressure.expected_wait(0), Duration::ZERO);
        assert!(pressure.expected_wait(1_000) >= Duration::from_millis(900), "{:?}", pressure.expected_wait(1_000));
    }
}
