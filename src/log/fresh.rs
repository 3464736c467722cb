//! Bodies of the last moments. A webhook is usually delivered moments after it was received: the delivery
//! finds the body here instead of reading it back from the database.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use hookledger_aggregates::{Label, WebhookId};

use super::bodies::header_lines;
use super::heads::{Heads, Remembered};

/// Total size in bytes.
const KEPT: usize = 32 << 20;
/// Larger bodies are not kept, and read again when they are needed.
const LARGEST: usize = 64 << 10;
/// Assumed cost of an entry besides its body, in bytes.
const OVERHEAD: usize = 256;

/// The parts of a request that a delivery needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreshBody {
    /// Stored headers as `name:value` lines.
    pub headers: Bytes,
    /// Whether a person sent it to test the provider.
    pub is_test: bool,
    /// How many times it had been delivered before it arrived here.
    pub hops: u32,
    pub body: Bytes,
    /// The provider's name for the event.
    pub event_type: Option<Label>,
}

impl FreshBody {
    /// Header names in lower case, and their values unchanged.
    pub fn header_lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        header_lines(&self.headers)
    }
}

/// A bounded memory of bodies that will be delivered, once by each route; the oldest are dropped first.
#[derive(Debug, Default)]
pub struct FreshBodies(Mutex<Remembered<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// With the number of deliveries that have not taken it.
    bodies: HashMap<WebhookId, (FreshBody, usize)>,
    order: VecDeque<(WebhookId, usize)>,
    bytes: usize,
}

impl FreshBodies {
    /// Bodies of webhooks appended to that log.
    #[must_use]
    pub fn of(heads: &Heads) -> Self {
        Self(Mutex::new(heads.remember()))
    }

    /// Keeps a body for a moment, for so many deliveries.
    pub fn keep(&self, webhook: WebhookId, fresh: &FreshBody, deliveries: usize) {
        if deliveries == 0 || fresh.headers.len() + fresh.body.len() > LARGEST {
            return;
        }
        // Copies, because the body may be a slice of a much larger read buffer.
        let body = Bytes::copy_from_slice(&fresh.body);
        let body = FreshBody { headers: fresh.headers.clone(), body, event_type: fresh.event_type.clone(), ..*fresh };
        let size = body.headers.len() + body.body.len() + OVERHEAD;
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = remembered.get();
        kept.bytes += size;
        kept.order.push_back((webhook, size));
        kept.bodies.insert(webhook, (body, deliveries));
        while kept.bytes > KEPT {
            let Some((oldest, size)) = kept.order.pop_front() else { break };
            kept.bytes -= size;
            kept.bodies.remove(&oldest);
        }
    }

    /// Takes the body out, for one delivery.
    pub fn take(&self, webhook: WebhookId) -> Option<FreshBody> {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bodies = &mut remembered.get().bodies;
        let (body, left) = bodies.get_mut(&webhook)?;
        *left -= 1;
        if *left > 0 { Some(body.clone()) } else { bodies.remove(&webhook).map(|(body, _)| body) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn fresh_body(size: usize) -> FreshBody {
        FreshBody {
            headers: Bytes::from_static(b"a:b\n"),
            is_test: false,
            hops: 0,
            body: vec![b'x'; size - 4].into(),
            event_type: None,
        }
    }

    #[test]
    fn the_oldest_go_when_there_is_no_more_room_and_each_is_taken_once() {
        let fresh = FreshBodies::default();
        let id = |n| WebhookId::new(Uuid::from_u128(n));
        let body = fresh_body(LARGEST);
        for n in 0..600 {
            fresh.keep(id(n), &body, 1);
        }
        assert!(fresh.take(id(0)).is_none());
        assert_eq!(fresh.take(id(599)).unwrap(), body);
        assert!(fresh.take(id(599)).is_none());
        fresh.keep(id(600), &body, 2);
        assert_eq!(
            (fresh.take(id(600)), fresh.take(id(600)), fresh.take(id(600))),
            (Some(body.clone()), Some(body), None)
        );
        fresh.keep(id(700), &fresh_body(LARGEST + 1), 1);
        assert!(fresh.take(id(700)).is_none());
    }
}
