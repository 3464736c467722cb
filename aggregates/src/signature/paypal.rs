//! PayPal: `PAYPAL-TRANSMISSION-SIG`, RSA over `<id>|<time>|<webhook id>|<CRC32 of the raw body>`.
//!
//! <https://developer.paypal.com/api/rest/webhooks/rest/>. The public key is in the certificate at
//! `PAYPAL-CERT-URL`, which is untrusted text until [`CertificateUrl`] has parsed it and
//! [`certificate`](super::certificate) has checked the chain. PayPal assigns the webhook ID when the webhook
//! is set up; it takes the place of other providers' secrets.
//!
//! The `WH-…` ID in the body identifies the notification of an event. PayPal can send one to several webhook
//! IDs (<https://developer.paypal.com/docs/api/webhooks/v1/#webhooks-events_resend>), each as a transmission
//! with its own ID; it is still one event.

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;

use super::certificate::Found;
use super::fields::id_and;
use super::{Active, Claims, Refusal, Spellings, TOLERANCE, Trust, Unverified, Verdict, Verified, base64_bytes};
use crate::Label;
use crate::webhook::{RejectionReason, SignatureMatch, SignatureScheme};

pub(super) const SIGNATURE: Spellings = Spellings(&["paypal-transmission-sig"]);
const ID: Spellings = Spellings(&["paypal-transmission-id"]);
const TIME: Spellings = Spellings(&["paypal-transmission-time"]);
const CERT_URL: Spellings = Spellings(&["paypal-cert-url"]);
const ALGORITHM: Spellings = Spellings(&["paypal-auth-algo"]);

const HOSTS: [&str; 2] = ["api.paypal.com", "api.sandbox.paypal.com"];
const PATH: &str = "/v1/notifications/certs/";
const MAX_URL: usize = 512;

/// The URL of a certificate, restricted to PayPal's own hosts and path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateUrl {
    url: String,
    name: usize,
}

impl CertificateUrl {
    /// Only `https://`, one of two hosts, and plain segments below one path: no port, no user, no query, no
    /// escapes, no `..`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, path) = text.strip_prefix("https://").filter(|_| text.len() <= MAX_URL)?.split_once('/')?;
        let below = text[text.len() - path.len() - 1..].strip_prefix(PATH)?;
        let plain = |segment: &str| {
            !segment.is_empty()
                && !segment.starts_with('.')
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        let good = HOSTS.contains(&host) && below.split('/').all(plain);
        let name = text.len() - below.rsplit('/').next()?.len();
        good.then(|| Self { url: text.to_owned(), name })
    }

    /// The whole URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// The last part of the path, a plain file name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.url[self.name..]
    }
}

/// PayPal's webhooks simulator signs with this in place of a webhook ID, and sends to any URL that any
/// account holder enters: <https://developer.paypal.com/api/rest/webhooks/simulator/>.
pub(super) const SIMULATOR: &str = "WEBHOOK_ID";

pub(super) fn check_secret(secret: &str) -> Result<(), &'static str> {
    let good = secret.len() <= 64 && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    good.then_some(()).ok_or(
        "Enter the webhook ID that PayPal shows for this URL: letters and digits, such as 8PT597110X687430LKGECATA.",
    )
}

pub(super) fn claims(request: Unverified<'_>) -> Claims {
    let found = id_and("event_type", request.body);
    Claims {
        event_id: found.id.filter(|id| !id.is_empty()).map(String::into_bytes),
        subscription: None,
        event_type: found.kind.as_deref().map(Label::new),
        signature: SIGNATURE.signature_label(request.headers),
    }
}

pub(super) fn verify(request: Unverified<'_>, active: Active<'_>, trust: &Trust<'_>) -> Result<Verdict, Refusal> {
    let signature = SIGNATURE.required(request.headers)?;
    let [id, time, url, algorithm] = [ID, TIME, CERT_URL, ALGORITHM].map(|header| header.required(request.headers));
    let (id, time, url, algorithm) = (id?, time?, url?, algorithm?);
    if !algorithm.eq_ignore_ascii_case("SHA256withRSA") {
        return Err(Refusal::invalid("PAYPAL-AUTH-ALGO isn't SHA256withRSA."));
    }
    // The separator of the signed fields: within a field, it would give two readings the same signature.
    if id.contains('|') || time.contains('|') {
        return Err(Refusal::invalid("The transmission ID or time contains a |."));
    }
    let signature = base64_bytes(signature).ok_or_else(|| Refusal::invalid("PAYPAL-TRANSMISSION-SIG isn't base64."))?;
    let signed_at: DateTime<Utc> = time
        .parse()
        .map_err(|_| Refusal::invalid("PAYPAL-TRANSMISSION-TIME isn't a time like 2026-01-02T03:04:05Z."))?;
    let url = CertificateUrl::parse(url).ok_or_else(|| {
        Refusal::invalid("PAYPAL-CERT-URL isn't under https://api.paypal.com/v1/notifications/certs/ or its sandbox.")
    })?;
    let certificate = match trust.certificates.find(&url, active.now) {
        Found::Certificate(certificate) => certificate,
        Found::Refused(detail) => return Err(Refusal::invalid(&detail)),
        Found::Unknown => {
            check_age(active, trust, signed_at)?;
            return Ok(Verdict::NeedsCertificate(url));
        }
    };
    let crc = crc32fast::hash(request.body);
    let matches = |webhook_id: &[u8]| {
        let message = [id.as_bytes(), time.as_bytes(), webhook_id, crc.to_string().as_bytes()].join(&b'|');
        certificate.verifies(&message, &signature)
    };
    let refuse = || {
        if matches(SIMULATOR.as_bytes()) {
            return Refusal::invalid(
                "Sent by PayPal's webhooks simulator, which signs as WEBHOOK_ID for anyone. To accept its webhooks, add \
                 WEBHOOK_ID to this provider's webhook IDs.",
            );
        }
        active.refuse(request, |secret| matches(secret.value.expose_secret()))
    };
    let secret = active.iter().find(|secret| matches(secret.value.expose_secret())).ok_or_else(refuse)?;
    check_age(active, trust, signed_at)?;
    Ok(Verdict::Verified(Verified {
        matched: SignatureMatch {
            scheme: SignatureScheme::RsaSha256,
            provider_id: None,
            secret_version: secret.version,
            signed_at: Some(signed_at),
        },
        transmission: Some(id.as_bytes().to_vec()),
    }))
}

/// PayPal retries for three days, so its messages are valid for longer than others'.
fn check_age(active: Active<'_>, trust: &Trust<'_>, signed_at: DateTime<Utc>) -> Result<(), Refusal> {
    let age = active.now - signed_at;
    if age <= trust.paypal_max_age && age >= -TOLERANCE {
        return Ok(());
    }
    let detail = format!(
        "The transmission time is {} s {} our clock; at most {} s is allowed.",
        age.num_seconds().abs(),
        if age < chrono::Duration::zero() { "ahead of" } else { "behind" },
        if age < chrono::Duration::zero() { TOLERANCE } else { trust.paypal_max_age }.num_seconds(),
    );
    Err(Refusal { reason: RejectionReason::TimestampOutOfTolerance, detail: Label::new(&detail) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_url_is_paypals_own_and_nothing_else() {
        let good = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-1d93a270";
        assert_eq!(CertificateUrl::parse(good).unwrap().name(), "CERT-360caa42-fca2a594-1d93a270");
        assert!(CertificateUrl::parse("https://api.sandbox.paypal.com/v1/notifications/certs/a").is_some());
        for bad in [
            "",
            "http://api.paypal.com/v1/notifications/certs/a",
            "HTTPS://api.paypal.com/v1/notifications/certs/a",
            "https://api.paypal.com:443/v1/notifications/certs/a",
            "https://api.paypal.com@evil.example/v1/notifications/certs/a",
            "https://evil@api.paypal.com/v1/notifications/certs/a",
            "https://api.paypal.com.evil.example/v1/notifications/certs/a",
            "https://evil.example/https://api.paypal.com/v1/notifications/certs/a",
            "https://API.paypal.com/v1/notifications/certs/a",
            "https://api.paypal.com./v1/notifications/certs/a",
            "https://www.paypal.com/v1/notifications/certs/a",
            "https://api.paypal.com/v1/notifications/certs/",
            "https://api.paypal.com/v1/notifications/certs",
            "https://api.paypal.com/v1/notifications/certs//a",
            "https://api.paypal.com/v1/notifications/certs/a/",
            "https://api.paypal.com/v1/notifications/certs/../a",
            "https://api.paypal.com/v1/notifications/certs/..",
            "https://api.paypal.com/v1/notifications/certs/.hidden",
            "https://api.paypal.com/v1/notifications/certs/%2e%2e/a",
            "https://api.paypal.com/v1/notifications/certs/a?b",
            "https://api.paypal.com/v1/notifications/certs/a#b",
            "https://api.paypal.com/v1/notifications/certs/a b",
            "https://api.paypal.com/v1/notifications/certs/a\\b",
            "https://api.paypal.com/v1/notifications/certs\\a",
            "https://api.paypal.com/other/a",
            "//api.paypal.com/v1/notifications/certs/a",
        ] {
            assert_eq!(CertificateUrl::parse(bad), None, "{bad}");
        }
        assert_eq!(CertificateUrl::parse(&format!("{good}{}", "a".repeat(500))), None);
    }
}
