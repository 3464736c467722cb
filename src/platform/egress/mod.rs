//! The HTTP client that hands a webhook to a customer's URL.
//!
//! A customer chooses the URL, so it is guarded against being turned on our own network: a URL is read in one way
//! ([`Target`]), its name is resolved once at every attempt, every address of the answer is checked ([`address`]),
//! and the connection goes to one of exactly these. Redirects are not followed, proxies not asked, bodies not
//! decompressed. And it is bounded whatever the other side does: one timeout from the look-up to the headers, a cap
//! on what is read, a short grace for the beginning of the body.
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

/// The longest timeout that is granted.
const MAX_TIMEOUT: Duration = Duration::from_secs(600);
/// How long the beginning of a body is waited for after the headers.
const BODY_GRACE: Duration = Duration::from_secs(2);
/// How long a connection has to become ready again once its answer was read.
const READY_GRACE: Duration = Duration::from_millis(100);
const RETRY_AFTER_BYTES: usize = 64;

/// What belongs to the connection and not to the caller.
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
    /// From the look-up of the name to the end of the answer's headers; at most ten minutes.
    pub timeout: Duration,
}

/// A destination's answer, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// The `Retry-After` header as it came, unless it is longer than any honest one.
    pub retry_after: Option<String>,
    /// At most the first [`EXCERPT_BYTES`] of the body.
    pub excerpt: Bytes,
    /// Whether the excerpt is the whole body.
    pub whole: bool,
}

/// Why the client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the resolver of names could not be set up: {0}")]
    Resolver(#[from] hickory_resolver::net::NetError),
    #[error("TLS could not be set up: {0}")]
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
    /// With the system's resolver and certificates. Called once, inside a Tokio runtime.
    pub fn new(allow: AllowList) -> Result<Self, StartError> {
        Self::with(allow, Box::new(SystemResolver::new()?), connect::system_roots())
    }

    /// With a resolver and certificates of the caller's choice.
    pub fn with(allow: AllowList, resolver: Box<dyn Resolve>, roots: RootCertStore) -> Result<Self, StartError> {
        let tls = connect::tls_connector(roots)?;
        Ok(Self(Arc::new(Inner { allow, resolver, tls, pool: Pool::start() })))
    }

    pub fn allow_list(&self) -> &AllowList {
        &self.0.allow
    }

    /// How many idle connections are kept.
    pub fn idle_connections(&self) -> usize {
        self.0.pool.idle()
    }

    /// Posts once. Dropping the future closes the connection that it used.
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
                // The other side was closing the idle connection, most likely. Deliveries are at least once, so one
                // that may have arrived is sent again here rather than after a failed attempt.
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

    /// Resolves once and checks all of the answer: one forbidden address among them refuses the attempt, since a
    /// public name has no business there.
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

    /// Keeps a connection for the next webhook, if the other side wants to.
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
    /// The connection ended before a byte of an answer came.
    Unanswered,
    Failed(SendError),
}

fn retry_after(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    (value.len() <= RETRY_AFTER_BYTES).then(|| value.to_owned())
}
