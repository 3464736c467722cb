//! `users`: people who sign in. Their addresses are in `user_emails`, beside the log.

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::user::{Role, UserEvent};
use hookledger_aggregates::{EmailClaimId, Event, OrganizationId, RecordedEvent, SessionId, UserId};
use sqlx::{FromRow, PgConnection, PgExecutor, QueryBuilder};
use uuid::Uuid;

use crate::order::{self, Column, Field, Kind};
use crate::{Interest, Order, Page, PageRequest, Place, Projection, ProjectionError, Sorted};

/// A row of `users`, with the address unless it is erased.
#[derive(Clone, Debug, FromRow)]
pub struct User {
    /// The organization; the nil UUID for super admins.
    pub organization_id: Uuid,
    /// Random.
    pub id: Uuid,
    /// The address, from `user_emails`; `None` once it is erased.
    pub email: Option<String>,
    /// `super_admin`, `admin` or `member`.
    pub role: String,
    /// Whether the user is not deactivated.
    pub is_active: bool,
    /// Whether the organization is active; super admins have none.
    pub organization_is_active: bool,
    /// `None` while the user is only invited.
    pub joined_at: Option<DateTime<Utc>>,
    /// Time of the last sign-in; `None` if there was none.
    pub last_login_at: Option<DateTime<Utc>>,
    /// When the user was registered or invited.
    pub created_at: DateTime<Utc>,
    /// Time of the last event.
    pub updated_at: DateTime<Utc>,
}

impl User {
    /// Whether the user may sign in: both the user and the organization are active.
    #[must_use]
    pub fn may_sign_in(&self) -> bool {
        self.is_active && self.organization_is_active
    }
}

/// A selection of users.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// Part of the address.
    pub search: Option<String>,
    /// Only active or only deactivated ones; `None` for both.
    pub is_active: Option<bool>,
}

/// Fields that users can be sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserField {
    /// When the user was registered or invited.
    #[default]
    CreatedAt,
    /// Erased users have none.
    Email,
    /// Users who never signed in have none.
    LastLoginAt,
}

impl Field for UserField {
    fn column(self) -> Column {
        match self {
            Self::CreatedAt => Column { tag: b'c', kind: Kind::Time, value: "u.created_at", present: None },
            Self::Email => Column { tag: b'e', kind: Kind::Text, value: "e.email_key", present: Some("e.user_id") },
            Self::LastLoginAt => {
                Column { tag: b'l', kind: Kind::Time, value: "u.last_login_at", present: Some("u.last_login_at") }
            }
        }
    }
}

const COLUMNS: &str = "u.organization_id, u.id, e.email, u.role, u.is_active, \
     coalesce(o.is_active, true) as organization_is_active, u.joined_at, u.last_login_at, u.created_at, u.updated_at";

const TABLES: &str = "users u left join user_emails e on e.organization_id = u.organization_id and e.user_id = u.id \
     left join organizations o on o.id = u.organization_id";

/// The same, starting from the addresses. For a plain join by two columns the planner expects almost no rows,
/// and joins and sorts them all; the limit makes it follow the index on addresses, and stop.
const TABLES_BY_EMAIL: &str = "user_emails e cross join lateral (select * from users u \
     where u.organization_id = e.organization_id and u.id = e.user_id limit 1) u \
     left join organizations o on o.id = u.organization_id";

/// A user of an organization (super admins: of the platform).
pub async fn find(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    user: UserId,
) -> Result<Option<User>, sqlx::Error> {
    sqlx::query_as(&format!("select {COLUMNS} from {TABLES} where u.organization_id = $1 and u.id = $2"))
        .bind(organization.uuid())
        .bind(user.uuid())
        .fetch_optional(executor)
        .await
}

/// Users of an organization by their IDs, in no order.
pub async fn find_many(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    users: &[UserId],
) -> Result<Vec<User>, sqlx::Error> {
    let ids: Vec<Uuid> = users.iter().map(|user| user.uuid()).collect();
    sqlx::query_as(&format!("select {COLUMNS} from {TABLES} where u.organization_id = $1 and u.id = any ($2)"))
        .bind(organization.uuid())
        .bind(ids)
        .fetch_all(executor)
        .await
}

/// The user of a session that is in force: neither expired nor ended, begun after the last deactivation of
/// the user and the organization, both of which are active.
pub async fn find_in_session(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    user: UserId,
    session: SessionId,
) -> Result<Option<User>, sqlx::Error> {
    sqlx::query_as(&format!(
        "select {COLUMNS} from {TABLES}
         join sessions s on s.organization_id = u.organization_id and s.session_id = $3 and s.user_id = u.id
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

/// The users of an organization.
pub async fn list(
    connection: &mut PgConnection,
    organization: OrganizationId,
    filter: &UserFilter,
    order: Order<UserField>,
    page: &PageRequest<Place>,
) -> Result<Page<Sorted<User>>, sqlx::Error> {
    list_where(connection, Some(organization), filter, order, page).await
}

/// Every organization's users: for super admins only.
pub async fn list_everywhere(
    connection: &mut PgConnection,
    filter: &UserFilter,
    order: Order<UserField>,
    page: &PageRequest<Place>,
) -> Result<Page<Sorted<User>>, sqlx::Error> {
    list_where(connection, None, filter, order, page).await
}

async fn list_where(
    connection: &mut PgConnection,
    organization: Option<OrganizationId>,
    filter: &UserFilter,
    order: Order<UserField>,
    page: &PageRequest<Place>,
) -> Result<Page<Sorted<User>>, sqlx::Error> {
    order::read(connection, order, page, "u.id", |value, has_value| {
        let tables = if has_value && order.field == UserField::Email { TABLES_BY_EMAIL } else { TABLES };
        let mut query = QueryBuilder::new(format!("select {COLUMNS}, {value} as sorted_by from {tables} where true"));
        if let Some(organization) = organization {
            query.push(" and u.organization_id = ").push_bind(organization.uuid());
        }
        if let Some(search) = &filter.search {
            query.push(" and position(lower(").push_bind(search).push(") in e.email_key) > 0");
        }
        if let Some(is_active) = filter.is_active {
            query.push(" and u.is_active = ").push_bind(is_active);
        }
        query
    })
    .await
}

/// The holder of an address, in any organization: for signing in only.
pub async fn find_by_claim(executor: impl PgExecutor<'_>, claim: EmailClaimId) -> Result<Option<User>, sqlx::Error> {
    let holder = "u.email_claim_id = $1 and u.joined_at is not null order by u.joined_at desc limit 1";
    sqlx::query_as(&format!("select {COLUMNS} from {TABLES} where {holder}"))
        .bind(claim.uuid())
        .fetch_optional(executor)
        .await
}

/// Open invitations of an address, in any organization, newest first: only for mail to its owner.
pub async fn invitations(
    executor: impl PgExecutor<'_>,
    claim: EmailClaimId,
    limit: i64,
) -> Result<Vec<User>, sqlx::Error> {
    sqlx::query_as(&format!(
        "select {COLUMNS} from {TABLES}
         where u.email_claim_id = $1 and u.joined_at is null and u.is_active and coalesce(o.is_active, true)
         order by u.created_at desc limit $2"
    ))
    .bind(claim.uuid())
    .bind(limit)
    .fetch_all(executor)
    .await
}

/// Whether there is a super admin.
pub async fn any_super_admin(executor: impl PgExecutor<'_>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from users where organization_id = $1 and role = 'super_admin')")
        .bind(OrganizationId::PLATFORM.uuid())
        .fetch_one(executor)
        .await
}

/// Maintains `users`.
#[derive(Debug)]
pub struct Users;

impl Projection for Users {
    fn name(&self) -> &'static str {
        "users"
    }

    fn interest(&self) -> Interest {
        Interest::Administrative
    }

    fn shows(&self) -> &'static [&'static str] {
        &[UserEvent::AGGREGATE]
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
                    | Event::Destination(_)
                    | Event::Route(_)
                    | Event::Delivery(_)
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
        // Sessions are in another table.
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
