//! Reading a body as a counted stream: warp would buffer a chunked one without limit.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};

/// How long a whole body may take.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// What is read of a refused body, and for how long.
const DRAIN_BYTES: usize = 64 << 20;
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// What a declared length may reserve at once, before any of it came.
const RESERVE: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body is larger than {cap} bytes")]
    TooLarge { cap: usize },
    #[error("the body did not come in time")]
    TooSlow,
    #[error("the body broke off")]
    Broken,
}

/// Reads a body of at most `cap` bytes. One that came in one piece is not copied.
///
/// # Errors
/// [`BodyError`] when it is too large, too slow or breaks off.
pub async fn read_body<B: Buf, E>(
    body: impl Stream<Item = Result<B, E>>,
    declared: Option<u64>,
    cap: usize,
) -> Result<Bytes, BodyError> {
    if declared.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > cap)) {
        return Err(BodyError::TooLarge { cap });
    }
    let declared = declared.and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    tokio::time::timeout(BODY_LIMIT, collect(body, declared, cap)).await.map_err(|_| BodyError::TooSlow)?
}

/// Reads and drops what a refused client still sends, within bounds: closing on it would reset the
/// connection, and the client would never see why it was refused.
pub async fn drain_body<B: Buf, E>(mut body: Pin<&mut impl Stream<Item = Result<B, E>>>) {
    let mut dropped = 0;
    let draining = async {
        while let Some(Ok(chunk)) = body.next().await {
            dropped += chunk.remaining();
            if dropped > DRAIN_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_LIMIT, draining).await;
}

async fn collect<B: Buf, E>(
    body: impl Stream<Item = Result<B, E>>,
    declared: usize,
    cap: usize,
) -> Result<Bytes, BodyError> {
    let mut body = std::pin::pin!(body);
    let Some(first) = body.next().await else { return Ok(Bytes::new()) };
    let mut first = first.map_err(|_| BodyError::Broken)?;
    let first = first.copy_to_bytes(first.remaining());
    if first.len() > cap {
        return Err(BodyError::TooLarge { cap });
    }
    let Some(mut next) = body.next().await else { return Ok(first) };
    let mut whole = BytesMut::with_capacity(declared.clamp(first.len(), RESERVE.max(first.len())));
    whole.extend_from_slice(&first);
    loop {
        let mut chunk = next.map_err(|_| BodyError::Broken)?;
        if whole.len() + chunk.remaining() > cap {
            return Err(BodyError::TooLarge { cap });
        }
        whole.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
        match body.next().await {
            Some(chunk) => next = chunk,
            None => return Ok(whole.freeze()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(chunks: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes, ()>> {
        futures::stream::iter(chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk))).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn a_body_is_counted_whether_or_not_it_says_its_length() {
        let body = read_body(chunks(&[b"ab", b"cd", b"e"]), None, 5).await.unwrap();
        assert_eq!(body, "abcde");
        assert!(matches!(read_body(chunks(&[b"ab", b"cd"]), None, 3).await, Err(BodyError::TooLarge { cap: 3 })));
        assert!(matches!(read_body(chunks(&[b"a"]), Some(4), 3).await, Err(BodyError::TooLarge { cap: 3 })));
        assert!(read_body(chunks(&[]), Some(0), 3).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_taken_for_whole() {
        let broken = futures::stream::iter([Ok(Bytes::from_static(b"a")), Err(())]);
        assert!(matches!(read_body(broken, None, 9).await, Err(BodyError::Broken)));
    }
}
