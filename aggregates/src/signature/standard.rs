//! Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature` over `<id>.<timestamp>.<raw
//! body>`; also with the older `svix-` names.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>. `v1,` is the
//! base64 of HMAC-SHA256 keyed by the base64 after `whsec_`; `v1a,` is the base64 of an ed25519 signature
//! with the key that is the base64 after `whpk_`.
//!
//! `webhook-id` identifies the message, and stays the same on a retry or when it is sent to another endpoint
//! of the same receiver: one message is one event. It is signed.

use ed25519_dalek::{Signature, VerifyingKey};
use secrecy::ExposeSecret;

use super::fields::id_and_type;
use super::{
    Active, Claims, MAX_SIGNATURES, Refusal, SigningSecret, Spellings, Unverified, base64_bytes, base64_key,
    hmac_matches, unix_seconds,
};
use crate::Label;
use crate::webhook::{SignatureMatch, SignatureScheme};

const ID: Spellings = Spellings(&["webhook-id", "svix-id"]);
const TIMESTAMP: Spellings = Spellings(&["webhook-timestamp", "svix-timestamp"]);
pub(super) const SIGNATURE: Spellings = Spellings(&["webhook-signature", "svix-signature"]);

/// The kinds of configured secrets.
enum Key {
    Hmac(Vec<u8>),
    Ed25519(VerifyingKey),
}

impl Key {
    fn parse(secret: &str) -> Option<Self> {
        if let Some(public) = secret.strip_prefix("whpk_") {
            let bytes: [u8; 32] = base64_key(public)?.try_into().ok()?;
            return VerifyingKey::from_bytes(&bytes).ok().map(Self::Ed25519);
        }
        let bytes = base64_key(secret.strip_prefix("whsec_").unwrap_or(secret))?;
        (!bytes.is_empty()).then_some(Self::Hmac(bytes))
    }
}

/// The key for signing with `secret`; `None` if the secret only verifies.
pub(super) fn hmac_key(secret: &[u8]) -> Option<Vec<u8>> {
    match Key::parse(std::str::from_utf8(secret).ok()?)? {
        Key::Hmac(key) => Some(key),
        Key::Ed25519(_) => None,
    }
}

pub(super) fn check_secret(secret: &str) -> Result<(), &'static str> {
    if secret.starts_with("v1,") || secret.starts_with("v1a,") {
        return Err("Remove the version prefix and its comma. The secret begins with whsec_ or whpk_.");
    }
    if secret.starts_with("whsk_") {
        return Err(
            "This is the private key, which stays with the sender. Paste the public key, which begins with whpk_.",
        );
    }
    Key::parse(secret)
        .map(drop)
        .ok_or("A Standard Webhooks secret is whsec_ followed by base64, or whpk_ followed by an ed25519 public key in base64.")
}

pub(super) fn claims(request: Unverified<'_>) -> Claims {
    Claims {
        event_id: ID.bytes(request.headers),
        subscription: None,
        event_type: id_and_type(request.body).kind.as_deref().map(Label::new),
        signature: SIGNATURE.signature_label(request.headers),
    }
}

pub(super) fn verify(request: Unverified<'_>, active: Active<'_>) -> Result<SignatureMatch, Refusal> {
    let header = SIGNATURE.required(request.headers)?;
    let id = ID.required(request.headers)?;
    let timestamp = TIMESTAMP.required(request.headers)?;
    let signed_at =
        unix_seconds(timestamp).ok_or_else(|| Refusal::invalid("webhook-timestamp isn't a Unix timestamp."))?;
    let offered = Offered::parse(header);
    let signed: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", request.body];
    let matched_by = |secret: &SigningSecret| offered.matched_by(secret, &signed);
    let matched = active
        .iter()
        .find_map(matched_by)
        .ok_or_else(|| active.refuse(request, |secret| matched_by(secret).is_some()))?;
    active.check_timestamp(signed_at)?;
    Ok(SignatureMatch { signed_at: Some(signed_at), ..matched })
}

/// The signatures of a request, by scheme.
struct Offered {
    hmac: Vec<[u8; 32]>,
    ed25519: Vec<Signature>,
}

impl Offered {
    /// Skips unknown versions and malformed signatures, as the specification requires.
    fn parse(header: &str) -> Self {
        let mut offered = Self { hmac: Vec::new(), ed25519: Vec::new() };
        for (version, value) in header.split(' ').filter_map(|item| item.split_once(',')).take(MAX_SIGNATURES) {
            let bytes = base64_bytes(value);
            match version {
                "v1" => offered.hmac.extend(bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())),
                "v1a" => offered.ed25519.extend(bytes.and_then(|bytes| Signature::from_slice(&bytes).ok())),
                _ => {}
            }
        }
        offered
    }

    fn matched_by(&self, secret: &SigningSecret, signed: &[&[u8]]) -> Option<SignatureMatch> {
        let text = std::str::from_utf8(secret.value.expose_secret()).ok()?;
        let scheme = match Key::parse(text)? {
            Key::Hmac(key) => hmac_matches(&key, signed, &self.hmac).then_some(SignatureScheme::HmacSha256),
            Key::Ed25519(_) if self.ed25519.is_empty() => None,
            Key::Ed25519(key) => {
                let message = signed.concat();
                // `verify_strict` also refuses weak keys and malleable signatures.
                self.ed25519
                    .iter()
                    .any(|signature| key.verify_strict(&message, signature).is_ok())
                    .then_some(SignatureScheme::Ed25519)
            }
        };
        scheme.map(|scheme| SignatureMatch {
            scheme,
            secret_version: secret.version,
            provider_id: None,
            signed_at: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, sign};
    use super::super::testing::{at, check, detail, judge, secret};
    use super::super::{Unverified, check_secret};
    use crate::ProviderName::Standard;
    use crate::webhook::RejectionReason::{SignatureInvalid, SignatureMissing, TimestampOutOfTolerance};
    use crate::webhook::{RejectionReason, SignatureScheme};

    const SYMMETRIC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    const V1: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const V1A: &str = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
    const T: i64 = 1_614_265_330;

    fn with(prefix: &str, signature: &str, key: &str, now: i64) -> Result<SignatureScheme, RejectionReason> {
        let names = ["id", "timestamp", "signature"].map(|name| format!("{prefix}-{name}"));
        let headers = [
            (names[0].as_str(), "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            (names[1].as_str(), "1614265330"),
            (names[2].as_str(), signature),
        ];
        check(Standard, &headers, br#"{"test": 2432232314}"#, &[secret(1, key)], now).map(|m| m.scheme)
    }

    #[test]
    fn both_vectors_verify_under_both_names() {
        for prefix in ["webhook", "svix"] {
            assert_eq!(with(prefix, V1, SYMMETRIC, T), Ok(SignatureScheme::HmacSha256));
            assert_eq!(with(prefix, V1A, PUBLIC, T), Ok(SignatureScheme::Ed25519));
            assert_eq!(
                with(prefix, &format!("v2,x {V1A} v1,AAAA {V1}"), SYMMETRIC, T),
                Ok(SignatureScheme::HmacSha256)
            );
        }
    }

    #[test]
    fn both_names_at_once_say_the_same_or_are_refused() {
        let body = br#"{"test": 2432232314}"#;
        let mut pairs = Vec::new();
        for (id, time, signature) in
            [("webhook-id", "webhook-timestamp", "webhook-signature"), ("svix-id", "svix-timestamp", "svix-signature")]
        {
            pairs.extend([(id, "msg_p5jXN8AQM9LWM0D4loKWxJek"), (time, "1614265330"), (signature, V1)]);
        }
        assert!(check(Standard, &pairs, body, &[secret(1, SYMMETRIC)], T).is_ok());
        for at in 0..3 {
            let mut pairs = pairs.clone();
            pairs[3 + at].1 = "another";
            let detail = detail(Standard, &pairs, body, &[secret(1, SYMMETRIC)], T);
            assert!(detail.ends_with("have different values."), "{detail}");
        }
    }

    #[test]
    fn a_signature_of_the_other_scheme_does_not_verify() {
        assert_eq!(with("webhook", V1A, SYMMETRIC, T), Err(SignatureInvalid));
        assert_eq!(with("webhook", V1, PUBLIC, T), Err(SignatureInvalid));
    }

    #[test]
    fn times_and_missing_headers_are_told_apart() {
        assert_eq!(with("webhook", V1, SYMMETRIC, T + 301), Err(TimestampOutOfTolerance));
        assert_eq!(with("webhook", "", SYMMETRIC, T), Err(SignatureMissing));
        assert_eq!(
            check(Standard, &[("webhook-signature", V1)], b"", &[secret(1, SYMMETRIC)], T),
            Err(SignatureMissing)
        );
    }

    #[test]
    fn secrets_are_held_to_their_form() {
        for good in [SYMMETRIC, PUBLIC, PUBLIC.trim_end_matches('='), &SYMMETRIC[6..], "whsec_QUI", "whsec_QUI="] {
            assert!(check_secret(Standard, good, false).is_ok());
        }
        for bad in ["whsec_", "whsec_!", "whpk_AAAA", "not base64", "whsec_A", "whsk_AAAA"] {
            assert!(check_secret(Standard, bad, false).is_err(), "{bad}");
        }
        let refused = check_secret(Standard, &format!("v1,{SYMMETRIC}"), false).unwrap_err();
        assert!(refused.starts_with("Remove the version prefix"), "{refused}");
    }

    #[test]
    fn an_unpadded_key_verifies_what_the_padded_one_signed() {
        let (padded, unpadded) = ("whsec_c2VjcmV0IGtleSBvZiBhIHZlbmRvcg==", "whsec_c2VjcmV0IGtleSBvZiBhIHZlbmRvcg");
        let sample = Sample { event_id: "msg_1", event_type: "a", body: b"{}", at: at(T) };
        for (signs, verifies) in [(padded, unpadded), (unpadded, padded)] {
            let headers = sign(Standard, &secret(1, signs), sample).unwrap();
            let request = Unverified { headers: &headers, body: b"{}" };
            assert!(judge(Standard, request, &[secret(1, verifies)], at(T)).is_ok(), "{signs}");
        }
    }
}
