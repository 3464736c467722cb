//! Time series and totals of what happened to webhooks.

use async_graphql::{Enum, Error, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, ProviderId};
use hookledger_projections::analytics;
use hookledger_projections::analytics::{Counts, Span};
use sqlx::PgConnection;

use crate::api::graphql::errors::{Code, unread};

/// Buckets of a series: a day of minutes, two months of hours, four years of days.
const MAX_BUCKETS: i32 = 1_500;

/// How long a bucket is, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "analytics::Grain")]
pub enum Grain {
    Minute,
    Hour,
    Day,
}

/// How long webhooks took from being received to being processed, in milliseconds. Told upwards, by
/// at most two fifths.
#[derive(Clone, SimpleObject)]
pub struct Latency {
    p50: Option<i64>,
    p95: Option<i64>,
    p99: Option<i64>,
}

/// What happened in a span of time.
#[derive(Clone, SimpleObject)]
pub struct AnalyticsCounts {
    /// Webhooks accepted, duplicates apart.
    received: i64,
    /// Further deliveries of events that were there already.
    duplicates: i64,
    /// Requests refused.
    rejected: i64,
    /// Attempts that succeeded.
    succeeded: i64,
    /// Attempts that failed.
    failed: i64,
    /// Webhooks that were given up, to wait for a person.
    dead_lettered: i64,
    /// Attempts, succeeded or failed, that were not the first at their webhook.
    retries: i64,
    /// Of the attempts that ended, 0 to 1; null where none ended.
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

/// A time series, oldest first, with every bucket of the span; and all of it together.
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
