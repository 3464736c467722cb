//! Delivering the body of a duplicate.

use async_graphql::{Context, Error, ID, InputObject, Object, SimpleObject};

use super::checked_reason;
use crate::api::graphql::context::{App, Changed};
use crate::api::graphql::errors::{Code, internal};
use crate::api::graphql::guards::named::{visible_webhook, webhook};
use crate::api::graphql::guards::rights::Viewer;
use crate::api::graphql::types::webhook::Webhook;
use crate::receive::{RedeliverError, RedeliverRequest};

#[derive(InputObject)]
struct DeliverDuplicateInput {
    webhook_id: ID,
    /// One of `duplicateBodies`.
    body_sha256: String,
    /// The reason, recorded in the log.
    reason: Option<String>,
}

#[derive(SimpleObject)]
struct DeliverDuplicatePayload {
    /// The new webhook.
    webhook: Webhook,
}

#[derive(Default)]
pub struct DuplicateMutation;

#[Object]
impl DuplicateMutation {
    /// Delivers a duplicate's different body as a separate webhook, once. It is processed and counted like
    /// any other.
    async fn deliver_duplicate(
        &self,
        context: &Context<'_>,
        input: DeliverDuplicateInput,
    ) -> Result<DeliverDuplicatePayload, Error> {
        let (app, viewer) = (App::of(context)?, Viewer::of(context)?);
        let (organization, original) = visible_webhook(context, &input.webhook_id).await?;
        let (by, reason) = (viewer.metadata(), checked_reason(input.reason)?);
        let request =
            RedeliverRequest { organization, webhook: original, body_sha256: &input.body_sha256, reason, by: &by };
        let (id, place) = app.receiver.redeliver(request).await.map_err(refused)?;
        app.caught_up(Changed::Webhook, Some(place)).await?;
        tracing::info!(user.id = %viewer.user.id, webhook.id = %id, "a person had a duplicate delivered");
        Ok(DeliverDuplicatePayload { webhook: webhook(context, organization, id).await? })
    }
}

fn refused(error: RedeliverError) -> Error {
    let code = match &error {
        RedeliverError::NotFound => Code::BadUserInput,
        RedeliverError::Gone
        | RedeliverError::Delivered(_)
        | RedeliverError::NotConnected
        | RedeliverError::LimitReached => Code::Conflict,
        RedeliverError::Append(_) => {
            tracing::warn!(%error, "a duplicate could not be made a webhook");
            return Code::Unavailable.error("The server is busy. Check whether it was delivered before you try again.");
        }
        RedeliverError::Read(_) | RedeliverError::Json(_) | RedeliverError::Decide(_) => return internal(error),
    };
    code.error(error.to_string())
}
