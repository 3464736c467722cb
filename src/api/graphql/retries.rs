//! What people ask to be done again: retries of one webhook or of many.

use std::collections::HashMap;

use async_graphql::{Context, Error, ID, InputObject, Object, SimpleObject};
use hookledger_aggregates::webhook::{Webhook as Aggregate, WebhookCommand, WebhookError, WebhookEvent};
use hookledger_aggregates::{Event, Label, OrganizationId, WebhookId};
use hookledger_projections::webhook_logs;

use super::context::{App, Viewer, searching, tenant};
use super::errors::{Code, internal, not_found};
use super::ids::NodeId;
use super::mutations::organization_id;
use super::query::existing_organization;
use super::webhook::{Webhook, WebhookFilter};
use crate::log::{self, AppendError, LogPosition, NewEvent, Sequence, Unit, with_bodies};

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
            return Err(Code::Conflict.error("This webhook's body is no longer kept, so it can't be retried."));
        }
        let request = WebhookCommand::RequestRetry { reason: checked_reason(input.reason)? };
        let mut asked = ask(context, organization, &[id], &request).await?;
        match asked.refused.pop() {
            None => {}
            Some(WebhookError::NotReceived) => return Err(not_found()),
            Some(refused) => return Err(Code::Conflict.error(refused.to_string())),
        }
        let place = asked.last;
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
                .error(format!("More than {MAX_TOGETHER} webhooks match. Narrow the filter, for example by time.")));
        }
        if usize::try_from(input.expected_count).is_ok_and(|expected| expected != ids.len()) || input.expected_count < 0
        {
            return Err(Code::Conflict.error(format!(
                "{} webhooks match now, not {}. Nothing was retried; check the number and confirm again.",
                ids.len(),
                input.expected_count
            )));
        }
        let request = WebhookCommand::RequestRetry { reason };
        let (mut retried, mut skipped, mut last) = (0, 0, None);
        for portion in ids.chunks(PORTION) {
            let asked = ask(context, organization, portion, &request).await?;
            retried += asked.retried;
            skipped += asked.refused.len();
            last = asked.last.or(last);
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
    let mut tenant = searching(context, organization).await?;
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
            Err(Code::BadUserInput.error(format!("A reason can have at most {MAX_REASON} characters.")))
        }
        Some(reason) if reason.trim().is_empty() => Ok(None),
        Some(reason) => Ok(Some(Label::cut(&reason, MAX_REASON))),
        None => Ok(None),
    }
}

/// What came of asking for retries.
#[derive(Default)]
struct Asked {
    retried: usize,
    /// Why the others were not: somebody else had asked, for example.
    refused: Vec<WebhookError>,
    /// The place of the last request.
    last: Option<LogPosition>,
}

/// Asks for a retry of each of these webhooks. Those whose streams others append to at the same time,
/// duplicates most likely, are asked again.
async fn ask(
    context: &Context<'_>,
    organization: OrganizationId,
    webhooks: &[WebhookId],
    request: &WebhookCommand,
) -> Result<Asked, Error> {
    let app = App::of(context)?;
    let (mut asked, mut left) = (Asked::default(), webhooks.to_vec());
    for _ in 0..TRIES {
        let mut units = Vec::with_capacity(left.len());
        let epoch = app.log.epoch();
        for decided in decide(context, organization, &left, request).await? {
            match decided {
                Ok((id, unit)) => units.push((id, unit.decided_in(epoch))),
                Err(refused) => asked.refused.push(refused),
            }
        }
        let (ids, units): (Vec<_>, Vec<_>) = units.into_iter().unzip();
        if units.is_empty() {
            return Ok(asked);
        }
        let verdicts = app.log.append_all(units).await.map_err(unavailable)?;
        left.clear();
        for (id, verdict) in ids.into_iter().zip(verdicts) {
            match verdict {
                Ok(appended) => {
                    asked.retried += 1;
                    asked.last = Some(appended.last);
                }
                Err(AppendError::Conflict) => left.push(id),
                Err(error) => return Err(unavailable(error)),
            }
        }
    }
    if left.is_empty() {
        return Ok(asked);
    }
    Err(Code::Unavailable.error(format!(
        "{} of the webhooks were not retried because they are being sent right now. Try again.",
        left.len()
    )))
}

/// What a request for a retry appends to each of these webhooks, or why it is refused.
async fn decide(
    context: &Context<'_>,
    organization: OrganizationId,
    webhooks: &[WebhookId],
    request: &WebhookCommand,
) -> Result<Vec<Result<(WebhookId, Unit), WebhookError>>, Error> {
    let metadata = Viewer::of(context)?.metadata();
    let mut tenant = tenant(context, organization).await?;
    let (mut states, mut left) = (HashMap::<WebhookId, (Aggregate, i64)>::new(), webhooks.to_vec());
    // One look, but for webhooks that were retried hundreds of times.
    let mut after = 0;
    while !left.is_empty() {
        let tails = log::tails_of(&mut *tenant, organization, &left, after).await.map_err(internal)?;
        left.clear();
        for tail in tails {
            let (state, sequence) = states.entry(tail.webhook).or_default();
            for recorded in tail.events.iter().filter(|recorded| recorded.sequence > *sequence) {
                if let Event::Webhook(event) = &recorded.event {
                    state.evolve(event);
                }
            }
            *sequence = tail.sequence.max(*sequence);
            if !tail.is_last {
                left.push(tail.webhook);
            }
        }
        after = left.iter().filter_map(|id| states.get(id)).map(|(_, sequence)| *sequence).min().unwrap_or_default();
    }
    drop(tenant);
    let mut decided = Vec::with_capacity(webhooks.len());
    for (id, (state, sequence)) in states {
        let events = match state.decide(request.clone()) {
            Ok(events) => events,
            Err(refused) => {
                decided.push(Err(refused));
                continue;
            }
        };
        let new = |(at, event): (i64, &WebhookEvent)| {
            NewEvent::of(organization, id.uuid(), Sequence::At(at), event, &metadata)
        };
        let events: Result<Vec<NewEvent>, _> = (sequence + 1..).zip(&events).map(new).collect();
        decided.push(Ok((id, Unit::new(events.map_err(internal)?))));
    }
    Ok(decided)
}

/// How often webhooks are asked again whose streams others append to at the same time.
const TRIES: usize = 10;

fn unavailable(error: AppendError) -> Error {
    tracing::warn!(%error, "retries could not be appended");
    Code::Unavailable.error("The server is busy. Some webhooks may already be retried; check before you try again.")
}
