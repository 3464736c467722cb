//! Limits on the cost of one answer: reads, bodies, look-backs; and on the memory of all answers of this node
//! while they are created and sent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_graphql::{Context, Error, ErrorExtensions as _};
use hookledger_aggregates::OrganizationId;

use super::rights::Viewer;
use crate::api::graphql::errors::{Code, RETRY_AFTER, internal};

/// Maximum bytes of bodies that one answer loads. A body shown as parsed JSON counts four times.
const MAX_BODY_BYTES: i64 = 64 << 20;
/// Webhooks per answer that look up the one before them, or why they have no body.
const MAX_LOOK_BACKS: i64 = 20;
/// Reads per answer; a super admin's lists read once for each organization in them.
const READS_OF_GUESTS: i64 = 12;
const READS_OF_PERSONS: i64 = 200;
const READS_OF_SUPER_ADMINS: i64 = 5_000;
/// Rows of lists without pages per answer: events, attempts, secrets.
const MAX_LISTED: i64 = 10_000;
/// Approximate memory of such a row as a value.
const ROW_BYTES: i64 = 2 << 10;
/// Cost of a search, in reads.
pub(crate) const SEARCH: i64 = 10;
/// Maximum bytes held by all answers of this node, bodies and their encoding together; by the answers of one
/// organization; and reserved for small answers.
const MAX_HELD: i64 = 256 << 20;
const MAX_HELD_BY_ONE: i64 = 160 << 20;
const RESERVE: i64 = 64 << 20;
const LITTLE: i64 = 1 << 20;

/// Memory held by the answers of this node.
#[derive(Clone, Debug, Default)]
pub struct Rendering(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    total: i64,
    by: HashMap<OrganizationId, i64>,
}

/// Why an answer may not hold more.
#[derive(Debug, PartialEq, Eq)]
enum Full {
    /// Even without other answers.
    TooLarge,
    /// At the moment.
    Busy,
}

impl Rendering {
    fn take(&self, organization: OrganizationId, held: i64, more: i64) -> Result<(), Full> {
        if held.saturating_add(more) > MAX_HELD_BY_ONE {
            return Err(Full::TooLarge);
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (is_little, by) = (held + more <= LITTLE, all.by.get(&organization).copied().unwrap_or_default());
        let limit = if is_little { MAX_HELD } else { MAX_HELD - RESERVE };
        if all.total + more > limit || (!is_little && by + more > MAX_HELD_BY_ONE) {
            return Err(Full::Busy);
        }
        all.total += more;
        *all.by.entry(organization).or_default() += more;
        Ok(())
    }

    fn give_back(&self, organization: OrganizationId, bytes: i64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.total -= bytes;
        if let Some(by) = all.by.get_mut(&organization) {
            *by -= bytes;
            if *by == 0 {
                all.by.remove(&organization);
            }
        }
    }
}

/// The remaining budget of one answer. Holds its share of the memory until it is dropped.
#[derive(Debug)]
pub struct Allowance {
    reads: AtomicI64,
    bodies: AtomicI64,
    look_backs: AtomicI64,
    listed: AtomicI64,
    held: AtomicI64,
    organization: OrganizationId,
    rendering: Rendering,
    reads_at_most: i64,
}

impl Allowance {
    pub(crate) fn of_viewer(viewer: &Viewer, rendering: Rendering) -> Arc<Self> {
        let reads = if viewer.is_super_admin() { READS_OF_SUPER_ADMINS } else { READS_OF_PERSONS };
        Self::new(viewer.home(), reads, rendering)
    }

    pub(crate) fn of_guest() -> Arc<Self> {
        Self::new(OrganizationId::PLATFORM, READS_OF_GUESTS, Rendering::default())
    }

    fn new(organization: OrganizationId, reads_at_most: i64, rendering: Rendering) -> Arc<Self> {
        Arc::new(Self {
            reads: AtomicI64::new(reads_at_most),
            bodies: AtomicI64::new(MAX_BODY_BYTES),
            look_backs: AtomicI64::new(MAX_LOOK_BACKS),
            listed: AtomicI64::new(MAX_LISTED),
            held: AtomicI64::new(0),
            organization,
            rendering,
            reads_at_most,
        })
    }

    pub(crate) fn of<'a>(context: &Context<'a>) -> Result<&'a Arc<Self>, Error> {
        context.data().map_err(|_| internal("a request has no allowance"))
    }

    /// Begins the next answer of a subscription; the previous one is sent.
    pub(crate) fn begin(&self) {
        self.reads.store(self.reads_at_most, Ordering::Relaxed);
        self.bodies.store(MAX_BODY_BYTES, Ordering::Relaxed);
        self.look_backs.store(MAX_LOOK_BACKS, Ordering::Relaxed);
        self.listed.store(MAX_LISTED, Ordering::Relaxed);
        self.rendering.give_back(self.organization, self.held.swap(0, Ordering::Relaxed));
    }

    /// Pays for reads before they are made.
    pub(crate) fn reads(&self, count: i64) -> Result<(), TooManyReads> {
        if self.reads.fetch_sub(count, Ordering::Relaxed) >= count {
            return Ok(());
        }
        Err(TooManyReads(self.reads_at_most))
    }

    /// Pays for a body before it is loaded.
    pub(crate) fn body(&self, bytes: i64, weight: i64) -> Result<(), Error> {
        let weighed = bytes.saturating_mul(weight);
        if self.bodies.fetch_sub(weighed, Ordering::Relaxed) >= weighed {
            // Once as loaded, and once as a value.
            return self.hold(bytes);
        }
        Err(Code::LimitExceeded.error(format!(
            "A response can load at most {} MiB of bodies. Ask for fewer webhooks, or for rawBody instead of payload.",
            MAX_BODY_BYTES >> 20
        )))
    }

    /// Pays for other memory of an answer.
    pub(crate) fn hold(&self, bytes: i64) -> Result<(), Error> {
        let held = self.held.load(Ordering::Relaxed);
        match self.rendering.take(self.organization, held, bytes) {
            Ok(()) => {
                self.held.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(Full::TooLarge) => Err(Code::LimitExceeded.error(format!(
                "A response can be at most {} MiB of JSON. Ask for fewer webhooks, or for rawBodyBase64.",
                MAX_HELD_BY_ONE >> 20
            ))),
            Err(Full::Busy) => Err(Code::Unavailable
                .error("Too many large responses at once. Try again.")
                .extend_with(|_, extensions| extensions.set("retryAfter", RETRY_AFTER))),
        }
    }

    /// Pays for a text, by its length as JSON.
    pub(crate) fn hold_text(&self, text: &str) -> Result<(), Error> {
        self.hold(encoded_len(text))
    }

    /// Pays for look-backs, each of which reads many rows.
    pub(crate) fn look_backs(&self, count: i64) -> Result<(), Error> {
        if self.look_backs.fetch_sub(count, Ordering::Relaxed) >= count {
            return Ok(());
        }
        let sentence = format!(
            "Too many lookups: ask for previousOfType, bodyRemoval, and duplicateOf of at most {MAX_LOOK_BACKS} webhooks, and for duplicateBodies of 4."
        );
        Err(Code::LimitExceeded.error(sentence))
    }

    /// Pays for the rows of a list without pages, of which nobody knows before how many there are.
    pub(crate) fn list(&self, rows: usize) -> Result<(), Error> {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        if self.listed.fetch_sub(rows, Ordering::Relaxed) >= rows {
            return self.hold(rows.saturating_mul(ROW_BYTES));
        }
        Err(Code::LimitExceeded.error(format!(
            "A response can have at most {MAX_LISTED} events, attempts and secrets. Ask for fewer webhooks."
        )))
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(self.held.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Whether it holds so much that it counts until it is sent.
    pub(crate) fn is_large(&self) -> bool {
        self.held.load(Ordering::Relaxed) > LITTLE
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        self.rendering.give_back(self.organization, *self.held.get_mut());
    }
}

/// An answer would need too many reads.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("A response can read at most {0} times. Ask for less at once.")]
pub(crate) struct TooManyReads(i64);

impl TooManyReads {
    pub(crate) fn told(self) -> Error {
        Code::LimitExceeded.error(self.to_string())
    }
}

/// Length of a text as a JSON string, in bytes.
fn encoded_len(text: &str) -> i64 {
    let written = |byte: u8| match byte {
        b'"' | b'\\' | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.bytes().map(written).sum::<i64>() + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_as_long_as_it_is_written() {
        for text in ["", "a", "é", "\u{1}\u{1}", "\"\\\n\r\t\u{8}\u{c}\u{7f}", "\u{0}\u{1f} "] {
            assert_eq!(
                encoded_len(text),
                i64::try_from(serde_json::to_string(text).unwrap().len()).unwrap(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_answers_hold_together_is_bounded_and_given_back() {
        let rendering = Rendering::default();
        let of = |slug| Allowance::new(OrganizationId::from_slug(slug), READS_OF_PERSONS, rendering.clone());
        let mib = |count: i64| count << 20;
        let (first, second, third) = (of("a"), of("a"), of("b"));
        assert!(first.hold(mib(161)).is_err());
        first.hold(mib(100)).unwrap();
        // The organization's own share, and then the total.
        assert!(second.hold(mib(61)).is_err());
        assert!(third.hold(mib(93)).is_err());
        third.hold(mib(92)).unwrap();
        assert!(of("c").hold(mib(2)).is_err());
        // Small answers still find room.
        let small: Vec<_> = (0..64).map(|_| of("c")).collect();
        assert!(small.iter().all(|answer| answer.hold(mib(1)).is_ok()));
        assert!(of("c").hold(1).is_err());
        drop(first);
        second.hold(mib(29)).unwrap();
        drop((second, third, small));
        let held = rendering.0.lock().unwrap();
        assert_eq!((held.total, held.by.len()), (0, 0));
    }

    #[test]
    fn a_subscriptions_next_answer_begins_anew() {
        let rendering = Rendering::default();
        let answers = Allowance::new(OrganizationId::from_slug("a"), 1, rendering.clone());
        for _ in 0..3 {
            answers.hold(100 << 20).unwrap();
            answers.reads(1).unwrap();
            assert!(answers.reads(1).is_err());
            answers.begin();
        }
        assert_eq!(rendering.0.lock().unwrap().total, 0);
    }
}
