//! Erasing on request: bodies of webhooks, and users.

use async_graphql::{Context, Error, ID, InputObject, Object, SimpleObject};
use hookledger_aggregates::retention::{Retention, RetentionCommand, RetentionError};
use hookledger_aggregates::user::UserCommand;
use hookledger_aggregates::{DuplicateBodiesId, Label, OrganizationId, WebhookId};

use super::checked_reason;
use super::people::change_user;
use crate::api::graphql::context::{App, Changed, tenant};
use crate::api::graphql::errors::{Code, command, internal, not_found};
use crate::api::graphql::guards::named::webhook;
use crate::api::graphql::guards::rights::Viewer;
use crate::api::graphql::types::duplicate::duplicate_bodies;
use crate::api::graphql::types::ids::NodeId;
use crate::api::graphql::types::user::User;
use crate::api::graphql::types::webhook::Webhook;
use crate::identity::REMAINS;
use crate::log::{self, end_of_stream, removal_of};

/// The data that remains of an erased request, as shown to people.
const REMAINS_OF_BODY: &[&str] = &[
    "its SHA-256 and size, and the SHA-256 of its headers",
    "the provider's event ID, the event and content types, the signature, and the sender's address",
    "its attempts: time, status or error, duration, and the SHA-256 of the response",
    "who erased it, when, and the reason given",
    "copies outside Hookledger: at destinations, and in earlier exports and backups",
];

#[derive(InputObject)]
struct EraseWebhookBodyInput {
    webhook_id: ID,
    /// The reason, recorded in the log.
    reason: Option<String>,
}

#[derive(SimpleObject)]
struct EraseWebhookBodyPayload {
    webhook: Webhook,
    /// The data that remains of it, as shown to people.
    remains: Vec<String>,
}

#[derive(InputObject)]
struct EraseUserInput {
    id: ID,
}

#[derive(SimpleObject)]
struct EraseUserPayload {
    user: User,
    /// The data that remains of them, as shown to people.
    remains: Vec<String>,
}

#[derive(Default)]
pub struct ErasureMutation;

#[Object]
impl ErasureMutation {
    /// For admins of the organization. Erases a webhook's body, headers, its destinations' responses, and the
    /// bodies of its duplicates; it cannot be delivered again. Its events stay, and the ledger's proofs hold.
    async fn erase_webhook_body(
        &self,
        context: &Context<'_>,
        input: EraseWebhookBodyInput,
    ) -> Result<EraseWebhookBodyPayload, Error> {
        let (organization, id) = managed_webhook(context, &input.webhook_id)?;
        let position = webhook(context, organization, id).await?.0.position;
        must_be_kept(context, organization, id, position).await?;
        let place = erase(context, organization, id, position, checked_reason(input.reason)?).await?;
        App::of(context)?.caught_up(Changed::Retention, place).await?;
        let user = Viewer::of(context)?.user.id;
        tracing::info!(user.id = %user, webhook.id = %id, "a person had a body erased");
        let webhook = webhook(context, organization, id).await?;
        Ok(EraseWebhookBodyPayload { webhook, remains: words(REMAINS_OF_BODY) })
    }

    /// For admins of the organization. Permanently erases the address and the sessions of a deactivated user;
    /// the address can be invited again.
    async fn erase_user(&self, context: &Context<'_>, input: EraseUserInput) -> Result<EraseUserPayload, Error> {
        let user = change_user(context, &input.id, UserCommand::Erase).await?;
        Ok(EraseUserPayload { user, remains: words(REMAINS) })
    }
}

fn managed_webhook(context: &Context<'_>, id: &ID) -> Result<(OrganizationId, WebhookId), Error> {
    let Some(NodeId::Webhook(organization, id)) = NodeId::decode(id) else { return Err(not_found()) };
    Viewer::of(context)?.must_manage(organization).map(|()| (organization, id))
}

/// A request that was removed because of its age cannot be erased as well.
async fn must_be_kept(
    context: &Context<'_>,
    organization: OrganizationId,
    id: WebhookId,
    position: i64,
) -> Result<(), Error> {
    let received = log::LogPosition { partition: organization.partition(), position };
    let removal = removal_of(&mut *tenant(context, organization).await?, organization, id, received).await;
    if removal.map_err(internal)?.is_some_and(|removal| !removal.erased) {
        return Err(Code::Conflict.error("This body already expired and was removed. There is nothing to erase."));
    }
    Ok(())
}

/// Erases a webhook's body and those of its duplicates; returns the log position of the erasure, including
/// one that somebody else requested a moment before.
async fn erase(
    context: &Context<'_>,
    organization: OrganizationId,
    id: WebhookId,
    position: i64,
    reason: Option<Label>,
) -> Result<Option<log::LogPosition>, Error> {
    let own = RetentionCommand::EraseBodies { positions: vec![position], reason: reason.clone() };
    let place = run(context, organization, id, own).await?;
    let bodies = duplicate_bodies(context, organization, id).await?;
    let positions: Vec<i64> = bodies.iter().map(|body| body.received.position).collect();
    let owner = WebhookId::new(DuplicateBodiesId::of(id).uuid());
    let of_duplicates = run(context, organization, owner, RetentionCommand::EraseBodies { positions, reason }).await?;
    // Later in the same partition.
    match of_duplicates.or(place) {
        Some(place) => Ok(Some(place)),
        None => end_of_stream(&mut *tenant(context, organization).await?, organization, "retention", id.uuid())
            .await
            .map_err(internal),
    }
}

/// Erases requests; `None` if they are erased already.
async fn run(
    context: &Context<'_>,
    organization: OrganizationId,
    owner: WebhookId,
    erase: RetentionCommand,
) -> Result<Option<log::LogPosition>, Error> {
    let metadata = Viewer::of(context)?.metadata();
    let place = App::of(context)?.commands.execute::<Retention>(organization, owner.uuid(), erase, &metadata).await;
    place.map_err(|error| {
        command(error, |refused| match refused {
            RetentionError::Removed(_) => Code::Conflict,
        })
    })
}

fn words(sentences: &[&str]) -> Vec<String> {
    sentences.iter().map(ToString::to_string).collect()
}
