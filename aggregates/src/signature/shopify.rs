//! Shopify: `X-Shopify-Hmac-SHA256: <base64 HMAC-SHA256 of the raw body>`, keyed by the client secret.
//!
//! <https://shopify.dev/docs/apps/build/webhooks/subscribe/https>. Webhook id and topic are headers
//! that are not signed.
//!
//! `X-Shopify-Webhook-Id` is of one delivery to one subscription, and repeated when that is sent again;
//! `X-Shopify-Event-Id` is what several subscriptions, also of one topic, share
//! (<https://shopify.dev/docs/apps/build/webhooks/ignore-duplicates>). So the former alone tells deliveries
//! apart, also those of several shops.

use super::{Active, Claims, Refusal, Unverified, base64_bytes, header_bytes, header_label, required, signature_label};
use crate::webhook::SignatureMatch;

const SIGNATURE: &str = "x-shopify-hmac-sha256";

pub(super) fn claims(request: Unverified<'_>) -> Claims {
    Claims {
        event_id: header_bytes(request.headers, "x-shopify-webhook-id"),
        subscription: None,
        event_type: header_label(request.headers, "x-shopify-topic"),
        signature: signature_label(request.headers, SIGNATURE),
    }
}

pub(super) fn verify(request: Unverified<'_>, active: Active<'_>) -> Result<SignatureMatch, Refusal> {
    let signature = base64_bytes(required(request.headers, SIGNATURE)?)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Refusal::invalid("X-Shopify-Hmac-SHA256 is not the base64 of 32 bytes"))?;
    active.hmac_verify(request, &[request.body], &[signature])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, secret};
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
}
