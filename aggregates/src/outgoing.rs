//! Signs deliveries according to Standard Webhooks, so that receivers can verify them with any of its
//! libraries. Also selects the sender's headers that a delivery forwards.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac as _};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use crate::WebhookId;

/// Prefix of a secret, before the base64 of its key.
const PREFIX: &str = "whsec_";
/// Bytes of a key; the specification requires 24 to 64.
pub const KEY_BYTES: usize = 32;

/// The header of a delivery that counts the deliveries of the webhook so far.
pub const HOPS: &str = "hookledger-hops";

/// Headers that describe the body.
const DESCRIBING: [HeaderName; 2] = [CONTENT_TYPE, CONTENT_ENCODING];
/// Headers with senders' signatures.
const SIGNATURES: [&str; 8] = [
    "x-hub-signature-256",
    "x-hub-signature",
    "x-shopify-hmac-sha256",
    "shopify-hmac-sha256",
    "stripe-signature",
    "paypal-transmission-sig",
    "webhook-signature",
    "svix-signature",
];
/// Families of headers in which senders describe an event. The senders' libraries look for these names.
const FAMILIES: [&str; 5] = ["x-github-", "x-shopify-", "shopify-", "stripe-", "paypal-"];
/// Families of headers that could be mistaken for our own.
const RENAMED: [&str; 2] = ["webhook-", "svix-"];
/// Prefix of their names in a delivery.
const ORIGINAL: &str = "hookledger-original-";
/// Suffixes of headers that contain a credential, in any family.
const CREDENTIALS: [&str; 3] = ["-authorization", "-cookie", "-access-token"];
/// Maximum size of all forwarded headers, with their separators. Common servers accept 8 or 16 KiB in total,
/// and other headers are added.
const CARRIED_BYTES: usize = 6 << 10;
/// Maximum number of forwarded header lines.
const CARRIED_LINES: usize = 64;

/// The sender's headers that a delivery forwards: those that describe the body, and those that describe the
/// event.
///
/// `lines` are names in lower case and unchanged values. Headers beyond the limits are omitted. The headers
/// that describe the body come first, then the signature, because nobody can verify without it.
pub fn carried<'a>(lines: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone, with_signature: bool) -> HeaderMap {
    let mut carried = HeaderMap::new();
    let mut left = CARRIED_BYTES;
    for rank in [Rank::Describes, Rank::Signs, Rank::Says] {
        for (name, value) in lines.clone() {
            let Some((name, of_rank)) = carried_name(name) else { continue };
            let size = name.as_str().len() + value.len() + 4;
            let is_wanted = of_rank == rank && (with_signature || rank != Rank::Signs);
            if !is_wanted || size > left || carried.len() >= CARRIED_LINES {
                continue;
            }
            if let Ok(value) = HeaderValue::from_bytes(value) {
                left -= size;
                carried.append(name, value);
            }
        }
    }
    carried
}

/// Purpose of a forwarded header, the most important first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rank {
    Describes,
    Signs,
    Says,
}

/// The name of a sender's header in a delivery, if it is forwarded.
fn carried_name(name: &[u8]) -> Option<(HeaderName, Rank)> {
    let name = HeaderName::from_bytes(name).ok()?;
    let text = name.as_str();
    let begins = |families: &[&str]| families.iter().any(|family| text.starts_with(family));
    let rank = match () {
        () if DESCRIBING.contains(&name) => return Some((name, Rank::Describes)),
        () if CREDENTIALS.iter().any(|end| text.ends_with(end)) => return None,
        () if SIGNATURES.contains(&text) => Rank::Signs,
        () if begins(&FAMILIES) || begins(&RENAMED) => Rank::Says,
        () => return None,
    };
    if begins(&RENAMED) {
        return Some((HeaderName::from_bytes(format!("{ORIGINAL}{text}").as_bytes()).ok()?, rank));
    }
    Some((name, rank))
}

/// A secret in the form that its receiver configures.
#[must_use]
pub fn secret(key: &[u8; KEY_BYTES]) -> String {
    format!("{PREFIX}{}", STANDARD.encode(key))
}

/// The key in a secret from [`secret`].
#[must_use]
pub fn key(secret: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(secret.strip_prefix(PREFIX.as_bytes())?).ok()
}

/// The value of `webhook-signature`: one signature per key, the newest first. During a rotation there are
/// two, and a receiver accepts the one that it knows.
pub fn signature<'a>(
    keys: impl IntoIterator<Item = &'a [u8]>,
    webhook: WebhookId,
    at: DateTime<Utc>,
    body: &[u8],
) -> String {
    let head = format!("{webhook}.{}.", at.timestamp());
    let mut value = String::with_capacity(100);
    for key in keys {
        // HMAC accepts keys of any length, so this cannot fail; omitting the signature is the safe fallback.
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

    fn names(lines: &[(&str, &str)], with_signature: bool) -> Vec<String> {
        let lines = lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let mut names: Vec<_> = carried(lines, with_signature).keys().map(ToString::to_string).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_delivery_carries_what_describes_the_event_and_no_credential() {
        let lines = [
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
            ("x-github-event", "push"),
            ("x-hub-signature-256", "sha256=00"),
            ("x-shopify-topic", "orders/create"),
            ("shopify-topic", "orders/create"),
            ("shopify-hmac-sha256", "AA=="),
            ("stripe-signature", "t=1,v1=00"),
            ("paypal-transmission-id", "1"),
            ("paypal-transmission-sig", "AA=="),
            ("webhook-id", "msg_1"),
            ("svix-signature", "v1,AA=="),
            ("authorization", "Bearer t"),
            ("cookie", "a=b"),
            ("x-shopify-access-token", "shpat_1"),
            ("proxy-authorization", "Basic t"),
            ("connection", "x-github-event"),
            ("transfer-encoding", "chunked"),
            ("content-length", "2"),
            ("host", "hooks.example"),
            ("user-agent", "GitHub-Hookshot/1"),
            ("x-forwarded-for", "192.0.2.1"),
            ("hookledger-attempt", "7"),
            ("hookledger-original-webhook-id", "msg_0"),
        ];
        let plain = [
            "content-encoding",
            "content-type",
            "hookledger-original-webhook-id",
            "paypal-transmission-id",
            "shopify-topic",
            "x-github-event",
            "x-shopify-topic",
        ];
        assert_eq!(names(&lines, false), plain);
        let signatures = [
            "hookledger-original-svix-signature",
            "paypal-transmission-sig",
            "shopify-hmac-sha256",
            "stripe-signature",
            "x-hub-signature-256",
        ];
        let mut all: Vec<_> = plain.iter().chain(&signatures).copied().collect();
        all.sort_unstable();
        assert_eq!(names(&lines, true), all);
    }

    #[test]
    fn carried_headers_are_bounded_and_the_signature_has_precedence() {
        let long = "y".repeat(CARRIED_BYTES / 2);
        let lines = [("x-github-a", &*long), ("x-github-b", &long), ("x-hub-signature-256", "sha256=00")];
        assert_eq!(names(&lines, true), ["x-github-a", "x-hub-signature-256"]);
        let many: Vec<_> = (0..1_000).map(|n| (format!("x-github-{n}"), "y")).collect();
        let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(names(&many, true).len(), CARRIED_LINES);
        let odd = [("x-github-event", "a\nb"), ("x github", "y"), ("", "y")];
        assert!(names(&odd, true).is_empty());
    }

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
