//! Usage: how many webhooks an organization's months had. The rows are those of `webhook_counts`,
//! which `webhook_logs` keeps, and of `monthly_counters`, which the append keeps.

use chrono::NaiveDate;
use hookledger_aggregates::OrganizationId;
use sqlx::{FromRow, PgExecutor};

/// Accepted webhooks of one calendar month, UTC, duplicates apart.
#[derive(Clone, Debug, FromRow)]
pub struct Month {
    /// Its first day.
    pub month: NaiveDate,
    pub accepted: i64,
}

/// What the limit of a month counts. For organizations with a limit that is the append's own count.
/// It stands still while there is no limit, and the read model is late by a moment; neither is ever
/// too high, so the higher one is right.
pub async fn used(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    month: NaiveDate,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "select coalesce(greatest(
             (select accepted from monthly_counters where organization_id = $1 and month = $2),
             (select accepted from webhook_counts where organization_id = $1 and month = $2)), 0)",
    )
    .bind(organization.uuid())
    .bind(month)
    .fetch_one(executor)
    .await
}

/// The months before one, newest first; those without a webhook are left out.
pub async fn months_before(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    month: NaiveDate,
    limit: i64,
) -> Result<Vec<Month>, sqlx::Error> {
    sqlx::query_as(
        "select month, accepted from webhook_counts where organization_id = $1 and month < $2
         order by month desc limit $3",
    )
    .bind(organization.uuid())
    .bind(month)
    .bind(limit)
    .fetch_all(executor)
    .await
}
