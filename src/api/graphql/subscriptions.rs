//! Subscriptions to changes. A transport gives each subscription a viewer, whose permissions it checks for as
//! long as the subscription runs.

use std::sync::Arc;

use async_graphql::{Context, Enum, Error, ID, SimpleObject, Subscription as GraphqlSubscription};
use futures::StreamExt as _;
use futures::stream::{BoxStream, Stream, unfold};
use hookledger_aggregates::OrganizationId;
use hookledger_projections::webhook_logs::WebhookFilter as Filter;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::context::App;
use super::errors::{Code, not_found};
use super::guards::allowance::Allowance;
use super::guards::named::existing_organization;
use super::guards::rights::Viewer;
use super::types::analytics::AnalyticsBucket;
use super::types::ids::NodeId;
use super::types::webhook::Webhook;
use super::types::webhook::filter::WebhookFilter;
use crate::reads::changes::Change;

/// The kind of a webhook's change.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub enum WebhookChangeKind {
    Created,
    Updated,
    /// More changes than are sent individually: read the list again.
    Missed,
}

/// A webhook that is new or has changed.
#[derive(SimpleObject)]
pub struct WebhookChange {
    kind: WebhookChangeKind,
    /// Its current state; null if changes were missed.
    webhook: Option<Webhook>,
}

/// The latest minutes of the analytics.
#[derive(SimpleObject)]
pub struct AnalyticsTick {
    /// The previous minute, and the current one so far.
    buckets: Vec<AnalyticsBucket>,
}

pub struct Subscription;

#[GraphqlSubscription]
impl Subscription {
    /// New and changed webhooks of an organization that match the filter now. A text filter is refused.
    async fn webhook_changed(
        &self,
        context: &Context<'_>,
        organization_id: ID,
        filter: Option<WebhookFilter>,
    ) -> Result<BoxStream<'static, WebhookChange>, Error> {
        let organization = visible_organization(context, &organization_id).await?;
        let filter: Filter = filter.unwrap_or_default().checked(organization)?;
        if filter.text.is_some() {
            return Err(Code::BadUserInput.error("Changes can't be filtered by text."));
        }
        let receiver = App::of(context)?.changes.watch(organization);
        Ok(changes(receiver, filter, Arc::clone(Allowance::of(context)?)).boxed())
    }

    /// The analytics of the latest minutes, at most once per second and only when they change: of an
    /// organization, or of all together for super admins if none is given.
    async fn analytics_tick(
        &self,
        context: &Context<'_>,
        organization_id: Option<ID>,
    ) -> Result<BoxStream<'static, AnalyticsTick>, Error> {
        let whose = match organization_id {
            None => Viewer::of(context)?.must_be_super_admin().map(|()| None)?,
            Some(id) => Some(visible_organization(context, &id).await?),
        };
        let receiver = App::of(context)?.ticks.watch(whose);
        let ticks = unfold((receiver, true), |(mut receiver, first)| async move {
            let has_one = first && !receiver.borrow_and_update().is_empty();
            if !has_one {
                receiver.changed().await.ok()?;
            }
            let buckets = receiver.borrow_and_update().iter().map(AnalyticsBucket::from).collect();
            Some((AnalyticsTick { buckets }, (receiver, false)))
        });
        Ok(ticks.boxed())
    }
}

async fn visible_organization(context: &Context<'_>, id: &ID) -> Result<OrganizationId, Error> {
    match NodeId::decode(id) {
        Some(NodeId::Organization(id)) => existing_organization(context, id).await.map(|_| id),
        _ => Err(not_found()),
    }
}

/// Matching changes as they arrive. Each change is a separate answer.
fn changes(
    receiver: Receiver<Change>,
    filter: Filter,
    allowance: Arc<Allowance>,
) -> impl Stream<Item = WebhookChange> + Send {
    unfold((receiver, filter, allowance), |(mut receiver, filter, allowance)| async move {
        let change = loop {
            match receiver.recv().await {
                Ok(Change::Row { row, .. }) if !filter.matches(&row) => {}
                Ok(Change::Row { row, created }) => {
                    let kind = if created { WebhookChangeKind::Created } else { WebhookChangeKind::Updated };
                    break WebhookChange { kind, webhook: Some(Webhook::of((*row).clone())) };
                }
                Ok(Change::Missed) | Err(RecvError::Lagged(_)) => {
                    break WebhookChange { kind: WebhookChangeKind::Missed, webhook: None };
                }
                Err(RecvError::Closed) => return None,
            }
        };
        allowance.begin();
        Some((change, (receiver, filter, allowance)))
    })
}
