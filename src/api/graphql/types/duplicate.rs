//! Duplicates with a body of their own.

use std::sync::Arc;

use async_graphql::{Context, Error, Object};
use chrono::{DateTime, Utc};
use hookledger_aggregates::webhook::MAX_DUPLICATE_BODIES;
use hookledger_aggregates::{DuplicateBodiesId, OrganizationId, WebhookId};
use hookledger_projections::webhook_logs;

use super::removal::BodyRemoval;
use super::webhook::Webhook;
use super::webhook::request::{Header, as_base64, as_text};
use crate::api::graphql::context::tenant;
use crate::api::graphql::errors::{internal, unread};
use crate::api::graphql::guards::allowance::Allowance;
use crate::api::graphql::rows::{BodyOf, load};
use crate::log::{self, streams_of};
use crate::receive;

/// Cost of one webhook's bodies, in look-backs.
const LOOK_BACKS: i64 = 5;

/// The bodies of a webhook's duplicates that differ from its own and from each other.
pub(crate) async fn duplicate_bodies(
    context: &Context<'_>,
    organization: OrganizationId,
    webhook: WebhookId,
) -> Result<Vec<receive::DuplicateBody>, Error> {
    let most = i64::try_from(MAX_DUPLICATE_BODIES).map_err(internal)?;
    let stream = [DuplicateBodiesId::of(webhook).uuid()];
    let mut tenant = tenant(context, organization).await?;
    let events = streams_of(&mut *tenant, organization, "webhook", &stream, most, most).await.map_err(unread)?;
    Ok(events.into_iter().filter_map(receive::duplicate_body).collect())
}

/// A duplicate with a different body.
pub struct DuplicateBody {
    organization: OrganizationId,
    original: WebhookId,
    kept: receive::DuplicateBody,
}

impl DuplicateBody {
    pub(crate) async fn all_of(
        context: &Context<'_>,
        organization: OrganizationId,
        original: WebhookId,
    ) -> Result<Vec<Self>, Error> {
        // Includes the queries about each body.
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
    /// As received, except `authorization` and `cookie`.
    async fn headers(&self, context: &Context<'_>) -> Result<Vec<Header>, Error> {
        Header::all_of(context, self.organization, self.kept.received.position).await
    }
    /// The body as text, if it is UTF-8 and still stored.
    async fn raw_body(&self, context: &Context<'_>) -> Option<Result<String, Error>> {
        self.body(context).await.and_then(|body| as_text(context, body)).transpose()
    }
    /// The body in base64, while it is stored.
    async fn raw_body_base64(&self, context: &Context<'_>) -> Option<Result<String, Error>> {
        self.body(context).await.and_then(|body| as_base64(context, body)).transpose()
    }
    /// Why body and headers are no longer stored; null while they are.
    async fn body_removal(&self, context: &Context<'_>) -> Option<Result<BodyRemoval, Error>> {
        let removal = async {
            let owner = WebhookId::new(DuplicateBodiesId::of(self.original).uuid());
            let mut tenant = tenant(context, self.organization).await?;
            log::removal_of(&mut *tenant, self.organization, owner, self.kept.received).await.map_err(internal)
        };
        removal.await.map(|removal| removal.map(BodyRemoval::from)).transpose()
    }
    /// The webhook that was created from it, if a person had it delivered.
    async fn delivered_as(&self, context: &Context<'_>) -> Option<Result<Webhook, Error>> {
        let found = async {
            let id = WebhookId::of_duplicate(self.original, &self.kept.receipt.body_sha256);
            let mut tenant = tenant(context, self.organization).await?;
            webhook_logs::find(&mut *tenant, self.organization, id).await.map_err(internal)
        };
        found.await.map(|row| row.map(Webhook::of)).transpose()
    }
}
