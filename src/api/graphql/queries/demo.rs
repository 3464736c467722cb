//! Queries of the public demo, which need no session.

use async_graphql::{Context, Error, Object};
use hookledger_aggregates::WebhookId;
use hookledger_projections::webhook_logs;
use uuid::Uuid;

use crate::api::graphql::errors::internal;
use crate::api::graphql::guards::guests::{address, rows, sandbox, unavailable};
use crate::api::graphql::types::demo::{Demo, DemoWebhook};
use crate::demo::sandbox::Sandbox;

/// Reads of the demo.
#[derive(Default)]
pub struct DemoQuery;

#[Object]
impl DemoQuery {
    /// The public demo. Needs no session.
    async fn demo(&self, context: &Context<'_>) -> Result<Demo, Error> {
        sandbox(context)?;
        address(context)?;
        Ok(Demo)
    }

    /// The current state of a webhook in the demo's sandbox: null until the read model has it, which takes a
    /// moment. Needs no session.
    async fn demo_webhook(&self, context: &Context<'_>, webhook_id: Uuid) -> Result<Option<DemoWebhook>, Error> {
        let sandbox = sandbox(context)?;
        address(context)?;
        if !sandbox.is_there().await.map_err(unavailable)? {
            return Ok(None);
        }
        let mut tenant = rows(context).await?;
        let row = webhook_logs::find(&mut *tenant, Sandbox::organization(), WebhookId::new(webhook_id)).await;
        Ok(row.map_err(internal)?.map(DemoWebhook))
    }
}
