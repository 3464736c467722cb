//! Verifies who sent a webhook. The input is unverified bytes; only this module creates a [`Verified`].
//!
//! One file per provider defines its signature headers, the signed content, and where its own event ID and
//! type are. Secrets are compared in constant time (`hmac`'s `verify_slice`) with every active one, for a
//! bounded number of signatures per request.

mod certificate;
mod fields;
mod github;
mod paypal;
pub mod sample;
mod secret;
mod shopify;
mod standard;
mod stripe;

use chrono::{DateTime, Duration, Utc};
use hmac::{Hmac, Mac};
use http::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

pub use certificate::{CertificateError, Certificates, Found, SigningCertificate, TrustRoots, trust_roots};
pub use paypal::CertificateUrl;
pub use secret::{Opinion, SIMULATOR_SENTENCE, check_secret, judge_secret};

use crate::webhook::{RejectionReason, SignatureMatch, SignatureScheme};
use crate::{EventIdentity, Label, ProviderId, ProviderName};

/// Maximum difference between a signed timestamp and our clock. Stripe and Standard Webhooks both recommend 5
/// minutes.
pub const TOLERANCE: Duration = Duration::seconds(300);

/// Maximum number of signatures examined per request. Senders send one per active secret.
const MAX_SIGNATURES: usize = 16;

/// Characters of a signature header that are stored for people to see.
const SIGNATURE_CHARS: usize = 1024;

/// A received request, of which nothing is trusted.
#[derive(Clone, Copy, Debug)]
pub struct Unverified<'a> {
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// The version of a secret that signs and verifies a single request and is then discarded. Stored versions
/// begin at 1.
pub const SINGLE_USE: u32 = 0;

/// One active signing secret, opened.
#[derive(Debug)]
pub struct SigningSecret {
    pub version: u32,
    pub value: SecretSlice<u8>,
    /// When it stops verifying.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A request's unverified claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The provider's own event ID, raw.
    pub event_id: Option<Vec<u8>>,
    /// Distinguishes requests that share an event ID but are events of their own.
    pub subscription: Option<Vec<u8>>,
    pub event_type: Option<Label>,
    pub signature: Option<Label>,
}

impl Claims {
    /// The identity for deduplication: the provider's event ID, or else the body.
    #[must_use]
    pub fn identity(&self, body_sha256: &str) -> EventIdentity {
        match &self.event_id {
            Some(event) => EventIdentity { event: event.clone(), subscription: self.subscription.clone() },
            None => EventIdentity { event: format!("sha256:{body_sha256}").into_bytes(), subscription: None },
        }
    }

    /// The event ID for people to see.
    #[must_use]
    pub fn event_id_label(&self) -> Option<Label> {
        self.event_id.as_deref().map(Label::from_bytes)
    }
}

/// Proof that a request is genuine. Only [`verify`] creates one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    matched: SignatureMatch,
    transmission: Option<Vec<u8>>,
}

impl Verified {
    /// The match with one of that provider's secrets.
    #[must_use]
    pub fn into_match(self, provider: ProviderId) -> SignatureMatch {
        SignatureMatch { provider_id: Some(provider), ..self.matched }
    }

    /// The signed ID of this transmission, if the signature covers too little of the body: such an ID is
    /// valid for one body only.
    #[must_use]
    pub fn transmission(&self) -> Option<&[u8]> {
        self.transmission.as_deref()
    }
}

/// Result of verifying a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Verified(Verified),
    /// Undecided until this certificate is available.
    NeedsCertificate(CertificateUrl),
}

/// Trust besides our own secrets.
#[derive(Clone, Copy)]
pub struct Trust<'a> {
    pub certificates: &'a dyn Certificates,
    /// Maximum age of a PayPal transmission.
    pub paypal_max_age: Duration,
}

/// Why a request is not genuine, with a sentence that helps its honest sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: RejectionReason,
    pub detail: Label,
}

impl Refusal {
    fn missing(header: &str) -> Self {
        Self {
            reason: RejectionReason::SignatureMissing,
            detail: Label::new(&format!("The header {header} is missing.")),
        }
    }

    fn invalid(detail: &str) -> Self {
        Self { reason: RejectionReason::SignatureInvalid, detail: Label::new(detail) }
    }

    fn no_match() -> Self {
        Self::invalid(
            "The signature doesn't match any active secret. The secret here may differ from the sender's, or the body was \
             changed or re-encoded in transit.",
        )
    }
}

/// The event that the request claims to be.
#[must_use]
pub fn claims(provider: ProviderName, request: Unverified<'_>) -> Claims {
    match provider {
        ProviderName::Stripe => stripe::claims(request),
        ProviderName::Github => github::claims(request),
        ProviderName::Paypal => paypal::claims(request),
        ProviderName::Shopify => shopify::claims(request),
        ProviderName::Standard => standard::claims(request),
    }
}

/// Verifies a request against the secrets that are active at `now`.
pub fn verify(
    provider: ProviderName,
    request: Unverified<'_>,
    secrets: &[SigningSecret],
    trust: &Trust<'_>,
    now: DateTime<Utc>,
) -> Result<Verdict, Refusal> {
    let active = Active { secrets, now };
    let matched = match provider {
        ProviderName::Stripe => stripe::verify(request, active)?,
        ProviderName::Github => github::verify(request, active)?,
        ProviderName::Paypal => return paypal::verify(request, active, trust),
        ProviderName::Shopify => shopify::verify(request, active)?,
        ProviderName::Standard => standard::verify(request, active)?,
    };
    Ok(Verdict::Verified(Verified { matched, transmission: None }))
}

/// The secrets, and the time of verification.
#[derive(Clone, Copy)]
struct Active<'a> {
    secrets: &'a [SigningSecret],
    now: DateTime<Utc>,
}

impl<'a> Active<'a> {
    fn iter(self) -> impl Iterator<Item = &'a SigningSecret> {
        self.secrets.iter().filter(move |secret| {
            !secret.value.expose_secret().is_empty() && secret.expires_at.is_none_or(|at| at > self.now)
        })
    }

    /// The first secret whose HMAC-SHA256 over `parts` is one of `signatures`.
    fn hmac_match(self, parts: &[&[u8]], signatures: &[[u8; 32]]) -> Option<SignatureMatch> {
        self.iter().find(|secret| hmac_matches(secret.value.expose_secret(), parts, signatures)).map(|secret| {
            SignatureMatch {
                scheme: SignatureScheme::HmacSha256,
                secret_version: secret.version,
                provider_id: None,
                signed_at: None,
            }
        })
    }

    /// Why nothing matched: a retired secret, or an unknown one.
    fn refuse(self, request: Unverified<'_>, matches: impl Fn(&SigningSecret) -> bool) -> Refusal {
        let retired = |secret: &&SigningSecret| {
            !secret.value.expose_secret().is_empty()
                && secret.expires_at.is_some_and(|at| at <= self.now)
                && matches(secret)
        };
        if let Some(SigningSecret { version, expires_at: Some(at), .. }) = self.secrets.iter().find(retired) {
            let at = at.format("%Y-%m-%d %H:%M UTC");
            return Refusal::invalid(&format!("It was signed with version {version} of the secret, retired at {at}."));
        }
        if request.body.is_empty() {
            return Refusal::invalid(
                "The signature doesn't match the empty body. The body may have been removed in transit.",
            );
        }
        Refusal::no_match()
    }

    /// Like [`Active::hmac_match`], with the reason of a failure.
    fn hmac_verify(
        self,
        request: Unverified<'_>,
        parts: &[&[u8]],
        signatures: &[[u8; 32]],
    ) -> Result<SignatureMatch, Refusal> {
        let matches = |secret: &SigningSecret| hmac_matches(secret.value.expose_secret(), parts, signatures);
        self.hmac_match(parts, signatures).ok_or_else(|| self.refuse(request, matches))
    }

    fn check_timestamp(self, signed_at: DateTime<Utc>) -> Result<(), Refusal> {
        let off = self.now - signed_at;
        if off.abs() <= TOLERANCE {
            return Ok(());
        }
        let detail = format!(
            "The signed timestamp is {} s {} our clock; at most {} s is allowed.",
            off.num_seconds().abs(),
            if off > Duration::zero() { "behind" } else { "ahead of" },
            TOLERANCE.num_seconds()
        );
        Err(Refusal { reason: RejectionReason::TimestampOutOfTolerance, detail: Label::new(&detail) })
    }
}

fn hmac_matches(key: &[u8], parts: &[&[u8]], signatures: &[[u8; 32]]) -> bool {
    // HMAC accepts keys of any length, so this cannot fail; refusing is the safe fallback.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return false };
    parts.iter().for_each(|part| mac.update(part));
    signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok())
}

/// The headers with providers' signatures.
const SIGNATURES: [Spellings; 5] =
    [stripe::SIGNATURE, github::SIGNATURE, paypal::SIGNATURE, shopify::SIGNATURE, standard::SIGNATURE];

/// A header's names: its own first, then alternatives that senders use.
#[derive(Clone, Copy, Debug)]
struct Spellings(&'static [&'static str]);

impl Spellings {
    /// The value under any of the names.
    fn first(self, headers: &HeaderMap) -> Option<&HeaderValue> {
        self.0.iter().find_map(|name| headers.get(*name)).filter(|value| !value.is_empty())
    }

    /// The single value. Several different values could be read differently by others.
    fn single(self, headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
        let mut found: Option<(&'static str, &HeaderValue)> = None;
        for &name in self.0 {
            let mut values = headers.get_all(name).iter();
            let Some(value) = values.next() else { continue };
            if values.next().is_some() {
                return Err(Refusal::invalid(&format!("The header {name} appears more than once.")));
            }
            match found {
                None => found = Some((name, value)),
                Some((_, same)) if same == value => {}
                Some((other, _)) => {
                    return Err(Refusal::invalid(&format!("The headers {other} and {name} have different values.")));
                }
            }
        }
        let Some((name, value)) = found else { return Ok(None) };
        let text = value.to_str().map_err(|_| Refusal::invalid(&format!("The header {name} isn't ASCII text.")))?;
        Ok(Some(text.trim()))
    }

    fn required(self, headers: &HeaderMap) -> Result<&str, Refusal> {
        let missing = || Refusal::missing(self.0.first().copied().unwrap_or_default());
        self.single(headers)?.filter(|value| !value.is_empty()).ok_or_else(missing)
    }

    fn bytes(self, headers: &HeaderMap) -> Option<Vec<u8>> {
        self.first(headers).map(|value| value.as_bytes().to_vec())
    }

    fn label(self, headers: &HeaderMap) -> Option<Label> {
        self.first(headers).map(|value| Label::from_bytes(value.as_bytes()))
    }

    /// A signature for people to see.
    fn signature_label(self, headers: &HeaderMap) -> Option<Label> {
        let value = self.0.iter().find_map(|name| headers.get(*name))?;
        Some(Label::cut(&String::from_utf8_lossy(value.as_bytes()), SIGNATURE_CHARS))
    }
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes)
}

fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// A key in the vendors' form, with or without padding.
fn base64_key(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT).decode(text).ok()
}

/// Unix seconds in decimal digits, as signed; nothing else is a timestamp.
fn unix_seconds(text: &str) -> Option<DateTime<Utc>> {
    let digits = !text.is_empty() && text.len() <= 12 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().and_then(|seconds| DateTime::from_timestamp(seconds, 0))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use http::HeaderName;

    pub fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    pub fn secret(version: u32, value: &str) -> SigningSecret {
        SigningSecret { version, value: value.as_bytes().to_vec().into(), expires_at: None }
    }

    pub fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    pub fn check(
        provider: ProviderName,
        pairs: &[(&str, &str)],
        body: &[u8],
        secrets: &[SigningSecret],
        now: i64,
    ) -> Result<SignatureMatch, RejectionReason> {
        let headers = headers(pairs);
        match judge(provider, Unverified { headers: &headers, body }, secrets, at(now)) {
            Ok(Verdict::Verified(verified)) => Ok(verified.matched),
            Ok(Verdict::NeedsCertificate(url)) => panic!("{url:?}"),
            Err(refusal) => Err(refusal.reason),
        }
    }

    /// Verifies without any certificates.
    pub fn judge(
        provider: ProviderName,
        request: Unverified<'_>,
        secrets: &[SigningSecret],
        now: DateTime<Utc>,
    ) -> Result<Verdict, Refusal> {
        verify(provider, request, secrets, &Trust { certificates: &Nothing, paypal_max_age: Duration::days(3) }, now)
    }

    /// The reason of a refusal.
    pub fn detail(
        provider: ProviderName,
        pairs: &[(&str, &str)],
        body: &[u8],
        secrets: &[SigningSecret],
        now: i64,
    ) -> String {
        let headers = headers(pairs);
        let refusal = judge(provider, Unverified { headers: &headers, body }, secrets, at(now)).unwrap_err();
        refusal.detail.as_str().to_owned()
    }

    /// No certificates are available.
    struct Nothing;

    impl Certificates for Nothing {
        fn find(&self, _: &CertificateUrl, _: DateTime<Utc>) -> Found {
            Found::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_without_an_id_is_known_by_its_body() {
        let claims = Claims::default();
        assert_eq!(claims.identity("aa").event, b"sha256:aa");
        assert_ne!(claims.identity("aa"), claims.identity("bb"));
    }

    #[test]
    fn a_timestamp_is_decimal_digits_and_nothing_else() {
        for bad in ["", "+1", "-1", "1e3", " 1", "1.0", "0x1", "99999999999999999999"] {
            assert_eq!(unix_seconds(bad), None, "{bad:?}");
        }
        assert!(unix_seconds("1492774577").is_some());
    }
}
