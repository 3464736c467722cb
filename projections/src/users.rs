//! `users`: people who sign in. Their addresses lie in `user_emails`, beside the log.

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::user::{Role, UserEvent};
use hookledger_aggregates::{EmailClaimId, Event, OrganizationId, RecordedEvent, SessionId, UserId};
use sqlx::{FromRow, PgConnection, PgExecutor};
use uuid::Uuid;

use crate::{Interest, Page, PageRequest, Projection, ProjectionError};

/// A row of `users`, with the address while it is not erased.
#[derive(Clone, Debug, FromRow)]
pub struct User {
    pub organization_id: Uuid,
    pub id: Uuid,
    pub email: Option<String>,
    pub role: String,
    pub is_active: bool,
    /// Whether the organization is; super admins have none.
    pub organization_is_active: bool,
    /// Nothing while the user is only invited.
    pub joined_at: Option<DateTime<Utc>>,
    pub last_login_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl User {
    /// Whether the user may sign in: both they and their organization are active.
    #[must_use]
    pub fn may_sign_in(&self) -> bool {
        self.is_active && self.organization_is_active
    }
}

/// Place of a user in a list, newest first.
pub type UserKey = (DateTime<Utc>, Uuid);

const SELECT: &str = "select u.organization_id, u.id, e.email, u.role, u.is_active, \
     coalesce(o.is_active, true) as organization_is_active, u.joined_at, u.last_login_at, u.created_at, u.updated_at \
     from users u left join user_emails e on e.organization_id = u.organization_id and e.user_id = u.id \
     left join organizations o on o.id = u.organization_id";

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

/// Users of an organization by their ids, in no order.
///
/// # Errors
/// When the database does not answer.
pub async fn find_many(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    users: &[UserId],
) -> Result<Vec<User>, sqlx::Error> {
    let ids: Vec<Uuid> = users.iter().map(|user| user.uuid()).collect();
    sqlx::query_as(&format!("{SELECT} where u.organization_id = $1 and u.id = any ($2)"))
        .bind(organization.uuid())
        .bind(ids)
        .fetch_all(executor)
        .await
}

/// The user of a session that is in force: neither run out nor ended, begun after the user and the
/// organization were last deactivated, and both are active.
///
/// # Errors
/// When the database does not answer.
pub async fn find_in_session(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    user: UserId,
    session: SessionId,
) -> Result<Option<User>, sqlx::Error> {
    sqlx::query_as(&format!(
        "{SELECT} join sessions s on s.organization_id = u.organization_id and s.session_id = $3 and s.user_id = u.id
         where u.organization_id = $1 and u.id = $2 and {IN_FORCE}"
    ))
    .bind(organization.uuid())
    .bind(user.uuid())
    .bind(session.uuid())
    .fetch_optional(executor)
    .await
}

/// Whether the session `s` of the user `u` of the organization `o` is in force.
pub const IN_FORCE: &str = "s.ended_at is null and s.expires_at > now() and u.is_active and coalesce(o.is_active, true) \
     and s.started_at > coalesce(greatest(u.deactivated_at, o.deactivated_at), '-infinity')";

/// The users of an organization whose address has this in it, newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    search: Option<&str>,
    page: PageRequest<UserKey>,
) -> Result<Page<User>, sqlx::Error> {
    list_where(executor, Some(organization), search, page).await
}

/// Every organization's users: for super admins only.
///
/// # Errors
/// When the database does not answer.
pub async fn list_everywhere(
    executor: impl PgExecutor<'_>,
    search: Option<&str>,
    page: PageRequest<UserKey>,
) -> Result<Page<User>, sqlx::Error> {
    list_where(executor, None, search, page).await
}

async fn list_where(
    executor: impl PgExecutor<'_>,
    organization: Option<OrganizationId>,
    search: Option<&str>,
    page: PageRequest<UserKey>,
) -> Result<Page<User>, sqlx::Error> {
    let (compare, order) = if page.backward { (">", "asc") } else { ("<", "desc") };
    let tenant = if organization.is_some() { "u.organization_id = $1" } else { "$1::uuid is null" };
    let sql = format!(
        "{SELECT} where {tenant} and ($2::text is null or position(lower($2) in lower(e.email)) > 0)
           and ($3::timestamptz is null or (u.created_at, u.id) {compare} ($3, $4))
         order by u.created_at {order}, u.id {order} limit $5"
    );
    let rows = sqlx::query_as(&sql)
        .bind(organization.map(OrganizationId::uuid))
        .bind(search)
        .bind(page.from.map(|key| key.0))
        .bind(page.from.map(|key| key.1))
        .bind(page.limit + 1)
        .fetch_all(executor)
        .await?;
    Ok(Page::from_overfull(rows, &page))
}

/// Who holds an address, in whichever organization: for signing in only.
///
/// # Errors
/// When the database does not answer.
pub async fn find_by_claim(executor: impl PgExecutor<'_>, claim: EmailClaimId) -> Result<Option<User>, sqlx::Error> {
    let holder = "where u.email_claim_id = $1 and u.joined_at is not null order by u.joined_at desc limit 1";
    sqlx::query_as(&format!("{SELECT} {holder}")).bind(claim.uuid()).fetch_optional(executor).await
}

/// Open invitations of an address, in whichever organization, newest first: for mail to its owner
/// only.
///
/// # Errors
/// When the database does not answer.
pub async fn invitations(
    executor: impl PgExecutor<'_>,
    claim: EmailClaimId,
    limit: i64,
) -> Result<Vec<User>, sqlx::Error> {
    sqlx::query_as(&format!(
        "{SELECT} where u.email_claim_id = $1 and u.joined_at is null and u.is_active and coalesce(o.is_active, true)
         order by u.created_at desc limit $2"
    ))
    .bind(claim.uuid())
    .bind(limit)
    .fetch_all(executor)
    .await
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
                    Event::Organization(_)
                    | Event::EmailClaim(_)
                    | Event::Team(_)
                    | Event::Retention(_)
                    | Event::Access(_)
                    | Event::Provider(_)
                    | Event::Webhook(_)
                    | Event::Usage(_) => {}
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
    let (set, role) = match event {
        UserEvent::Registered { role, email_claim_id } => {
            return insert(connection, recorded, *role, *email_claim_id, Some(recorded.recorded_at)).await;
        }
        UserEvent::Invited { role, email_claim_id } => {
            return insert(connection, recorded, *role, *email_claim_id, None).await;
        }
        UserEvent::Joined {} => ("joined_at = $4", None),
        UserEvent::SignedIn { .. } => ("last_login_at = $4", None),
        UserEvent::RoleChanged { role } => ("role = $5", Some(role.as_str())),
        UserEvent::Activated {} => ("is_active = true", None),
        UserEvent::Deactivated {} => ("is_active = false, deactivated_at = $4", None),
        UserEvent::Erased {} => ("email_claim_id = null", None),
        // Sessions are not this table's.
        UserEvent::SessionEnded { .. } | UserEvent::SessionsEnded {} => return Ok(()),
    };
    let sql = format!(
        "update users set {set}, updated_at = $4, applied_position = $3
         where organization_id = $1 and id = $2 and applied_position < $3"
    );
    let update = sqlx::query(&sql)
        .bind(recorded.organization.uuid())
        .bind(recorded.aggregate_id)
        .bind(recorded.position)
        .bind(recorded.recorded_at);
    let update = if let Some(role) = role { update.bind(role) } else { update };
    update.execute(connection).await.map(drop)
}

async fn insert(
    connection: &mut PgConnection,
    recorded: &RecordedEvent,
    role: Role,
    claim: EmailClaimId,
    joined_at: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into users (organization_id, id, email_claim_id, role, is_active, joined_at,
                            created_at, updated_at, applied_position)
         values ($1, $2, $5, $6, true, $7, $4, $4, $3) on conflict (organization_id, id) do nothing",
    )
    .bind(recorded.organization.uuid())
    .bind(recorded.aggregate_id)
    .bind(recorded.position)
    .bind(recorded.recorded_at)
    .bind(claim.uuid())
    .bind(role.as_str())
    .bind(joined_at)
    .execute(connection)
    .await
    .map(drop)
}
