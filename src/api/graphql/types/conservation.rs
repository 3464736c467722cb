//! Whether nothing got lost on the way from the log to the read models, for super admins.

use async_graphql::{Context, Error, Object};
use chrono::{DateTime, Utc};
use hookledger_aggregates::OrganizationId;
use uuid::Uuid;

use super::organization::Organization;
use super::position::LogPosition;
use crate::api::graphql::context::everybody;
use crate::api::graphql::errors::internal;
use crate::api::graphql::rows::{OrganizationOf, load};
use crate::audit::conservation::{self, Balance};

/// An organization's webhooks by the log: received = pending + processing + succeeded + failed +
/// deadLettered; and whether the read models say the same.
pub struct Conservation(Balance);

#[Object]
impl Conservation {
    async fn organization(&self, context: &Context<'_>) -> Result<Option<Organization>, Error> {
        let id = OrganizationId::new(self.0.organization_id);
        Ok(load(context, OrganizationOf(id, id)).await?.map(Organization))
    }
    /// Webhooks accepted, duplicates apart.
    async fn received(&self) -> i64 {
        self.0.received
    }
    async fn pending(&self) -> i64 {
        self.0.pending
    }
    async fn processing(&self) -> i64 {
        self.0.processing
    }
    async fn succeeded(&self) -> i64 {
        self.0.succeeded
    }
    /// They wait for a retry.
    async fn failed(&self) -> i64 {
        self.0.failed
    }
    /// They wait for a person.
    async fn dead_lettered(&self) -> i64 {
        self.0.dead_lettered
    }
    /// Further deliveries of webhooks that were there already; not among those received.
    async fn duplicates(&self) -> i64 {
        self.0.duplicates
    }
    /// Refused; not among those received.
    async fn rejected(&self) -> i64 {
        self.0.rejected
    }
    /// How many webhooks are not where the log says; 0 is as it should be.
    async fn difference(&self) -> i64 {
        self.0.difference
    }
    /// What differs, a sentence each.
    async fn differences(&self) -> &[String] {
        &self.0.differences
    }
    /// Some of the webhooks that differ, where they were found among the newest 20,000.
    async fn webhook_ids(&self) -> &[Uuid] {
        &self.0.webhook_ids
    }
    /// Since when something differs; null as it should be.
    async fn mismatch_since(&self) -> Option<DateTime<Utc>> {
        self.0.mismatch_since
    }
    /// Counted and compared up to this place in the log.
    async fn position(&self) -> LogPosition {
        LogPosition { partition: self.0.partition, position: self.0.position }
    }
    /// When it was last compared; null before the first time.
    async fn checked_at(&self) -> Option<DateTime<Utc>> {
        self.0.checked_at
    }
}

/// Every organization that ever got a webhook.
pub(crate) async fn list(context: &Context<'_>) -> Result<Vec<Conservation>, Error> {
    let mut tenants = everybody(context).await?;
    let rows = conservation::list(&mut *tenants).await.map_err(internal)?;
    Ok(rows.into_iter().map(Conservation).collect())
}
