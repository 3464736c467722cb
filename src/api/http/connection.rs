//! A guarded connection: ends clients that stop reading their answer, and detects requests with two lengths.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::clients::Seat;
use super::framing::{Found, Framing};

/// How long a client may stop reading.
const STALL_LIMIT: Duration = Duration::from_secs(20);

/// Findings in the heads of this connection's requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Heads(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    ambiguous: AtomicBool,
    lost: AtomicBool,
}

impl Heads {
    /// Whether one of them had two lengths.
    pub(super) fn are_ambiguous(&self) -> bool {
        self.0.ambiguous.load(Ordering::Relaxed)
    }

    /// Whether the beginning of the next one is unknown.
    pub(super) fn are_lost(&self) -> bool {
        self.0.lost.load(Ordering::Relaxed)
    }
}

/// A stream with its guards.
pub(super) struct Guarded<S> {
    stream: S,
    framing: Framing,
    heads: Heads,
    seat: Arc<Seat>,
    /// Runs while the client does not take pending data.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, seat: Arc<Seat>) -> (Self, Heads) {
        let heads = Heads::default();
        (Self { stream, framing: Framing::default(), heads: heads.clone(), seat, stalled: None }, heads)
    }

    /// Notes that the client took data. A flush, which follows every look, proves nothing.
    fn note(&self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.seat.moved();
        }
    }

    /// Passes on the result of a write, unless there was no progress for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        self.seat.waits();
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_LIMIT)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) else {
            self.seat.waits();
            return Poll::Pending;
        };
        read?;
        self.seat.moved();
        match self.framing.read(&buffer.filled()[before..]) {
            Found::Nothing => {}
            Found::TwoLengths => self.heads.0.ambiguous.store(true, Ordering::Relaxed),
            Found::NoEnd => self.heads.0.lost.store(true, Ordering::Relaxed),
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(&written);
        self.watch(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.note(&written);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::http::Clients;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn seat() -> Arc<Seat> {
        Arc::clone(&Clients::new(1, 1, Vec::new()).admit([127, 0, 0, 1].into()).unwrap().seat)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_let_go() {
        let (client, server) = tokio::io::duplex(16);
        let (mut guarded, _) = Guarded::new(server, seat());
        let error = guarded.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    #[tokio::test]
    async fn what_is_read_is_passed_on_and_looked_at() {
        let (mut client, server) = tokio::io::duplex(1_024);
        let (mut guarded, heads) = Guarded::new(server, seat());
        let request = b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut read = vec![0; request.len()];
        guarded.read_exact(&mut read).await.unwrap();
        assert_eq!(read, request);
        assert!(heads.are_ambiguous());
    }
}
