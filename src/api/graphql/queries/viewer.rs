//! Queries of everybody who is signed in.

use async_graphql::{Context, Error, ID, Object};
use hookledger_aggregates::OrganizationId;
use hookledger_projections::{organizations, users, webhook_logs, webhook_providers};

use crate::api::graphql::context::tenant;
use crate::api::graphql::errors::internal;
use crate::api::graphql::guards::rights::Viewer as Caller;
use crate::api::graphql::types::ids::NodeId;
use crate::api::graphql::types::node::Node;
use crate::api::graphql::types::organization::Organization;
use crate::api::graphql::types::provider::WebhookProvider;
use crate::api::graphql::types::user::User;
use crate::api::graphql::types::viewer::Viewer;
use crate::api::graphql::types::webhook::Webhook;

/// Queries of signed-in users.
#[derive(Default)]
pub struct ViewerQuery;

#[Object]
impl ViewerQuery {
    /// The signed-in user.
    async fn viewer(&self, context: &Context<'_>) -> Result<Viewer, Error> {
        Caller::of(context).map(|_| Viewer)
    }

    /// The object with this ID, if the viewer may see it.
    async fn node(&self, context: &Context<'_>, id: ID) -> Result<Option<Node>, Error> {
        let viewer = Caller::of(context)?;
        let Some(id) = NodeId::decode(&id) else { return Ok(None) };
        let (organization, may_see) = match id {
            NodeId::Organization(id) | NodeId::Provider(id, _) | NodeId::Webhook(id, _) => (id, viewer.sees(id)),
            NodeId::User(organization, id) => {
                let is_own = viewer.home() == organization && viewer.user.id == id.uuid();
                (organization, is_own || viewer.manages(organization))
            }
            NodeId::Session(organization, _) => (organization, false),
        };
        if !may_see {
            return Ok(None);
        }
        found(context, organization, id).await
    }

    /// The organization with that slug, if the viewer may see it.
    async fn organization(&self, context: &Context<'_>, slug: String) -> Result<Option<Organization>, Error> {
        let id = OrganizationId::from_slug(&slug);
        if !Caller::of(context)?.sees(id) {
            return Ok(None);
        }
        let mut tenant = tenant(context, id).await?;
        Ok(organizations::find(&mut *tenant, id).await.map_err(internal)?.map(Organization))
    }
}

/// The object with that ID, if the viewer may see it.
async fn found(context: &Context<'_>, organization: OrganizationId, id: NodeId) -> Result<Option<Node>, Error> {
    let mut tenant = tenant(context, organization).await?;
    Ok(match id {
        NodeId::Organization(id) => organizations::find(&mut *tenant, id)
            .await
            .map_err(internal)?
            .map(|row| Node::Organization(Organization(row))),
        NodeId::Provider(organization, id) => {
            let rows = webhook_providers::find_many(&mut *tenant, organization, &[id]).await.map_err(internal)?;
            rows.into_iter().next().map(|row| Node::WebhookProvider(WebhookProvider(row)))
        }
        NodeId::Webhook(organization, id) => webhook_logs::find(&mut *tenant, organization, id)
            .await
            .map_err(internal)?
            .map(|row| Node::Webhook(Webhook::of(row))),
        NodeId::User(organization, id) => {
            users::find(&mut *tenant, organization, id).await.map_err(internal)?.map(|row| Node::User(User(row)))
        }
        NodeId::Session(..) => None,
    })
}
