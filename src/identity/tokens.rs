//! Session tokens: JWTs signed with HS256 and a key with an ID, so that keys can be rotated.

use base64::Engine as _;
use chrono::{DateTime, Duration, Utc};
use hmac::{Hmac, Mac as _};
use hookledger_aggregates::{OrganizationId, SessionId, UserId};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::platform::secrets::master::KeyRing;

/// Maximum difference between clocks.
const LEEWAY_SECONDS: u64 = 5;
/// A longer token is not one of ours.
const MAX_TOKEN: usize = 2048;
const AUDIENCE: &str = "hookledger";

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the token is invalid or has expired")]
    Invalid,
    #[error("could not create the token: {0}")]
    Sign(#[source] JwtError),
}

/// The content of a session token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    iss: String,
    aud: String,
    exp: i64,
    nbf: i64,
    iat: i64,
    pub sub: UserId,
    pub sid: SessionId,
    /// The user's organization; the nil UUID for super admins.
    pub org: OrganizationId,
}

/// Issues and checks session tokens.
pub struct Tokens {
    keys: KeyRing,
    issuer: String,
    lifetime: Duration,
}

impl Tokens {
    /// Tokens of this deployment: `issuer` is its base URL.
    #[must_use]
    pub fn new(keys: KeyRing, issuer: String, lifetime: Duration) -> Self {
        // A provider that was installed earlier in this process is the same.
        let _ = PROVIDER.install_default();
        Self { keys, issuer, lifetime }
    }

    /// How long a token is valid.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A token for a session that begins now.
    pub fn issue(
        &self,
        user: UserId,
        organization: OrganizationId,
        session: SessionId,
        now: DateTime<Utc>,
    ) -> Result<String, TokenError> {
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            exp: (now + self.lifetime).timestamp(),
            nbf: now.timestamp(),
            iat: now.timestamp(),
            sub: user,
            sid: session,
            org: organization,
        };
        let (id, key) = self.keys.first();
        let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(key)).map_err(TokenError::Sign)
    }

    /// The content of a token, if it is one of ours and valid.
    pub fn check(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Invalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        let key = header.kid.and_then(|id| self.keys.get(&id)).ok_or(TokenError::Invalid)?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["iss", "aud", "exp", "nbf", "sub"]);
        jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(key), &validation)
            .map(|data| data.claims)
            .map_err(|_| TokenError::Invalid)
    }
}

/// HS256 from the `hmac` and `sha2` crates that we have anyway; jsonwebtoken's own backends add RSA and
/// elliptic curves.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(Hs256::new(*algorithm, key.as_bytes())?)),
    verifier_factory: |algorithm, key| Ok(Box::new(Hs256::new(*algorithm, key.try_get_as_bytes()?)?)),
    key_utils: KeyUtils::new_unimplemented(),
};

struct Hs256(Hmac<Sha256>);

impl Hs256 {
    fn new(algorithm: Algorithm, key: &[u8]) -> Result<Self, JwtError> {
        if algorithm != Algorithm::HS256 {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        Hmac::new_from_slice(key).map(Self).map_err(|_| ErrorKind::InvalidKeyFormat.into())
    }
}

impl signature::Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self.0.clone().chain_update(message).finalize().into_bytes().to_vec())
    }
}

impl signature::Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        self.0.clone().chain_update(message).verify_slice(signature).map_err(|_| signature::Error::new())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

/// 256 random bits in the form used in a link.
pub(super) fn token_text(bytes: &[u8; 32]) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::secrets::master::generate;

    fn tokens(issuer: &str) -> (Tokens, String) {
        let key = generate("k1").unwrap();
        (Tokens::new(key.parse().unwrap(), issuer.to_owned(), Duration::hours(1)), key)
    }

    fn issue(tokens: &Tokens, at: DateTime<Utc>) -> String {
        tokens.issue(UserId::default(), OrganizationId::PLATFORM, SessionId::default(), at).unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_lifetime() {
        let (tokens, _) = tokens("http://a");
        assert!(tokens.check(&issue(&tokens, Utc::now())).is_ok());
        assert!(tokens.check(&issue(&tokens, Utc::now() - Duration::minutes(61))).is_err());
        assert!(tokens.check(&issue(&tokens, Utc::now() + Duration::minutes(1))).is_err());
    }

    #[test]
    fn what_others_signed_is_refused() {
        let (ours, key) = tokens("http://a");
        let (others, _) = tokens("http://a");
        assert!(ours.check(&issue(&others, Utc::now())).is_err());
        let elsewhere = Tokens::new(key.parse().unwrap(), "http://b".to_owned(), Duration::hours(1));
        assert!(ours.check(&issue(&elsewhere, Utc::now())).is_err());
        let none = "eyJhbGciOiJub25lIiwia2lkIjoiazEifQ.e30.";
        for bad in ["", "a.b.c", none, &"x".repeat(5000)] {
            assert!(ours.check(bad).is_err());
        }
    }

    #[test]
    fn a_rotated_key_still_checks() {
        let (old, key) = tokens("http://a");
        let token = issue(&old, Utc::now());
        let both = format!("{},{key}", generate("k2").unwrap());
        let new = Tokens::new(both.parse().unwrap(), "http://a".to_owned(), Duration::hours(1));
        assert!(new.check(&token).is_ok());
    }
}
