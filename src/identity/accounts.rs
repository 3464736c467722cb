//! Users and the claim on their address: registered in one unit, so that an address is one user's.

use hmac::{Hmac, Mac as _};
use hookledger_aggregates::email_claim::{EmailClaim, EmailClaimCommand, EmailClaimError};
use hookledger_aggregates::user::{Role, User, UserCommand, UserError};
use hookledger_aggregates::{EmailClaimId, Metadata, OrganizationId, UserId};
use hookledger_projections::users;
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;
use sqlx::PgPool;
use uuid::Uuid;

use crate::log::{AppendError, Commands, Log, LogPosition, NewEvent, Sequence, Unit};
use crate::secrets::vault::{Vault, VaultError};

/// Name of the key under which addresses are hashed. It never changes, or addresses would be free
/// to be claimed again.
const CLAIM_KEY: &str = "email-claims";

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{0:?} is not an e-mail address")]
    Address(String),
    #[error("the address belongs to another user")]
    AddressTaken,
    #[error("there is no active user with this address")]
    NoSuchUser,
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl From<EmailClaimError> for IdentityError {
    fn from(error: EmailClaimError) -> Self {
        match error {
            EmailClaimError::Taken => Self::AddressTaken,
        }
    }
}

/// Registers users and finds them by address.
pub struct Accounts {
    pool: PgPool,
    log: Log,
    commands: Commands,
    claim_key: SecretSlice<u8>,
}

impl Accounts {
    /// # Errors
    /// When the key of the address claims cannot be read or made.
    pub async fn new(pool: PgPool, log: Log, vault: &Vault) -> Result<Self, VaultError> {
        let claim_key = vault.platform_key(CLAIM_KEY).await?;
        Ok(Self { commands: Commands::new(pool.clone(), log.clone()), pool, log, claim_key })
    }

    /// The claim of an address: the same however its letters are cased.
    ///
    /// # Errors
    /// When it has not the form of an address.
    pub fn claim(&self, email: &str) -> Result<EmailClaimId, IdentityError> {
        let normal = normalized(email).ok_or_else(|| IdentityError::Address(email.chars().take(255).collect()))?;
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(self.claim_key.expose_secret()) else {
            // HMAC takes keys of any length.
            return Err(IdentityError::NoSuchUser);
        };
        Ok(EmailClaimId::from_keyed_hash(&mac.chain_update(normal).finalize().into_bytes().into()))
    }

    /// Registers a user, claiming the address in the same unit. The address itself is stored
    /// first, beside the log: a crash in between leaves a row that nothing refers to.
    ///
    /// # Errors
    /// [`IdentityError::AddressTaken`] when the address is another user's.
    pub async fn register(
        &self,
        organization: OrganizationId,
        email: &str,
        role: Role,
        metadata: &Metadata,
    ) -> Result<(UserId, LogPosition), IdentityError> {
        let claim = self.claim(email)?;
        let user = UserId::new(Uuid::now_v7());
        let claimed: EmailClaim = self.commands.load(organization, claim.uuid()).await.map_err(|error| {
            tracing::error!(%error, "an address claim cannot be read");
            AppendError::Failed
        })?;
        let taken = claimed.decide(EmailClaimCommand::Take { user })?;
        sqlx::query("insert into user_emails (organization_id, user_id, email) values ($1, $2, $3)")
            .bind(organization.uuid())
            .bind(user.uuid())
            .bind(email.trim())
            .execute(&self.pool)
            .await?;
        let mut events = Vec::new();
        for event in taken {
            let event = NewEvent::of(organization, claim.uuid(), Sequence::At(1), &event, metadata)?;
            events.push(NewEvent { partition: claim.partition(), ..event });
        }
        for event in User::default().decide(UserCommand::Register { role, email_claim: claim })? {
            events.push(NewEvent::of(organization, user.uuid(), Sequence::At(1), &event, metadata)?);
        }
        match self.log.append(Unit::new(events)).await {
            Ok(appended) => Ok((user, appended.last)),
            Err(AppendError::Conflict) => {
                // Somebody else was faster by a moment: what was stored for this user is nobody's.
                sqlx::query("delete from user_emails where organization_id = $1 and user_id = $2")
                    .bind(organization.uuid())
                    .bind(user.uuid())
                    .execute(&self.pool)
                    .await?;
                Err(IdentityError::AddressTaken)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The active user of an address.
    ///
    /// # Errors
    /// [`IdentityError::NoSuchUser`] when there is none.
    pub async fn find(&self, email: &str) -> Result<users::User, IdentityError> {
        let user = users::find_by_claim(&self.pool, self.claim(email)?).await?;
        user.filter(|user| user.is_active).ok_or(IdentityError::NoSuchUser)
    }
}

/// Lower case, without surrounding space; nothing where there is no `@` with something on each side.
fn normalized(email: &str) -> Option<String> {
    let email = email.trim();
    let (local, domain) = email.rsplit_once('@')?;
    let good = !local.is_empty()
        && !domain.is_empty()
        && email.len() <= 254
        && !email.chars().any(|c| c.is_control() || c.is_whitespace());
    good.then(|| email.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::normalized;

    #[test]
    fn an_address_is_the_same_in_any_case() {
        assert_eq!(normalized(" Ada@Example.ORG "), Some("ada@example.org".to_owned()));
        for bad in ["", "@", "a@", "@b", "a b@c", "a\n@c"] {
            assert_eq!(normalized(bad), None, "{bad:?}");
        }
        assert_eq!(normalized("admin@localhost").as_deref(), Some("admin@localhost"));
    }
}
