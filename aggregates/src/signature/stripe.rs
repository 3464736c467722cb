//! Stripe: `Stripe-Signature: t=<unix>,v1=<hex>[,v1=<hex>]` over `<t>.<raw body>`, HMAC-SHA256, keyed by the
//! whole `whsec_…` string.
//!
//! <https://docs.stripe.com/webhooks/signature>. `v0` and unknown schemes are ignored. The event ID and type
//! are in the signed body.
//!
//! An `evt_…` ID identifies the event. An account's and a Connect endpoint at one URL, or two endpoints with
//! different API versions, receive it under the same ID, and it is one webhook. If their bodies differ, the
//! second one is stored as a duplicate with a different body.

use super::fields::id_and_type;
use super::{Active, Claims, MAX_SIGNATURES, Refusal, Spellings, Unverified, hex32, unix_seconds};
use crate::Label;
use crate::webhook::SignatureMatch;

pub(super) const SIGNATURE: Spellings = Spellings(&["stripe-signature"]);

pub(super) fn claims(request: Unverified<'_>) -> Claims {
    let found = id_and_type(request.body);
    Claims {
        event_id: found.id.filter(|id| !id.is_empty()).map(String::into_bytes),
        subscription: None,
        event_type: found.kind.as_deref().map(Label::new),
        signature: SIGNATURE.signature_label(request.headers),
    }
}

pub(super) fn verify(request: Unverified<'_>, active: Active<'_>) -> Result<SignatureMatch, Refusal> {
    let header = SIGNATURE.required(request.headers)?;
    let items = || header.split(',').filter_map(|item| item.trim().split_once('='));
    let mut timestamps = items().filter(|(key, _)| *key == "t").map(|(_, value)| value);
    let (Some(timestamp), None) = (timestamps.next(), timestamps.next()) else {
        return Err(Refusal::invalid("Stripe-Signature must have exactly one t=."));
    };
    let signed_at = unix_seconds(timestamp)
        .ok_or_else(|| Refusal::invalid("The t= in Stripe-Signature isn't a Unix timestamp."))?;
    let signatures: Vec<[u8; 32]> =
        items().filter(|(key, _)| *key == "v1").take(MAX_SIGNATURES).filter_map(|(_, value)| hex32(value)).collect();
    if signatures.is_empty() {
        return Err(Refusal::invalid("Stripe-Signature has no v1= with 64 hex digits."));
    }
    let matched = active.hmac_verify(request, &[timestamp.as_bytes(), b".", request.body], &signatures)?;
    active.check_timestamp(signed_at)?;
    Ok(SignatureMatch { signed_at: Some(signed_at), ..matched })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, headers, secret};
    use super::super::{Unverified, claims};
    use crate::ProviderName::Stripe;
    use crate::webhook::RejectionReason::{SignatureInvalid, SignatureMissing, TimestampOutOfTolerance};

    const BODY: &[u8] = br#"{"id":"evt_test_webhook","object":"event"}"#;
    const V1: &str = "88a022085c6bdb887b02cb26ff76dd681234d9675c0f22844059f55552a8883a";
    const T: i64 = 1_492_774_577;

    fn at(header: &str, now: i64) -> Result<(), crate::webhook::RejectionReason> {
        check(Stripe, &[("Stripe-Signature", header)], BODY, &[secret(1, "whsec_test_secret")], now).map(drop)
    }

    #[test]
    fn the_vector_verifies_within_five_minutes_either_way() {
        let header = format!("t={T},v1={V1},v0=ignored");
        assert_eq!(at(&header, T), Ok(()));
        assert_eq!(at(&header, T + 300), Ok(()));
        assert_eq!(at(&header, T - 300), Ok(()));
        assert_eq!(at(&header, T + 301), Err(TimestampOutOfTolerance));
        assert_eq!(at(&header, T - 301), Err(TimestampOutOfTolerance));
    }

    #[test]
    fn one_of_several_signatures_is_enough() {
        assert_eq!(at(&format!("t={T},v1={},v1={V1}", "0".repeat(64)), T), Ok(()));
        let too_many = format!("t={T},{}v1={V1}", format!("v1={},", "0".repeat(64)).repeat(16));
        assert_eq!(at(&too_many, T), Err(SignatureInvalid));
    }

    #[test]
    fn malformed_headers_are_refused() {
        for bad in [
            format!("v1={V1}"),
            format!("t={T}"),
            format!("t={T},v0={V1}"),
            format!("t={T},t={T},v1={V1}"),
            format!("t=,v1={V1}"),
            format!("t=-1,v1={V1}"),
            format!("t=99999999999999999999,v1={V1}"),
            "nonsense".to_owned(),
        ] {
            assert_eq!(at(&bad, T), Err(SignatureInvalid), "{bad}");
        }
        assert_eq!(check(Stripe, &[], BODY, &[secret(1, "x")], T), Err(SignatureMissing));
    }

    #[test]
    fn a_stale_forgery_is_a_forgery_first() {
        assert_eq!(at(&format!("t=1,v1={V1}"), T), Err(SignatureInvalid));
    }

    #[test]
    fn id_and_type_come_from_the_body() {
        let none = headers(&[]);
        let claims =
            claims(Stripe, Unverified { headers: &none, body: br#"{"id":"evt_1","type":"charge.succeeded"}"# });
        assert_eq!(claims.event_id.as_deref(), Some(&b"evt_1"[..]));
        assert_eq!(claims.event_type.unwrap().as_str(), "charge.succeeded");
    }
}
