//! Sign-in links: 256 random bits that work once, within 15 minutes. Only their digest is stored.

use chrono::{DateTime, Duration, Utc};
use hookledger_aggregates::user::{User, UserCommand};
use hookledger_aggregates::{Actor, Metadata, OrganizationId, SessionId, UserId};
use hookledger_projections::users;
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use uuid::Uuid;

use super::accounts::IdentityError;
use super::tokens::token_text;
use crate::log::{CommandError, Commands, LogPosition};
use crate::secrets::master::random_bytes;

/// A link as its owner gets it.
#[derive(Debug)]
pub struct SignInLink {
    /// To open in a browser.
    pub url: String,
    pub expires_at: DateTime<Utc>,
}

/// Makes and redeems sign-in links.
#[derive(Clone, Debug)]
pub struct Links {
    pool: PgPool,
    base_url: String,
    lifetime: Duration,
}

/// A session that a link opened.
#[derive(Debug)]
pub struct SignedIn {
    pub user: users::User,
    pub session: SessionId,
    pub place: Option<LogPosition>,
}

impl Links {
    #[must_use]
    pub fn new(pool: PgPool, base_url: String, lifetime: Duration) -> Self {
        Self { pool, base_url, lifetime }
    }

    /// A new link for a user; earlier ones work no longer.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn create(
        &self,
        organization: OrganizationId,
        user: UserId,
        now: DateTime<Utc>,
    ) -> Result<SignInLink, IdentityError> {
        let secret: [u8; 32] = random_bytes().map_err(crate::secrets::vault::VaultError::Key)?;
        let token = token_text(&secret);
        let expires_at = now + self.lifetime;
        let mut transaction = self.pool.begin().await?;
        sqlx::query("delete from magic_links where organization_id = $1 and user_id = $2 and used_at is null")
            .bind(organization.uuid())
            .bind(user.uuid())
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "insert into magic_links (token_sha256, organization_id, user_id, expires_at) values ($1, $2, $3, $4)",
        )
        .bind(digest(&token))
        .bind(organization.uuid())
        .bind(user.uuid())
        .bind(expires_at)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(SignInLink { url: format!("{}/auth/verify?token={token}", self.base_url), expires_at })
    }

    /// Uses a link up and opens a session. Nothing where the link is unknown, used, out of date, or
    /// its user may not sign in.
    ///
    /// # Errors
    /// When store or log fail.
    pub async fn redeem(
        &self,
        commands: &Commands,
        token: &str,
        client: String,
        now: DateTime<Utc>,
    ) -> Result<Option<SignedIn>, IdentityError> {
        // One statement: of any number of uses at once, one gets the row.
        let row: Option<(Uuid, Uuid)> = sqlx::query_as(
            "update magic_links set used_at = $2
             where token_sha256 = $1 and used_at is null and expires_at > $2
             returning organization_id, user_id",
        )
        .bind(digest(token))
        .bind(now)
        .fetch_optional(&self.pool)
        .await?;
        let Some((organization, user)) = row else { return Ok(None) };
        let (organization, user) = (OrganizationId::new(organization), UserId::new(user));
        let Some(row) = users::find(&self.pool, organization, user).await?.filter(|user| user.is_active) else {
            return Ok(None);
        };
        let session = SessionId::new(Uuid::now_v7());
        let metadata = Metadata { actor: Actor::User(user), client: Some(client), session: Some(session) };
        let command = UserCommand::SignIn { session };
        let place = match commands.execute::<User>(organization, user.uuid(), command, &metadata).await {
            Ok(place) => place,
            Err(CommandError::Refused(error)) => return Err(error.into()),
            Err(CommandError::Busy | CommandError::Overloaded) => {
                return Err(crate::log::AppendError::Overloaded.into());
            }
            Err(CommandError::Failed(reason)) => {
                tracing::error!(reason, "a sign-in could not be recorded");
                return Err(crate::log::AppendError::Failed.into());
            }
        };
        Ok(Some(SignedIn { user: row, session, place }))
    }
}

fn digest(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}
