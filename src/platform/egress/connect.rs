//! Connects to one of the checked addresses, and to nothing else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::error::SendError;
use super::meter::{Meter, Metered};
use super::target::Target;

/// Maximum size of a response's status line and headers, and hyper's buffer. Common servers send as much as
/// their applications produce, and a delivered webhook must not fail because of it.
const HEAD_BYTES: usize = 256 << 10;
/// Maximum number of header lines of a response.
const HEAD_LINES: usize = 1_024;
/// Addresses tried per attempt.
const TRIED: usize = 6;

/// A connection for successive exchanges. Dropping it closes it at once.
pub struct Connection {
    pub sender: SendRequest<Full<Bytes>>,
    /// Budget of the exchange for reading from the wire.
    pub meter: Meter,
    /// Budget of the exchange for reading HTTP, which is less than from the wire if that is encrypted.
    pub heard: Meter,
    pub address: IpAddr,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connects to the first address that accepts; each gets its share of the time.
pub async fn connect(
    target: &Target,
    addresses: &[IpAddr],
    deadline: Instant,
    timeout: Duration,
    tls: &TlsConnector,
) -> Result<Connection, SendError> {
    let (socket, address) = reach(target.port(), addresses, deadline, timeout).await?;
    // Requests are written at once, so waiting for more data only costs time. A failure here is harmless.
    let _ = socket.set_nodelay(true);
    let meter = Meter::new();
    let socket = Metered::new(socket, meter.clone());
    let Some(name) = target.tls() else { return drive(socket, meter.clone(), meter, address).await };
    let socket = timeout_at(deadline, tls.connect(name.clone(), socket))
        .await
        .map_err(|_| SendError::ConnectTimedOut(timeout))?
        .map_err(|error| SendError::from_handshake(&error))?;
    let heard = Meter::new();
    drive(Metered::new(socket, heard.clone()), meter, heard, address).await
}

/// Trusts `roots`, speaks only HTTP/1.1, and uses rustls' ring provider whatever the process's default is.
pub fn tls_connector(roots: RootCertStore) -> Result<TlsConnector, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The machine's and Mozilla's root certificates: the former include an organization's own, the latter exist
/// even if the machine has none installed.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(error = %error, "could not read some of the system's certificates");
    }
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "read the system's certificates");
    roots
}

async fn reach(
    port: u16,
    addresses: &[IpAddr],
    deadline: Instant,
    timeout: Duration,
) -> Result<(TcpStream, IpAddr), SendError> {
    let tried = alternating(addresses);
    let mut failure = SendError::Unreachable;
    for (address, left) in tried.iter().zip((1..=tried.len()).rev()) {
        let share = deadline.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
        match tokio::time::timeout(share, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(socket)) => return Ok((socket, *address)),
            Ok(Err(error)) => {
                tracing::debug!(address = %address, port, error = %error, "could not connect to a destination");
                failure = SendError::Unreachable;
            }
            Err(_) => failure = SendError::ConnectTimedOut(timeout),
        }
    }
    Err(failure)
}

/// IPv4 and IPv6 alternately, so that a broken one is followed by the other. IPv4 first, because servers
/// without IPv6 are more common than servers without IPv4.
fn alternating(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut v4 = addresses.iter().filter(|address| address.is_ipv4());
    let mut v6 = addresses.iter().filter(|address| address.is_ipv6());
    let mut tried = Vec::with_capacity(addresses.len().min(TRIED));
    while tried.len() < TRIED {
        let before = tried.len();
        tried.extend(v4.next());
        tried.extend(v6.next());
        if tried.len() == before {
            break;
        }
    }
    tried
}

async fn drive<S>(socket: S, meter: Meter, heard: Meter, address: IpAddr) -> Result<Connection, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = Builder::new()
        .max_buf_size(HEAD_BYTES)
        .max_header_size(HEAD_BYTES)
        .max_headers(HEAD_LINES)
        // The status decides. A malformed header line is no reason to send a webhook again.
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(|error| SendError::from_exchange(&error, false))?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "a connection to a destination ended");
        }
    });
    Ok(Connection { sender, meter, heard, address, driver: driver.abort_handle() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_tries_are_bounded() {
        let given: Vec<IpAddr> =
            ["2a00::1", "2a00::2", "2a00::3", "1.1.1.1"].iter().map(|a| a.parse().unwrap()).collect();
        let order: Vec<_> = alternating(&given).iter().map(ToString::to_string).collect();
        assert_eq!(order, ["1.1.1.1", "2a00::1", "2a00::2", "2a00::3"]);
        assert_eq!(alternating(&vec![given[0]; 64]).len(), TRIED);
    }
}
