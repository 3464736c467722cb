//! `users`: people who sign in. Their addresses lie in `user_emails`, beside the log.

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::user::UserEvent;
use hookledger_aggregates::{EmailClaimId, Event, OrganizationId, RecordedEvent, UserId};
use sqlx::{FromRow, PgConnection, PgExecutor};
use uuid::Uuid;

use crate::{Interest, Projection, ProjectionError};

/// A row of `users`, with the address while it is not erased.
#[derive(Clone, Debug, FromRow)]
pub struct User {
    pub organization_id: Uuid,
    pub id: Uuid,
    pub email: Option<String>,
    pub role: String,
    pub is_active: bool,
    pub last_login_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A user is active while the organization is; super admins have none.
const SELECT: &str = "select u.organization_id, u.id, e.email, u.role, \
     u.is_active and coalesce((select o.is_active from organizations o where o.id = u.organization_id), true) \
         as is_active, u.last_login_at, \
     u.created_at, u.updated_at \
     from users u left join user_emails e on e.organization_id = u.organization_id and e.user_id = u.id";

/// A user of an organization (super admins: of the platform).
///
/// # Errors
/// When the database does not answer.
pub async fn find(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    user: UserId,
) -> Result<Option<User>, sqlx::Error> {
    sqlx::query_as(&format!("{SELECT} where u.organization_id = $1 and u.id = $2"))
        .bind(organization.uuid())
        .bind(user.uuid())
        .fetch_optional(executor)
        .await
}

/// Who holds an address, in whichever organization: for signing in only.
///
/// # Errors
/// When the database does not answer.
pub async fn find_by_claim(executor: impl PgExecutor<'_>, claim: EmailClaimId) -> Result<Option<User>, sqlx::Error> {
    sqlx::query_as(&format!("{SELECT} where u.email_claim_id = $1")).bind(claim.uuid()).fetch_optional(executor).await
}

/// Whether there is a super admin.
///
/// # Errors
/// When the database does not answer.
pub async fn any_super_admin(executor: impl PgExecutor<'_>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from users where organization_id = $1 and role = 'super_admin')")
        .bind(OrganizationId::PLATFORM.uuid())
        .fetch_one(executor)
        .await
}

/// Keeps `users`.
#[derive(Debug)]
pub struct Users;

impl Projection for Users {
    fn name(&self) -> &'static str {
        "users"
    }

    fn interest(&self) -> Interest {
        Interest::Administrative
    }

    fn tables(&self) -> &'static [&'static str] {
        &["users"]
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            for recorded in events {
                match &recorded.event {
                    Event::User(event) => apply_one(connection, recorded, event).await?,
                    Event::Organization(_) | Event::EmailClaim(_) | Event::Provider(_) | Event::Webhook(_) => {}
                }
            }
            Ok(())
        })
    }
}

async fn apply_one(
    connection: &mut PgConnection,
    recorded: &RecordedEvent,
    event: &UserEvent,
) -> Result<(), sqlx::Error> {
    let query = match event {
        UserEvent::Registered { role, email_claim_id } => sqlx::query(
            "insert into users (organization_id, id, email_claim_id, role, is_active,
                                created_at, updated_at, applied_position)
             values ($1, $2, $5, $6, true, $4, $4, $3) on conflict (organization_id, id) do nothing",
        )
        .bind(recorded.organization.uuid())
        .bind(recorded.aggregate_id)
        .bind(recorded.position)
        .bind(recorded.recorded_at)
        .bind(email_claim_id.uuid())
        .bind(role.as_str()),
        UserEvent::SignedIn { .. } => sqlx::query(
            "update users set last_login_at = $4, updated_at = $4, applied_position = $3
             where organization_id = $1 and id = $2 and applied_position < $3",
        )
        .bind(recorded.organization.uuid())
        .bind(recorded.aggregate_id)
        .bind(recorded.position)
        .bind(recorded.recorded_at),
    };
    query.execute(connection).await.map(drop)
}
