//! The roots of reading.

use async_graphql::connection::{Connection, EmptyFields};
use async_graphql::{Context, Enum, Error, ID, Interface, Object, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, UserId};
use hookledger_projections::organizations::{self, OrganizationFilter};
use hookledger_projections::{users, webhook_logs, webhook_providers};
use uuid::Uuid;

use super::analytics::{Analytics, Grain};
use super::context::{Viewer as Asking, everybody, tenant};
use super::errors::{internal, not_found};
use super::ids::{List, NodeId, decode_cursor, encode_cursor};
use super::organization::Organization;
use super::paging::{Cursor, Window, connection};
use super::provider::WebhookProvider;
use super::webhook::Webhook;

/// Anything that has an id of its own.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID"))]
pub enum Node {
    Organization(Organization),
    WebhookProvider(WebhookProvider),
    Webhook(Webhook),
}

/// What a user may do.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub enum Role {
    Admin,
    Member,
}

/// A person who signs in.
#[derive(SimpleObject)]
pub struct User {
    id: ID,
    email: Option<String>,
    /// None for super admins.
    role: Option<Role>,
    is_active: bool,
    last_login_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<&users::User> for User {
    fn from(row: &users::User) -> Self {
        let role = match row.role.as_str() {
            "admin" => Some(Role::Admin),
            "member" => Some(Role::Member),
            _ => None,
        };
        Self {
            id: NodeId::User(OrganizationId::new(row.organization_id), UserId::new(row.id)).encode(),
            email: row.email.clone(),
            role,
            is_active: row.is_active,
            last_login_at: row.last_login_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Who is signed in.
pub struct Viewer;

#[Object]
impl Viewer {
    async fn user(&self, context: &Context<'_>) -> Result<User, Error> {
        Ok(User::from(&Asking::of(context)?.user))
    }

    async fn is_super_admin(&self, context: &Context<'_>) -> Result<bool, Error> {
        Ok(Asking::of(context)?.is_super_admin())
    }

    /// The viewer's own organization; none for super admins.
    async fn organization(&self, context: &Context<'_>) -> Result<Option<Organization>, Error> {
        let home = Asking::of(context)?.home();
        let mut tenant = tenant(context, home).await?;
        let row = organizations::find(&mut *tenant, home).await.map_err(internal)?;
        Ok(row.map(Organization))
    }
}

pub struct Query;

#[Object]
impl Query {
    /// Who is signed in.
    async fn viewer(&self, context: &Context<'_>) -> Result<Viewer, Error> {
        Asking::of(context).map(|_| Viewer)
    }

    /// Whatever has this id, if the viewer may see it.
    async fn node(&self, context: &Context<'_>, id: ID) -> Result<Option<Node>, Error> {
        let Some(id) = NodeId::decode(&id) else { return Ok(None) };
        let organization = match id {
            NodeId::Organization(id) | NodeId::Provider(id, _) | NodeId::Webhook(id, _) | NodeId::User(id, _) => id,
        };
        if !Asking::of(context)?.sees(organization) {
            return Ok(None);
        }
        let mut tenant = tenant(context, organization).await?;
        Ok(match id {
            NodeId::Organization(id) => organizations::find(&mut *tenant, id)
                .await
                .map_err(internal)?
                .map(|row| Node::Organization(Organization(row))),
            NodeId::Provider(organization, id) => {
                let rows = webhook_providers::find_many(&mut *tenant, organization, &[id]).await.map_err(internal)?;
                rows.into_iter().next().map(|row| Node::WebhookProvider(WebhookProvider(row)))
            }
            NodeId::Webhook(organization, id) => webhook_logs::find(&mut *tenant, organization, id)
                .await
                .map_err(internal)?
                .map(|row| Node::Webhook(Webhook(row))),
            NodeId::User(..) => None,
        })
    }

    /// The organization of that slug, if the viewer may see it.
    async fn organization(&self, context: &Context<'_>, slug: String) -> Result<Option<Organization>, Error> {
        let id = OrganizationId::from_slug(&slug);
        if !Asking::of(context)?.sees(id) {
            return Ok(None);
        }
        let mut tenant = tenant(context, id).await?;
        Ok(organizations::find(&mut *tenant, id).await.map_err(internal)?.map(Organization))
    }

    /// What happened in all organizations together, in buckets of a grain. For super admins.
    async fn analytics(
        &self,
        context: &Context<'_>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        grain: Grain,
    ) -> Result<Analytics, Error> {
        let mut tenants = everybody(context).await?;
        Analytics::read(&mut tenants, None, None, from, to, grain).await
    }

    /// Every organization, newest first. For super admins.
    async fn organizations(
        &self,
        context: &Context<'_>,
        search: Option<String>,
        is_active: Option<bool>,
        first: Option<i32>,
        after: Option<String>,
    ) -> Result<Connection<Cursor, Organization>, Error> {
        let mut tenants = everybody(context).await?;
        let everywhere = OrganizationId::PLATFORM;
        let page = Window::forward(first, after).request(|cursor| {
            let (time, id) = decode_cursor::<16>(List::Organizations, everywhere, cursor)?;
            Ok((time, Uuid::from_bytes(id)))
        })?;
        let filter = OrganizationFilter { search, is_active };
        let rows = organizations::list(&mut *tenants, &filter, page).await.map_err(internal)?;
        let cursor = |row: &organizations::Organization| {
            encode_cursor(List::Organizations, everywhere, row.created_at, row.id.as_bytes())
        };
        Ok(connection(rows, &page, cursor, Organization, EmptyFields))
    }
}

/// The organization, whose existence the viewer may know of.
pub(super) async fn existing_organization(
    context: &Context<'_>,
    id: OrganizationId,
) -> Result<organizations::Organization, Error> {
    if !Asking::of(context)?.sees(id) {
        return Err(not_found());
    }
    let mut tenant = tenant(context, id).await?;
    organizations::find(&mut *tenant, id).await.map_err(internal)?.ok_or_else(not_found)
}
