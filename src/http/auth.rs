//! Signing in: the page behind a link, and the call that its button makes.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use bytes::Buf;
use chrono::Utc;
use futures::Stream;
use hookledger_aggregates::{OrganizationId, UserId};
use hookledger_projections::organizations;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::{Answer, Services, client, error, with};
use crate::identity::IdentityError;
use crate::receive::read_body;

/// Bytes of a sign-in request.
const MAX_BODY: usize = 4 << 10;
/// The page asks for a click: mail scanners fetch links, and must not use them up.
const VERIFY_PAGE: &str = include_str!("verify.html");

/// Nothing but the page's own script runs.
static VERIFY_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let script = VERIFY_PAGE.split_once("<script>").and_then(|(_, rest)| rest.split_once("</script>"));
    let digest = Sha256::digest(script.map_or("", |(script, _)| script));
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        base64::engine::general_purpose::STANDARD.encode(digest)
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

#[derive(Deserialize)]
struct VerifyRequest {
    token: String,
}

#[derive(Serialize)]
struct VerifyResponse {
    token: String,
    user: UserBody,
    organization: Option<OrganizationBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UserBody {
    id: uuid::Uuid,
    email: Option<String>,
    role: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OrganizationBody {
    id: uuid::Uuid,
    slug: String,
    name: String,
}

pub(super) fn route(services: Arc<Services>) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    let page = warp::path!("auth" / "verify").and(warp::get()).map(verify_page);
    let verify = warp::path!("api" / "auth" / "verify-magic-link")
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(client())
        .and(with(services))
        .and(warp::body::stream())
        .then(|method, headers, client, services, body| async move {
            verify(method, headers, client, services, body).await.unwrap_or_else(|answer| answer).into_response()
        });
    page.or(verify).unify()
}

fn verify_page() -> Response {
    let mut response = Answer::text(StatusCode::OK, "text/html; charset=utf-8", VERIFY_PAGE).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, VERIFY_POLICY.clone());
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

async fn verify<B: Buf>(
    method: Method,
    headers: HeaderMap,
    client: String,
    services: Arc<Services>,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Answer, Answer> {
    if method != Method::POST {
        return Err(Answer::method_not_allowed("POST"));
    }
    let is_json =
        headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if !is_json {
        let sentence = "Send the token as application/json";
        return Err(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", sentence));
    }
    let body = read_body(body, None, MAX_BODY).await?;
    let VerifyRequest { token } = serde_json::from_slice(&body)
        .map_err(|_| error(StatusCode::BAD_REQUEST, "bad_request", "The body is {\"token\": \"…\"} in JSON"))?;
    let now = Utc::now();
    let signed_in = services.links.redeem(&services.app.commands, &token, client, now).await.map_err(failed)?;
    let signed_in = signed_in.ok_or_else(|| {
        let sentence = "This link is not valid, was used, or is out of date: ask for a new one";
        error(StatusCode::UNAUTHORIZED, "link_invalid", sentence)
    })?;
    let user = signed_in.user;
    let organization = OrganizationId::new(user.organization_id);
    let token =
        services.tokens.issue(UserId::new(user.id), organization, signed_in.session, now).map_err(|reason| {
            tracing::error!(error = %reason, "a session token cannot be made");
            unavailable()
        })?;
    let organization = organization_row(&services, organization).await.map_err(|error| failed(error.into()))?;
    let response = VerifyResponse {
        token,
        user: UserBody { id: user.id, email: user.email, role: user.role },
        organization: organization.map(|row| OrganizationBody { id: row.id, slug: row.slug, name: row.name }),
    };
    Ok(Answer::json(StatusCode::OK, &response))
}

async fn organization_row(
    services: &Services,
    id: OrganizationId,
) -> Result<Option<organizations::Organization>, sqlx::Error> {
    let mut tenant = services.app.tenants.of(id).await?;
    organizations::find(&mut *tenant, id).await
}

fn failed(error: IdentityError) -> Answer {
    tracing::error!(%error, "a sign-in failed");
    unavailable()
}

fn unavailable() -> Answer {
    error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Signing in does not work right now; try again")
}
