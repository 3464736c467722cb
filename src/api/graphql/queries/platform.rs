//! Queries of super admins, about all organizations.

use async_graphql::connection::{Connection, EmptyFields};
use async_graphql::{Context, Error, Object};
use hookledger_aggregates::OrganizationId;
use hookledger_projections::organizations::OrganizationFilter;
use hookledger_projections::users::UserFilter;
use hookledger_projections::webhook_providers::ProviderFilter;
use hookledger_projections::{Sorted, organizations, webhook_providers};

use crate::api::graphql::context::everybody;
use crate::api::graphql::errors::internal;
use crate::api::graphql::types::analytics::{Analytics, Grain};
use crate::api::graphql::types::audit::{self, AuditEntry, AuditFilter};
use crate::api::graphql::types::conservation::{self, Conservation};
use crate::api::graphql::types::ids::{List, decode_place, encode_place};
use crate::api::graphql::types::ledger::{self, Ledger};
use crate::api::graphql::types::order::{OrderBy, OrganizationOrderField, ProviderOrderField, UserOrderField};
use crate::api::graphql::types::organization::Organization;
use crate::api::graphql::types::paging::{Cursor, Window, connection};
use crate::api::graphql::types::provider::{ProviderName, WebhookProvider};
use crate::api::graphql::types::system::System;
use crate::api::graphql::types::time::Time;
use crate::api::graphql::types::user::{self, User};

/// Queries of super admins about the platform.
#[derive(Default)]
pub struct PlatformQuery;

#[Object]
impl PlatformQuery {
    /// Counts of all organizations together, in buckets. For super admins.
    async fn analytics(&self, context: &Context<'_>, from: Time, to: Time, grain: Grain) -> Result<Analytics, Error> {
        let mut tenants = everybody(context).await?;
        Analytics::read(&mut tenants, None, None, from.0, to.0, grain).await
    }

    /// All organizations, newest first by default. For super admins.
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

    /// All organizations' connected providers, newest first by default. `search` matches part of the
    /// organization's name or slug, or of the destination's URL. For super admins.
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

    /// The platform now. For super admins.
    async fn system(&self, context: &Context<'_>) -> Result<System, Error> {
        System::of(context)
    }

    /// All organizations' users and the super admins, newest first by default. For super admins.
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

    /// Whether every received webhook is accounted for in the log and in the read models, by organization:
    /// those with differences first; at most 1,000. For super admins.
    async fn conservation(&self, context: &Context<'_>) -> Result<Vec<Conservation>, Error> {
        conservation::list(context).await
    }

    /// The audit trail of all organizations, newest first. For super admins.
    async fn audit_log(
        &self,
        context: &Context<'_>,
        filter: Option<AuditFilter>,
        first: Option<i32>,
        after: Option<String>,
    ) -> Result<Connection<Cursor, AuditEntry>, Error> {
        audit::list(context, None, filter, Window::forward(first, after)).await
    }

    /// The ledgers that belong to no organization: the platform's own events, and the claims on email
    /// addresses by partition of the log. For super admins.
    async fn platform_ledgers(&self, context: &Context<'_>) -> Result<Vec<Ledger>, Error> {
        ledger::of_the_platform(context)
    }
}
