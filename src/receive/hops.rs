//! How many times we or another installation delivered a webhook before it arrived here. Without this limit,
//! a destination that leads back to a receiving URL would multiply a webhook forever.

use hookledger_aggregates::outgoing::HOPS;
use http::HeaderMap;

/// Chains of installations are short; a longer one is a loop.
const MAX_HOPS: u32 = 3;

/// A repeated or malformed header was tampered with, and counts as too many hops.
pub(super) fn hops(headers: &HeaderMap) -> u32 {
    let mut values = headers.get_all(HOPS).iter();
    match (values.next(), values.next()) {
        (None, _) => 0,
        (Some(value), None) => value.to_str().ok().and_then(|text| text.trim().parse().ok()).unwrap_or(u32::MAX),
        (Some(_), Some(_)) => u32::MAX,
    }
}

pub(super) fn is_loop(headers: &HeaderMap) -> bool {
    hops(headers) > MAX_HOPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_chain_is_none_and_what_cannot_be_counted_is_a_loop() {
        let with = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HOPS, value.parse().unwrap());
            }
            is_loop(&headers)
        };
        for fine in [&[][..], &["0"], &["3"]] {
            assert!(!with(fine), "{fine:?}");
        }
        for looped in [&["4"][..], &["99999999999"], &["-1"], &["x"], &["1", "1"]] {
            assert!(with(looped), "{looped:?}");
        }
    }
}
