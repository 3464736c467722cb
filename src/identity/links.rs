//! Sign-in links: 256 random bits that work once, within 15 minutes. Only their digest is stored.

use chrono::{DateTime, Duration, Utc};
use hookledger_aggregates::access::SignInRefusal;
use hookledger_aggregates::user::UserError;
use hookledger_aggregates::{OrganizationId, UserId};
use hookledger_projections::users;
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use uuid::Uuid;

use super::client::Client;
use super::error::IdentityError;
use super::sessions::{Begun, Sessions};
use super::tokens::token_text;
use crate::platform::secrets::master::random_bytes;

/// A link, as its owner receives it.
pub struct SignInLink {
    /// To open in a browser.
    pub url: String,
    pub expires_at: DateTime<Utc>,
}

/// Creates and redeems sign-in links.
#[derive(Clone, Debug)]
pub struct Links {
    pool: PgPool,
    base_url: String,
    lifetime: Duration,
}

/// Outcome of using a link.
pub enum Redeemed {
    SignedIn {
        user: users::User,
        session: Begun,
    },
    /// It was created for this user, who had signed in before, and was refused.
    Refused {
        organization: OrganizationId,
        user: UserId,
        reason: SignInRefusal,
    },
    /// It was an invitation, and its owner became a user elsewhere meanwhile. Only the owner may learn this;
    /// the inviter must be able neither to see nor to infer it.
    Elsewhere,
    /// The link never existed, was removed long ago, or its outcome is confidential.
    Unknown,
}

impl Links {
    #[must_use]
    pub fn new(pool: PgPool, base_url: String, lifetime: Duration) -> Self {
        Self { pool, base_url, lifetime }
    }

    /// A new link for a user; earlier ones stop working.
    pub async fn create(
        &self,
        organization: OrganizationId,
        user: UserId,
        now: DateTime<Utc>,
    ) -> Result<SignInLink, IdentityError> {
        let secret: [u8; 32] = random_bytes().map_err(crate::platform::secrets::vault::VaultError::Key)?;
        let token = token_text(&secret);
        let expires_at = now + self.lifetime;
        // If two links are created at once, only the one that is stored later remains.
        sqlx::query(
            "insert into magic_links (token_sha256, organization_id, user_id, expires_at) values ($1, $2, $3, $4)
             on conflict (organization_id, user_id) where used_at is null
             do update set token_sha256 = excluded.token_sha256, expires_at = excluded.expires_at",
        )
        .bind(digest(&token))
        .bind(organization.uuid())
        .bind(user.uuid())
        .bind(expires_at)
        .execute(&self.pool)
        .await?;
        Ok(SignInLink { url: format!("{}/auth/verify?token={token}", self.base_url), expires_at })
    }

    /// Uses a link up and opens a session.
    ///
    /// # Errors
    /// After an error, the link is used up anyway.
    pub async fn redeem(
        &self,
        sessions: &Sessions,
        token: &str,
        client: Client,
        now: DateTime<Utc>,
    ) -> Result<Redeemed, IdentityError> {
        // A single statement, so that only one of concurrent uses gets the row.
        let row: Option<(Uuid, Uuid)> = sqlx::query_as(
            "update magic_links set used_at = $2
             where token_sha256 = $1 and used_at is null and expires_at > $2
             returning organization_id, user_id",
        )
        .bind(digest(token))
        .bind(now)
        .fetch_optional(&self.pool)
        .await?;
        let Some((organization, user)) = row else { return self.why_not(token).await };
        let (organization, id) = (OrganizationId::new(organization), UserId::new(user));
        let Some(user) = users::find(&self.pool, organization, id).await?.filter(users::User::may_sign_in) else {
            return self.refused(organization, id, SignInRefusal::Deactivated).await;
        };
        let metadata = |session| client.metadata(id, Some(session));
        match sessions.begin(&user, metadata, now).await {
            Ok(session) => Ok(Redeemed::SignedIn { user, session }),
            Err(IdentityError::User(UserError::Deactivated)) => {
                self.refused(organization, id, SignInRefusal::Deactivated).await
            }
            Err(IdentityError::AddressTaken) => Ok(Redeemed::Elsewhere),
            Err(error) => Err(error),
        }
    }

    /// The cause, for a link that does not work.
    async fn why_not(&self, token: &str) -> Result<Redeemed, IdentityError> {
        let row: Option<(Uuid, Uuid, bool)> = sqlx::query_as(
            "select organization_id, user_id, used_at is not null from magic_links where token_sha256 = $1",
        )
        .bind(digest(token))
        .fetch_optional(&self.pool)
        .await?;
        let Some((organization, user, is_used)) = row else { return Ok(Redeemed::Unknown) };
        let reason = if is_used { SignInRefusal::LinkUsed } else { SignInRefusal::LinkExpired };
        self.refused(OrganizationId::new(organization), UserId::new(user), reason).await
    }

    /// A failed use of an invitation would reveal to the organization that its owner is a user elsewhere, so
    /// failures of people who never joined are not recorded.
    async fn refused(
        &self,
        organization: OrganizationId,
        user: UserId,
        reason: SignInRefusal,
    ) -> Result<Redeemed, IdentityError> {
        let was_here = users::find(&self.pool, organization, user).await?.is_some_and(|user| user.joined_at.is_some());
        Ok(if was_here { Redeemed::Refused { organization, user, reason } } else { Redeemed::Unknown })
    }

    /// Removes links that expired a day ago.
    pub async fn sweep(&self) -> Result<(), sqlx::Error> {
        sqlx::query("delete from magic_links where expires_at < now() - interval '1 day'")
            .execute(&self.pool)
            .await
            .map(drop)
    }
}

fn digest(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}
