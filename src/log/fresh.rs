//! Bodies of the last moments. What was just received is delivered moments later: whoever delivers
//! it finds the body here, and need not ask the database for what this process held a moment ago.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use hookledger_aggregates::WebhookId;
use http::HeaderValue;

/// Bytes that are kept in all.
const KEPT: usize = 32 << 20;
/// Larger bodies are read again when they are needed.
const LARGEST: usize = 64 << 10;
/// What an entry costs besides its body.
const OVERHEAD: usize = 256;

/// What a delivery needs of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreshBody {
    pub content_type: Option<HeaderValue>,
    pub body: Bytes,
}

/// A bounded memory of bodies that are going to be delivered; the oldest go first.
#[derive(Debug, Default)]
pub struct FreshBodies(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    bodies: HashMap<WebhookId, FreshBody>,
    order: VecDeque<(WebhookId, usize)>,
    bytes: usize,
}

impl FreshBodies {
    /// Remembers a body for a moment.
    pub fn keep(&self, webhook: WebhookId, content_type: Option<HeaderValue>, body: &Bytes) {
        if body.len() > LARGEST {
            return;
        }
        // A copy: what came may be a slice of a read buffer many times its size.
        let body = FreshBody { content_type, body: Bytes::copy_from_slice(body) };
        let size = body.body.len() + OVERHEAD;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += size;
        kept.order.push_back((webhook, size));
        kept.bodies.insert(webhook, body);
        while kept.bytes > KEPT {
            let Some((oldest, size)) = kept.order.pop_front() else { break };
            kept.bytes -= size;
            kept.bodies.remove(&oldest);
        }
    }

    /// The body, once: it is delivered soon or not from here.
    pub fn take(&self, webhook: WebhookId) -> Option<FreshBody> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bodies.remove(&webhook)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn the_oldest_go_when_there_is_no_more_room_and_each_is_taken_once() {
        let fresh = FreshBodies::default();
        let id = |n| WebhookId::new(Uuid::from_u128(n));
        let body = Bytes::from(vec![b'x'; LARGEST]);
        for n in 0..600 {
            fresh.keep(id(n), None, &body);
        }
        assert!(fresh.take(id(0)).is_none());
        assert_eq!(fresh.take(id(599)).unwrap().body, body);
        assert!(fresh.take(id(599)).is_none());
        fresh.keep(id(700), None, &Bytes::from(vec![b'x'; LARGEST + 1]));
        assert!(fresh.take(id(700)).is_none());
    }
}
