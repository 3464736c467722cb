//! Whether `/readyz` was right.

use std::time::{Duration, Instant};

use crate::record::Sample;

/// Samples within this time of each other belong to one stretch.
const GAP: Duration = Duration::from_millis(450);

/// The longest stretches of time in which `/readyz` was wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Readiness {
    /// It said 200, and webhooks were not accepted.
    pub lied: Duration,
    /// It said 503, and webhooks were accepted. That may be right, because followers may be behind.
    pub shy: Duration,
}

impl Readiness {
    #[must_use]
    pub fn of(samples: &[Sample]) -> Self {
        let lies = |sample: &Sample| sample.ready == Some(true) && !sample.accepts;
        let shies = |sample: &Sample| sample.ready == Some(false) && sample.accepts;
        Self { lied: longest(samples, lies), shy: longest(samples, shies) }
    }
}

/// The longest time in which all successive samples of a node satisfied the condition.
fn longest(samples: &[Sample], has: impl Fn(&Sample) -> bool) -> Duration {
    let nodes = samples.iter().map(|sample| sample.node).max().map_or(0, |most| most + 1);
    let mut longest = Duration::ZERO;
    for node in 0..nodes {
        let mut of_node: Vec<_> = samples.iter().filter(|sample| sample.node == node).collect();
        of_node.sort_unstable_by_key(|sample| sample.at);
        let mut stretch: Option<(Instant, Instant)> = None;
        for sample in of_node {
            stretch = match stretch {
                _ if !has(sample) => None,
                Some((begin, last)) if sample.at - last < GAP => Some((begin, sample.at)),
                _ => Some((sample.at, sample.at)),
            };
            if let Some((begin, end)) = stretch {
                longest = longest.max(end - begin);
            }
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lie_lasts_from_its_first_sample_to_its_last() {
        let begin = Instant::now();
        let sample = |tenths: u32, ready, accepts| Sample {
            node: 0,
            at: begin + Duration::from_millis(100) * tenths,
            ready: Some(ready),
            accepts,
        };
        let mut samples: Vec<_> = (0..10).map(|n| sample(n, true, true)).collect();
        samples.extend((10..15).map(|n| sample(n, true, false)));
        samples.extend((15..40).map(|n| sample(n, false, false)));
        samples.extend((40..43).map(|n| sample(n, false, true)));
        let told = Readiness::of(&samples);
        assert_eq!((told.lied.as_millis(), told.shy.as_millis()), (400, 200));
    }
}
