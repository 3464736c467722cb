//! One keep-alive connection: writes a request, reads just enough of the answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Far more than any sender waits; only a hung server takes this long.
const LIMIT: Duration = Duration::from_secs(30);

/// In the head of a server's last answer.
const CLOSE: &[u8] = b"connection: close\r\n";

#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    #[error("no answer within {LIMIT:?}")]
    TimedOut,
    #[error("connection: closed before the answer was complete")]
    Closed,
    #[error("an answer without status or content-length")]
    Malformed,
    #[error("HTTP {0}")]
    Refused(u16),
}

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// The server closes it, or it broke.
    is_over: bool,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self, ExchangeError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::with_capacity(4096), is_over: false })
    }

    /// Returns once the whole answer has arrived, and fails unless it is a 200.
    pub async fn send(&mut self, request: &[u8]) -> Result<(), ExchangeError> {
        let exchanged = tokio::time::timeout(LIMIT, self.exchange(request)).await;
        let exchanged = exchanged.unwrap_or(Err(ExchangeError::TimedOut));
        self.is_over = match &exchanged {
            Ok(()) | Err(ExchangeError::Refused(_)) => self.input.windows(CLOSE.len()).any(|window| window == CLOSE),
            Err(_) => true,
        };
        exchanged
    }

    /// Whether the server closed it while nothing was sent, as servers do with idle connections.
    pub fn was_left(&self) -> bool {
        matches!(self.stream.try_read(&mut [0; 1]), Ok(0))
    }

    /// Whether the next request needs another connection.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<(), ExchangeError> {
        self.stream.write_all(request).await?;
        self.input.clear();
        loop {
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(ExchangeError::Closed);
            }
            if let Some((status, length)) = answer(&self.input)?
                && self.input.len() >= length
            {
                return if status == 200 { Ok(()) } else { Err(ExchangeError::Refused(status)) };
            }
        }
    }
}

/// Status and length, head and body, of the answer at the start of `input`, once its head is complete.
fn answer(input: &[u8]) -> Result<Option<(u16, usize)>, ExchangeError> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let mut lines = input[..end].split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let status = lines.next().and_then(|line| line.get(9..12)?.parse().ok());
    let length =
        lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: Option<usize> = length.and_then(|(_, value)| value.trim().parse().ok());
    match (status, length) {
        (Some(status), Some(length)) => Ok(Some((status, end + 4 + length))),
        _ => Err(ExchangeError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_head_and_as_much_body_as_it_says() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 5\r\n\r\n{}";
        assert_eq!(answer(text).unwrap(), Some((503, text.len() + 3)));
    }

    #[test]
    fn half_a_head_is_no_answer_yet() {
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n").unwrap(), None);
    }
}
