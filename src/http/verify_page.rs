//! The page behind a sign-in link. It asks for a click: mail scanners fetch links, and must not use
//! them up. Fetching it touches nothing.

use std::sync::LazyLock;

use base64::Engine as _;
use http::{HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::Answer;

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

pub(super) fn route() -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    warp::path!("auth" / "verify").and(warp::get().or(warp::head()).unify()).map(verify_page)
}

fn verify_page() -> Response {
    let mut response = Answer::text(StatusCode::OK, "text/html; charset=utf-8", VERIFY_PAGE).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, VERIFY_POLICY.clone());
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
