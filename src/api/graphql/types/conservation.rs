//! Whether any webhook got lost between the log and the read models, for super admins.

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

/// An organization's webhooks according to the log: outcomes = pending + processing + succeeded + failed +
/// deadLettered + cancelled; and whether the read models agree.
pub struct Conservation(Balance);

#[Object]
impl Conservation {
    async fn organization(&self, context: &Context<'_>) -> Result<Option<Organization>, Error> {
        let id = OrganizationId::new(self.0.organization_id);
        Ok(load(context, OrganizationOf(id, id)).await?.map(Organization))
    }
    /// Accepted webhooks, without duplicates.
    async fn received(&self) -> i64 {
        self.0.received
    }
    /// Outcomes that they are owed: one for each delivery, and one for a webhook without deliveries, which is a success
    /// once it is verified.
    async fn outcomes(&self) -> i64 {
        self.0.outcomes
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
    /// Deliveries that wait for a retry.
    async fn failed(&self) -> i64 {
        self.0.failed
    }
    /// Dead letters.
    async fn dead_lettered(&self) -> i64 {
        self.0.dead_lettered
    }
    /// Deliveries that a person cancelled.
    async fn cancelled(&self) -> i64 {
        self.0.cancelled
    }
    /// Duplicates; not included in `received`.
    async fn duplicates(&self) -> i64 {
        self.0.duplicates
    }
    /// Rejected requests; not included in `received`.
    async fn rejected(&self) -> i64 {
        self.0.rejected
    }
    /// Number of deliveries, and webhooks without any, whose status differs from the log; 0 if all is well.
    async fn difference(&self) -> i64 {
        self.0.difference
    }
    /// The differences, one sentence each.
    async fn differences(&self) -> &[String] {
        &self.0.differences
    }
    /// Some of the webhooks that differ, if found among the newest 20,000.
    async fn webhook_ids(&self) -> &[Uuid] {
        &self.0.webhook_ids
    }
    /// Since when there is a difference; null without one.
    async fn mismatch_since(&self) -> Option<DateTime<Utc>> {
        self.0.mismatch_since
    }
    /// Log position up to which webhooks were counted and compared.
    async fn position(&self) -> LogPosition {
        LogPosition { partition: self.0.partition, position: self.0.position }
    }
    /// Time of the last comparison; null before the first one.
    async fn checked_at(&self) -> Option<DateTime<Utc>> {
        self.0.checked_at
    }
}

/// Every organization with webhooks.
pub(crate) async fn list(context: &Context<'_>) -> Result<Vec<Conservation>, Error> {
    let mut tenants = everybody(context).await?;
    let rows = conservation::list(&mut *tenants).await.map_err(internal)?;
    Ok(rows.into_iter().map(Conservation).collect())
}
