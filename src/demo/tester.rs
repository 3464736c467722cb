//! Test webhooks: signed as their provider would, with an optional fault, and verified, appended and
//! delivered like any other.
//!
//! Each is signed with its own secret that verifies nothing else ([`for_tests`]), so that nobody can send a
//! genuine webhook with a signature that they saw.

use chrono::{DateTime, Duration, Utc};
use hookledger_aggregates::signature::sample::{Sample, Unsignable, is_signature, sign};
use hookledger_aggregates::signature::{SINGLE_USE, SigningSecret};
use hookledger_aggregates::{Metadata, ProviderName, WebhookId, outgoing};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use uuid::Uuid;

use crate::directory::{Endpoint, ProviderEntry};
use crate::platform::secrets::master::random_bytes;
use crate::receive::{HeldBody, NotAccepted, Receiver, Request, WebhookAnswer};

/// Maximum number of additional headers, and bytes of their names and values.
const MAX_HEADERS: usize = 30;
const MAX_HEADER_BYTES: usize = 8 << 10;
/// Maximum length of an event ID in characters.
const MAX_EVENT_ID: usize = 200;
/// Age of a stale timestamp: older than any tolerance.
const STALE: Duration = Duration::hours(1);

/// A fault to simulate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// The signature is for another body.
    BadSignature,
    /// It was signed an hour ago.
    StaleTimestamp,
}

/// A webhook to send.
#[derive(Clone, Debug)]
pub struct Draft {
    pub event_type: String,
    pub event_id: String,
    pub body: String,
    pub fault: Fault,
    /// They replace ours; an empty value removes the header.
    pub headers: Vec<(String, String)>,
}

impl Draft {
    /// An ID that no event has.
    #[must_use]
    pub fn fresh_id() -> String {
        Uuid::now_v7().simple().to_string()
    }

    /// A small event, for people without a body of their own.
    #[must_use]
    pub fn small_body(event_id: &str, event_type: &str, now: DateTime<Utc>) -> String {
        serde_json::json!({"id": event_id, "type": event_type, "test": true, "at": now}).to_string()
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    #[error(transparent)]
    Unsignable(#[from] Unsignable),
    #[error("The provider's secret can't be decrypted. Contact your platform operator.")]
    NoSecret,
    #[error("The event ID must be 1 to {MAX_EVENT_ID} visible ASCII characters.")]
    BadEventId,
    #[error("{0} doesn't sign a timestamp, so it can't be stale.")]
    NoTimestamp(&'static str),
    #[error("The header {0:?} has an invalid name or value.")]
    BadHeader(String),
    #[error("You can add up to {MAX_HEADERS} headers, {} KiB in total.", MAX_HEADER_BYTES >> 10)]
    TooManyHeaders,
}

/// A request that was created but not sent yet.
#[derive(Clone, Debug)]
pub struct Made {
    pub headers: HeaderMap,
    pub body: String,
}

impl Made {
    /// The headers for people to see, without a signature.
    pub fn shown(&self) -> impl Iterator<Item = (&HeaderName, std::borrow::Cow<'_, str>)> {
        self.headers.iter().map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes());
            (name, if is_signature(name.as_str()) { "(redacted)".into() } else { text })
        })
    }
}

/// The endpoint for one test: with its own secret, and apart from the sender's events.
///
/// # Errors
/// Fails if the provider's own secrets cannot be opened, or without random bytes.
pub fn for_tests(endpoint: &Endpoint) -> Result<Endpoint, DraftError> {
    let known = &endpoint.provider;
    if known.secrets.is_none() {
        return Err(DraftError::NoSecret);
    }
    let random = random_bytes().map_err(|_| DraftError::NoSecret)?;
    // In the format of Standard Webhooks, which suits the other providers as well.
    let value = outgoing::secret(&random).into_bytes().into();
    let secret = SigningSecret { version: SINGLE_USE, value, expires_at: None };
    let provider = ProviderEntry {
        id: known.id,
        connection: known.connection,
        name: known.name,
        is_active: known.is_active,
        secrets: Some(vec![secret]),
        routes: known.routes.clone(),
    };
    Ok(Endpoint { provider: std::sync::Arc::new(provider), is_for_tests: true, ..endpoint.clone() })
}

/// Signs a draft.
pub fn make(endpoint: &Endpoint, draft: &Draft, now: DateTime<Utc>) -> Result<Made, DraftError> {
    let provider = endpoint.provider.name;
    let is_visible = draft.event_id.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_visible || !(1..=MAX_EVENT_ID).contains(&draft.event_id.len()) {
        return Err(DraftError::BadEventId);
    }
    let secrets = endpoint.provider.secrets.as_deref().unwrap_or_default();
    let secret = secrets.iter().find(|secret| secret.expires_at.is_none_or(|at| at > now));
    let secret = secret.ok_or(DraftError::NoSecret)?;
    let mut signed = draft.body.clone();
    let mut at = now;
    match draft.fault {
        Fault::None => {}
        Fault::BadSignature => signed.push(' '),
        Fault::StaleTimestamp if matches!(provider, ProviderName::Stripe | ProviderName::Standard) => at = now - STALE,
        Fault::StaleTimestamp => return Err(DraftError::NoTimestamp(provider.as_str())),
    }
    let sample = Sample { event_id: &draft.event_id, event_type: &draft.event_type, body: signed.as_bytes(), at };
    let mut headers = sign(provider, secret, sample)?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static("Hookledger test"));
    put(&mut headers, &draft.headers)?;
    Ok(Made { headers, body: draft.body.clone() })
}

fn put(headers: &mut HeaderMap, wished: &[(String, String)]) -> Result<(), DraftError> {
    let bytes: usize = wished.iter().map(|(name, value)| name.len() + value.len()).sum();
    if wished.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return Err(DraftError::TooManyHeaders);
    }
    for (name, value) in wished {
        let bad = || DraftError::BadHeader(name.chars().take(100).collect());
        let key: HeaderName = name.parse().map_err(|_| bad())?;
        if value.is_empty() {
            headers.remove(key);
        } else {
            headers.insert(key, HeaderValue::from_str(value).map_err(|_| bad())?);
        }
    }
    Ok(())
}

/// Outcome of a request.
#[derive(Clone, Debug)]
pub struct Sent {
    pub answer: WebhookAnswer,
    /// Its ID in the log, accepted or refused; `None` if it was only counted.
    pub webhook: Option<WebhookId>,
    pub duplicate: bool,
}

/// Sends a request.
pub async fn send(receiver: &Receiver, endpoint: &Endpoint, made: Made, by: Metadata) -> Sent {
    let request = Request { headers: made.headers, body: HeldBody::unbounded(made.body.into()), by };
    match receiver.receive(endpoint, request).await {
        Ok(accepted) => Sent {
            answer: WebhookAnswer::from(&accepted),
            webhook: Some(accepted.webhook),
            duplicate: accepted.duplicate,
        },
        Err(NotAccepted { error, webhook }) => Sent { answer: WebhookAnswer::from(&error), webhook, duplicate: false },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hookledger_aggregates::{ConnectionId, OrganizationId, ProviderId};

    use super::*;

    fn endpoint(name: ProviderName) -> Endpoint {
        let organization = OrganizationId::from_slug("a");
        let secret = SigningSecret { version: 1, value: b"whsec_MfKQ".to_vec().into(), expires_at: None };
        let id = ProviderId::derive(organization, name);
        let connection = ConnectionId::new(id, 1);
        let provider =
            ProviderEntry { id, connection, name, is_active: true, secrets: Some(vec![secret]), routes: vec![] };
        let provider = Arc::new(provider);
        Endpoint { organization, organization_is_active: true, limit: None, provider, is_for_tests: false }
    }

    fn draft(fault: Fault, headers: &[(&str, &str)]) -> Draft {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Draft { event_type: "push".into(), event_id: "1".into(), body: "{}".into(), fault, headers }
    }

    #[test]
    fn a_bad_signature_is_another_bodys_and_of_the_right_form() {
        let now = Utc::now();
        let header = |fault| {
            let made = make(&endpoint(ProviderName::Github), &draft(fault, &[]), now).unwrap();
            assert_eq!(made.body, "{}");
            made.headers["x-hub-signature-256"].clone()
        };
        let (good, bad) = (header(Fault::None), header(Fault::BadSignature));
        assert_ne!(good, bad);
        assert_eq!(good.len(), bad.len());
    }

    #[test]
    fn a_time_is_stale_only_where_one_is_signed() {
        let now = Utc::now();
        let stale = |provider| make(&endpoint(provider), &draft(Fault::StaleTimestamp, &[]), now);
        assert_eq!(stale(ProviderName::Github).unwrap_err(), DraftError::NoTimestamp("github"));
        let made = stale(ProviderName::Stripe).unwrap();
        let signature = made.headers["stripe-signature"].to_str().unwrap().to_owned();
        assert!(signature.starts_with(&format!("t={},", (now - STALE).timestamp())), "{signature}");
    }

    #[test]
    fn added_headers_replace_ours_and_an_empty_one_leaves_it_out() {
        let now = Utc::now();
        let github = endpoint(ProviderName::Github);
        let wished = [("X-Github-Event", "issues"), ("x-hub-signature-256", ""), ("x-more", "1")];
        let made = make(&github, &draft(Fault::None, &wished), now).unwrap();
        assert_eq!(made.headers["x-github-event"], "issues");
        assert!(!made.headers.contains_key("x-hub-signature-256"));
        for bad in [("a b", "1"), ("x", "a\r\nb: c")] {
            let refused = make(&github, &draft(Fault::None, &[bad]), now).unwrap_err();
            assert!(matches!(refused, DraftError::BadHeader(_)), "{refused}");
        }
        let many = vec![("x", "1"); MAX_HEADERS + 1];
        assert_eq!(make(&github, &draft(Fault::None, &many), now).unwrap_err(), DraftError::TooManyHeaders);
    }

    #[test]
    fn a_tests_signature_verifies_once_and_is_not_shown() {
        let now = Utc::now();
        let github = endpoint(ProviderName::Github);
        let signatures = [&github, &for_tests(&github).unwrap(), &for_tests(&github).unwrap()].map(|endpoint| {
            let made = make(endpoint, &draft(Fault::None, &[]), now).unwrap();
            assert!(made.shown().any(|(name, value)| name == "x-hub-signature-256" && value == "(redacted)"));
            made.headers["x-hub-signature-256"].clone()
        });
        assert_ne!(signatures[0], signatures[1]);
        assert_ne!(signatures[1], signatures[2]);
    }

    #[test]
    fn nobody_signs_as_paypal() {
        let refused = make(&endpoint(ProviderName::Paypal), &draft(Fault::None, &[]), Utc::now()).unwrap_err();
        assert_eq!(refused, DraftError::Unsignable(Unsignable::PublicKey));
    }
}
