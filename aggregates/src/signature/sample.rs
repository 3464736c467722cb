//! Signs requests as a provider would, for people's tests and for the demo. They are verified like any other
//! request.

use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use sha2::Sha256;

use super::{SigningSecret, standard};
use crate::ProviderName;

/// A sample's claims.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The provider's own event ID; for providers that have it in the body, the one there.
    pub event_id: &'a str,
    pub event_type: &'a str,
    pub body: &'a [u8],
    pub at: DateTime<Utc>,
}

/// Why a sample cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsignable {
    #[error("This provider signs with its own private key, so only the provider can sign.")]
    PublicKey,
    #[error("The event type must be 1 to 100 visible ASCII characters.")]
    EventType,
}

/// The headers with which this provider would send the sample.
pub fn sign(provider: ProviderName, secret: &SigningSecret, sample: Sample<'_>) -> Result<HeaderMap, Unsignable> {
    let visible = sample.event_type.bytes().all(|byte| byte.is_ascii_graphic());
    if !visible || !(1..=100).contains(&sample.event_type.len()) {
        return Err(Unsignable::EventType);
    }
    let key = secret.value.expose_secret();
    let seconds = sample.at.timestamp().to_string();
    match provider {
        ProviderName::Paypal => Err(Unsignable::PublicKey),
        ProviderName::Github => headers(&[
            ("x-github-event", sample.event_type),
            ("x-github-delivery", sample.event_id),
            ("x-hub-signature-256", &format!("sha256={}", hex::encode(mac(key, &[sample.body])))),
        ]),
        ProviderName::Stripe => {
            let digest = mac(key, &[seconds.as_bytes(), b".", sample.body]);
            headers(&[("stripe-signature", &format!("t={seconds},v1={}", hex::encode(digest)))])
        }
        ProviderName::Shopify => headers(&[
            ("x-shopify-topic", sample.event_type),
            ("x-shopify-webhook-id", sample.event_id),
            ("x-shopify-hmac-sha256", &base64(&mac(key, &[sample.body]))),
        ]),
        ProviderName::Standard => {
            let key = standard::hmac_key(key).ok_or(Unsignable::PublicKey)?;
            let digest = mac(&key, &[sample.event_id.as_bytes(), b".", seconds.as_bytes(), b".", sample.body]);
            headers(&[
                ("webhook-id", sample.event_id),
                ("webhook-timestamp", &seconds),
                ("webhook-signature", &format!("v1,{}", base64(&digest))),
            ])
        }
    }
}

/// Whether a header of that name contains a signature.
#[must_use]
pub fn is_signature(name: &str) -> bool {
    super::SIGNATURES.iter().flat_map(|header| header.0).any(|known| *known == name)
}

fn headers(pairs: &[(&'static str, &str)]) -> Result<HeaderMap, Unsignable> {
    let mut headers = HeaderMap::with_capacity(pairs.len() + 2);
    for (name, value) in pairs {
        let value = HeaderValue::from_str(value).map_err(|_| Unsignable::EventType)?;
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(headers)
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC accepts keys of any length, so this cannot fail; a sample with zeros would be refused.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::Unverified;
    use super::super::testing::judge;
    use super::*;

    fn secret(value: &str) -> SigningSecret {
        SigningSecret { version: 1, value: value.as_bytes().to_vec().into(), expires_at: None }
    }

    #[test]
    fn every_sample_verifies_and_a_changed_one_does_not() {
        let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let sample = Sample { event_id: "evt_1", event_type: "push", body: b"{\"id\":\"evt_1\"}", at };
        for (provider, value) in [
            (ProviderName::Github, "s"),
            (ProviderName::Stripe, "whsec_x"),
            (ProviderName::Shopify, "hush"),
            (ProviderName::Standard, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ] {
            let signed = sign(provider, &secret(value), sample).unwrap();
            let judge = |body| judge(provider, Unverified { headers: &signed, body }, &[secret(value)], at);
            assert!(judge(sample.body).is_ok(), "{provider:?}");
            assert!(judge(b"{}").is_err(), "{provider:?}");
        }
    }

    #[test]
    fn nobody_signs_with_a_public_key_or_slips_a_header_in() {
        let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let sample = Sample { event_id: "1", event_type: "push", body: b"", at };
        let public = secret("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=");
        assert_eq!(sign(ProviderName::Standard, &public, sample).unwrap_err(), Unsignable::PublicKey);
        let sly = Sample { event_type: "a\r\nx: y", ..sample };
        assert_eq!(sign(ProviderName::Github, &secret("s"), sly).unwrap_err(), Unsignable::EventType);
    }
}
