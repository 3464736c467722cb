//! Signing what goes out, as Standard Webhooks say: the receiver verifies a delivery with any of
//! their libraries.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::WebhookId;

/// What a secret begins with, before the base64 of its key.
const PREFIX: &str = "whsec_";
/// Bytes of a key; the specification says 24 to 64.
pub const KEY_BYTES: usize = 32;

/// A secret as its receiver configures it.
#[must_use]
pub fn secret(key: &[u8; KEY_BYTES]) -> String {
    format!("{PREFIX}{}", STANDARD.encode(key))
}

/// The key within a secret that [`secret`] made.
#[must_use]
pub fn key(secret: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(secret.strip_prefix(PREFIX.as_bytes())?).ok()
}

/// The value of `webhook-signature`: one signature for each key, the newest first. While a secret is
/// being rotated two sign, and a receiver takes whichever it knows.
pub fn signature<'a>(
    keys: impl IntoIterator<Item = &'a [u8]>,
    webhook: WebhookId,
    at: DateTime<Utc>,
    body: &[u8],
) -> String {
    let head = format!("{webhook}.{}.", at.timestamp());
    let mut value = String::with_capacity(100);
    for key in keys {
        // HMAC takes keys of any length, so this cannot fail; no signature is the safe reading of an error.
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(key) else { continue };
        let digest = mac.chain_update(&head).chain_update(body).finalize().into_bytes();
        if !value.is_empty() {
            value.push(' ');
        }
        value.push_str("v1,");
        STANDARD.encode_string(digest, &mut value);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn our_own_verifier_takes_what_is_signed_by_either_secret() {
        use crate::ProviderName;
        use crate::signature::testing::judge;
        use crate::signature::{SigningSecret, Unverified};
        let keys = [[1; KEY_BYTES], [2; KEY_BYTES]];
        let (webhook, at) = (WebhookId::new(Uuid::from_u128(7)), DateTime::from_timestamp(1_700_000_000, 0).unwrap());
        let value = signature(keys.iter().map(<[u8; KEY_BYTES]>::as_slice), webhook, at, b"{}");
        let mut headers = http::HeaderMap::new();
        headers.insert("webhook-id", webhook.to_string().parse().unwrap());
        headers.insert("webhook-timestamp", at.timestamp().to_string().parse().unwrap());
        headers.insert("webhook-signature", value.parse().unwrap());
        for key in keys {
            let value = secret(&key).into_bytes();
            assert_eq!(super::key(&value).as_deref(), Some(key.as_slice()));
            let secrets = [SigningSecret { version: 1, value: value.into(), expires_at: None }];
            let request = Unverified { headers: &headers, body: b"{}" };
            assert!(judge(ProviderName::Standard, request, &secrets, at).is_ok());
        }
    }
}
