//! What is fuzzed, as plain functions: `fuzz_targets/` calls them from libFuzzer, and
//! `tests/it/fuzz.rs` from a short run that every machine can do. Each must survive any bytes.

use chrono::{DateTime, Duration, Utc};
use hookledger::receive::{BodyBudget, read_body};
use hookledger_aggregates::signature::{
    CertificateUrl, Certificates, Found, SigningCertificate, SigningSecret, Trust, Unverified, Verdict, claims,
    trust_roots, verify,
};
use hookledger_aggregates::{Label, ProviderName};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use warp::Filter as _;

/// Certificates that are never at hand.
struct Nothing;

impl Certificates for Nothing {
    fn find(&self, url: &CertificateUrl, _: DateTime<Utc>) -> Found {
        let name = url.name();
        assert!(!name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '%', '\0']), "{name:?}");
        assert!(
            url.as_str().starts_with("https://api.paypal.com/")
                || url.as_str().starts_with("https://api.sandbox.paypal.com/")
        );
        Found::Unknown
    }
}

/// A provider's name on the first line, headers, an empty line, and a body. Nobody has the secret,
/// so nothing verifies.
pub fn signatures(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let name = lines.next().unwrap_or_default();
    let mut rest = lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let request = Unverified { headers: &headers, body: rest };
    let secret = |value: &[u8]| SigningSecret { version: 1, value: value.to_vec().into(), expires_at: None };
    let secrets = [secret(b"nobody has this"), secret(b""), secret(b"whsec_bm9ib2R5IGhhcyB0aGlz"), secret(b"\xff")];
    let trust = Trust { certificates: &Nothing, paypal_max_age: Duration::days(3) };
    for provider in ProviderName::ALL {
        if !name.is_empty() && provider.as_str().as_bytes() != name {
            continue;
        }
        let claims = claims(provider, request);
        for label in [claims.event_id_label(), claims.event_type].into_iter().flatten() {
            assert!(label.as_str().chars().count() <= Label::MAX_CHARS && !label.as_str().contains(char::is_control));
        }
        for now in
            [DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + Duration::seconds(1_614_265_330), DateTime::<Utc>::MAX_UTC]
        {
            match verify(provider, request, &secrets, &trust, now) {
                Ok(Verdict::Verified(verified)) => panic!("forged: {verified:?}"),
                Ok(Verdict::NeedsCertificate(_)) => assert_eq!(provider, ProviderName::Paypal),
                Err(refusal) => assert!(!refusal.detail.as_str().is_empty()),
            }
        }
    }
}

/// A file of certificates: nobody trusts what strangers make up.
pub fn certificates(data: &[u8]) {
    let trusted = trust_roots(data).unwrap_or_default();
    for now in [DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + Duration::days(20_000)] {
        assert!(SigningCertificate::check(data, &[], "paypal.com", now).is_err());
        let _ = SigningCertificate::check(data, &trusted, "paypal.com", now);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = CertificateUrl::parse(text);
    }
}

/// A connection: the bytes before the first `|` say how they are cut up, the rest is sent. Whatever
/// it is, there is an answer of HTTP or none, and the connection ends. Answers what came back.
pub async fn edge(data: &[u8]) -> Vec<u8> {
    const STATUSES: [&str; 8] = ["100", "200", "400", "404", "413", "431", "501", "503"];
    let cut = data.iter().position(|byte| *byte == b'|').unwrap_or(0);
    let (cuts, bytes) = (&data[..cut], data.get(cut + 1..).unwrap_or_default());
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let budget = BodyBudget::new(1 << 20);
    let routes = warp::path!("webhooks" / String / String)
        .and(warp::body::stream())
        .then(move |_, _, body| {
            let budget = budget.clone();
            async move {
                let status = match read_body(body, None, 1 << 10, &budget).await {
                    Ok(_) => http::StatusCode::OK,
                    Err(hookledger::receive::BodyError::TooLarge { .. }) => http::StatusCode::PAYLOAD_TOO_LARGE,
                    Err(_) => http::StatusCode::BAD_REQUEST,
                };
                let mut response = warp::reply::Response::new("".into());
                *response.status_mut() = status;
                response
            }
        })
        .recover(|_| async {
            let mut response = warp::reply::Response::new("".into());
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            Ok::<_, std::convert::Infallible>(response)
        })
        .unify();
    let serving = hookledger::http::serve_connection(server, [192, 0, 2, 1].into(), routes);
    let talking = async {
        let mut rest = bytes;
        for cut in cuts.iter().map(|cut| usize::from(*cut)).chain(std::iter::once(usize::MAX)) {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            rest = later;
            if client.write_all(now).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = client.shutdown().await;
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        answer
    };
    let both = tokio::time::timeout(std::time::Duration::from_secs(60), async { tokio::join!(serving, talking).1 });
    let answer = both.await.expect("the connection ends");
    if let Some(status) = answer.strip_prefix(b"HTTP/1.1 ").or(answer.strip_prefix(b"HTTP/1.0 ")) {
        let status = std::str::from_utf8(&status[..3]).unwrap();
        assert!(STATUSES.contains(&status), "{status}");
    } else {
        assert!(answer.is_empty(), "{:?}", String::from_utf8_lossy(&answer));
    }
    answer
}
