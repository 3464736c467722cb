//! Usage: the number of webhooks in an organization's months. The rows are those of `webhook_counts`,
//! maintained by `webhook_logs`, and of `monthly_counters`, maintained by appends.

use chrono::NaiveDate;
use hookledger_aggregates::OrganizationId;
use sqlx::{FromRow, PgExecutor};

/// Accepted webhooks of one calendar month, UTC, without duplicates.
#[derive(Clone, Debug, FromRow)]
pub struct Month {
    /// Its first day.
    pub month: NaiveDate,
    /// Number of webhooks; 0 or more.
    pub accepted: i64,
}

/// The usage that counts towards a month's limit. For organizations with a limit that is the count of the
/// appends, which pauses while there is no limit; the read model is slightly late. Neither is ever too high,
/// so the higher one is right.
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

/// The months before one, newest first, without empty ones.
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
