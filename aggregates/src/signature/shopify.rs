//! Shopify: `X-Shopify-Hmac-SHA256: <base64 HMAC-SHA256 of the raw body>`, keyed by the client secret.
//!
//! <https://shopify.dev/docs/apps/build/webhooks/subscribe/https>. Webhook ID and topic are unsigned headers.
//! Every header may come without the `X-`, as `Shopify-Topic` for `X-Shopify-Topic`.
//!
//! `X-Shopify-Webhook-Id` identifies one event at one subscription, and is repeated on retries; several
//! subscriptions, even to the same topic, share `X-Shopify-Event-Id`
//! (<https://shopify.dev/docs/apps/build/webhooks/ignore-duplicates>). So the former alone identifies a
//! webhook, even across shops.

use super::{Active, Claims, Refusal, Spellings, Unverified, base64_bytes};
use crate::webhook::SignatureMatch;

pub(super) const SIGNATURE: Spellings = Spellings(&["x-shopify-hmac-sha256", "shopify-hmac-sha256"]);
const ID: Spellings = Spellings(&["x-shopify-webhook-id", "shopify-webhook-id"]);
const TOPIC: Spellings = Spellings(&["x-shopify-topic", "shopify-topic"]);
/// Headers that destinations read although we do not: each must have a single value too.
const OTHERS: [Spellings; 5] = [
    Spellings(&["x-shopify-shop-domain", "shopify-shop-domain"]),
    Spellings(&["x-shopify-event-id", "shopify-event-id"]),
    Spellings(&["x-shopify-api-version", "shopify-api-version"]),
    Spellings(&["x-shopify-triggered-at", "shopify-triggered-at"]),
    Spellings(&["x-shopify-name", "shopify-name"]),
];

pub(super) fn claims(request: Unverified<'_>) -> Claims {
    Claims {
        event_id: ID.bytes(request.headers),
        subscription: None,
        event_type: TOPIC.label(request.headers),
        signature: SIGNATURE.signature_label(request.headers),
    }
}

pub(super) fn verify(request: Unverified<'_>, active: Active<'_>) -> Result<SignatureMatch, Refusal> {
    let signature = base64_bytes(SIGNATURE.required(request.headers)?)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Refusal::invalid("X-Shopify-Hmac-SHA256 isn't 32 bytes in base64."))?;
    for header in [ID, TOPIC].into_iter().chain(OTHERS) {
        header.single(request.headers)?;
    }
    active.hmac_verify(request, &[request.body], &[signature])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, detail, headers, secret};
    use super::super::{Unverified, claims};
    use crate::ProviderName::Shopify;
    use crate::webhook::RejectionReason::{SignatureInvalid, SignatureMissing};

    const BODY: &str = r#"{"id":820982911946154508,"note":"café"}"#;
    const SIGNATURE: &str = "XEYCPSbGtdhP6PZ+r0hjL3ujEHWaBLaDBADxMdhcFMM=";

    #[test]
    fn the_vector_verifies_and_another_body_does_not() {
        let secrets = [secret(1, "hush")];
        let headers = [("X-Shopify-Hmac-Sha256", SIGNATURE)];
        assert!(check(Shopify, &headers, BODY.as_bytes(), &secrets, 0).is_ok());
        let recoded = BODY.replace('é', "\\u00e9");
        assert_eq!(check(Shopify, &headers, recoded.as_bytes(), &secrets, 0), Err(SignatureInvalid));
        assert_eq!(check(Shopify, &[], BODY.as_bytes(), &secrets, 0), Err(SignatureMissing));
    }

    #[test]
    fn every_header_is_read_without_its_x_as_well() {
        let plain =
            [("Shopify-Hmac-Sha256", SIGNATURE), ("Shopify-Webhook-Id", "b1"), ("Shopify-Topic", "orders/paid")];
        assert!(check(Shopify, &plain, BODY.as_bytes(), &[secret(1, "hush")], 0).is_ok());
        let plain = headers(&plain);
        let claims = claims(Shopify, Unverified { headers: &plain, body: BODY.as_bytes() });
        assert_eq!(claims.event_id.as_deref(), Some(&b"b1"[..]));
        assert_eq!(claims.event_type.unwrap().as_str(), "orders/paid");
        assert_eq!(claims.signature.unwrap().as_str(), SIGNATURE);
    }

    #[test]
    fn two_spellings_that_disagree_are_refused_and_two_that_agree_are_not() {
        let secrets = [secret(1, "hush")];
        for name in ["Hmac-Sha256", "Topic", "Shop-Domain", "Webhook-Id", "Event-Id", "Api-Version", "Triggered-At"] {
            let (with, without) = (format!("X-Shopify-{name}"), format!("Shopify-{name}"));
            let value = if name == "Hmac-Sha256" { SIGNATURE } else { "a" };
            let mut pairs = vec![(with.as_str(), value), (without.as_str(), value)];
            if name != "Hmac-Sha256" {
                pairs.push(("Shopify-Hmac-Sha256", SIGNATURE));
            }
            assert!(check(Shopify, &pairs, BODY.as_bytes(), &secrets, 0).is_ok(), "{name}");
            pairs[1].1 = "b";
            let detail = detail(Shopify, &pairs, BODY.as_bytes(), &secrets, 0);
            assert!(detail.ends_with("have different values."), "{name}: {detail}");
        }
    }
}
