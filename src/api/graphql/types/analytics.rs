//! Time series and totals of webhooks.

use async_graphql::{Enum, Error, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, ProviderId};
use hookledger_projections::analytics;
use hookledger_projections::analytics::{Counts, Span};
use sqlx::PgConnection;

use crate::api::graphql::errors::{Code, unread};

/// Maximum buckets of a series: a day of minutes, two months of hours, four years of days.
const MAX_BUCKETS: i32 = 1_500;

/// The length of a bucket, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "analytics::Grain")]
pub enum Grain {
    Minute,
    Hour,
    Day,
}

/// Time from receipt to success, in milliseconds. Rounded up, by at most two fifths.
#[derive(Clone, SimpleObject)]
pub struct Latency {
    p50: Option<i64>,
    p95: Option<i64>,
    p99: Option<i64>,
}

/// Counts in a span of time.
#[derive(Clone, SimpleObject)]
pub struct AnalyticsCounts {
    /// Accepted webhooks, without duplicates.
    received: i64,
    /// Duplicates of accepted webhooks.
    duplicates: i64,
    /// Rejected requests.
    rejected: i64,
    /// Attempts that succeeded.
    succeeded: i64,
    /// Attempts that failed.
    failed: i64,
    /// Webhooks that became dead letters.
    dead_lettered: i64,
    /// Ended attempts, successful or not, that were not the first of their webhook.
    retries: i64,
    /// Share of successful attempts among those that ended, 0 to 1; null if none ended.
    success_rate: Option<f64>,
    latency: Latency,
}

impl From<&Counts> for AnalyticsCounts {
    fn from(counts: &Counts) -> Self {
        let percentile = |part| counts.latency.percentile(part);
        Self {
            received: counts.received,
            duplicates: counts.duplicates,
            rejected: counts.rejected,
            succeeded: counts.succeeded,
            failed: counts.failed,
            dead_lettered: counts.dead_lettered,
            retries: counts.retried,
            success_rate: counts.success_rate(),
            latency: Latency { p50: percentile(0.5), p95: percentile(0.95), p99: percentile(0.99) },
        }
    }
}

/// One bucket of a series.
#[derive(SimpleObject)]
pub struct AnalyticsBucket {
    start: DateTime<Utc>,
    counts: AnalyticsCounts,
}

impl From<&analytics::Bucket> for AnalyticsBucket {
    fn from(bucket: &analytics::Bucket) -> Self {
        Self { start: bucket.start, counts: AnalyticsCounts::from(&bucket.counts) }
    }
}

/// A time series, oldest first, with every bucket of the span; and its total.
#[derive(SimpleObject)]
pub struct Analytics {
    buckets: Vec<AnalyticsBucket>,
    totals: AnalyticsCounts,
}

impl Analytics {
    pub(crate) async fn read(
        connection: &mut PgConnection,
        organization: Option<OrganizationId>,
        provider: Option<ProviderId>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        grain: Grain,
    ) -> Result<Self, Error> {
        let span = Span::covering(from, to, grain.into(), MAX_BUCKETS).ok_or_else(|| {
            Code::BadUserInput
                .error(format!("`from` must be before `to`, with at most {MAX_BUCKETS} buckets in between."))
        })?;
        let series = analytics::series(connection, organization, provider, &span).await.map_err(unread)?;
        let totals = AnalyticsCounts::from(&analytics::total(&series));
        Ok(Self { buckets: series.iter().map(AnalyticsBucket::from).collect(), totals })
    }
}
