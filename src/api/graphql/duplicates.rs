//! Duplicates with a body of their own: shown, and delivered where a person asks for it.

use std::sync::Arc;

use async_graphql::{Context, Error, ID, InputObject, Object, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::webhook::MAX_DUPLICATE_BODIES;
use hookledger_aggregates::{DuplicateBodiesId, OrganizationId, WebhookId};
use hookledger_projections::webhook_logs;

use super::allowance::Allowance;
use super::context::{App, Changed, Viewer, tenant};
use super::errors::{Code, internal, unread};
use super::retention::BodyRemoval;
use super::retries::{checked_reason, visible_webhook, webhook};
use super::rows::{BodyOf, load};
use super::webhook::{Header, Webhook, as_base64, as_text};
use crate::log::{self, streams_of};
use crate::receive::{self, RedeliverError, RedeliverRequest};

/// As many look-backs are one webhook's bodies worth.
const LOOK_BACKS: i64 = 5;

/// The bodies of a webhook's duplicates that differ from its own and from each other.
pub(super) async fn duplicate_bodies(
    context: &Context<'_>,
    organization: OrganizationId,
    webhook: WebhookId,
) -> Result<Vec<receive::DuplicateBody>, Error> {
    let most = i64::try_from(MAX_DUPLICATE_BODIES).map_err(internal)?;
    let stream = [WebhookId::new(DuplicateBodiesId::of(webhook).uuid())];
    let mut tenant = tenant(context, organization).await?;
    let events = streams_of(&mut *tenant, organization, "webhook", &stream, most, most).await.map_err(unread)?;
    Ok(events.into_iter().filter_map(receive::duplicate_body).collect())
}

/// A further delivery of the same event whose body differs.
pub struct DuplicateBody {
    organization: OrganizationId,
    original: WebhookId,
    kept: receive::DuplicateBody,
}

impl DuplicateBody {
    pub(super) async fn all_of(
        context: &Context<'_>,
        organization: OrganizationId,
        original: WebhookId,
    ) -> Result<Vec<Self>, Error> {
        // With what is asked of each body.
        Allowance::of(context)?.look_backs(LOOK_BACKS)?;
        let all = duplicate_bodies(context, organization, original).await?;
        Ok(all.into_iter().map(|kept| Self { organization, original, kept }).collect())
    }

    async fn body(&self, context: &Context<'_>) -> Result<Option<Arc<Vec<u8>>>, Error> {
        let size = i64::try_from(self.kept.receipt.body_size).unwrap_or(i64::MAX);
        Allowance::of(context)?.body(size, 1)?;
        load(context, BodyOf(self.organization, self.kept.received.position)).await
    }
}

#[Object(serial)]
impl DuplicateBody {
    async fn received_at(&self) -> DateTime<Utc> {
        self.kept.received_at
    }
    /// SHA-256 of the body, in hex.
    async fn body_sha256(&self) -> &str {
        &self.kept.receipt.body_sha256
    }
    /// Bytes.
    async fn body_size(&self) -> i64 {
        i64::try_from(self.kept.receipt.body_size).unwrap_or(i64::MAX)
    }
    async fn content_type(&self) -> Option<&str> {
        self.kept.receipt.content_type.as_ref().map(hookledger_aggregates::Label::as_str)
    }
    /// As received, but for `authorization` and `cookie`.
    async fn headers(&self, context: &Context<'_>) -> Result<Vec<Header>, Error> {
        Header::all_of(context, self.organization, self.kept.received.position).await
    }
    /// The body as text, where it is UTF-8 and is still kept.
    async fn raw_body(&self, context: &Context<'_>) -> Option<Result<String, Error>> {
        self.body(context).await.and_then(|body| as_text(context, body)).transpose()
    }
    /// The bytes of the body, in base64, while they are kept.
    async fn raw_body_base64(&self, context: &Context<'_>) -> Option<Result<String, Error>> {
        self.body(context).await.and_then(|body| as_base64(context, body)).transpose()
    }
    /// Why body and headers are not kept any more; null while they are.
    async fn body_removal(&self, context: &Context<'_>) -> Option<Result<BodyRemoval, Error>> {
        let removal = async {
            let owner = WebhookId::new(DuplicateBodiesId::of(self.original).uuid());
            let mut tenant = tenant(context, self.organization).await?;
            log::removal_of(&mut *tenant, self.organization, owner, self.kept.received).await.map_err(internal)
        };
        removal.await.map(|removal| removal.map(BodyRemoval::from)).transpose()
    }
    /// The webhook of its own that it became, where somebody had it delivered.
    async fn delivered_as(&self, context: &Context<'_>) -> Option<Result<Webhook, Error>> {
        let found = async {
            let id = WebhookId::of_duplicate(self.original, &self.kept.receipt.body_sha256);
            let mut tenant = tenant(context, self.organization).await?;
            webhook_logs::find(&mut *tenant, self.organization, id).await.map_err(internal)
        };
        found.await.map(|row| row.map(Webhook::of)).transpose()
    }
}

#[derive(InputObject)]
struct DeliverDuplicateInput {
    webhook_id: ID,
    /// Which of `duplicateBodies`.
    body_sha256: String,
    /// Why; it stands in the log.
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
    /// Makes a webhook of its own of a duplicate's body that differs, once; it is processed like any, and
    /// counts like any.
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
