//! The roots of reading.

use async_graphql::connection::{Connection, EmptyFields};
use async_graphql::{Context, Error, ID, Interface, Object};
use hookledger_aggregates::{OrganizationId, UserId};
use hookledger_projections::organizations::{self, OrganizationFilter};
use hookledger_projections::users::{self, UserFilter};
use hookledger_projections::webhook_providers::{self, ProviderFilter};
use hookledger_projections::{Sorted, webhook_logs};

use super::analytics::{Analytics, Grain};
use super::audit::{self, AuditEntry, AuditFilter};
use super::conservation::{self, Conservation};
use super::context::{Viewer as Caller, everybody, tenant};
use super::errors::{internal, not_found};
use super::ids::{List, NodeId, decode_place, encode_place};
use super::ledger::{self, Ledger};
use super::order::{OrderBy, OrganizationOrderField, ProviderOrderField, UserOrderField};
use super::organization::Organization;
use super::paging::{Cursor, Window, connection};
use super::provider::{ProviderName, WebhookProvider};
use super::system::System;
use super::time::Time;
use super::user::{self, Session, User};
use super::webhook::Webhook;

/// Anything that has an id of its own.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID"))]
pub enum Node {
    Organization(Organization),
    WebhookProvider(WebhookProvider),
    Webhook(Webhook),
    User(User),
}

/// Who is signed in.
pub struct Viewer;

#[Object]
impl Viewer {
    async fn user(&self, context: &Context<'_>) -> Result<User, Error> {
        Ok(User(Caller::of(context)?.user.clone()))
    }

    async fn is_super_admin(&self, context: &Context<'_>) -> Result<bool, Error> {
        Ok(Caller::of(context)?.is_super_admin())
    }

    /// The viewer's own organization; none for super admins.
    async fn organization(&self, context: &Context<'_>) -> Result<Option<Organization>, Error> {
        let home = Caller::of(context)?.home();
        let mut tenant = tenant(context, home).await?;
        let row = organizations::find(&mut *tenant, home).await.map_err(internal)?;
        Ok(row.map(Organization))
    }

    /// Where the viewer is signed in, newest first.
    async fn sessions(&self, context: &Context<'_>) -> Result<Vec<Session>, Error> {
        let viewer = Caller::of(context)?;
        user::sessions(context, viewer.home(), UserId::new(viewer.user.id)).await
    }
}

/// What is there, as people know it.
#[derive(Default)]
pub struct PeopleQuery;

#[Object]
impl PeopleQuery {
    /// Who is signed in.
    async fn viewer(&self, context: &Context<'_>) -> Result<Viewer, Error> {
        Caller::of(context).map(|_| Viewer)
    }

    /// Whatever has this id, if the viewer may see it.
    async fn node(&self, context: &Context<'_>, id: ID) -> Result<Option<Node>, Error> {
        let viewer = Caller::of(context)?;
        let Some(id) = NodeId::decode(&id) else { return Ok(None) };
        let (organization, may_see) = match id {
            NodeId::Organization(id) | NodeId::Provider(id, _) | NodeId::Webhook(id, _) => (id, viewer.sees(id)),
            NodeId::User(organization, id) => {
                let is_own = viewer.home() == organization && viewer.user.id == id.uuid();
                (organization, is_own || viewer.manages(organization))
            }
            NodeId::Session(organization, _) => (organization, false),
        };
        if !may_see {
            return Ok(None);
        }
        found(context, organization, id).await
    }

    /// The organization of that slug, if the viewer may see it.
    async fn organization(&self, context: &Context<'_>, slug: String) -> Result<Option<Organization>, Error> {
        let id = OrganizationId::from_slug(&slug);
        if !Caller::of(context)?.sees(id) {
            return Ok(None);
        }
        let mut tenant = tenant(context, id).await?;
        Ok(organizations::find(&mut *tenant, id).await.map_err(internal)?.map(Organization))
    }

    /// What happened in all organizations together, in buckets of a grain. For super admins.
    async fn analytics(&self, context: &Context<'_>, from: Time, to: Time, grain: Grain) -> Result<Analytics, Error> {
        let mut tenants = everybody(context).await?;
        Analytics::read(&mut tenants, None, None, from.0, to.0, grain).await
    }

    /// Every organization, newest first unless ordered otherwise. For super admins.
    async fn organizations(
        &self,
        context: &Context<'_>,
        search: Option<String>,
        is_active: Option<bool>,
        order_by: Option<OrderBy<OrganizationOrderField>>,
        first: Option<i32>,
        after: Option<String>,
    ) -> Result<Connection<Cursor, Organization>, Error> {
        let mut tenants = everybody(context).await?;
        let (everywhere, order) = (OrganizationId::PLATFORM, OrderBy::or_newest(order_by));
        let page = Window::forward(first, after)
            .request(|cursor| decode_place(List::Organizations, everywhere, order, cursor))?;
        let filter = OrganizationFilter { search, is_active };
        let rows = organizations::list(&mut tenants, &filter, order, &page).await.map_err(internal)?;
        let cursor = |row: &Sorted<_>| encode_place(List::Organizations, everywhere, order, &row.place);
        Ok(connection(rows, &page, cursor, |row| Organization(row.row), EmptyFields))
    }

    /// Every organization's connected providers, newest first unless ordered otherwise. For super admins. The
    /// search is for a part of the organization's name or slug, or of the destination's URL.
    #[expect(clippy::too_many_arguments, reason = "the field has as many")]
    async fn providers(
        &self,
        context: &Context<'_>,
        search: Option<String>,
        provider_name: Option<ProviderName>,
        is_active: Option<bool>,
        order_by: Option<OrderBy<ProviderOrderField>>,
        first: Option<i32>,
        after: Option<String>,
    ) -> Result<Connection<Cursor, WebhookProvider>, Error> {
        let mut tenants = everybody(context).await?;
        let (everywhere, order) = (OrganizationId::PLATFORM, OrderBy::or_newest(order_by));
        let page =
            Window::forward(first, after).request(|cursor| decode_place(List::Providers, everywhere, order, cursor))?;
        let provider_name = provider_name.map(|name| hookledger_aggregates::ProviderName::from(name).as_str());
        let filter = ProviderFilter { search, provider_name, is_active };
        let rows = webhook_providers::list_everywhere(&mut tenants, &filter, order, &page).await.map_err(internal)?;
        let cursor = |row: &Sorted<_>| encode_place(List::Providers, everywhere, order, &row.place);
        Ok(connection(rows, &page, cursor, |row| WebhookProvider(row.row), EmptyFields))
    }

    /// The platform as it is now. For super admins.
    async fn system(&self, context: &Context<'_>) -> Result<System, Error> {
        System::of(context)
    }

    /// Every organization's users and the super admins, newest first unless ordered otherwise. For super admins.
    async fn users(
        &self,
        context: &Context<'_>,
        search: Option<String>,
        is_active: Option<bool>,
        order_by: Option<OrderBy<UserOrderField>>,
        first: Option<i32>,
        after: Option<String>,
    ) -> Result<Connection<Cursor, User>, Error> {
        let filter = UserFilter { search, is_active };
        user::list(context, None, filter, OrderBy::or_newest(order_by), Window::forward(first, after)).await
    }

    /// Whether every webhook that was received stands somewhere, in the log and in the read models, by
    /// organization: those first of whom something differs; 1,000 at most. For super admins.
    async fn conservation(&self, context: &Context<'_>) -> Result<Vec<Conservation>, Error> {
        conservation::list(context).await
    }

    /// Who did what in every organization, newest first. For super admins.
    async fn audit_log(
        &self,
        context: &Context<'_>,
        filter: Option<AuditFilter>,
        first: Option<i32>,
        after: Option<String>,
    ) -> Result<Connection<Cursor, AuditEntry>, Error> {
        audit::list(context, None, filter, Window::forward(first, after)).await
    }

    /// The ledgers of what is no organization's: the platform's own events, and the claims on e-mail
    /// addresses by the partition of the log that they are in. For super admins.
    async fn platform_ledgers(&self, context: &Context<'_>) -> Result<Vec<Ledger>, Error> {
        ledger::of_the_platform(context)
    }
}

/// The organization, whose existence the viewer may know of.
pub(super) async fn existing_organization(
    context: &Context<'_>,
    id: OrganizationId,
) -> Result<organizations::Organization, Error> {
    if !Caller::of(context)?.sees(id) {
        return Err(not_found());
    }
    let mut tenant = tenant(context, id).await?;
    organizations::find(&mut *tenant, id).await.map_err(internal)?.ok_or_else(not_found)
}

/// What has that id, for who may see it.
async fn found(context: &Context<'_>, organization: OrganizationId, id: NodeId) -> Result<Option<Node>, Error> {
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
            .map(|row| Node::Webhook(Webhook::of(row))),
        NodeId::User(organization, id) => {
            users::find(&mut *tenant, organization, id).await.map_err(internal)?.map(|row| Node::User(User(row)))
        }
        NodeId::Session(..) => None,
    })
}
