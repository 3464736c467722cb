//! Master keys: `id:base64(32 bytes)`, comma-separated; the first one encrypts, the others only decrypt.
//!
//! AES-256-GCM with a random 96-bit nonce. Each organization and purpose has its own key, derived with
//! HKDF-SHA256 (RFC 5869), so that they do not share a budget of nonces.

use std::fmt;
use std::str::FromStr;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hkdf::Hkdf;
use hookledger_aggregates::OrganizationId;
use rand::TryRngCore as _;
use secrecy::{ExposeSecret as _, SecretBox, SecretSlice};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Length of a key in bytes.
pub const KEY_BYTES: usize = 32;

/// A stored ciphertext.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub key_id: String,
    pub nonce: Vec<u8>,
    pub ciphertext: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("keys must have the form id:base64(32 bytes), separated by commas")]
    Form,
    #[error("the key ID {0:?} appears twice")]
    Twice(String),
    #[error("the stored secrets need the key {0:?}, which is not among the configured keys")]
    Missing(String),
    #[error("the key {0:?} does not decrypt a stored secret: another key with this ID encrypted it")]
    Wrong(String),
    #[error("could not get random bytes from the operating system")]
    Random,
}

/// A list of named 256-bit keys. Debug and Display show only IDs.
pub struct KeyRing(Vec<(String, SecretBox<[u8; KEY_BYTES]>)>);

impl FromStr for KeyRing {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut keys: Vec<(String, SecretBox<[u8; KEY_BYTES]>)> = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (id, value) = item.split_once(':').ok_or(KeyError::Form)?;
            let good_id = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            let bytes = Zeroizing::new(STANDARD.decode(value).map_err(|_| KeyError::Form)?);
            let key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map_err(|_| KeyError::Form)?;
            if !good_id {
                return Err(KeyError::Form);
            }
            if keys.iter().any(|(known, _)| known == id) {
                return Err(KeyError::Twice(id.to_owned()));
            }
            keys.push((id.to_owned(), SecretBox::new(Box::new(key))));
        }
        if keys.is_empty() { Err(KeyError::Form) } else { Ok(Self(keys)) }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

impl KeyRing {
    /// The key that signs or encrypts now, with its ID.
    #[must_use]
    pub fn first(&self) -> (&str, &[u8; KEY_BYTES]) {
        // A ring is never empty: see `from_str`.
        let (id, key) = &self.0[0];
        (id, key.expose_secret())
    }

    /// The key with that ID.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&[u8; KEY_BYTES]> {
        self.0.iter().find(|(known, _)| known == id).map(|(_, key)| key.expose_secret())
    }

    /// All keys with their IDs, the first one first.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &[u8; KEY_BYTES])> {
        self.0.iter().map(|(id, key)| (id.as_str(), key.expose_secret()))
    }

    /// Encrypts with the first key. `context` is authenticated as well and must be the same to decrypt.
    pub fn seal(&self, organization: OrganizationId, context: &str, plain: &[u8]) -> Result<Sealed, KeyError> {
        seal(self.first(), organization, context, plain)
    }

    /// Like [`KeyRing::seal`], with the key of that ID.
    pub fn seal_under(
        &self,
        id: &str,
        organization: OrganizationId,
        context: &str,
        plain: &[u8],
    ) -> Result<Sealed, KeyError> {
        let key = self.get(id).ok_or_else(|| KeyError::Missing(id.to_owned()))?;
        seal((id, key), organization, context, plain)
    }

    /// Decrypts the result of [`KeyRing::seal`] in the same context.
    pub fn open(
        &self,
        organization: OrganizationId,
        context: &str,
        sealed: &Sealed,
    ) -> Result<SecretSlice<u8>, KeyError> {
        let key = self.get(&sealed.key_id).ok_or_else(|| KeyError::Missing(sealed.key_id.clone()))?;
        let aad = associated_data(&sealed.key_id, organization, context);
        let wrong = || KeyError::Wrong(sealed.key_id.clone());
        let nonce: [u8; 12] = sealed.nonce.as_slice().try_into().map_err(|_| wrong())?;
        cipher(key, organization)
            .decrypt(Nonce::from_slice(&nonce), Payload { msg: &sealed.ciphertext, aad: aad.as_bytes() })
            .map(SecretSlice::from)
            .map_err(|_| wrong())
    }
}

fn seal(
    (id, key): (&str, &[u8; KEY_BYTES]),
    organization: OrganizationId,
    context: &str,
    plain: &[u8],
) -> Result<Sealed, KeyError> {
    let nonce: [u8; 12] = random_bytes()?;
    let aad = associated_data(id, organization, context);
    let ciphertext = cipher(key, organization)
        .encrypt(Nonce::from_slice(&nonce), Payload { msg: plain, aad: aad.as_bytes() })
        .map_err(|_| KeyError::Random)?;
    Ok(Sealed { key_id: id.to_owned(), nonce: nonce.to_vec(), ciphertext })
}

fn associated_data(key_id: &str, organization: OrganizationId, context: &str) -> String {
    format!("hookledger/1|{key_id}|{organization}|{context}")
}

fn cipher(master: &[u8; KEY_BYTES], organization: OrganizationId) -> Aes256Gcm {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let info = format!("hookledger/1 secrets of {organization}");
    // 32 bytes are far below the maximum of HKDF-SHA256, so this cannot fail.
    let expanded = Hkdf::<Sha256>::new(None, master).expand(info.as_bytes(), key.as_mut());
    debug_assert!(expanded.is_ok());
    Aes256Gcm::new(key.as_ref().into())
}

/// Random bytes from the operating system.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

/// A new key in the format of the configuration.
pub fn generate(id: &str) -> Result<String, KeyError> {
    Ok(format!("{id}:{}", STANDARD.encode(Zeroizing::new(random_bytes::<KEY_BYTES>()?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(keys: &[(&str, u8)]) -> KeyRing {
        let text: Vec<_> = keys.iter().map(|(id, byte)| format!("{id}:{}", STANDARD.encode([*byte; 32]))).collect();
        text.join(",").parse().unwrap()
    }

    #[test]
    fn what_was_sealed_opens_in_its_context_only() {
        let ring = ring(&[("k1", 1)]);
        let (here, there) = (OrganizationId::from_slug("a"), OrganizationId::from_slug("b"));
        let sealed = ring.seal(here, "provider|1", b"whsec").unwrap();
        assert_eq!(ring.open(here, "provider|1", &sealed).unwrap().expose_secret(), b"whsec");
        assert!(ring.open(there, "provider|1", &sealed).is_err());
        assert!(ring.open(here, "provider|2", &sealed).is_err());
    }

    #[test]
    fn older_keys_still_open_and_the_first_one_seals() {
        let organization = OrganizationId::from_slug("a");
        let old = ring(&[("k1", 1)]).seal(organization, "c", b"x").unwrap();
        let both = ring(&[("k2", 2), ("k1", 1)]);
        assert!(both.open(organization, "c", &old).is_ok());
        assert_eq!(both.seal(organization, "c", b"x").unwrap().key_id, "k2");
        assert!(matches!(ring(&[("k2", 2)]).open(organization, "c", &old), Err(KeyError::Missing(_))));
        assert!(matches!(ring(&[("k1", 9)]).open(organization, "c", &old), Err(KeyError::Wrong(_))));
    }

    #[test]
    fn malformed_keys_are_refused() {
        for bad in ["", "k1", "k1:AAAA", ":AAAA", "k1:!", "k 1:AAAA"] {
            assert!(bad.parse::<KeyRing>().is_err(), "{bad}");
        }
        let key = generate("k1").unwrap();
        assert!(key.parse::<KeyRing>().is_ok());
        assert!(matches!(format!("{key},{key}").parse::<KeyRing>(), Err(KeyError::Twice(_))));
    }

    #[test]
    fn keys_are_never_shown() {
        assert_eq!(format!("{:?}", ring(&[("k1", 1)])), "[\"k1\"]");
    }
}
