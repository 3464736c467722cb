//! A random number generator with a fixed sequence: the same seed has to give the same schedule in every
//! release.

use std::ops::Range;
use std::time::Duration;

/// The `SplitMix64` generator.
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// `label` separates the sequences of one seed, so that a longer schedule changes no request.
    #[must_use]
    pub fn new(seed: u64, label: &str) -> Self {
        let mut draw = Self(seed);
        for byte in label.bytes() {
            draw.0 = draw.next() ^ u64::from(byte);
        }
        draw
    }

    #[expect(clippy::should_implement_trait, reason = "it never ends, and is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of the range, which must not be empty.
    pub fn between(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.between(0..100) < percent
    }

    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.next() % length as u64).unwrap_or(0)
    }

    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.between(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_a_seed_never_changes() {
        let mut draw = Draw::new(7, "schedule");
        let first: Vec<u64> = (0..4).map(|_| draw.between(0..1000)).collect();
        assert_eq!(first, [175, 319, 490, 949]);
        let mut other = Draw::new(7, "traffic");
        assert_ne!(first[0], other.between(0..1000));
    }
}
