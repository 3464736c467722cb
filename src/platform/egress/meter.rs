//! A socket that reads a bounded number of bytes per exchange, whatever is sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Budget of one exchange for reading from the wire: a handshake, interim answers, a head of 256 KiB, an
/// excerpt of 16 KiB in the smallest chunks, and what hyper reads ahead.
const EXCHANGE_BYTES: usize = 768 << 10;

/// The remaining budget.
#[derive(Clone)]
pub struct Meter(Arc<AtomicUsize>);

impl Meter {
    pub fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(EXCHANGE_BYTES)))
    }

    /// Starts an exchange.
    pub fn reset(&self) {
        self.0.store(EXCHANGE_BYTES, Ordering::Relaxed);
    }

    pub fn ran_out(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Whether nothing was read since the exchange started.
    pub fn is_untouched(&self) -> bool {
        self.0.load(Ordering::Relaxed) == EXCHANGE_BYTES
    }
}

/// A connection's socket, or the TLS stream over one. The meter that limits an exchange is below TLS, so that
/// it counts the handshake; the meter that shows whether an answer began is above.
pub struct Metered<S> {
    socket: S,
    meter: Meter,
}

impl<S> Metered<S> {
    pub fn new(socket: S, meter: Meter) -> Self {
        Self { socket, meter }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.meter.ran_out() {
            return Poll::Ready(Err(io::Error::other("the exchange read more than it may")));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        if read > 0 {
            // Only this task subtracts, so a reset in between is as good as one afterwards.
            let left = self.meter.0.load(Ordering::Relaxed).saturating_sub(read);
            self.meter.0.store(left, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        unless_gone(Pin::new(&mut self.socket).poll_write(cx, bytes), bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        unless_gone(Pin::new(&mut self.socket).poll_write_vectored(cx, slices), length)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A destination may answer and close before it has read the whole request. Then writing fails although an
/// answer is available, and hyper would report the failure and drop the answer. So failed writes count as
/// written, and reading finds either the answer or the end of the connection.
fn unless_gone(written: Poll<io::Result<usize>>, length: usize) -> Poll<io::Result<usize>> {
    match written {
        Poll::Ready(Err(error))
            if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
        {
            Poll::Ready(Ok(length))
        }
        other => other,
    }
}
