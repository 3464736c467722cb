//! The object that an ID names, for who may see it.

use async_graphql::{Context, Error, ID};
use hookledger_aggregates::{OrganizationId, ProviderId, WebhookId};
use hookledger_projections::{organizations, webhook_logs, webhook_providers};

use super::rights::Viewer;
use crate::api::graphql::context::tenant;
use crate::api::graphql::errors::{internal, not_found};
use crate::api::graphql::types::ids::NodeId;
use crate::api::graphql::types::webhook::Webhook;

/// An organization that the viewer may know of.
pub(crate) async fn existing_organization(
    context: &Context<'_>,
    id: OrganizationId,
) -> Result<organizations::Organization, Error> {
    if !Viewer::of(context)?.sees(id) {
        return Err(not_found());
    }
    let mut tenant = tenant(context, id).await?;
    organizations::find(&mut *tenant, id).await.map_err(internal)?.ok_or_else(not_found)
}

/// A webhook that the viewer may see.
pub(crate) async fn visible_webhook(context: &Context<'_>, id: &ID) -> Result<(OrganizationId, WebhookId), Error> {
    match NodeId::decode(id) {
        Some(NodeId::Webhook(organization, id)) if Viewer::of(context)?.sees(organization) => {
            webhook(context, organization, id).await.map(|_| (organization, id))
        }
        _ => Err(not_found()),
    }
}

pub(crate) async fn webhook(
    context: &Context<'_>,
    organization: OrganizationId,
    id: WebhookId,
) -> Result<Webhook, Error> {
    let mut tenant = tenant(context, organization).await?;
    let row = webhook_logs::find(&mut *tenant, organization, id).await.map_err(internal)?;
    row.map(Webhook::of).ok_or_else(not_found)
}

pub(crate) fn organization_id(id: &ID) -> Result<OrganizationId, Error> {
    match NodeId::decode(id) {
        Some(NodeId::Organization(id)) => Ok(id),
        _ => Err(not_found()),
    }
}

pub(crate) fn provider_id(id: &ID) -> Result<(OrganizationId, ProviderId), Error> {
    match NodeId::decode(id) {
        Some(NodeId::Provider(organization, id)) if id.belongs_to(organization) => Ok((organization, id)),
        _ => Err(not_found()),
    }
}

pub(crate) async fn existing_provider(
    context: &Context<'_>,
    organization: OrganizationId,
    id: ProviderId,
) -> Result<webhook_providers::WebhookProvider, Error> {
    let mut tenant = tenant(context, organization).await?;
    let rows = webhook_providers::find_many(&mut *tenant, organization, &[id]).await.map_err(internal)?;
    rows.into_iter().next().ok_or_else(not_found)
}
