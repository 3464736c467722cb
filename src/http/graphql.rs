//! `/graphql`, as "GraphQL over HTTP" says: <https://graphql.github.io/graphql-over-http/draft/>.
//!
//! async-graphql-warp's filter runs mutations over GET and `text/plain`, and has no body limit.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::dataloader::DataLoader;
use async_graphql::parser::types::OperationType;
use async_graphql::runtime::{TokioSpawner, TokioTimer};
use async_graphql::{Request, Response as GraphqlResponse, Variables};
use bytes::Buf;
use futures::Stream;
use hookledger_projections::users;
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::{Answer, Services, client, with};
use crate::graphql::{Code, Rows, Viewer, check_source, only_error, with_codes};
use crate::receive::read_body;

/// Bytes of a request: the query and its variables.
const MAX_BODY: usize = 1 << 20;
const RESPONSE_JSON: &str = "application/graphql-response+json";
const RESPONSE_JSON_UTF8: &str = "application/graphql-response+json; charset=utf-8";
const JSON_UTF8: &str = "application/json; charset=utf-8";

pub(super) fn route(services: Arc<Services>) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::path!("graphql")
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(query)
        .and(client())
        .and(with(services))
        .and(warp::body::stream())
        .then(|method, headers, query, client, services: Arc<Services>, body| async move {
            let call = Call { method, headers, query, client };
            call.answer(&services, body).await.into_response()
        })
}

struct Call {
    method: Method,
    headers: HeaderMap,
    query: String,
    client: String,
}

/// The parameters of a request, each of the type that the specification says, or refused.
#[derive(Deserialize)]
struct Parameters {
    query: String,
    #[serde(rename = "operationName")]
    operation_name: Option<String>,
    variables: Option<serde_json::Map<String, serde_json::Value>>,
    extensions: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A request that is refused before GraphQL sees it.
struct Refusal {
    status: StatusCode,
    response: GraphqlResponse,
    allow: Option<&'static str>,
}

impl Refusal {
    fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::BadUserInput, message)
    }

    fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, response: only_error(code, message), allow: None }
    }
}

impl Call {
    async fn answer<B: Buf>(self, services: &Services, body: impl Stream<Item = Result<B, warp::Error>>) -> Answer {
        let Some(media_type) = media_type(&self.headers) else {
            let message = format!("the answer is application/json or {RESPONSE_JSON}, and neither is accepted");
            let response = only_error(Code::BadUserInput, message);
            return errors_only(StatusCode::NOT_ACCEPTABLE, &response).with_type(JSON_UTF8);
        };
        match self.execute(services, body).await {
            Ok(response) => {
                // The older media type says 200 whatever the answer is, the newer one says more.
                let refused = response.is_err() && response.data == async_graphql::Value::Null && !ran(&response);
                let response = with_codes(response);
                if !refused {
                    return Answer::json(StatusCode::OK, &response).with_type(media_type);
                }
                let older = media_type == JSON_UTF8;
                errors_only(if older { StatusCode::OK } else { StatusCode::BAD_REQUEST }, &response)
                    .with_type(media_type)
            }
            Err(Refusal { status, response, allow }) => {
                let answer = errors_only(status, &response).with_type(media_type);
                if let Some(allow) = allow { answer.with_allow(allow) } else { answer }
            }
        }
    }

    async fn execute<B: Buf>(
        self,
        services: &Services,
        body: impl Stream<Item = Result<B, warp::Error>>,
    ) -> Result<GraphqlResponse, Refusal> {
        let by_get = self.method == Method::GET;
        if self.method != Method::POST && !(by_get && services.graphql_get) {
            let allow = if services.graphql_get { "GET, POST" } else { "POST" };
            let refusal =
                Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::BadUserInput, format!("send queries by {allow}"));
            return Err(Refusal { allow: Some(allow), ..refusal });
        }
        let viewer = self.viewer(services).await?;
        let parameters = if by_get { self.from_query()? } else { self.from_body(body).await? };
        let mut request = request(parameters)?;
        if by_get {
            refuse_mutation(&mut request)?;
        }
        let loader = DataLoader::new(Rows(services.app.pool.clone()), TokioSpawner::current(), TokioTimer::default());
        Ok(services.schema.execute(request.data(viewer).data(loader)).await)
    }

    /// Nobody asks anything without a session.
    async fn viewer(&self, services: &Services) -> Result<Viewer, Refusal> {
        let refuse =
            || Refusal::new(StatusCode::UNAUTHORIZED, Code::Unauthenticated, "sign in first: a valid token is needed");
        let header = self.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, token) = header.and_then(|value| value.split_once(' ')).ok_or_else(refuse)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refuse());
        }
        let claims = services.tokens.check(token.trim()).map_err(|_| refuse())?;
        let user = users::find(&services.app.pool, claims.org, claims.sub).await.map_err(|error| {
            tracing::error!(%error, "a session's user cannot be read");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "the store does not answer; try again")
        })?;
        let user = user.filter(|user| user.is_active).ok_or_else(refuse)?;
        Ok(Viewer { user, session: claims.sid, client: self.client.clone() })
    }

    fn from_query(&self) -> Result<Parameters, Refusal> {
        let pairs: HashMap<String, String> = form_pairs(&self.query);
        let object = |name: &str| match pairs.get(name).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => {
                serde_json::from_str(text).map_err(|_| Refusal::bad_request(format!("{name} is not a JSON object")))
            }
        };
        Ok(Parameters {
            query: pairs.get("query").cloned().ok_or_else(|| Refusal::bad_request("the parameter query is missing"))?,
            operation_name: pairs.get("operationName").cloned().filter(|name| !name.is_empty()),
            variables: object("variables")?,
            extensions: object("extensions")?,
        })
    }

    async fn from_body<B: Buf>(&self, body: impl Stream<Item = Result<B, warp::Error>>) -> Result<Parameters, Refusal> {
        if !is_json(&self.headers) {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::BadUserInput,
                "send a query as application/json, in UTF-8",
            ));
        }
        let body = read_body(body, None, MAX_BODY)
            .await
            .map_err(|error| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::BadUserInput, error.to_string()))?;
        serde_json::from_slice(&body)
            .map_err(|error| Refusal::bad_request(format!("the body is not a GraphQL request in JSON: {error}")))
    }
}

/// A request that was not executed has no `data`, not even null.
fn errors_only(status: StatusCode, response: &GraphqlResponse) -> Answer {
    #[derive(serde::Serialize)]
    struct ErrorsOnly<'a> {
        errors: &'a [async_graphql::ServerError],
    }
    Answer::json(status, &ErrorsOnly { errors: &response.errors })
}

fn request(parameters: Parameters) -> Result<Request, Refusal> {
    let Parameters { query, operation_name, variables, extensions } = parameters;
    check_source(&query).map_err(|limit| Refusal::new(StatusCode::BAD_REQUEST, Code::ValidationFailed, limit))?;
    let variables = variables.map(|map| Variables::from_json(serde_json::Value::Object(map))).unwrap_or_default();
    let mut request = Request::new(query).variables(variables);
    request.operation_name = operation_name;
    if let Some(extensions) = extensions {
        let value = async_graphql::Value::from_json(serde_json::Value::Object(extensions));
        if let Ok(async_graphql::Value::Object(map)) = value {
            request.extensions = async_graphql::Extensions(map.into_iter().map(|(k, v)| (k.to_string(), v)).collect());
        }
    }
    Ok(request)
}

/// GET is for reading: links and images are fetched by it, from anywhere.
fn refuse_mutation(request: &mut Request) -> Result<(), Refusal> {
    let name = request.operation_name.clone();
    // What does not parse is refused with its position by the execution.
    let Ok(document) = request.parsed_query() else { return Ok(()) };
    let selected = |operation: Option<&str>| name.is_none() || name.as_deref() == operation;
    let reads = document
        .operations
        .iter()
        .filter(|(operation, _)| selected(operation.map(async_graphql::Name::as_str)))
        .all(|(_, operation)| operation.node.ty == OperationType::Query);
    if reads {
        return Ok(());
    }
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::BadUserInput, "only queries may come by GET");
    Err(Refusal { allow: Some("POST"), ..refusal })
}

/// Whether fields were executed: then the answer is one, with errors in some places.
fn ran(response: &GraphqlResponse) -> bool {
    response.errors.iter().any(|error| !error.path.is_empty())
}

/// The media type of the answer, of the two that there are.
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
