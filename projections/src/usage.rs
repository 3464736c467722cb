//! Usage: how many webhooks an organization's months had. The rows are those of `webhook_counts`,
//! which `webhook_logs` keeps.

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

/// What the limit of a month counts.
///
/// # Errors
/// When the database does not answer.
pub async fn used(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    month: NaiveDate,
) -> Result<i64, sqlx::Error> {
    let accepted: Option<i64> =
        sqlx::query_scalar("select accepted from webhook_counts where organization_id = $1 and month = $2")
            .bind(organization.uuid())
            .bind(month)
            .fetch_optional(executor)
            .await?;
    Ok(accepted.unwrap_or_default())
}

/// The months before one, newest first; those without a webhook are left out.
///
/// # Errors
/// When the database does not answer.
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
