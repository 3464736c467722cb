//! What people ask to be done again: retries of one webhook or of many.

use async_graphql::{Context, Error, ID, InputObject, Object, SimpleObject};
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::webhook::{Webhook as Aggregate, WebhookCommand, WebhookError, WebhookEvent};
use hookledger_aggregates::{Event, Label, OrganizationId, WebhookId};
use hookledger_projections::webhook_logs;

use super::context::{App, Viewer, tenant};
use super::errors::{Code, command, internal, not_found};
use super::ids::NodeId;
use super::mutations::organization_id;
use super::query::existing_organization;
use super::webhook::{Webhook, WebhookFilter};
use crate::log::{self, AppendError, NewEvent, Sequence, Unit, with_bodies};

const WEBHOOK_MODELS: &[&str] = &["webhook_logs", "audit_logs"];
/// Webhooks that are retried by one mutation at most.
const MAX_TOGETHER: i64 = 10_000;
/// Webhooks whose streams are read at once.
const PORTION: usize = 500;
/// Characters of a reason.
const MAX_REASON: usize = 500;

#[derive(InputObject)]
struct RetryWebhookInput {
    webhook_id: ID,
    /// Why; it stands in the log.
    reason: Option<String>,
}

#[derive(SimpleObject)]
struct RetryWebhookPayload {
    webhook: Webhook,
}

#[derive(InputObject)]
struct RetryWebhooksInput {
    organization_id: ID,
    /// Of those that match, failed webhooks are retried.
    filter: Option<WebhookFilter>,
    /// What `retryableCount` said for this filter. If it is another number by now, nothing happens.
    expected_count: i32,
    /// Why; it stands in the log.
    reason: Option<String>,
}

#[derive(SimpleObject)]
struct RetryWebhooksPayload {
    /// Webhooks that are pending again.
    retried_count: i32,
    /// Those that somebody else retried a moment before.
    skipped_count: i32,
}

#[derive(Default)]
pub struct RetryMutation;

#[Object]
impl RetryMutation {
    /// Makes a failed webhook pending again, for one attempt.
    async fn retry_webhook(
        &self,
        context: &Context<'_>,
        input: RetryWebhookInput,
    ) -> Result<RetryWebhookPayload, Error> {
        let (app, viewer) = (App::of(context)?, Viewer::of(context)?);
        let Some(NodeId::Webhook(organization, id)) = NodeId::decode(&input.webhook_id) else {
            return Err(not_found());
        };
        if !viewer.sees(organization) {
            return Err(not_found());
        }
        webhook(context, organization, id).await?;
        if with_bodies(&mut *tenant(context, organization).await?, organization, &[id])
            .await
            .map_err(internal)?
            .is_empty()
        {
            return Err(
                Code::Conflict.error("the body of this webhook is not kept any more: it cannot be delivered again")
            );
        }
        let request = WebhookCommand::RequestRetry { reason: checked_reason(input.reason)? };
        let place = app.commands.execute::<Aggregate>(organization, id.uuid(), request, &viewer.metadata()).await;
        let place = place.map_err(|error| {
            command(error, |refused| match refused {
                WebhookError::NotReceived => Code::NotFound,
                WebhookError::AlreadyReceived
                | WebhookError::NotDue { .. }
                | WebhookError::NotRunning(_)
                | WebhookError::NotUnverified
                | WebhookError::NotFailed(_) => Code::Conflict,
            })
        })?;
        app.models_caught_up(WEBHOOK_MODELS, place).await?;
        Ok(RetryWebhookPayload { webhook: webhook(context, organization, id).await? })
    }

    /// Makes every failed webhook that matches pending again, for one attempt each; at most 10,000.
    async fn retry_webhooks(
        &self,
        context: &Context<'_>,
        input: RetryWebhooksInput,
    ) -> Result<RetryWebhooksPayload, Error> {
        let (app, viewer) = (App::of(context)?, Viewer::of(context)?);
        let organization = organization_id(&input.organization_id)?;
        existing_organization(context, organization).await?;
        let reason = checked_reason(input.reason)?;
        let filter = input.filter.unwrap_or_default().checked(organization)?;
        let ids = retryable(context, organization, &filter).await?;
        if ids.len() > usize::try_from(MAX_TOGETHER).unwrap_or(usize::MAX) {
            return Err(Code::BadUserInput
                .error(format!("more than {MAX_TOGETHER} webhooks match: narrow the filter, by time for example")));
        }
        if usize::try_from(input.expected_count).is_ok_and(|expected| expected != ids.len()) || input.expected_count < 0
        {
            return Err(Code::Conflict.error(format!(
                "{} webhooks match, not {}: nothing was retried; look again and confirm that number",
                ids.len(),
                input.expected_count
            )));
        }
        let (mut retried, mut skipped, mut last) = (0, 0, None);
        for portion in ids.chunks(PORTION) {
            let request = WebhookCommand::RequestRetry { reason: reason.clone() };
            let units = retry_units(context, organization, portion, &request).await?;
            skipped += portion.len() - units.len();
            let verdicts = app.log.append_all(units).await.map_err(unavailable)?;
            for verdict in verdicts {
                match verdict {
                    Ok(appended) => {
                        retried += 1;
                        last = Some(appended.last);
                    }
                    Err(AppendError::Conflict) => skipped += 1,
                    Err(error) => return Err(unavailable(error)),
                }
            }
        }
        app.models_caught_up(WEBHOOK_MODELS, last).await?;
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        tracing::info!(user.id = %viewer.user.id, webhooks.retried = retried, "webhooks were retried by a person");
        Ok(RetryWebhooksPayload { retried_count: count(retried), skipped_count: count(skipped) })
    }
}

/// Failed webhooks that match and can be delivered again, the oldest first; 10,001 at most.
pub(super) async fn retryable(
    context: &Context<'_>,
    organization: OrganizationId,
    filter: &webhook_logs::WebhookFilter,
) -> Result<Vec<WebhookId>, Error> {
    let mut tenant = tenant(context, organization).await?;
    let found =
        webhook_logs::retryable(&mut *tenant, organization, filter, MAX_TOGETHER + 1).await.map_err(internal)?;
    if i64::try_from(found.len()).is_ok_and(|count| count > MAX_TOGETHER) {
        return Ok(found);
    }
    with_bodies(&mut *tenant, organization, &found).await.map_err(internal)
}

pub(super) async fn webhook(
    context: &Context<'_>,
    organization: OrganizationId,
    id: WebhookId,
) -> Result<Webhook, Error> {
    let mut tenant = tenant(context, organization).await?;
    let row = webhook_logs::find(&mut *tenant, organization, id).await.map_err(internal)?;
    row.map(Webhook::of).ok_or_else(not_found)
}

pub(super) fn checked_reason(reason: Option<String>) -> Result<Option<Label>, Error> {
    match reason {
        Some(reason) if reason.chars().count() > MAX_REASON => {
            Err(Code::BadUserInput.error(format!("a reason has at most {MAX_REASON} characters")))
        }
        Some(reason) if reason.trim().is_empty() => Ok(None),
        Some(reason) => Ok(Some(Label::cut(&reason, MAX_REASON))),
        None => Ok(None),
    }
}

/// What a request for a retry appends to each of these webhooks; those that are not failed any more
/// are left out.
async fn retry_units(
    context: &Context<'_>,
    organization: OrganizationId,
    webhooks: &[WebhookId],
    request: &WebhookCommand,
) -> Result<Vec<Unit>, Error> {
    let metadata = Viewer::of(context)?.metadata();
    let most = i64::try_from(webhooks.len()).unwrap_or(i64::MAX).saturating_mul(EVENTS_EACH);
    let mut tenant = tenant(context, organization).await?;
    let events =
        log::streams_of(&mut *tenant, organization, WebhookEvent::AGGREGATE, webhooks, EVENTS_EACH, most).await;
    drop(tenant);
    let mut units = Vec::with_capacity(webhooks.len());
    for stream in events.map_err(internal)?.chunk_by(|a, b| a.aggregate_id == b.aggregate_id) {
        let (mut state, mut sequence) = (Aggregate::default(), 0);
        for recorded in stream {
            if let Event::Webhook(event) = &recorded.event {
                state.evolve(event);
                sequence = recorded.sequence;
            }
        }
        let Ok(decided) = state.decide(request.clone()) else { continue };
        let new = |(at, event): (i64, &WebhookEvent)| {
            NewEvent::of(organization, stream[0].aggregate_id, Sequence::At(at), event, &metadata)
        };
        let events: Result<Vec<NewEvent>, _> = (sequence + 1..).zip(&decided).map(new).collect();
        units.push(Unit::new(events.map_err(internal)?));
    }
    Ok(units)
}

/// Events of one stream that are read; one that is longer is in conflict, and skipped.
const EVENTS_EACH: i64 = 200;

fn unavailable(error: AppendError) -> Error {
    tracing::warn!(%error, "retries could not be appended");
    Code::Unavailable.error("the log takes no more for now; some may be retried already: look again")
}
