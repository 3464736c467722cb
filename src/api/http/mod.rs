//! HTTP: routes, answers and the accept loop. The only place that knows warp and hyper.

mod answers;
mod audit_export;
mod auth;
mod clients;
mod connection;
mod forwarded;
mod framing;
mod graphql;
mod ledger;
mod operations;
mod server;
mod session;
mod socket;
mod web;
mod webhooks;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Buf;
use futures::Stream;
use http::{HeaderMap, HeaderValue, header};
use warp::reply::Response;
use warp::{Filter, Reply as _};

pub use clients::{ClientAddress, Clients};
pub use operations::Readiness;
pub use server::{Server, serve_connection};
pub use socket::Sockets;

use crate::api::graphql::{App, Schema};
use crate::identity::{Client, Links};
use crate::log::follow::Checkpoints;
use crate::platform::vitals::Vitals;
use crate::receive::{BodyBudget, BodyError, Claim, HeldBody, Receiver, drain_body, read_body};
use answers::{Answer, ErrorBody};

/// After one visit over TLS, browsers use only TLS for a year, if the base URL does.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Everything that handlers need.
#[derive(Clone)]
pub struct Services {
    pub receiver: Receiver,
    pub app: App,
    pub schema: Schema,
    pub sockets: Sockets,
    pub links: Links,
    pub checkpoints: Checkpoints,
    pub vitals: Vitals,
    pub metrics: metrics_exporter_prometheus::PrometheusHandle,
    /// Maximum size of a webhook's body in bytes.
    pub max_body: usize,
    /// Budget for the bodies of all requests in flight.
    pub bodies: BodyBudget,
    /// Whether to accept queries over GET.
    pub graphql_get: bool,
    /// Whether anybody may see metrics, and why the node is not ready.
    pub operations_are_public: bool,
    /// The node's readiness, as of a moment ago.
    pub readiness: Readiness,
}

/// Every route. A path that matched answers with a reply; a rejection only means "not mine".
pub fn routes(services: Arc<Services>) -> impl Filter<Extract = (Response,), Error = std::convert::Infallible> + Clone {
    let webhooks = webhooks::route(Arc::clone(&services)).boxed();
    // Upgrade requests go to the socket; everything else at that path is a request.
    let graphql = socket::route(Arc::clone(&services)).or(graphql::route(Arc::clone(&services))).unify().boxed();
    let auth = auth::route(Arc::clone(&services)).boxed();
    let pages = web::route().boxed();
    let export = audit_export::route(Arc::clone(&services)).boxed();
    let ledger = ledger::route(Arc::clone(&services)).boxed();
    let is_secure = services.app.base_url.starts_with("https://");
    let operations = operations::route(services).boxed();
    let others =
        graphql.or(auth).unify().or(pages).unify().or(export).unify().or(ledger).unify().or(operations).unify().boxed();
    // Each `or` costs every request that passes through it, so webhooks pass through only one.
    webhooks.or(others).unify().recover(nothing_here).unify().map(move |mut response: Response| {
        if is_secure {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
        }
        response
    })
}

/// The operators' routes, on a separate listener.
pub fn operations(
    services: Arc<Services>,
) -> impl Filter<Extract = (Response,), Error = std::convert::Infallible> + Clone {
    operations::private_route(services).recover(nothing_here).unify()
}

async fn nothing_here(_rejection: warp::Rejection) -> Result<Response, std::convert::Infallible> {
    Ok(Answer::not_found().into_response())
}

/// The client's address.
fn client() -> impl Filter<Extract = (String,), Error = std::convert::Infallible> + Copy {
    warp::ext::optional::<ClientAddress>()
        .map(|client: Option<ClientAddress>| client.map(|client| client.address.to_string()).unwrap_or_default())
}

/// The key of a client's share; `None` if many share an address.
fn share() -> impl Filter<Extract = (Option<IpAddr>,), Error = std::convert::Infallible> + Copy {
    warp::ext::optional::<ClientAddress>().map(|client: Option<ClientAddress>| client.and_then(ClientAddress::share))
}

/// A person's address and user agent.
fn person() -> impl Filter<Extract = (Client,), Error = std::convert::Infallible> + Copy {
    client().and(warp::header::headers_cloned()).map(|address, headers: HeaderMap| {
        Client::new(address, headers.get(header::USER_AGENT).map(HeaderValue::as_bytes))
    })
}

/// Reads a body other than a webhook's. A refused client gets the reason: closing while it sends would reset
/// the connection, unless the client waits for 100 Continue.
async fn read<B: Buf>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>>,
    cap: usize,
    claim: Claim,
) -> Result<HeldBody, BodyError> {
    let mut body = std::pin::pin!(body);
    let read = read_body(body.as_mut(), declared_length(headers), cap, claim).await;
    if read.is_err() && !waits_to_be_asked(headers) {
        drain_body(body).await;
    }
    read
}

/// Whether a client waits for 100 Continue before it sends its body.
fn waits_to_be_asked(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// The length of a body, according to its head.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn with(services: Arc<Services>) -> impl Filter<Extract = (Arc<Services>,), Error = std::convert::Infallible> + Clone {
    warp::any().map(move || Arc::clone(&services))
}

fn error(status: http::StatusCode, code: &'static str, sentence: impl Into<String>) -> Answer {
    Answer::error(status, ErrorBody::new(code, sentence))
}
