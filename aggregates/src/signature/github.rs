//! GitHub: `X-Hub-Signature-256: sha256=<hex HMAC-SHA256 of the raw body>`.
//!
//! <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>. The older SHA-1 header
//! is ignored. The delivery ID, the hook's ID and the event's name are in unsigned headers.
//!
//! `X-GitHub-Delivery` identifies the event: GitHub's REST API says of this GUID that it is "shared with all
//! deliveries for all webhooks that subscribe to this event", and two apps of one repository get different
//! payloads under it (<https://github.com/github/docs/issues/32822>). So `X-GitHub-Hook-ID` is part of the
//! identity. A redelivery repeats both.

use super::{Active, Claims, Refusal, Spellings, Unverified, hex32};
use crate::webhook::SignatureMatch;

pub(super) const SIGNATURE: Spellings = Spellings(&["x-hub-signature-256"]);
const DELIVERY: Spellings = Spellings(&["x-github-delivery"]);
const HOOK: Spellings = Spellings(&["x-github-hook-id"]);
const EVENT: Spellings = Spellings(&["x-github-event"]);

pub(super) fn claims(request: Unverified<'_>) -> Claims {
    Claims {
        event_id: DELIVERY.bytes(request.headers),
        subscription: HOOK.bytes(request.headers),
        event_type: EVENT.label(request.headers),
        signature: SIGNATURE.signature_label(request.headers),
    }
}

pub(super) fn verify(request: Unverified<'_>, active: Active<'_>) -> Result<SignatureMatch, Refusal> {
    let signature = SIGNATURE
        .required(request.headers)?
        .strip_prefix("sha256=")
        .and_then(hex32)
        .ok_or_else(|| Refusal::invalid("X-Hub-Signature-256 isn't sha256= followed by 64 hex digits."))?;
    active.hmac_verify(request, &[request.body], &[signature])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, detail, secret};
    use crate::ProviderName::Github;
    use crate::webhook::RejectionReason::{SignatureInvalid, SignatureMissing};

    const SECRET: &str = "It's a Secret to Everybody";
    const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn githubs_own_vector_verifies() {
        let headers = [("X-Hub-Signature-256", SIGNATURE)];
        assert!(check(Github, &headers, b"Hello, World!", &[secret(1, SECRET)], 0).is_ok());
        assert_eq!(check(Github, &headers, b"Hello, World?", &[secret(1, SECRET)], 0), Err(SignatureInvalid));
    }

    #[test]
    fn any_active_secret_verifies_and_says_which() {
        let headers = [("X-Hub-Signature-256", SIGNATURE)];
        let secrets = [secret(1, "old"), secret(2, SECRET)];
        assert_eq!(check(Github, &headers, b"Hello, World!", &secrets, 0).unwrap().secret_version, 2);
    }

    #[test]
    fn an_expired_secret_does_not_verify() {
        let mut old = secret(1, SECRET);
        old.expires_at = Some(super::super::testing::at(100));
        let headers = [("X-Hub-Signature-256", SIGNATURE)];
        let secrets = [old];
        assert!(check(Github, &headers, b"Hello, World!", &secrets, 99).is_ok());
        assert_eq!(check(Github, &headers, b"Hello, World!", &secrets, 100), Err(SignatureInvalid));
    }

    #[test]
    fn a_refusal_says_what_may_be_wrong() {
        let mut old = secret(3, SECRET);
        old.expires_at = Some(super::super::testing::at(100));
        let signed = [("X-Hub-Signature-256", SIGNATURE)];
        let detail = |headers: &[(&str, &str)], body: &[u8], secrets: &[_]| detail(Github, headers, body, secrets, 100);
        assert!(detail(&signed, b"Hello, World!", &[old]).contains("version 3 of the secret, retired at 1970-01-01"));
        assert!(detail(&signed, b"", &[secret(1, SECRET)]).contains("empty body"));
        assert!(detail(&signed, b"{}", &[secret(1, SECRET)]).contains("re-encoded"));
        assert!(detail(&[("X-Hub-Signature-256", "sha1=aa")], b"{}", &[secret(1, SECRET)]).contains("64 hex digits"));
    }

    #[test]
    fn malformed_signatures_are_refused() {
        let secrets = [secret(1, SECRET)];
        let once = |value| check(Github, &[("X-Hub-Signature-256", value)], b"Hello, World!", &secrets, 0);
        assert_eq!(once(""), Err(SignatureMissing));
        assert_eq!(once("sha1=757107ea0eb2509fc211221cce984b8a37570b6d"), Err(SignatureInvalid));
        assert_eq!(once(&SIGNATURE[7..]), Err(SignatureInvalid));
        assert_eq!(once(&SIGNATURE[..70]), Err(SignatureInvalid));
        assert!(once(&SIGNATURE.to_uppercase().replace("SHA256", "sha256")).is_ok());
        assert_eq!(check(Github, &[], b"", &secrets, 0), Err(SignatureMissing));
        let twice = [("X-Hub-Signature-256", SIGNATURE), ("x-hub-signature-256", SIGNATURE)];
        assert_eq!(check(Github, &twice, b"Hello, World!", &secrets, 0), Err(SignatureInvalid));
    }

    #[test]
    fn an_empty_secret_verifies_nothing() {
        // HMAC-SHA256 of an empty message with an empty key.
        let forged = "sha256=b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad";
        let headers = [("X-Hub-Signature-256", forged)];
        assert_eq!(check(Github, &headers, b"", &[secret(1, "")], 0), Err(SignatureInvalid));
        assert_eq!(check(Github, &headers, b"", &[], 0), Err(SignatureInvalid));
    }
}
