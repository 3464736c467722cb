//! An organization and what is its own.

use async_graphql::connection::Connection;
use async_graphql::{Context, Enum, Error, ID, Json, Object, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::organization;
use hookledger_aggregates::{OrganizationId, WebhookId};
use hookledger_projections::{audit_logs, organizations, webhook_logs, webhook_providers};
use uuid::Uuid;

use super::context::{App, Viewer};
use super::errors::internal;
use super::ids::{NodeId, decode_cursor, encode_cursor};
use super::paging::{Cursor, Window, connection};
use super::provider::WebhookProvider;
use super::webhook::{LogPosition, Webhook, WebhookFilter};

/// What a customer pays for.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "organization::Plan")]
pub enum Plan {
    Free,
    Starter,
    Premium,
}

/// A customer company.
pub struct Organization(pub(super) organizations::Organization);

#[Object]
impl Organization {
    pub(super) async fn id(&self) -> ID {
        NodeId::Organization(self.0.organization_id()).encode()
    }
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }
    async fn updated_at(&self) -> DateTime<Utc> {
        self.0.updated_at
    }
    async fn name(&self) -> &str {
        &self.0.name
    }
    /// In URLs; fixed once made.
    async fn slug(&self) -> &str {
        &self.0.slug
    }
    async fn plan(&self) -> Result<Plan, Error> {
        let plan = organization::Plan::ALL.into_iter().find(|plan| plan.as_str() == self.0.plan);
        plan.map(Plan::from).ok_or_else(|| internal("organizations.plan holds no plan"))
    }
    /// Accepted webhooks per calendar month, UTC; null is unlimited.
    async fn webhook_limit(&self) -> Option<i32> {
        self.0.webhook_limit
    }
    async fn is_active(&self) -> bool {
        self.0.is_active
    }
    /// Webhooks that were ever accepted, duplicates apart.
    async fn webhook_count(&self) -> i64 {
        self.0.webhook_count
    }

    /// Connected providers, newest first.
    async fn providers(&self, context: &Context<'_>) -> Result<Vec<WebhookProvider>, Error> {
        let rows =
            webhook_providers::list(&App::of(context)?.pool, self.0.organization_id()).await.map_err(internal)?;
        Ok(rows.into_iter().map(WebhookProvider).collect())
    }

    /// Webhooks, accepted and rejected, newest first.
    async fn webhooks(
        &self,
        context: &Context<'_>,
        filter: Option<WebhookFilter>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Result<Connection<Cursor, Webhook>, Error> {
        let filter = filter.unwrap_or_default().checked(self.0.organization_id())?;
        webhooks(App::of(context)?, self.0.organization_id(), filter, Window { first, after, last, before }).await
    }

    /// Webhooks that wait for a person, newest first.
    async fn dead_letters(
        &self,
        context: &Context<'_>,
        filter: Option<WebhookFilter>,
        first: Option<i32>,
        after: Option<String>,
    ) -> Result<Connection<Cursor, Webhook>, Error> {
        let mut filter = filter.unwrap_or_default().checked(self.0.organization_id())?;
        filter.dead_lettered = Some(true);
        webhooks(App::of(context)?, self.0.organization_id(), filter, Window::forward(first, after)).await
    }

    /// One webhook by the id that its sender was answered.
    async fn webhook(&self, context: &Context<'_>, webhook_id: Uuid) -> Result<Option<Webhook>, Error> {
        let id = WebhookId::new(webhook_id);
        let row = webhook_logs::find(&App::of(context)?.pool, self.0.organization_id(), id).await.map_err(internal)?;
        Ok(row.map(Webhook))
    }

    /// Who did what, newest first. For admins.
    async fn audit_log(
        &self,
        context: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
    ) -> Result<Connection<Cursor, AuditEntry>, Error> {
        let organization = self.0.organization_id();
        Viewer::of(context)?.must_manage(organization)?;
        let page = Window::forward(first, after).request(|cursor| keyset(organization, cursor))?;
        let rows = audit_logs::list(&App::of(context)?.pool, organization, page).await.map_err(internal)?;
        let cursor = |row: &audit_logs::AuditEntry| encode_cursor(organization, row.at, &row.position.to_be_bytes());
        Ok(connection(rows, &page, cursor, AuditEntry::from))
    }
}

fn keyset(organization: OrganizationId, cursor: &str) -> Result<(DateTime<Utc>, i64), Error> {
    decode_cursor::<8>(organization, cursor).map(|(time, position)| (time, i64::from_be_bytes(position)))
}

async fn webhooks(
    app: &App,
    organization: OrganizationId,
    filter: webhook_logs::WebhookFilter,
    window: Window,
) -> Result<Connection<Cursor, Webhook>, Error> {
    let page = window.request(|cursor| keyset(organization, cursor))?;
    let rows = webhook_logs::list(&app.pool, organization, &filter, page).await.map_err(internal)?;
    let cursor =
        |row: &webhook_logs::WebhookLog| encode_cursor(organization, row.received_at, &row.position.to_be_bytes());
    Ok(connection(rows, &page, cursor, Webhook))
}

/// One thing that somebody did.
#[derive(SimpleObject)]
pub struct AuditEntry {
    /// Where the log tells it.
    position: LogPosition,
    at: DateTime<Utc>,
    /// Who did it; null is the system.
    user_id: Option<Uuid>,
    /// From which address.
    client: Option<String>,
    action: String,
    resource_type: String,
    resource_id: Uuid,
    /// `{"old": {…}, "new": {…}}`, the changed fields only.
    changes: Json<serde_json::Value>,
}

impl From<audit_logs::AuditEntry> for AuditEntry {
    fn from(row: audit_logs::AuditEntry) -> Self {
        Self {
            position: LogPosition { partition: row.partition, position: row.position },
            at: row.at,
            user_id: row.user_id,
            client: row.client,
            action: row.action,
            resource_type: row.resource_type,
            resource_id: row.resource_id,
            changes: Json(row.changes.0),
        }
    }
}
