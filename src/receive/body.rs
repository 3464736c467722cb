//! Reads a body as a counted stream, because warp would buffer a chunked one without limit.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::room::{Claim, Held};

/// How long a whole body may take. No sender of webhooks waits longer than 10 s.
const BODY_LIMIT: Duration = Duration::from_secs(25);
/// Time until the first bytes of a body, and the window in which a minimum must arrive. An average would not
/// do: a client that sent much at first could then be silent for long and hold all of it.
const GRACE: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_secs(3);
const WINDOW_BYTES: usize = 48 << 10;
/// How much of a refused body is read, and for how long.
const DRAIN_BYTES: usize = 64 << 20;
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// Clients whose refused bodies are read at the same time, so that reading them does not slow down other
/// requests.
static DRAINS: Semaphore = Semaphore::const_new(32);
/// How much a declared length may reserve before any of the body arrives.
const RESERVE: usize = 64 << 10;
/// Buffer size for a larger body.
const PIECE: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("The body is larger than {cap} bytes.")]
    TooLarge { cap: usize },
    #[error("The body did not arrive in time.")]
    TooSlow,
    #[error("The body ended early.")]
    Broken,
    /// The budget for the bodies of all requests in flight is used up.
    #[error("Too many large bodies at once. Send it again.")]
    NoRoom,
}

/// A body, and its share of the budget until it is dropped.
#[derive(Debug)]
pub struct HeldBody {
    pub bytes: Bytes,
    pub held: Held,
}

impl HeldBody {
    /// A body of our own, which needs no budget.
    #[must_use]
    pub fn unbounded(bytes: Bytes) -> Self {
        Self { bytes, held: Held::none() }
    }
}

/// Reads a body of at most `cap` bytes. A body that arrives in one piece is not copied.
pub async fn read_body<B: Buf, E>(
    body: impl Stream<Item = Result<B, E>>,
    declared: Option<u64>,
    cap: usize,
    claim: Claim,
) -> Result<HeldBody, BodyError> {
    if declared.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > cap)) {
        return Err(BodyError::TooLarge { cap });
    }
    let declared = declared.and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    let (started, held) = (Instant::now(), Held::new(claim));
    let mut reading = Reading {
        body: std::pin::pin!(body),
        timer: std::pin::pin!(tokio::time::sleep(GRACE)),
        limit: started + BODY_LIMIT,
        window: Window { ends: started + GRACE, received: 0 },
        received: 0,
        cap,
        gone: held.gone(),
        held,
    };
    let Some(first) = reading.next().await? else { return reading.held(Bytes::new()) };
    let Some(next) = reading.next().await? else { return reading.held(first) };
    let mut pieces = Pieces::beginning(declared);
    pieces.push(&first);
    drop(first);
    pieces.push(&next);
    drop(next);
    while let Some(next) = reading.next().await? {
        pieces.push(&next);
    }
    // Before copying, because the body may have to give way.
    reading.held.complete()?;
    Ok(HeldBody { bytes: pieces.whole(), held: reading.held })
}

/// The arrived pieces of a body, copied into buffers: one growing buffer would need half as much again, and
/// keeping many tiny pieces would hold much memory.
struct Pieces {
    full: Vec<BytesMut>,
    last: BytesMut,
}

impl Pieces {
    fn beginning(declared: usize) -> Self {
        Self { full: Vec::new(), last: BytesMut::with_capacity(declared.clamp(1, RESERVE)) }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.last.capacity() - self.last.len();
            if room == 0 {
                self.full.push(std::mem::replace(&mut self.last, BytesMut::with_capacity(PIECE)));
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.last.extend_from_slice(now);
            bytes = later;
        }
    }

    fn whole(self) -> Bytes {
        if self.full.is_empty() {
            return self.last.freeze();
        }
        let length = self.full.iter().map(BytesMut::len).sum::<usize>() + self.last.len();
        let mut whole = BytesMut::with_capacity(length);
        // Each piece is freed as soon as it is copied.
        self.full.into_iter().for_each(|piece| whole.extend_from_slice(&piece));
        whole.extend_from_slice(&self.last);
        whole.freeze()
    }
}

/// A body that is arriving.
struct Reading<'a, S> {
    body: Pin<&'a mut S>,
    timer: Pin<&'a mut Sleep>,
    limit: Instant,
    window: Window,
    received: usize,
    cap: usize,
    gone: CancellationToken,
    held: Held,
}

/// The bytes that arrived in the current window.
struct Window {
    ends: Instant,
    received: usize,
}

impl<B: Buf, E, S: Stream<Item = Result<B, E>>> Reading<'_, S> {
    /// The next piece, counted; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let chunk = tokio::select! {
                biased;
                () = self.gone.cancelled() => return Err(BodyError::NoRoom),
                chunk = self.body.next() => chunk,
                () = self.timer.as_mut() => {
                    let until = self.window.ends.min(self.limit);
                    if Instant::now() >= until {
                        return Err(BodyError::TooSlow);
                    }
                    self.timer.as_mut().reset(until);
                    continue;
                }
            };
            let Some(chunk) = chunk else { return Ok(None) };
            let mut chunk = chunk.map_err(|_| BodyError::Broken)?;
            let length = chunk.remaining();
            if length > self.cap - self.received {
                return Err(BodyError::TooLarge { cap: self.cap });
            }
            self.held.take(length)?;
            self.received += length;
            self.window.received += length;
            if self.window.received >= WINDOW_BYTES {
                self.window = Window { ends: Instant::now() + WINDOW, received: 0 };
                self.held.moved();
            }
            return Ok(Some(chunk.copy_to_bytes(length)));
        }
    }

    fn held(self, bytes: Bytes) -> Result<HeldBody, BodyError> {
        self.held.complete()?;
        Ok(HeldBody { bytes, held: self.held })
    }
}

/// Reads and drops the rest of a refused request, within bounds. Closing the connection instead would reset
/// it, and the client would never see why it was refused.
pub async fn drain_body<B: Buf, E>(mut body: Pin<&mut impl Stream<Item = Result<B, E>>>) {
    let Ok(_drain) = DRAINS.try_acquire() else { return };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::{BodyBudget, Owner};

    /// A claim for that many bytes.
    fn room(bytes: usize) -> Claim {
        BodyBudget::new(0, bytes).for_webhook(Owner::default(), Some(u64::MAX))
    }

    fn chunks(chunks: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes, ()>> {
        futures::stream::iter(chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk))).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn a_body_is_counted_whether_or_not_it_says_its_length() {
        let budget = room(1_000);
        let body = read_body(chunks(&[b"ab", b"cd", b"e"]), None, 5, budget.clone()).await.unwrap();
        assert_eq!(body.bytes, "abcde");
        let too_large = |result| matches!(result, Err(BodyError::TooLarge { cap: 3 }));
        assert!(too_large(read_body(chunks(&[b"ab", b"cd"]), None, 3, budget.clone()).await));
        assert!(too_large(read_body(chunks(&[b"a"]), Some(4), 3, budget.clone()).await));
        assert!(read_body(chunks(&[]), Some(0), 3, budget.clone()).await.unwrap().bytes.is_empty());
    }

    #[tokio::test]
    async fn pieces_of_any_size_make_the_same_whole() {
        let whole: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        for (size, declared) in [(1, None), (1_000, Some(1_000_000)), (65_536, None), (700_000, Some(7))] {
            let chunks: Vec<Result<Bytes, ()>> = whole.chunks(size).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
            let budget = room(1 << 20);
            let body = read_body(futures::stream::iter(chunks), declared, 1 << 20, budget.clone()).await.unwrap();
            assert!(body.bytes == whole, "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_taken_for_whole() {
        let broken = futures::stream::iter([Ok(Bytes::from_static(b"a")), Err(())]);
        assert!(matches!(read_body(broken, None, 9, room(9)).await, Err(BodyError::Broken)));
    }

    #[tokio::test]
    async fn bodies_share_a_budget_and_give_back_what_they_held() {
        let budget = room(5);
        let first = read_body(chunks(&[b"ab", b"c"]), None, 9, budget.clone()).await.unwrap();
        let second = read_body(chunks(&[b"ab", b"c"]), None, 9, budget.clone()).await;
        assert!(matches!(second, Err(BodyError::NoRoom)));
        drop(first);
        assert!(read_body(chunks(&[b"ab", b"cde"]), None, 9, budget.clone()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up_and_a_slow_honest_one_is_not() {
        let every = |wait: Duration, chunk: &'static [u8], count: usize| {
            futures::stream::iter(0..count).then(move |_| async move {
                tokio::time::sleep(wait).await;
                Ok::<_, ()>(Bytes::from_static(chunk))
            })
        };
        let (budget, started) = (room(1 << 20), Instant::now());
        let trickle = read_body(every(Duration::from_secs(1), b"a", 1_000), None, 1 << 20, budget.clone()).await;
        assert!(matches!(trickle, Err(BodyError::TooSlow)));
        assert!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
        let honest = every(Duration::from_millis(250), &[b'a'; 16 << 10], 32);
        assert_eq!(read_body(honest, None, 1 << 20, budget.clone()).await.unwrap().bytes.len(), 512 << 10);
        let started = Instant::now();
        let large = room(1 << 30);
        let endless = read_body(every(Duration::from_millis(10), &[b'a'; 1 << 10], 9_999), None, 1 << 30, large);
        assert!(matches!(endless.await, Err(BodyError::TooSlow)));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_after_much_is_not_borne_for_longer_than_silence_at_the_beginning() {
        let much = futures::stream::iter((0..21).map(|_| Ok::<_, ()>(Bytes::from(vec![b'a'; 1 << 20]))));
        let started = Instant::now();
        let read = read_body(much.chain(futures::stream::pending()), Some(25 << 20), 25 << 20, room(25 << 20)).await;
        assert!(matches!(read, Err(BodyError::TooSlow)));
        assert!(started.elapsed() <= GRACE, "{:?}", started.elapsed());
    }
}
