//! One attempt: its request, and the meaning of its answer. Pure.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use hookledger_aggregates::delivery::Outcome;
use hookledger_aggregates::signature::SigningSecret;
use hookledger_aggregates::{Label, ProviderName, WebhookId, outgoing};
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use super::circuit::Health;
use crate::directory::Destination;
use crate::log::FreshBody;
use crate::platform::egress::{Answer, Kind, SendError};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const PROVIDER: HeaderName = HeaderName::from_static("hookledger-provider");
const EVENT_TYPE: HeaderName = HeaderName::from_static("hookledger-event-type");
const ATTEMPT: HeaderName = HeaderName::from_static("hookledger-attempt");
const HOPS: HeaderName = HeaderName::from_static(hookledger_aggregates::outgoing::HOPS);
const TEST: HeaderName = HeaderName::from_static("hookledger-test");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("Hookledger/", env!("CARGO_PKG_VERSION")));

/// Headers of every delivery; test deliveries also have `hookledger-test`. The destination's own and the
/// sender's headers are added.
pub const SENT_HEADERS: &[&str] = &[
    "user-agent",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "hookledger-provider",
    "hookledger-event-type",
    "hookledger-attempt",
    "hookledger-hops",
];

/// Whether a destination cannot set this header, because it is ours or belongs to the connection.
#[must_use]
pub fn is_reserved(name: &HeaderName) -> bool {
    const RESERVED: [&str; 15] = [
        "host",
        "content-length",
        "content-type",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "proxy-authorization",
        "proxy-connection",
        "webhook-id",
        "cookie",
    ];
    let name = name.as_str();
    RESERVED.contains(&name) || name.starts_with("webhook-") || name.starts_with("hookledger-")
}

/// Header names of a delivery, given the names of the destination's own headers and the webhook's headers.
#[must_use]
pub fn header_names<'a>(
    received: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    original_signature: bool,
    own: &[String],
) -> Vec<String> {
    let mut names: Vec<String> = SENT_HEADERS.iter().map(|name| (*name).to_owned()).collect();
    let carried = outgoing::carried(received, original_signature);
    for name in carried.keys().map(HeaderName::as_str).chain(own.iter().map(String::as_str)) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The webhook to send, and the facts for its headers.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub webhook: WebhookId,
    pub provider: Option<ProviderName>,
    pub attempt: u32,
    pub received: &'a FreshBody,
}

/// The headers of a delivery, signed with every unexpired secret. The destination's own override the
/// sender's, and ours override both.
#[must_use]
pub fn headers(
    destination: &Destination,
    secrets: &[SigningSecret],
    message: Message<'_>,
    now: DateTime<Utc>,
) -> HeaderMap {
    let received = message.received;
    let mut headers = outgoing::carried(received.header_lines(), destination.original_signature);
    for (name, value) in destination.headers.iter().filter(|(name, _)| !is_reserved(name)) {
        headers.insert(name.clone(), value.clone());
    }
    let active = secrets.iter().filter(|secret| secret.expires_at.is_none_or(|at| at > now));
    let keys: Vec<Vec<u8>> = active.filter_map(|secret| outgoing::key(secret.value.expose_secret())).collect();
    let signature = outgoing::signature(keys.iter().map(Vec::as_slice), message.webhook, now, &received.body);
    let mut put = |name: HeaderName, value: &str| {
        // Only the provider's name for an event may not be a valid header value.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(WEBHOOK_ID, &message.webhook.to_string());
    put(WEBHOOK_TIMESTAMP, &now.timestamp().to_string());
    put(WEBHOOK_SIGNATURE, &signature);
    put(ATTEMPT, &message.attempt.to_string());
    if let Some(provider) = message.provider {
        put(PROVIDER, provider.as_str());
    }
    put(HOPS, &received.hops.saturating_add(1).to_string());
    if received.is_test {
        put(TEST, "true");
    }
    if let Some(event_type) = &received.event_type {
        put(EVENT_TYPE, event_type.as_str());
    }
    headers.entry(USER_AGENT).or_insert(AGENT);
    headers
}

/// Outcome of an attempt.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub succeeded: bool,
    pub outcome: Outcome,
    /// The delay that the destination requested with `Retry-After`.
    pub retry_after: Option<chrono::Duration>,
    pub excerpt: Option<Bytes>,
    pub health: Health,
}

/// Judges an answer, or its absence.
#[must_use]
pub fn judge(sent: Result<Answer, SendError>, took: Duration, now: DateTime<Utc>) -> Verdict {
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match sent {
        Ok(answer) => judge_answer(answer, duration_ms, now),
        Err(error) => Verdict {
            succeeded: false,
            health: match error.kind() {
                Kind::NoAnswer => Health::Silent,
                Kind::Forbidden | Kind::BadAnswer => Health::Bad,
            },
            outcome: Outcome {
                duration_ms,
                error: Some(Label::cut(&error.to_string(), ERROR_CHARS)),
                ..Outcome::default()
            },
            retry_after: None,
            excerpt: None,
        },
    }
}

/// Maximum length of a stored error, in characters.
const ERROR_CHARS: usize = 500;

fn judge_answer(answer: Answer, duration_ms: u64, now: DateTime<Utc>) -> Verdict {
    let succeeded = answer.status.is_success();
    let error = (!succeeded).then(|| Label::new(&sentence(answer.status)));
    let asks = matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let retry_after = answer.retry_after.as_deref().filter(|_| asks).and_then(|value| parse_retry_after(value, now));
    let excerpt = (!answer.excerpt.is_empty()).then_some(answer.excerpt);
    Verdict {
        succeeded,
        health: if succeeded { Health::Good } else { Health::Bad },
        outcome: Outcome {
            status_code: Some(answer.status.as_u16()),
            duration_ms,
            error,
            response_size: excerpt.as_ref().and_then(|excerpt| u32::try_from(excerpt.len()).ok()),
            response_sha256: excerpt.as_ref().map(|excerpt| hex::encode(Sha256::digest(excerpt))),
        },
        retry_after,
        excerpt,
    }
}

fn sentence(status: StatusCode) -> String {
    let known = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    let hint = match status {
        StatusCode::GONE => " It wants no more webhooks.",
        _ if status.is_redirection() => " Redirects aren't followed. Use the URL it redirects to.",
        _ => "",
    };
    format!("The destination returned {}{known}.{hint}", status.as_u16())
}

/// `Retry-After`: seconds or an HTTP date (RFC 9110, section 10.2.3).
fn parse_retry_after(value: &str, now: DateTime<Utc>) -> Option<chrono::Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(chrono::Duration::seconds(seconds.into()));
    }
    let at = DateTime::parse_from_rfc2822(value).ok()?.to_utc();
    Some((at - now).max(chrono::Duration::zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_445_412_480, 0).unwrap()
    }

    fn answer(status: u16, retry_after: Option<&str>) -> Verdict {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: retry_after.map(str::to_owned),
            excerpt: Bytes::from_static(b"no"),
            whole: true,
        };
        judge(Ok(answer), Duration::from_millis(12), now())
    }

    #[test]
    fn success_is_two_hundred_to_two_hundred_ninety_nine() {
        for status in [200, 204, 299] {
            assert!(answer(status, None).succeeded, "{status}");
        }
        for status in [199, 300, 301, 404, 410, 500] {
            let verdict = answer(status, None);
            assert!(!verdict.succeeded, "{status}");
            assert!(verdict.outcome.error.unwrap().as_str().contains(&status.to_string()));
        }
    }

    #[test]
    fn retry_after_counts_with_429_and_503_in_both_its_forms() {
        assert_eq!(answer(503, Some(" 7 ")).retry_after, Some(chrono::Duration::seconds(7)));
        assert_eq!(answer(429, Some("Wed, 21 Oct 2015 07:28:30 GMT")).retry_after, Some(chrono::Duration::seconds(30)));
        for nonsense in ["-1", "soon", "", "99999999999999999999"] {
            assert_eq!(answer(429, Some(nonsense)).retry_after, None, "{nonsense}");
        }
        assert_eq!(answer(500, Some("7")).retry_after, None);
    }

    #[test]
    fn what_is_kept_of_an_answer_has_its_digest_in_the_log() {
        let verdict = answer(200, None);
        assert_eq!(verdict.outcome.response_size, Some(2));
        assert_eq!(verdict.outcome.response_sha256.unwrap(), hex::encode(Sha256::digest(b"no")));
    }

    #[test]
    fn ours_and_the_connections_headers_cannot_be_set() {
        for name in ["Host", "Webhook-Signature", "hookledger-attempt", "Transfer-Encoding"] {
            assert!(is_reserved(&name.parse().unwrap()), "{name}");
        }
        assert!(!is_reserved(&"authorization".parse().unwrap()));
    }
}
