//! Answers: JSON bodies, and the common form of errors. Maps errors to HTTP.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use warp::Reply;
use warp::reply::Response;

use crate::api::graphql::Allowance;
use crate::receive::{BodyError, ReceiveError, WebhookAnswer};

/// Size of a chunk of a large answer, in bytes.
const CHUNK: usize = 64 << 10;

/// `{"error": "<sentence>", "code": "<snake_case>"}`.
#[derive(Debug, Serialize)]
pub(super) struct ErrorBody {
    error: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
}

impl ErrorBody {
    pub(super) fn new(code: &'static str, sentence: impl Into<String>) -> Self {
        Self { error: sentence.into(), code, limit: None }
    }
}

/// A status and a JSON body.
pub(super) struct Answer {
    status: StatusCode,
    body: Vec<u8>,
    retry_after: Option<u64>,
    allow: Option<&'static str>,
    content_type: &'static str,
    /// The memory that its body counts for until it is sent.
    held: Option<Arc<Allowance>>,
}

impl Answer {
    /// A GraphQL answer, which counts for that memory until it is sent.
    pub(super) fn holding(held: Option<Arc<Allowance>>, body: &impl Serialize) -> Self {
        let held = held.filter(|held| held.is_large());
        // Reserves all of it, because growing would briefly need as much again.
        let mut text = Vec::with_capacity(held.as_ref().map_or(0, |held| held.bytes()));
        // Serializing our own plain types cannot fail.
        let _ = serde_json::to_writer(&mut text, body);
        Self { held, ..Self::text(StatusCode::OK, "application/json", text) }
    }

    pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        // Serializing our own plain types cannot fail.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self::text(status, "application/json", body)
    }

    pub(super) fn error(status: StatusCode, body: ErrorBody) -> Self {
        Self::json(status, &body)
    }

    pub(super) fn text(status: StatusCode, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), retry_after: None, allow: None, content_type, held: None }
    }

    pub(super) fn not_found() -> Self {
        Self::error(StatusCode::NOT_FOUND, ErrorBody::new("not_found", "Not found."))
    }

    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        let body = ErrorBody::new("method_not_allowed", format!("This address only accepts {allow}."));
        Self { allow: Some(allow), ..Self::error(StatusCode::METHOD_NOT_ALLOWED, body) }
    }

    pub(super) fn with_type(self, content_type: &'static str) -> Self {
        Self { content_type, ..self }
    }

    pub(super) fn with_allow(self, allow: &'static str) -> Self {
        Self { allow: Some(allow), ..self }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

impl Reply for Answer {
    fn into_response(self) -> Response {
        let mut response = match self.held {
            None => Response::new(self.body.into()),
            Some(held) => in_chunks(self.body.into(), held),
        };
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// A body that holds its allowance until its last chunk is taken.
fn in_chunks(body: Bytes, held: Arc<Allowance>) -> Response {
    let chunks = futures::stream::unfold((body, held), |(mut body, held)| async move {
        let chunk = body.split_to(body.len().min(CHUNK));
        (!chunk.is_empty()).then_some((Ok::<_, Infallible>(chunk), (body, held)))
    });
    warp::reply::stream(chunks).into_response()
}

impl From<WebhookAnswer> for Answer {
    fn from(answer: WebhookAnswer) -> Self {
        let WebhookAnswer { status, body, retry_after } = answer;
        Self { retry_after, ..Self::text(status, "application/json", body) }
    }
}

impl From<ReceiveError> for Answer {
    fn from(error: ReceiveError) -> Self {
        WebhookAnswer::from(&error).into()
    }
}

impl From<BodyError> for Answer {
    fn from(error: BodyError) -> Self {
        let sentence = error.to_string();
        match error {
            BodyError::TooLarge { cap } => {
                let body = ErrorBody { limit: Some(cap), ..ErrorBody::new("body_too_large", sentence) };
                Self::error(StatusCode::PAYLOAD_TOO_LARGE, body)
            }
            BodyError::NoRoom => {
                Self::error(StatusCode::SERVICE_UNAVAILABLE, ErrorBody::new("unavailable", sentence)).retry_after(1)
            }
            BodyError::TooSlow => Self::error(StatusCode::REQUEST_TIMEOUT, ErrorBody::new("body_too_slow", sentence)),
            BodyError::Broken => Self::error(StatusCode::BAD_REQUEST, ErrorBody::new("body_broken", sentence)),
        }
    }
}
