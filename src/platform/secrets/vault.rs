//! The vault: ciphertexts in their own tables, decrypted only here.
//!
//! A ciphertext is stored before the event that refers to it is appended. A crash in between leaves an unused
//! row, never an event whose secret is missing.

use std::fmt;
use std::sync::Arc;

use hookledger_aggregates::{DestinationId, OrganizationId, ProviderId, SecretId};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sqlx::PgPool;
use uuid::Uuid;

use super::master::{KeyError, KeyRing, Sealed, random_bytes};

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("provider_secrets has no row for secret {0}, which the log refers to")]
    Absent(SecretId),
}

/// Whose secret it is. The IDs never collide, because they are random or derived for their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretOwner {
    Provider(ProviderId),
    Destination(DestinationId),
}

impl SecretOwner {
    fn uuid(self) -> Uuid {
        match self {
            Self::Provider(id) => id.uuid(),
            Self::Destination(id) => id.uuid(),
        }
    }
}

impl fmt::Display for SecretOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(id) => write!(f, "provider {id}"),
            Self::Destination(id) => write!(f, "destination {id}"),
        }
    }
}

/// Plaintext and context of the row that proves a master key.
const KEY_CHECK: &str = "master-key-check";
/// Secrets tried to prove a key that has no row yet.
const OLDEST: i64 = 1_000;

/// Seals and opens secrets.
#[derive(Clone, Debug)]
pub struct Vault {
    pool: PgPool,
    keys: Arc<KeyRing>,
}

/// Organization, owner, version, nonce and ciphertext.
type SealedRow = (Uuid, Uuid, i32, Vec<u8>, Vec<u8>);

impl Vault {
    #[must_use]
    pub fn new(pool: PgPool, keys: KeyRing) -> Self {
        Self { pool, keys: Arc::new(keys) }
    }

    /// Checks that each configured key is the one that this store knows under its ID. A key that the store
    /// does not know yet has to decrypt a secret sealed under its ID, if there is one.
    ///
    /// # Errors
    /// [`KeyError::Wrong`] if a key is a different one.
    pub async fn prove_keys(&self) -> Result<(), VaultError> {
        for (id, _) in self.keys.keys() {
            if !self.is_proven(id).await? && !self.opens_what_it_sealed(id).await? {
                return Err(KeyError::Wrong(id.to_owned()).into());
            }
        }
        Ok(())
    }

    /// Makes this store know each configured key. Called only after the platform's own secrets were
    /// decrypted, so that a key that was configured by mistake is not kept.
    ///
    /// # Errors
    /// [`KeyError::Wrong`] if another node stored a different key first.
    pub async fn remember_keys(&self) -> Result<(), VaultError> {
        for (id, _) in self.keys.keys() {
            let Sealed { key_id, nonce, ciphertext } =
                self.keys.seal_under(id, OrganizationId::PLATFORM, KEY_CHECK, KEY_CHECK.as_bytes())?;
            let insert = "insert into master_key_checks (key_id, nonce, ciphertext) values ($1, $2, $3)
                          on conflict do nothing";
            sqlx::query(insert).bind(key_id).bind(nonce).bind(ciphertext).execute(&self.pool).await?;
            self.is_proven(id).await?;
        }
        Ok(())
    }

    /// Whether this store knows a master key with that ID, configured here or not.
    pub async fn knows_key(&self, id: &str) -> Result<bool, sqlx::Error> {
        let known = "select exists (select from master_key_checks where key_id = $1)";
        sqlx::query_scalar(known).bind(id).fetch_one(&self.pool).await
    }

    async fn is_proven(&self, id: &str) -> Result<bool, VaultError> {
        let row: Option<(Vec<u8>, Vec<u8>)> =
            sqlx::query_as("select nonce, ciphertext from master_key_checks where key_id = $1")
                .bind(id)
                .fetch_optional(&self.pool)
                .await?;
        let Some((nonce, ciphertext)) = row else { return Ok(false) };
        let sealed = Sealed { key_id: id.to_owned(), nonce, ciphertext };
        self.keys.open(OrganizationId::PLATFORM, KEY_CHECK, &sealed)?;
        Ok(true)
    }

    /// For stores older than the proofs: whether any of the oldest secrets under that ID decrypts, or there
    /// are none.
    async fn opens_what_it_sealed(&self, id: &str) -> Result<bool, VaultError> {
        let sealed = |nonce, ciphertext| Sealed { key_id: id.to_owned(), nonce, ciphertext };
        let platform: Vec<(String, Vec<u8>, Vec<u8>)> =
            sqlx::query_as("select name, nonce, ciphertext from platform_secrets where key_id = $1 limit $2")
                .bind(id)
                .bind(OLDEST)
                .fetch_all(&self.pool)
                .await?;
        let owned: Vec<SealedRow> = sqlx::query_as(
            "select organization_id, owner_id, version, nonce, ciphertext from provider_secrets
             where key_id = $1 order by created_at limit $2",
        )
        .bind(id)
        .bind(OLDEST)
        .fetch_all(&self.pool)
        .await?;
        let is_empty = platform.is_empty() && owned.is_empty();
        let mut opened = platform
            .into_iter()
            .map(|(name, nonce, text)| (OrganizationId::PLATFORM, name, sealed(nonce, text)))
            .chain(owned.into_iter().map(|(organization, owner, version, nonce, text)| {
                let context = context(owner, version.cast_unsigned());
                (OrganizationId::new(organization), context, sealed(nonce, text))
            }));
        let opens =
            opened.any(|(organization, context, sealed)| self.keys.open(organization, &context, &sealed).is_ok());
        Ok(is_empty || opens)
    }

    /// Stores a secret under a new ID.
    pub async fn store(
        &self,
        organization: OrganizationId,
        owner: SecretOwner,
        version: u32,
        secret: &SecretString,
    ) -> Result<SecretId, VaultError> {
        let id = SecretId::new(Uuid::new_v4());
        let sealed =
            self.keys.seal(organization, &context(owner.uuid(), version), secret.expose_secret().as_bytes())?;
        sqlx::query(
            "insert into provider_secrets
                 (organization_id, secret_id, owner_id, version, key_id, nonce, ciphertext)
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(organization.uuid())
        .bind(id.uuid())
        .bind(owner.uuid())
        .bind(version.cast_signed())
        .bind(&sealed.key_id)
        .bind(&sealed.nonce)
        .bind(&sealed.ciphertext)
        .execute(&self.pool)
        .await?;
        Ok(id)
    }

    /// Decrypts a secret.
    pub async fn open(
        &self,
        organization: OrganizationId,
        owner: SecretOwner,
        version: u32,
        id: SecretId,
    ) -> Result<SecretSlice<u8>, VaultError> {
        let row: Option<(String, Vec<u8>, Vec<u8>)> = sqlx::query_as(
            "select key_id, nonce, ciphertext from provider_secrets where organization_id = $1 and secret_id = $2",
        )
        .bind(organization.uuid())
        .bind(id.uuid())
        .fetch_optional(&self.pool)
        .await?;
        let (key_id, nonce, ciphertext) = row.ok_or(VaultError::Absent(id))?;
        let sealed = Sealed { key_id, nonce, ciphertext };
        Ok(self.keys.open(organization, &context(owner.uuid(), version), &sealed)?)
    }

    /// A random 256-bit key of the platform, created on first use and then kept.
    pub async fn platform_key(&self, name: &str) -> Result<SecretSlice<u8>, VaultError> {
        let fresh = random_bytes::<32>()?;
        let sealed = self.keys.seal(OrganizationId::PLATFORM, name, &fresh)?;
        sqlx::query(
            "insert into platform_secrets (name, key_id, nonce, ciphertext) values ($1, $2, $3, $4)
             on conflict do nothing",
        )
        .bind(name)
        .bind(&sealed.key_id)
        .bind(&sealed.nonce)
        .bind(&sealed.ciphertext)
        .execute(&self.pool)
        .await?;
        let (key_id, nonce, ciphertext) =
            sqlx::query_as("select key_id, nonce, ciphertext from platform_secrets where name = $1")
                .bind(name)
                .fetch_one(&self.pool)
                .await?;
        Ok(self.keys.open(OrganizationId::PLATFORM, name, &Sealed { key_id, nonce, ciphertext })?)
    }
}

fn context(owner: Uuid, version: u32) -> String {
    format!("{owner}|{version}")
}
