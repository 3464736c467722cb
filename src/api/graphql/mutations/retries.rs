//! Retries of one webhook or of many, requested by people.

use async_graphql::{Context, Error, ID, InputObject, Object, SimpleObject};
use hookledger_aggregates::{OrganizationId, WebhookId};
use hookledger_projections::webhook_logs;

use super::checked_reason;
use crate::api::graphql::context::{App, Changed, page_reads, searching, tenant};
use crate::api::graphql::errors::{Code, internal};
use crate::api::graphql::guards::named::{existing_organization, organization_id, visible_webhook, webhook};
use crate::api::graphql::guards::rights::Viewer;
use crate::api::graphql::types::webhook::Webhook;
use crate::api::graphql::types::webhook::filter::WebhookFilter;
use crate::deliver::{Retried, Retries, RetryError};
use crate::log::with_bodies;

const BODY_GONE: &str = "This webhook's body is no longer kept, so it can't be retried.";
/// Maximum number of webhooks per mutation.
const MAX_TOGETHER: i64 = 10_000;

#[derive(InputObject)]
struct RetryWebhookInput {
    webhook_id: ID,
    /// The reason, recorded in the log.
    reason: Option<String>,
}

#[derive(SimpleObject)]
struct RetryWebhookPayload {
    webhook: Webhook,
}

#[derive(InputObject)]
struct RetryWebhooksInput {
    organization_id: ID,
    /// Failed webhooks that match it are retried.
    filter: Option<WebhookFilter>,
    /// The result of `retryableCount` for this filter. If the number has changed, nothing happens.
    expected_count: i32,
    /// The reason, recorded in the log.
    reason: Option<String>,
}

#[derive(SimpleObject)]
struct RetryWebhooksPayload {
    /// Webhooks that are pending again.
    retried_count: i32,
    /// Webhooks that somebody else retried a moment before.
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
        let (organization, id) = visible_webhook(context, &input.webhook_id).await?;
        let kept = with_bodies(&mut *tenant(context, organization).await?, organization, &[id]).await;
        if kept.map_err(internal)?.is_empty() {
            return Err(Code::Conflict.error(BODY_GONE));
        }
        let retried = retry(context, organization, &[id], input.reason).await?;
        if let Some(refused) = retried.refused.first() {
            return Err(Code::Conflict.error(refused.to_string()));
        }
        Ok(RetryWebhookPayload { webhook: webhook(context, organization, id).await? })
    }

    /// Makes every matching failed webhook pending again, for one attempt each; at most 10,000.
    async fn retry_webhooks(
        &self,
        context: &Context<'_>,
        input: RetryWebhooksInput,
    ) -> Result<RetryWebhooksPayload, Error> {
        let organization = organization_id(&input.organization_id)?;
        existing_organization(context, organization).await?;
        let filter = input.filter.unwrap_or_default().checked(organization)?;
        let ids = retryable(context, organization, &filter).await?;
        must_be_expected(ids.len(), input.expected_count)?;
        let retried = retry(context, organization, &ids, input.reason).await?;
        let user = Viewer::of(context)?.user.id;
        tracing::info!(user.id = %user, webhooks.retried = retried.count, "webhooks were retried by a person");
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        Ok(RetryWebhooksPayload { retried_count: count(retried.count), skipped_count: count(retried.refused.len()) })
    }
}

/// Retries only what the person was shown.
fn must_be_expected(found: usize, expected: i32) -> Result<(), Error> {
    if i64::try_from(found).is_ok_and(|found| found > MAX_TOGETHER) {
        let sentence = format!("More than {MAX_TOGETHER} webhooks match. Narrow the filter, for example by time.");
        return Err(Code::BadUserInput.error(sentence));
    }
    if usize::try_from(expected).is_ok_and(|expected| expected == found) {
        return Ok(());
    }
    let sentence =
        format!("{found} webhooks match now, not {expected}. Nothing was retried; check the number and confirm again.");
    Err(Code::Conflict.error(sentence))
}

/// Requests retries, and waits until the read models show them.
async fn retry(
    context: &Context<'_>,
    organization: OrganizationId,
    webhooks: &[WebhookId],
    reason: Option<String>,
) -> Result<Retried, Error> {
    let (app, by) = (App::of(context)?, Viewer::of(context)?.metadata());
    let tenants = page_reads(context)?;
    let webhooks_of = Retries { log: &app.log, tenants: &tenants, organization, by: &by };
    let retried = webhooks_of.request(webhooks, checked_reason(reason)?).await.map_err(unretried)?;
    app.caught_up(Changed::Retry, retried.last).await?;
    Ok(retried)
}

fn unretried(error: RetryError) -> Error {
    match error {
        RetryError::Busy(_) => Code::Unavailable.error(error.to_string()),
        RetryError::Append(error) => {
            tracing::warn!(%error, "retries could not be appended");
            Code::Unavailable
                .error("The server is busy. Some webhooks may already be retried; check before you try again.")
        }
        RetryError::Read(_) | RetryError::Projection(_) | RetryError::Tenant(_) | RetryError::Json(_) => {
            internal(error)
        }
    }
}

/// Matching failed webhooks that can be delivered again, the oldest first; at most 10,001.
pub(crate) async fn retryable(
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
