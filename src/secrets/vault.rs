//! The vault: ciphertexts in their own tables, opened only here.
//!
//! A ciphertext is stored before the event that names it is appended: a crash in between leaves a
//! row that nothing refers to, never an event whose secret is missing.

use std::sync::Arc;

use hookledger_aggregates::{OrganizationId, ProviderId, SecretId};
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
    #[error("provider_secrets has no row for the secret {0} that the log names")]
    Absent(SecretId),
}

/// Seals and opens secrets.
#[derive(Clone, Debug)]
pub struct Vault {
    pool: PgPool,
    keys: Arc<KeyRing>,
}

impl Vault {
    #[must_use]
    pub fn new(pool: PgPool, keys: KeyRing) -> Self {
        Self { pool, keys: Arc::new(keys) }
    }

    /// Stores a provider's signing secret under a fresh id.
    ///
    /// # Errors
    /// When it cannot be sealed or stored.
    pub async fn store(
        &self,
        organization: OrganizationId,
        provider: ProviderId,
        version: u32,
        secret: &SecretString,
    ) -> Result<SecretId, VaultError> {
        let id = SecretId::new(Uuid::new_v4());
        let sealed = self.keys.seal(organization, &context(provider, version), secret.expose_secret().as_bytes())?;
        sqlx::query(
            "insert into provider_secrets
                 (organization_id, secret_id, provider_id, version, key_id, nonce, ciphertext)
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(organization.uuid())
        .bind(id.uuid())
        .bind(provider.uuid())
        .bind(version.cast_signed())
        .bind(&sealed.key_id)
        .bind(&sealed.nonce)
        .bind(&sealed.ciphertext)
        .execute(&self.pool)
        .await?;
        Ok(id)
    }

    /// Opens a provider's signing secret.
    ///
    /// # Errors
    /// When it is not there or cannot be opened.
    pub async fn open(
        &self,
        organization: OrganizationId,
        provider: ProviderId,
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
        Ok(self.keys.open(organization, &context(provider, version), &sealed)?)
    }

    /// A random 256-bit key of the platform, made when it is first asked for and then kept.
    ///
    /// # Errors
    /// When it cannot be read, made or opened.
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

fn context(provider: ProviderId, version: u32) -> String {
    format!("{provider}|{version}")
}
