//! `/graphql`, as "GraphQL over HTTP" says: <https://graphql.github.io/graphql-over-http/draft/>.
//!
//! async-graphql-warp's filter runs mutations over GET and `text/plain`, and has no body limit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_graphql::parser::types::OperationType;
use async_graphql::{Request, Response as GraphqlResponse};
use bytes::Buf;
use futures::Stream;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tracing::Instrument as _;
use uuid::Uuid;
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::session::{NoViewer, viewer_of};
use super::{Answer, Services, person, read, share, with};
use crate::api::graphql::{
    Allowance, Code, Guest, Parameters, Viewer, is_away, is_for_guests, may_be_for_guests, only_error, was_refused,
    with_codes, with_guest, with_viewer,
};
use crate::identity::Client;
use crate::receive::BodyError;

/// Maximum size of a request in bytes: the query and its variables.
const MAX_BODY: usize = 1 << 20;
/// The same without a session: a body of the demo, and a query around it.
const MAX_GUEST_BODY: usize = 160 << 10;
/// A query that failed later has waited for a connection in vain, and is not retried.
const ONCE_MORE_WITHIN: Duration = Duration::from_secs(2);
/// Maximum number of errors in the answer to a request that was not executed.
const MAX_ERRORS: usize = 20;
const RESPONSE_JSON: &str = "application/graphql-response+json";
const RESPONSE_JSON_UTF8: &str = "application/graphql-response+json; charset=utf-8";
const JSON_UTF8: &str = "application/json; charset=utf-8";

pub(super) fn route(services: Arc<Services>) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::path!("graphql")
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(query)
        .and(person())
        .and(share())
        .and(with(services))
        .and(warp::body::stream())
        .then(|method, headers, query, client, share, services: Arc<Services>, body| async move {
            let call = Call { method, headers, query, client, share };
            // Log lines during this answer contain the ID that the answer contains.
            let id = Uuid::now_v7().to_string();
            let span = tracing::info_span!("graphql", request.id = id);
            let mut response = call.answer(&services, &id, body).instrument(span).await.into_response();
            if let Ok(id) = HeaderValue::from_str(&id) {
                response.headers_mut().insert("x-request-id", id);
            }
            response
        })
}

struct Call {
    method: Method,
    headers: HeaderMap,
    query: String,
    client: Client,
    /// The client that its body counts for.
    share: Option<IpAddr>,
}

/// A request that is refused before GraphQL sees it.
struct Refusal {
    status: StatusCode,
    response: GraphqlResponse,
    allow: Option<&'static str>,
    retry_after: Option<u64>,
}

/// An answer, and the memory that it counts for.
struct Executed {
    response: GraphqlResponse,
    held: Option<Arc<Allowance>>,
}

impl From<GraphqlResponse> for Executed {
    fn from(response: GraphqlResponse) -> Self {
        Self { response, held: None }
    }
}

impl Refusal {
    fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::BadUserInput, message)
    }

    fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, response: only_error(code, message), allow: None, retry_after: None }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        let (status, code) = match error {
            BodyError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Code::BadUserInput),
            BodyError::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            BodyError::TooSlow => (StatusCode::REQUEST_TIMEOUT, Code::BadUserInput),
            BodyError::Broken => (StatusCode::BAD_REQUEST, Code::BadUserInput),
        };
        let retry_after = matches!(error, BodyError::NoRoom).then_some(1);
        Self { retry_after, ..Self::new(status, code, error.to_string()) }
    }
}

impl Call {
    async fn answer<B: Buf>(
        self,
        services: &Services,
        id: &str,
        body: impl Stream<Item = Result<B, warp::Error>>,
    ) -> Answer {
        let Some(media_type) = media_type(&self.headers) else {
            let message = format!("The response is application/json or {RESPONSE_JSON}. Accept one of them.");
            let response = only_error(Code::BadUserInput, message);
            return errors_only(StatusCode::NOT_ACCEPTABLE, &response).with_type(JSON_UTF8);
        };
        match self.execute(services, body).await {
            Ok(Executed { response, held }) => {
                // The older media type always has status 200, the newer one is more specific.
                let refused = was_refused(&response);
                let response = with_codes(response, id);
                if !refused {
                    let answer = Answer::holding(held, &response).with_type(media_type);
                    return match retry_after(&response) {
                        Some(seconds) => answer.retry_after(seconds),
                        None => answer,
                    };
                }
                let older = media_type == JSON_UTF8;
                errors_only(if older { StatusCode::OK } else { StatusCode::BAD_REQUEST }, &response)
                    .with_type(media_type)
            }
            Err(Refusal { status, response, allow, retry_after }) => {
                let answer = errors_only(status, &response).with_type(media_type);
                let answer = if let Some(allow) = allow { answer.with_allow(allow) } else { answer };
                if let Some(seconds) = retry_after { answer.retry_after(seconds) } else { answer }
            }
        }
    }

    async fn execute<B: Buf>(
        self,
        services: &Services,
        body: impl Stream<Item = Result<B, warp::Error>>,
    ) -> Result<Executed, Refusal> {
        let by_get = self.method == Method::GET;
        if self.method != Method::POST && !(by_get && services.graphql_get) {
            let allow = if services.graphql_get { "GET, POST" } else { "POST" };
            let refusal =
                Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::BadUserInput, format!("Send queries by {allow}."));
            return Err(Refusal { allow: Some(allow), ..refusal });
        }
        let viewer = match self.viewer(services).await {
            Ok(viewer) => viewer,
            Err(refusal) => return self.as_guest(services, body, refusal).await,
        };
        let parameters = if by_get { self.from_query()? } else { self.from_body(services, body).await? };
        let again = parameters.clone();
        let mut request = match parameters.request() {
            Ok(request) => request,
            Err(refused) => return Ok(refused.into()),
        };
        let reads = only_reads(&mut request);
        if by_get && !reads {
            let refusal =
                Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::BadUserInput, "Only queries can be sent by GET.");
            return Err(Refusal { allow: Some("POST"), ..refusal });
        }
        let begun = Instant::now();
        let execute = async |request| {
            let (request, held) = with_viewer(request, &services.app, &viewer);
            Executed { response: services.schema.execute(request).await, held: Some(held) }
        };
        let executed = execute(request).await;
        // A connection that broke during a read is hidden if another one answers. Only reads are repeated.
        if reads
            && is_away(&executed.response)
            && begun.elapsed() < ONCE_MORE_WITHIN
            && let Ok(request) = again.request()
        {
            drop(executed);
            return Ok(execute(request).await);
        }
        Ok(executed)
    }

    /// Without a token, only the public demo is available, if enabled. Everything else is refused as if there
    /// were no demo.
    async fn as_guest<B: Buf>(
        self,
        services: &Services,
        body: impl Stream<Item = Result<B, warp::Error>>,
        refusal: Refusal,
    ) -> Result<Executed, Refusal> {
        let shows_token = self.headers.contains_key(header::AUTHORIZATION);
        let Some(sandbox) = services.app.sandbox.as_deref() else { return Err(refusal) };
        if shows_token || self.method != Method::POST || !is_json(&self.headers) {
            return Err(refusal);
        }
        let body = match read(&self.headers, body, MAX_GUEST_BODY, services.bodies.for_people(self.share)).await {
            Ok(body) => body,
            Err(BodyError::NoRoom) => return Err(BodyError::NoRoom.into()),
            Err(BodyError::TooLarge { .. } | BodyError::TooSlow | BodyError::Broken) => return Err(refusal),
        };
        let parameters = Parameters::from_json(&body.bytes).ok();
        let Some(parameters) = parameters.filter(|parameters| may_be_for_guests(&parameters.query)) else {
            return Err(refusal);
        };
        let guest = Guest { address: self.client.address };
        // Before the query is parsed, which costs the most.
        if let Err(too_often) = sandbox.admit_request(&guest.address) {
            let message = format!("Too many demo requests. Try again in {} s.", too_often.retry_after);
            let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, Code::RateLimited, message);
            return Err(Refusal { retry_after: Some(too_often.retry_after), ..refusal });
        }
        let Ok(mut request) = parameters.request() else { return Err(refusal) };
        if !request.parsed_query().is_ok_and(is_for_guests) {
            return Err(refusal);
        }
        Ok(services.schema.execute(with_guest(request, guest)).await.into())
    }

    /// Everything else requires a session.
    async fn viewer(&self, services: &Services) -> Result<Viewer, Refusal> {
        viewer_of(services, &self.headers, self.client.clone()).await.map_err(|none| match none {
            NoViewer::Refused => {
                let message = "Sign in first: a valid token is required.";
                Refusal::new(StatusCode::UNAUTHORIZED, Code::Unauthenticated, message)
            }
            NoViewer::Unavailable => {
                let message = "The database isn't responding. Try again.";
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, message)
            }
        })
    }

    fn from_query(&self) -> Result<Parameters, Refusal> {
        let pairs: HashMap<String, String> = form_pairs(&self.query);
        let object = |name: &str| match pairs.get(name).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => {
                serde_json::from_str(text).map_err(|_| Refusal::bad_request(format!("`{name}` must be a JSON object.")))
            }
        };
        Ok(Parameters {
            query: pairs
                .get("query")
                .cloned()
                .ok_or_else(|| Refusal::bad_request("The parameter `query` is missing."))?,
            operation_name: pairs.get("operationName").cloned().filter(|name| !name.is_empty()),
            variables: object("variables")?,
            extensions: object("extensions")?,
        })
    }

    async fn from_body<B: Buf>(
        &self,
        services: &Services,
        body: impl Stream<Item = Result<B, warp::Error>>,
    ) -> Result<Parameters, Refusal> {
        if !is_json(&self.headers) {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::BadUserInput,
                "Send the query as application/json in UTF-8.",
            ));
        }
        let body = read(&self.headers, body, MAX_BODY, services.bodies.for_people(self.share)).await?;
        Parameters::from_json(&body.bytes).map_err(Refusal::bad_request)
    }
}

/// When to try again, if an error says so.
fn retry_after(response: &GraphqlResponse) -> Option<u64> {
    let told = response.errors.iter().filter_map(|error| error.extensions.as_ref()?.get("retryAfter"));
    told.filter_map(|seconds| match seconds {
        async_graphql::Value::Number(seconds) => seconds.as_u64(),
        _ => None,
    })
    .max()
}

/// A request that was not executed has no `data`, not even null.
fn errors_only(status: StatusCode, response: &GraphqlResponse) -> Answer {
    #[derive(serde::Serialize)]
    struct ErrorsOnly<'a> {
        errors: &'a [async_graphql::ServerError],
    }
    // A query can have thousands, each of which is longer than its cause.
    let told = response.errors.len().min(MAX_ERRORS);
    Answer::json(status, &ErrorsOnly { errors: &response.errors[..told] })
}

/// Whether the requested operation is a query. If it does not parse, execution refuses it with the position.
fn only_reads(request: &mut Request) -> bool {
    let name = request.operation_name.clone();
    let Ok(document) = request.parsed_query() else { return true };
    let selected = |operation: Option<&str>| name.is_none() || name.as_deref() == operation;
    document
        .operations
        .iter()
        .filter(|(operation, _)| selected(operation.map(async_graphql::Name::as_str)))
        .all(|(_, operation)| operation.node.ty == OperationType::Query)
}

/// The media type of the answer, one of two.
fn media_type(headers: &HeaderMap) -> Option<&'static str> {
    let mut accepted = headers.get_all(header::ACCEPT).iter().peekable();
    if accepted.peek().is_none() {
        return Some(JSON_UTF8);
    }
    let ranges = accepted.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    ranges.map(|range| range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()).find_map(|range| {
        match range.as_str() {
            RESPONSE_JSON => Some(RESPONSE_JSON_UTF8),
            "application/json" | "application/*" | "*/*" => Some(JSON_UTF8),
            _ => None,
        }
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let mut parts = value.split(';').map(|part| part.trim().to_ascii_lowercase());
    let is_json = parts.next().is_some_and(|media_type| media_type == "application/json");
    is_json && parts.all(|part| part.strip_prefix("charset=").is_none_or(|set| set.trim_matches('"') == "utf-8"))
}

/// The pairs of a query string.
fn form_pairs(query: &str) -> HashMap<String, String> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}
