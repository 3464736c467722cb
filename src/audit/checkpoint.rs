//! The signed head of a tree: C2SP tlog-checkpoint in a C2SP signed-note, Ed25519.
//!
//! ```text
//! hooks.example.com/ledger/6f1d3c1e-6d5e-5a55-9a53-0d6f7a0b5f5a
//! 1234
//! fqsUuJ8c1Bz6FhmPkGSyRnb0eT1mJmRzNYh1dWZ4AnY=
//! time 2026-11-25T12:00:05.123456Z
//! last 3:5678
//!
//! — hooks.example.com/ledger/6f1d3c1e-6d5e-5a55-9a53-0d6f7a0b5f5a 8n2B…
//! ```
//!
//! The first line names the deployment and the tree, followed by the number of leaves and the root. Then come
//! extensions: the time of signing, and the log position of the last leaf. The key's name is the first line,
//! as C2SP requires. The key itself is shared by all trees of a deployment and derived from its master key.
//! If several master keys are configured, each signs, so that anyone who knows one of them can follow the
//! rotation to the next.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use sha2::Sha256;
use signed_note::{Note, NoteError, Signer, StandardVerifier, Verifier, VerifierList, key_id};
use zeroize::Zeroizing;

use super::LedgerId;
use super::tree::Hash;
use crate::platform::secrets::master::{KEY_BYTES, KeyRing};

/// Identifier of Ed25519 in signed notes.
const ED25519: u8 = 1;

/// The head of a tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub origin: Origin,
    /// Number of leaves.
    pub size: u64,
    pub root: Hash,
    pub signed_at: DateTime<Utc>,
    /// Position of the last leaf in its partition; 0 if there is none.
    pub last: i64,
}

/// A tree of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Usually host and port of its base URL.
    pub deployment: String,
    pub ledger: LedgerId,
}

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("not a checkpoint of a ledger: {0}")]
    Form(&'static str),
    #[error("no known key signed the checkpoint, or the signature is wrong: {0}")]
    Signature(#[from] NoteError),
    #[error("a public key must have the form name+id+base64, or base64 of its 32 bytes")]
    Key,
}

impl Origin {
    /// Of the deployment with this base URL.
    #[must_use]
    pub fn new(base_url: &str, ledger: LedgerId) -> Self {
        let name = base_url.split_once("://").map_or(base_url, |(_, rest)| rest).trim_end_matches('/');
        // Characters that names of keys cannot contain.
        let plain = |c: char| if c.is_whitespace() || c.is_control() || c == '+' { '-' } else { c };
        Self { deployment: name.chars().map(plain).collect(), ledger }
    }

    /// The same tree after that many declared losses. Its heads do not continue those signed before, so it
    /// has another name.
    #[must_use]
    pub fn after(self, losses: i64) -> Self {
        if losses == 0 {
            return self;
        }
        Self { deployment: format!("{}/after-loss-{losses}", self.deployment), ..self }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/ledger/{}", self.deployment, self.ledger)
    }
}

impl FromStr for Origin {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || CheckpointError::Form("the first line is not deployment/ledger/id");
        let (deployment, id) = text.rsplit_once("/ledger/").ok_or_else(form)?;
        let ledger = LedgerId::from_uuid(id.parse().map_err(|_| form())?);
        let origin = Self { deployment: deployment.to_owned(), ledger };
        // A UUID has several spellings; an origin has one.
        if origin.to_string() == text { Ok(origin) } else { Err(form()) }
    }
}

impl Checkpoint {
    /// The signed text.
    fn text(&self) -> Result<Vec<u8>, CheckpointError> {
        let extension = format!(
            "time {}\nlast {}:{}\n",
            self.signed_at.to_rfc3339_opts(SecondsFormat::Micros, true),
            self.origin.ledger.partition(),
            self.last
        );
        let text = tlog_tiles::checkpoint::Checkpoint::new(&self.origin.to_string(), self.size, self.root, &extension);
        text.map(|text| text.to_bytes()).map_err(|_| CheckpointError::Form("it cannot be written"))
    }

    /// Signs with every key, the first one first.
    pub fn sign(&self, keys: &LedgerKeys) -> Result<String, CheckpointError> {
        keys.sign_note(&self.origin, &self.text()?)
    }

    /// Reads a note signed by one of these keys.
    pub fn open(note: &str, keys: &[PublicKey]) -> Result<Self, CheckpointError> {
        let note = Note::from_bytes(note.as_bytes())?;
        let checkpoint = Self::parse(note.text())?;
        let name = checkpoint.origin.to_string();
        let verifiers = keys.iter().filter_map(|key| StandardVerifier::new(&key.named(&name)).ok());
        note.verify(&VerifierList::new(verifiers.map(|verifier| Box::new(verifier) as Box<dyn Verifier>).collect()))?;
        Ok(checkpoint)
    }

    /// Reads a note without verifying its signatures.
    pub fn read_unverified(note: &str) -> Result<Self, CheckpointError> {
        Self::parse(Note::from_bytes(note.as_bytes())?.text())
    }

    fn parse(text: &[u8]) -> Result<Self, CheckpointError> {
        let read = tlog_tiles::checkpoint::Checkpoint::from_bytes(text)
            .map_err(|_| CheckpointError::Form("it does not have origin, size and root"))?;
        let origin: Origin = read.origin().parse()?;
        let (mut signed_at, mut last) = (None, None);
        for line in read.extension().lines() {
            match line.split_once(' ') {
                Some(("time", time)) => signed_at = time.parse().ok(),
                Some(("last", place)) => last = place.split_once(':').and_then(|(_, position)| position.parse().ok()),
                _ => {}
            }
        }
        let (Some(signed_at), Some(last)) = (signed_at, last) else {
            return Err(CheckpointError::Form("it does not say when it was signed, or up to where the log goes"));
        };
        let checkpoint = Self { origin, size: read.size(), root: *read.hash(), signed_at, last };
        // The signed text must be exactly the one that was parsed.
        if checkpoint.text()? == text {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::Form("it has lines that this release does not know"))
        }
    }
}

/// The keys that sign checkpoints, one per master key.
pub struct LedgerKeys(Vec<SigningKey>);

impl LedgerKeys {
    /// Derived from the master keys, so that there is nothing more to configure, store and back up. A public
    /// key reveals nothing about the master key.
    #[must_use]
    pub fn derive(master: &KeyRing) -> Self {
        let keys = master.keys().map(|(_, key)| {
            let mut seed = Zeroizing::new([0; KEY_BYTES]);
            // 32 bytes are far below the maximum of HKDF-SHA256, so this cannot fail.
            let expanded = Hkdf::<Sha256>::new(None, key).expand(b"hookledger/1 ledger checkpoints", seed.as_mut());
            debug_assert!(expanded.is_ok());
            SigningKey::from_bytes(&seed)
        });
        Self(keys.collect())
    }

    /// A text about a tree, signed with every key. It must not be mistakable for a checkpoint.
    pub(super) fn sign_note(&self, origin: &Origin, text: &[u8]) -> Result<String, CheckpointError> {
        let mut note = Note::new(text, &[])?;
        let name = origin.to_string();
        let signers: Vec<_> = self.0.iter().map(|key| Named { name: &name, key }).collect();
        let signers: Vec<&dyn Signer> = signers.iter().map(|signer| signer as &dyn Signer).collect();
        note.add_sigs(&signers)?;
        String::from_utf8(note.to_bytes()).map_err(|_| CheckpointError::Form("it is not text"))
    }

    /// The keys that verify their signatures, the first one first.
    #[must_use]
    pub fn public(&self) -> Vec<PublicKey> {
        self.0.iter().map(|key| PublicKey(key.verifying_key())).collect()
    }
}

impl fmt::Debug for LedgerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.public()).finish()
    }
}

/// A key that verifies checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// In the form of signed notes: `name+id+base64`, where the name is an origin.
    #[must_use]
    pub fn named(&self, name: &str) -> String {
        signed_note::new_ed25519_verifier_key(name, &self.0)
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0.to_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = CheckpointError;

    /// From `name+id+base64`, whatever the name, or from base64 of the 32 bytes. Tries the former first:
    /// base64 may contain `+` itself, but the ID is a hash of name and key.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let bytes = match text.splitn(3, '+').collect::<Vec<_>>()[..] {
            [_, id, key] if id.len() == 8 && StandardVerifier::new(text).is_ok() => {
                STANDARD.decode(key).ok().and_then(|key| key.get(1..).map(<[u8]>::to_vec))
            }
            _ => STANDARD.decode(text).ok(),
        };
        let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).ok_or(CheckpointError::Key)?;
        VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| CheckpointError::Key)
    }
}

/// The text of a note, and the keys that signed it. Every signature must be from a known key and appear once,
/// so that not a byte can be added.
pub(super) fn open_note(
    note: &str,
    origin: &Origin,
    keys: &[PublicKey],
) -> Result<(String, Vec<PublicKey>), CheckpointError> {
    let lines = note.lines().filter(|line| line.starts_with("— ")).count();
    let (written, note) = (note, Note::from_bytes(note.as_bytes())?);
    let name = origin.to_string();
    let named: Vec<_> = keys.iter().map(|key| (*key, key.named(&name))).collect();
    let verifiers = named.iter().filter_map(|(_, key)| StandardVerifier::new(key).ok());
    let (signed, unknown) =
        note.verify(&VerifierList::new(verifiers.map(|verifier| Box::new(verifier) as Box<dyn Verifier>).collect()))?;
    if !unknown.is_empty() || signed.len() != lines || note.to_bytes() != written.as_bytes() {
        return Err(CheckpointError::Form("a signature is of an unknown key, or there twice"));
    }
    let id_of = |key: &PublicKey| key_id(&name, &[&[ED25519][..], &key.to_bytes()].concat());
    let by = keys.iter().copied().filter(|key| signed.iter().any(|signature| signature.id() == id_of(key))).collect();
    let text = String::from_utf8(note.text().to_vec()).map_err(|_| CheckpointError::Form("it is not text"))?;
    Ok((text, by))
}

/// A key under the name of one tree.
struct Named<'a> {
    name: &'a str,
    key: &'a SigningKey,
}

impl Signer for Named<'_> {
    fn name(&self) -> &str {
        self.name
    }
    fn key_id(&self) -> u32 {
        key_id(self.name, &[&[ED25519][..], &self.key.verifying_key().to_bytes()].concat())
    }
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self.key.try_sign(message)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use hookledger_aggregates::OrganizationId;

    use super::*;

    fn keys(ids: &[u8]) -> LedgerKeys {
        let ring: Vec<_> = ids.iter().map(|id| format!("k{id}:{}", STANDARD.encode([*id; 32]))).collect();
        LedgerKeys::derive(&ring.join(",").parse().unwrap())
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            origin: Origin::new(
                "https://hooks.example.com/",
                LedgerId::organization(OrganizationId::from_slug("acme")),
            ),
            size: 1_234,
            root: Hash([7; 32]),
            signed_at: DateTime::from_timestamp_micros(1_764_072_245_000_000).unwrap(),
            last: 5_678,
        }
    }

    #[test]
    fn a_checkpoint_is_opened_as_it_was_signed() {
        let note = checkpoint().sign(&keys(&[1])).unwrap();
        assert_eq!(Checkpoint::open(&note, &keys(&[1]).public()).unwrap(), checkpoint());
        let lines: Vec<_> = note.lines().collect();
        assert!(lines[0].starts_with("hooks.example.com/ledger/"), "{note}");
        assert_eq!(lines[1], "1234");
        assert_eq!(lines[2], STANDARD.encode([7; 32]));
        assert_eq!(lines[3], "time 2025-11-25T12:04:05.000000Z");
        assert_eq!(lines[4], format!("last {}:5678", checkpoint().origin.ledger.partition()));
        assert!(lines[6].starts_with(&format!("— {} ", lines[0])), "{note}");
    }

    #[test]
    fn not_a_byte_of_it_can_be_changed() {
        let note = checkpoint().sign(&keys(&[1])).unwrap();
        let public = keys(&[1]).public();
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            // Bytes that are no text are no note either. The last bits of base64 are not significant.
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(Checkpoint::open(&changed, &public).is_err(), "{at}: {changed}");
            }
        }
        assert!(Checkpoint::open(&note, &keys(&[2]).public()).is_err());
        assert!(Checkpoint::open(&note, &[]).is_err());
    }

    #[test]
    fn whoever_knows_one_of_two_keys_can_follow_the_change_to_the_other() {
        let both = checkpoint().sign(&keys(&[2, 1])).unwrap();
        for known in [1, 2] {
            assert!(Checkpoint::open(&both, &keys(&[known]).public()).is_ok());
        }
    }

    #[test]
    fn a_public_key_is_read_in_both_forms() {
        for id in 0..40 {
            let [key] = keys(&[id]).public()[..] else { panic!("one key") };
            assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
            let named = key.named(&checkpoint().origin.to_string());
            assert_eq!(named.parse::<PublicKey>().unwrap(), key);
        }
        for bad in ["", "x", "a+b+c", "hooks.example.com+00000000+AQ=="] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_never_shown() {
        let shown = format!("{:?}", keys(&[1]));
        assert!(!shown.contains(&format!("{:?}", keys(&[1]).0[0].to_bytes())));
    }
}
