//! An organization, and everything that belongs to it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_graphql::connection::{Connection, Edge};
use async_graphql::{Context, Enum, Error, ID, Object, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, ProviderId, WebhookId, organization};
use hookledger_projections::summaries::Ranked;
use hookledger_projections::users::UserFilter;
use hookledger_projections::{Order, Page, organizations, summaries, webhook_logs, webhook_providers};
use uuid::Uuid;

use super::analytics::{Analytics, Grain};
use super::audit::{self, AuditEntry, AuditFilter};
use super::history::{self, OrganizationState};
use super::ids::{List, NodeId, decode_cursor, encode_cursor};
use super::insight::{DeadLetterGroups, Histogram, Ranking};
use super::ledger::{self, Ledger};
use super::paging::{Cursor, Window, connection};
use super::position::LogPosition;
use super::provider::WebhookProvider;
use super::time::Time;
use super::usage::{self, Usage};
use super::user::{self, User};
use super::webhook::Webhook;
use super::webhook::event::RecordedEvent;
use super::webhook::filter::{WebhookFilter, provider_of};
use crate::api::graphql::context::{searching, tenant};
use crate::api::graphql::errors::{Code, internal, unread};
use crate::api::graphql::guards::rights::Viewer;
use crate::api::graphql::mutations::retries::retryable;
use crate::log::{LogSpan, events_of};
use crate::reads::search::{self, Found};

/// A customer's plan.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "organization::Plan")]
pub enum Plan {
    Free,
    Starter,
    Premium,
}

/// A customer company.
pub struct Organization(pub(crate) organizations::Organization);

#[Object]
impl Organization {
    pub(crate) async fn id(&self) -> ID {
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
    /// Part of URLs; cannot be changed.
    async fn slug(&self) -> &str {
        &self.0.slug
    }
    /// For admins.
    async fn plan(&self, context: &Context<'_>) -> Result<Plan, Error> {
        Viewer::of(context)?.must_manage(self.0.organization_id())?;
        plan(&self.0)
    }
    /// Accepted webhooks per calendar month, UTC; null is unlimited. For admins.
    async fn webhook_limit(&self, context: &Context<'_>) -> Result<Option<i32>, Error> {
        Viewer::of(context)?.must_manage(self.0.organization_id())?;
        Ok(self.0.webhook_limit)
    }
    async fn is_active(&self) -> bool {
        self.0.is_active
    }
    /// All accepted webhooks, without duplicates.
    async fn webhook_count(&self) -> i64 {
        self.0.webhook_count
    }

    /// Connected providers, newest first.
    async fn providers(&self, context: &Context<'_>) -> Result<Vec<WebhookProvider>, Error> {
        let organization = self.0.organization_id();
        let mut tenant = tenant(context, organization).await?;
        let rows = webhook_providers::list(&mut *tenant, organization).await.map_err(internal)?;
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
    ) -> Result<Webhooks, Error> {
        let filter = filter.unwrap_or_default().checked(self.0.organization_id())?;
        webhooks(context, self.0.organization_id(), filter, Window { first, after, last, before }).await
    }

    /// Dead letters, newest first.
    async fn dead_letters(
        &self,
        context: &Context<'_>,
        filter: Option<WebhookFilter>,
        first: Option<i32>,
        after: Option<String>,
    ) -> Result<Webhooks, Error> {
        let mut filter = filter.unwrap_or_default().checked(self.0.organization_id())?;
        filter.dead_lettered = Some(true);
        webhooks(context, self.0.organization_id(), filter, Window::forward(first, after)).await
    }

    /// Number of matching failed webhooks that `retryWebhooks` would retry; counted up to 10,001. A text is
    /// searched in IDs and event types only.
    async fn retryable_count(&self, context: &Context<'_>, filter: Option<WebhookFilter>) -> Result<i32, Error> {
        let organization = self.0.organization_id();
        let filter = filter.unwrap_or_default().checked(organization)?;
        Ok(i32::try_from(retryable(context, organization, &filter).await?.len()).unwrap_or(i32::MAX))
    }

    /// The webhook with the ID that its sender got.
    async fn webhook(&self, context: &Context<'_>, webhook_id: Uuid) -> Result<Option<Webhook>, Error> {
        let organization = self.0.organization_id();
        let mut tenant = tenant(context, organization).await?;
        let row = webhook_logs::find(&mut *tenant, organization, WebhookId::new(webhook_id)).await.map_err(internal)?;
        Ok(row.map(Webhook::of))
    }

    /// Counts in a span of time, in buckets: of all providers, or of one.
    async fn analytics(
        &self,
        context: &Context<'_>,
        from: Time,
        to: Time,
        grain: Grain,
        provider_id: Option<ID>,
    ) -> Result<Analytics, Error> {
        let organization = self.0.organization_id();
        let provider = provider_of(organization, provider_id.as_ref())?;
        let mut tenant = tenant(context, organization).await?;
        Analytics::read(&mut tenant, Some(organization), provider, from.0, to.0, grain).await
    }

    /// Number of matching webhooks over time by current status, for a chart above the list. The filter's
    /// times and `from` and `to` both apply. The filter's text is searched in IDs and event types only.
    async fn histogram(
        &self,
        context: &Context<'_>,
        filter: Option<WebhookFilter>,
        from: Time,
        to: Time,
        buckets: i32,
    ) -> Result<Histogram, Error> {
        let organization = self.0.organization_id();
        let filter = filter.unwrap_or_default().checked(organization)?;
        Histogram::read(context, organization, &filter, (from.0, to.0), buckets).await
    }

    /// Dead letters, by error and provider.
    async fn dead_letter_groups(&self, context: &Context<'_>) -> Result<DeadLetterGroups, Error> {
        DeadLetterGroups::read(context, self.0.organization_id()).await
    }

    /// The most frequent event types received in a span of time: 10, or up to 100.
    async fn top_event_types(
        &self,
        context: &Context<'_>,
        from: Time,
        to: Time,
        first: Option<i32>,
        provider_id: Option<ID>,
    ) -> Result<Ranking, Error> {
        let organization = self.0.organization_id();
        let provider = provider_of(organization, provider_id.as_ref())?;
        Ranking::read(context, organization, Ranked::EventTypes, provider, (from.0, to.0), first).await
    }

    /// The most frequent errors of failed webhooks received in a span of time: rejections by their code,
    /// others by their error; 10, or up to 100.
    async fn top_errors(
        &self,
        context: &Context<'_>,
        from: Time,
        to: Time,
        first: Option<i32>,
        provider_id: Option<ID>,
    ) -> Result<Ranking, Error> {
        let organization = self.0.organization_id();
        let provider = provider_of(organization, provider_id.as_ref())?;
        Ranking::read(context, organization, Ranked::Errors, provider, (from.0, to.0), first).await
    }

    /// The event types of the newest 10,000 webhooks, the most frequent first; at most 200.
    async fn event_types(&self, context: &Context<'_>) -> Result<Vec<String>, Error> {
        let organization = self.0.organization_id();
        let mut tenant = searching(context, organization).await?;
        summaries::recent_event_types(&mut *tenant, organization).await.map_err(unread)
    }

    /// The users of the organization, newest first. For admins.
    async fn users(
        &self,
        context: &Context<'_>,
        search: Option<String>,
        first: Option<i32>,
        after: Option<String>,
    ) -> Result<Connection<Cursor, User>, Error> {
        let organization = self.0.organization_id();
        Viewer::of(context)?.must_manage(organization)?;
        let filter = UserFilter { search, is_active: None };
        user::list(context, Some(organization), filter, Order::default(), Window::forward(first, after)).await
    }

    /// The audit trail, newest first. For admins.
    async fn audit_log(
        &self,
        context: &Context<'_>,
        filter: Option<AuditFilter>,
        first: Option<i32>,
        after: Option<String>,
    ) -> Result<Connection<Cursor, AuditEntry>, Error> {
        let organization = self.0.organization_id();
        Viewer::of(context)?.must_manage(organization)?;
        audit::list(context, Some(organization), filter, Window::forward(first, after)).await
    }

    /// The log itself, oldest first: all events of this organization, or of one aggregate, recorded within a
    /// span of time. For admins.
    async fn events(
        &self,
        context: &Context<'_>,
        after: Option<LogPosition>,
        aggregate_id: Option<Uuid>,
        from: Option<Time>,
        to: Option<Time>,
        first: Option<i32>,
    ) -> Result<Connection<Cursor, RecordedEvent>, Error> {
        let organization = self.0.organization_id();
        Viewer::of(context)?.must_manage(organization)?;
        let page = Window::forward(first, None).request(|_| Ok(()))?;
        if after.is_some_and(|after| after.partition != organization.partition().number()) {
            return Err(Code::BadUserInput.error("This position isn't from this log."));
        }
        let after = after.map(|after| after.position);
        let span = LogSpan { after, aggregate_id, from: from.map(|from| from.0), to: to.map(|to| to.0) };
        let rows = Page::from_overfull(events(context, organization, span, page.limit + 1).await?, &page);
        let mut connection = Connection::new(after.is_some(), rows.has_more);
        for row in rows.rows {
            let event = RecordedEvent::try_from(row)?;
            connection.edges.push(Edge::new(Cursor(event.place().to_string()), event));
        }
        Ok(connection)
    }

    /// Proves that nothing in this organization's log was altered, removed or reordered. For admins.
    async fn ledger(&self, context: &Context<'_>) -> Result<Ledger, Error> {
        ledger::of(context, self.0.organization_id())
    }

    /// Its settings, users and providers at a time, according to its events up to then. For admins.
    async fn as_of(&self, context: &Context<'_>, time: Time) -> Result<OrganizationState, Error> {
        history::as_of(context, self.0.organization_id(), time.0).await
    }

    /// The plan, and its usage. For admins.
    async fn usage(&self, context: &Context<'_>) -> Result<Usage, Error> {
        Viewer::of(context)?.must_manage(self.0.organization_id())?;
        let mut tenant = tenant(context, self.0.organization_id()).await?;
        usage::of(&mut tenant, &self.0, Utc::now()).await
    }
}

/// The plan of a row.
pub(crate) fn plan(organization: &organizations::Organization) -> Result<Plan, Error> {
    let plan = organization::Plan::ALL.into_iter().find(|plan| plan.as_str() == organization.plan);
    plan.map(Plan::from).ok_or_else(|| internal("organizations.plan holds no plan"))
}

fn keyset(list: List, organization: OrganizationId, cursor: &str) -> Result<(DateTime<Utc>, i64), Error> {
    decode_cursor::<8>(list, organization, cursor).map(|(time, position)| (time, i64::from_be_bytes(position)))
}

async fn webhooks(
    context: &Context<'_>,
    organization: OrganizationId,
    filter: webhook_logs::WebhookFilter,
    window: Window,
) -> Result<Webhooks, Error> {
    let page = window.request(|cursor| keyset(List::Webhooks, organization, cursor))?;
    let mut tenant = match filter.text {
        None => tenant(context, organization).await?,
        Some(_) => searching(context, organization).await?,
    };
    let found = match filter.text.as_deref() {
        None => {
            let page = webhook_logs::list(&mut *tenant, organization, &filter, page).await.map_err(unread)?;
            Found { page, searched_to: None }
        }
        Some(text) => search::webhooks(&mut tenant, organization, &filter, text, page).await.map_err(unread)?,
    };
    // Many rows share few providers, so these are looked up once.
    let looks = context.look_ahead();
    let wants_providers = looks.field("nodes").field("provider").exists()
        || looks.field("edges").field("node").field("provider").exists();
    let providers: HashMap<Uuid, _> = if wants_providers && !found.page.rows.is_empty() {
        let ids: BTreeSet<_> = found.page.rows.iter().map(|row| ProviderId::new(row.provider_id)).collect();
        let ids: Vec<_> = ids.into_iter().collect();
        let rows = webhook_providers::find_many(&mut *tenant, organization, &ids).await.map_err(unread)?;
        rows.into_iter().map(|row| (row.id, Arc::new(row))).collect()
    } else {
        HashMap::new()
    };
    let node = |row: webhook_logs::WebhookLog| {
        let provider = providers.get(&row.provider_id).cloned();
        Webhook(row, provider)
    };
    let cursor = |(at, position): webhook_logs::WebhookKey| {
        encode_cursor(List::Webhooks, organization, at, &position.to_be_bytes())
    };
    let searched = Searched { searched_to: found.searched_to.map(cursor) };
    Ok(connection(found.page, &page, |row| cursor((row.received_at, row.position)), node, searched))
}

/// Webhooks, and how far a text search looked.
type Webhooks = Connection<Cursor, Webhook, Searched>;

/// How far a search looked.
#[derive(SimpleObject)]
pub struct Searched {
    /// Set if a text search did not look at everything and the page is not full: continue with this as
    /// `after` (going backward, as `before`).
    searched_to: Option<String>,
}

/// Events of an organization. Their times never decrease, so a webhook received before shows where to start.
async fn events(
    context: &Context<'_>,
    organization: OrganizationId,
    mut span: LogSpan,
    limit: i64,
) -> Result<Vec<hookledger_aggregates::RecordedEvent>, Error> {
    let mut tenant = tenant(context, organization).await?;
    if let (Some(from), None) = (span.from, span.aggregate_id) {
        let before = webhook_logs::position_before(&mut *tenant, organization, from).await.map_err(unread)?;
        span.after = span.after.max(before);
    }
    events_of(&mut *tenant, organization, &span, limit).await.map_err(unread)
}
