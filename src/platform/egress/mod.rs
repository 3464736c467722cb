//! The HTTP client that delivers webhooks to customers' URLs.
//!
//! Customers choose the URL, so it must not give them access to our own network: a URL is parsed in a single
//! way ([`Target`]), its name is resolved once per attempt, every address of the result is checked
//! ([`address`]), and the connection goes to one of exactly these. Redirects are not followed, proxies not
//! used, bodies not decompressed. The client is bounded whatever the other side does: one timeout from the
//! lookup to the headers, a limit on the bytes read, and a short wait for the beginning of the body.
//!
//! Not here: when to deliver, how often, how many at once, and what to sign. The caller decides.

pub mod address;
mod connect;
mod error;
mod excerpt;
mod meter;
mod pool;
mod resolve;
mod target;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use rustls::RootCertStore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use url::Host;

pub use address::{AllowList, AllowListError, Forbidden};
pub use error::{Broken, Kind, SendError, TlsFailure, Unresolvable};
pub use excerpt::EXCERPT_BYTES;
pub use resolve::{MAX_ADDRESSES, Resolve, SystemResolver};
pub use target::{Target, TargetError};

use connect::Connection;
use pool::Pool;

/// Maximum timeout.
const MAX_TIMEOUT: Duration = Duration::from_secs(600);
/// How long to wait for the beginning of a body after the headers.
const BODY_GRACE: Duration = Duration::from_secs(2);
/// How long a connection has to become ready again after its answer was read.
const READY_GRACE: Duration = Duration::from_millis(100);
const RETRY_AFTER_BYTES: usize = 64;

/// Headers that belong to the connection and not to the caller.
const OWN_HEADERS: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::EXPECT,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    HeaderName::from_static("keep-alive"),
];

/// One request: a POST of `body`.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// All headers except the connection's own (`host`, `content-length` and the like), which are replaced.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// From the lookup of the name to the end of the answer's headers; at most 10 minutes.
    pub timeout: Duration,
}

/// A destination's answer, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// The `Retry-After` header unchanged, unless it is unreasonably long.
    pub retry_after: Option<String>,
    /// At most the first [`EXCERPT_BYTES`] of the body.
    pub excerpt: Bytes,
    /// Whether the excerpt is the whole body.
    pub whole: bool,
}

/// Why the client could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("could not set up the DNS resolver: {0}")]
    Resolver(#[from] hickory_resolver::net::NetError),
    #[error("could not set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// The client. Cheap to clone; clones share their idle connections.
#[derive(Clone)]
pub struct Egress(Arc<Inner>);

struct Inner {
    allow: AllowList,
    resolver: Box<dyn Resolve>,
    tls: TlsConnector,
    pool: Arc<Pool>,
}

impl Egress {
    /// Uses the system's resolver and certificates. Called once, inside a Tokio runtime.
    pub fn new(allow: AllowList) -> Result<Self, StartError> {
        Self::with(allow, Box::new(SystemResolver::new()?), connect::system_roots())
    }

    /// Uses the caller's resolver and certificates.
    pub fn with(allow: AllowList, resolver: Box<dyn Resolve>, roots: RootCertStore) -> Result<Self, StartError> {
        let tls = connect::tls_connector(roots)?;
        Ok(Self(Arc::new(Inner { allow, resolver, tls, pool: Pool::start() })))
    }

    pub fn allow_list(&self) -> &AllowList {
        &self.0.allow
    }

    /// Number of idle connections.
    pub fn idle_connections(&self) -> usize {
        self.0.pool.idle()
    }

    /// Posts once. Dropping the future closes its connection.
    pub async fn send(&self, target: &Target, outgoing: Outgoing) -> Result<Answer, SendError> {
        let limit = outgoing.timeout.min(MAX_TIMEOUT);
        let attempt = Attempt { inner: &self.0, target, limit, deadline: Instant::now() + limit };
        let (connection, response) = attempt.exchange(outgoing.headers, outgoing.body).await?;
        let (head, body) = response.into_parts();
        let until = attempt.deadline.min(Instant::now() + BODY_GRACE);
        let (excerpt, whole) = excerpt::read_excerpt(body, until).await;
        if whole {
            attempt.keep(connection, pool::idle_limit(&head.headers)).await;
        }
        Ok(Answer { status: head.status, retry_after: retry_after(&head.headers), excerpt, whole })
    }
}

struct Attempt<'a> {
    inner: &'a Inner,
    target: &'a Target,
    limit: Duration,
    deadline: Instant,
}

impl Attempt<'_> {
    async fn exchange(&self, headers: HeaderMap, body: Bytes) -> Result<(Connection, Response<Incoming>), SendError> {
        let literal;
        let resolved;
        let addresses: &[IpAddr] = match self.target.host() {
            Host::Ipv4(address) => {
                literal = [self.target.check((*address).into(), &self.inner.allow)?];
                &literal
            }
            Host::Ipv6(address) => {
                literal = [self.target.check((*address).into(), &self.inner.allow)?];
                &literal
            }
            Host::Domain(name) => {
                resolved = self.resolve(name).await?;
                &resolved
            }
        };
        let mut request = self.request(headers, body);
        if let Some(connection) = self.inner.pool.take(self.target.origin(), addresses) {
            let again = request.clone();
            match self.send_over(connection, request).await {
                Ok(answered) => return Ok(answered),
                // Most likely the other side was closing the idle connection. Deliveries are at least once,
                // so a request that may have arrived is repeated here instead of after a failed attempt.
                Err(Failure::Unanswered) => request = again,
                Err(Failure::Failed(error)) => return Err(error),
            }
        }
        let connection = connect::connect(self.target, addresses, self.deadline, self.limit, &self.inner.tls).await?;
        self.send_over(connection, request).await.map_err(|failure| match failure {
            Failure::Unanswered => SendError::Broken(Broken::Closed),
            Failure::Failed(error) => error,
        })
    }

    /// Resolves once and checks all addresses: a single forbidden one refuses the attempt, because a public
    /// name has no reason to have it.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, SendError> {
        let mut addresses = timeout_at(self.deadline, self.inner.resolver.resolve(name))
            .await
            .unwrap_or(Err(Unresolvable::NoAnswer))
            .map_err(|why| why.of(name))?;
        if addresses.is_empty() {
            return Err(Unresolvable::NoAddress.of(name));
        }
        for address in &mut addresses {
            *address = self.target.check(*address, &self.inner.allow)?;
        }
        Ok(addresses)
    }

    fn request(&self, mut headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
        for name in OWN_HEADERS {
            headers.remove(name);
        }
        headers.insert(header::HOST, self.target.authority().clone());
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.path().clone();
        *request.headers_mut() = headers;
        request
    }

    async fn send_over(
        &self,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<(Connection, Response<Incoming>), Failure> {
        match timeout_at(self.deadline, connection.sender.send_request(request)).await {
            Ok(Ok(response)) => Ok((connection, response)),
            Ok(Err(_)) if connection.heard.is_untouched() => Err(Failure::Unanswered),
            Ok(Err(error)) => Err(Failure::Failed(SendError::from_exchange(&error, connection.meter.ran_out()))),
            Err(_) => Err(Failure::Failed(SendError::TimedOut(self.limit))),
        }
    }

    /// Keeps a connection for the next webhook if the other side allows it.
    async fn keep(&self, mut connection: Connection, limit: Duration) {
        if let Ok(Ok(())) = timeout(READY_GRACE, connection.sender.ready()).await {
            connection.meter.reset();
            connection.heard.reset();
            self.inner.pool.put(self.target.origin(), connection, limit);
        }
    }
}

/// Why a request over one connection has no answer.
enum Failure {
    /// The connection ended before the first byte of an answer.
    Unanswered,
    Failed(SendError),
}

fn retry_after(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    (value.len() <= RETRY_AFTER_BYTES).then(|| value.to_owned())
}
