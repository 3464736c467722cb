//! What is fuzzed, as plain functions: `fuzz_targets/` calls them from libFuzzer, and
//! `tests/it/fuzz.rs` from a short run that every machine can do. Each must survive any bytes.

use chrono::{DateTime, Duration, Utc};
use hookledger_aggregates::signature::{
    CertificateUrl, Certificates, Found, SigningCertificate, SigningSecret, Trust, Unverified, Verdict, claims,
    trust_roots, verify,
};
use hookledger_aggregates::{Label, ProviderName};
use http::{HeaderMap, HeaderName, HeaderValue};

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
        assert!(SigningCertificate::check(data, &[], &["paypal.com"], now).is_err());
        let _ = SigningCertificate::check(data, &trusted, &["paypal.com"], now);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = CertificateUrl::parse(text);
    }
}
