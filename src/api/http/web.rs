//! The web application: the pages and assets built from `web/`, embedded in the binary.
//!
//! Serving them reads no data and requires no session; the pages query `/graphql`. A page has a new nonce,
//! and only scripts and styles with that nonce or from this server are allowed.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use rand::RngCore as _;
use rust_embed::RustEmbed;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::Answer;

/// The output of `npm run build`. Without it the binary still builds, and says what to run. A debug build
/// reads the files on request.
#[derive(RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Assets;

/// Placeholder in the pages for each answer's nonce; `web/vite.config.ts` inserts it.
const NONCE: &str = "__NONCE__";
/// Names of assets contain a hash of their content.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const FOR_AN_HOUR: HeaderValue = HeaderValue::from_static("public, max-age=3600");
const NOT_BUILT: &str = include_str!("not_built.html");

/// A page with its own HTML file.
#[derive(Clone, Copy)]
enum Page {
    Application,
    Graphiql,
}

pub(super) fn route() -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    warp::path::full().and(warp::method()).and(warp::header::headers_cloned()).and_then(
        |path: FullPath, method: Method, headers: HeaderMap| async move {
            answer(path.as_str(), &method, &headers).ok_or_else(warp::reject::not_found)
        },
    )
}

/// `None` if the path is not the web application's.
fn answer(path: &str, method: &Method, headers: &HeaderMap) -> Option<Response> {
    let respond: Box<dyn FnOnce() -> Response> = if let Some(page) = page(path) {
        Box::new(move || page.response())
    } else if let Some(name) = asset(path) {
        Box::new(move || file(name, headers))
    } else {
        return None;
    };
    let is_read = method == Method::GET || method == Method::HEAD;
    Some(if is_read { respond() } else { Answer::method_not_allowed("GET, HEAD").into_response() })
}

/// The application itself maps the path to one of its pages.
fn page(path: &str) -> Option<Page> {
    let is_under = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match path {
        "/" | "/login" | "/account" | "/auth/verify" => Some(Page::Application),
        "/graphiql" => Some(Page::Graphiql),
        _ if ["/dashboard", "/admin", "/demo"].into_iter().any(is_under) => Some(Page::Application),
        _ => None,
    }
}

/// The name of an embedded file.
fn asset(path: &str) -> Option<&str> {
    let name = path.strip_prefix('/')?;
    let is_plain = |name: &str| !name.contains("..") && !name.contains('\\');
    (name == "favicon.svg" || name.starts_with("assets/")).then_some(name).filter(|name| is_plain(name))
}

impl Page {
    const fn file(self) -> &'static str {
        match self {
            Self::Application => "index.html",
            Self::Graphiql => "graphiql.html",
        }
    }

    fn policy(self, nonce: &str) -> String {
        // GraphiQL's editor creates styles at runtime, and its workers from blobs. Text from strangers is
        // shown there only as text.
        let (styles, more) = match self {
            Self::Application => (format!("'self' 'nonce-{nonce}'"), ""),
            Self::Graphiql => ("'self' 'unsafe-inline'".to_owned(), "worker-src 'self' blob:; font-src 'self' data:; "),
        };
        format!(
            "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src {styles}; img-src 'self' data:; \
             connect-src 'self'; {more}manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    }

    fn response(self) -> Response {
        let nonce = nonce();
        let (html, policy) = match Assets::get(self.file()) {
            Some(file) => (String::from_utf8_lossy(&file.data).replace(NONCE, &nonce), self.policy(&nonce)),
            None => (NOT_BUILT.replace(NONCE, &nonce), Self::Application.policy(&nonce)),
        };
        let mut response = Answer::text(StatusCode::OK, "text/html; charset=utf-8", html).into_response();
        let headers = response.headers_mut();
        // The nonce is base64 and the rest is ours, so this is always a valid header value.
        let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
        headers.insert(
            "permissions-policy",
            HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
        );
        response
    }
}

/// 128 random bits, for one answer.
fn nonce() -> String {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    STANDARD.encode(bytes)
}

/// A file, in the best encoding that the client accepts.
fn file(name: &str, headers: &HeaderMap) -> Response {
    let compressed = [("br", "br"), ("gzip", "gz")].into_iter().find_map(|(encoding, extension)| {
        let takes = headers.get_all(header::ACCEPT_ENCODING).iter().any(|value| takes(value, encoding));
        takes.then(|| Assets::get(&format!("{name}.{extension}")).map(|file| (encoding, file))).flatten()
    });
    let (encoding, file) = match compressed {
        Some((encoding, file)) => (Some(encoding), file),
        None => match Assets::get(name) {
            Some(file) => (None, file),
            None => return Answer::not_found().into_response(),
        },
    };
    let mut response = Response::new(match file.data {
        Cow::Borrowed(bytes) => bytes::Bytes::from_static(bytes).into(),
        Cow::Owned(bytes) => bytes.into(),
    });
    let answer = response.headers_mut();
    let mut put = |name: HeaderName, value: HeaderValue| drop(answer.insert(name, value));
    put(header::CONTENT_TYPE, HeaderValue::from_static(media_type(name)));
    put(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    put(header::CACHE_CONTROL, if name.starts_with("assets/") { IMMUTABLE } else { FOR_AN_HOUR });
    put(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(encoding) = encoding {
        put(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}

/// Whether `accept-encoding` names this encoding, and not with `q=0`.
fn takes(value: &HeaderValue, encoding: &str) -> bool {
    value.to_str().unwrap_or_default().split(',').any(|offer| {
        let (name, quality) = offer.split_once(';').unwrap_or((offer, "q=1"));
        let refused = quality.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case(encoding) && !refused
    })
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("ttf") => "font/ttf",
        Some("woff2") => "font/woff2",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_a_nonce_of_its_own_and_a_strict_policy() {
        let policies: Vec<_> = ["/", "/dashboard/acme/webhooks"]
            .into_iter()
            .map(|path| {
                let response = answer(path, &Method::GET, &HeaderMap::new()).unwrap();
                assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
                response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned()
            })
            .collect();
        assert_ne!(policies[0], policies[1]);
        assert!(policies[0].starts_with("default-src 'none'; script-src 'self' 'nonce-"), "{}", policies[0]);
        assert!(!policies[0].contains("unsafe"), "{}", policies[0]);
    }

    #[test]
    fn other_paths_are_not_the_applications() {
        for path in ["/dashboards", "/graphiql/x", "/api/auth/logout", "/webhooks/a/b", "/graphql", "/index.html"] {
            assert!(answer(path, &Method::GET, &HeaderMap::new()).is_none(), "{path}");
        }
        let missing = |path| answer(path, &Method::GET, &HeaderMap::new()).map(|response| response.status());
        assert_eq!(missing("/assets/none.js"), Some(StatusCode::NOT_FOUND));
        assert_eq!(missing("/assets/../index.html"), None);
        let posted = answer("/login", &Method::POST, &HeaderMap::new()).map(|response| response.status());
        assert_eq!(posted, Some(StatusCode::METHOD_NOT_ALLOWED));
    }

    #[test]
    fn an_encoding_is_used_where_it_is_taken() {
        let takes = |value: &'static str, encoding| takes(&HeaderValue::from_static(value), encoding);
        assert!(takes("gzip, deflate, BR;q=0.8", "br"));
        assert!(!takes("gzip, br;q=0", "br"));
        assert!(!takes("brotli", "br"));
    }
}
