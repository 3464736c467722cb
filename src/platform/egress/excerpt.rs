//! The beginning of a response's body: as much as is kept, for as long as we care to wait.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

/// What is kept of a body.
pub const EXCERPT_BYTES: usize = 16 << 10;

/// Reads the body's beginning, and whether that was all of it. Nothing that the body does is an error: the status
/// was read, and that decides.
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
