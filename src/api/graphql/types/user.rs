//! Users and their sessions.

use async_graphql::connection::{Connection, EmptyFields};
use async_graphql::{Context, Enum, Error, ID, Object};
use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, SessionId, UserId, user};
use hookledger_projections::users::{UserField, UserFilter};
use hookledger_projections::{Order, Sorted, users};
use uuid::Uuid;

use super::ids::{List, NodeId, decode_place, encode_place};
use super::organization::Organization;
use super::paging::{Cursor, Window, connection};
use crate::api::graphql::context::{everybody, tenant};
use crate::api::graphql::errors::{Code, internal};
use crate::api::graphql::guards::rights::Viewer;
use crate::api::graphql::rows::{OrganizationOf, SessionsOf, load};
use crate::identity;

/// Maximum length of a search for an address, in characters.
const MAX_SEARCH: usize = 254;

/// The rights of a user in their organization.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub enum Role {
    Admin,
    Member,
}

impl From<Role> for user::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::Member => Self::Member,
        }
    }
}

/// The role within an organization; `None` for super admins.
pub(crate) fn role(role: user::Role) -> Option<Role> {
    match role {
        user::Role::Admin => Some(Role::Admin),
        user::Role::Member => Some(Role::Member),
        user::Role::SuperAdmin => None,
    }
}

/// A person who signs in.
pub struct User(pub(crate) users::User);

impl User {
    fn organization_id(&self) -> OrganizationId {
        OrganizationId::new(self.0.organization_id)
    }

    fn user_id(&self) -> UserId {
        UserId::new(self.0.id)
    }
}

#[Object]
impl User {
    pub(crate) async fn id(&self) -> ID {
        NodeId::User(self.organization_id(), self.user_id()).encode()
    }
    /// The ID that audit entries and events use.
    #[graphql(name = "userId")]
    async fn bare_id(&self) -> Uuid {
        self.0.id
    }
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }
    async fn updated_at(&self) -> DateTime<Utc> {
        self.0.updated_at
    }
    /// Null if erased.
    async fn email(&self) -> Option<&str> {
        self.0.email.as_deref()
    }
    /// Null for super admins.
    async fn role(&self) -> Option<Role> {
        user::Role::ALL.into_iter().find(|role| role.as_str() == self.0.role).and_then(role)
    }
    /// Whether the user's own account is active.
    async fn is_active(&self) -> bool {
        self.0.is_active
    }
    /// When the user first signed in; null for invited persons.
    async fn joined_at(&self) -> Option<DateTime<Utc>> {
        self.0.joined_at
    }
    async fn last_login_at(&self) -> Option<DateTime<Utc>> {
        self.0.last_login_at
    }
    /// Null for super admins.
    async fn organization(&self, context: &Context<'_>) -> Result<Option<Organization>, Error> {
        let id = self.organization_id();
        Ok(load(context, OrganizationOf(id, id)).await?.map(Organization))
    }
    /// The user's sessions, newest first. For the user and for admins.
    async fn sessions(&self, context: &Context<'_>) -> Result<Vec<Session>, Error> {
        let viewer = Viewer::of(context)?;
        if viewer.user.id != self.0.id {
            viewer.must_manage(self.organization_id())?;
        }
        sessions(context, self.organization_id(), self.user_id()).await
    }
}

/// A session, in force or ended.
pub struct Session {
    pub(crate) row: identity::Session,
    pub(crate) is_current: bool,
}

#[Object]
impl Session {
    async fn id(&self) -> ID {
        let (organization, id) = (OrganizationId::new(self.row.organization_id), SessionId::new(self.row.session_id));
        NodeId::Session(organization, id).encode()
    }
    async fn started_at(&self) -> DateTime<Utc> {
        self.row.started_at
    }
    /// When it expires.
    async fn expires_at(&self) -> DateTime<Utc> {
        self.row.expires_at
    }
    /// When somebody ended it.
    async fn ended_at(&self) -> Option<DateTime<Utc>> {
        self.row.ended_at
    }
    /// The client's address.
    async fn client(&self) -> Option<&str> {
        self.row.client.as_deref()
    }
    /// The client's user agent.
    async fn user_agent(&self) -> Option<&str> {
        self.row.agent.as_deref()
    }
    /// Whether this request belongs to it.
    async fn is_current(&self) -> bool {
        self.is_current
    }
}

/// A user's sessions in force.
pub(crate) async fn sessions(
    context: &Context<'_>,
    organization: OrganizationId,
    user: UserId,
) -> Result<Vec<Session>, Error> {
    let current = Viewer::of(context)?.session.uuid();
    let rows = load(context, SessionsOf(organization, user)).await?.unwrap_or_default();
    Ok(rows.into_iter().map(|row| Session { is_current: row.session_id == current, row }).collect())
}

/// The users of an organization, or, for super admins, of all.
pub(crate) async fn list(
    context: &Context<'_>,
    organization: Option<OrganizationId>,
    filter: UserFilter,
    order: Order<UserField>,
    window: Window,
) -> Result<Connection<Cursor, User>, Error> {
    if filter.search.as_ref().is_some_and(|text| text.len() > MAX_SEARCH || text.contains('\0')) {
        return Err(Code::BadUserInput.error(format!("Search for at most {MAX_SEARCH} characters.")));
    }
    let list = organization.unwrap_or(OrganizationId::PLATFORM);
    let page = window.request(|cursor| decode_place(List::Users, list, order, cursor))?;
    let rows = match organization {
        Some(organization) => {
            let mut tenant = tenant(context, organization).await?;
            users::list(&mut tenant, organization, &filter, order, &page).await
        }
        None => users::list_everywhere(&mut *everybody(context).await?, &filter, order, &page).await,
    };
    let cursor = |row: &Sorted<users::User>| encode_place(List::Users, list, order, &row.place);
    Ok(connection(rows.map_err(internal)?, &page, cursor, |row| User(row.row), EmptyFields))
}
