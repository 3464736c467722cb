//! Requests as GitHub, Stripe and senders of Standard Webhooks sign them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Github,
    Stripe,
    Standard,
}

impl Sender {
    pub const ALL: [Self; 3] = [Self::Github, Self::Stripe, Self::Standard];

    /// The provider's name in URLs.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Stripe => "stripe",
            Self::Standard => "standard",
        }
    }

    /// The provider's name in GraphQL.
    #[must_use]
    pub const fn graphql(self) -> &'static str {
        match self {
            Self::Github => "GITHUB",
            Self::Stripe => "STRIPE",
            Self::Standard => "STANDARD",
        }
    }

    #[must_use]
    pub const fn secret(self) -> &'static str {
        match self {
            Self::Github => "It's a Secret to Everybody",
            Self::Stripe => "whsec_test_secret",
            Self::Standard => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        }
    }

    /// Names and values of a request's headers, signed with `secret` now.
    #[must_use]
    pub fn headers(self, secret: &str, event: &str, body: &[u8]) -> Vec<(&'static str, String)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        match self {
            Self::Github => vec![
                ("x-github-delivery", event.to_owned()),
                ("x-github-hook-id", "292430182".to_owned()),
                ("x-github-event", "push".to_owned()),
                ("x-hub-signature-256", format!("sha256={}", hex::encode(hmac(secret.as_bytes(), &[body])))),
            ],
            Self::Stripe => {
                let signature = hmac(secret.as_bytes(), &[format!("{now}.").as_bytes(), body]);
                vec![("stripe-signature", format!("t={now},v1={}", hex::encode(signature)))]
            }
            Self::Standard => {
                let key = STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap_or_default();
                let signature = hmac(&key, &[format!("{event}.{now}.").as_bytes(), body]);
                vec![
                    ("webhook-id", event.to_owned()),
                    ("webhook-timestamp", now.to_string()),
                    ("webhook-signature", format!("v1,{}", STANDARD.encode(signature))),
                ]
            }
        }
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // An HMAC accepts keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_githubs_own_example() {
        let headers = Sender::Github.headers(Sender::Github.secret(), "d", b"Hello, World!");
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(headers.last(), Some(&("x-hub-signature-256", signature.to_owned())));
    }
}
