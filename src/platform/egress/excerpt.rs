//! The beginning of a response body: as much as is stored, within a time limit.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

/// Bytes of a body that are kept.
pub const EXCERPT_BYTES: usize = 16 << 10;

/// Reads the body's beginning; returns whether that was all of it. No behavior of the body is an error,
/// because only the status decides.
pub async fn read_excerpt(mut body: Incoming, until: Instant) -> (Bytes, bool) {
    if body.is_end_stream() {
        return (Bytes::new(), true);
    }
    let mut excerpt = BytesMut::new();
    let whole = timeout_at(until, fill(&mut body, &mut excerpt)).await.unwrap_or(false);
    (excerpt.freeze(), whole)
}

async fn fill(body: &mut Incoming, excerpt: &mut BytesMut) -> bool {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let Ok(chunk) = frame.into_data() else { continue };
        let room = EXCERPT_BYTES - excerpt.len();
        // Copied, so that a short excerpt does not hold hyper's whole buffer.
        excerpt.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return false;
        }
        if body.is_end_stream() {
            return true;
        }
    }
    true
}
