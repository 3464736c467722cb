//! Summaries of many webhooks: the histogram, groups of dead letters, frequent types and errors, the health
//! of providers.

use async_graphql::{Context, Error, Object, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, ProviderId};
use hookledger_projections::histogram::Stretches;
use hookledger_projections::summaries::{LOOKED_AT, Ranked};
use hookledger_projections::{histogram, summaries, webhook_logs};

use super::provider::WebhookProvider;
use crate::api::graphql::context::searching;
use crate::api::graphql::errors::{Code, internal, unread};
use crate::api::graphql::rows::{ProviderOf, load};

/// Default and maximum number of names in a ranking.
const DEFAULT_NAMES: i32 = 10;
const MAX_NAMES: i32 = 100;

/// Webhooks of one stretch of time, by current status. Each is in exactly one of the counts.
#[derive(SimpleObject)]
pub struct HistogramBucket {
    start: DateTime<Utc>,
    /// Start of the next one.
    end: DateTime<Utc>,
    pending: i64,
    processing: i64,
    success: i64,
    /// Failed, and waiting for a retry.
    failed: i64,
    /// Dead letters.
    dead_lettered: i64,
    /// Rejected, and so never processed.
    rejected: i64,
    total: i64,
}

/// Number of webhooks received over time, by current status.
#[derive(SimpleObject)]
pub struct Histogram {
    /// Oldest first, of equal length.
    buckets: Vec<HistogramBucket>,
    total: i64,
    /// There are more webhooks than are counted: 100,000, or 1,000,000 if the filter has only time and
    /// provider.
    truncated: bool,
    /// If truncated, webhooks received before this time are not counted.
    counted_from: Option<DateTime<Utc>>,
}

impl Histogram {
    pub(crate) async fn read(
        context: &Context<'_>,
        organization: OrganizationId,
        filter: &webhook_logs::WebhookFilter,
        (from, to): (DateTime<Utc>, DateTime<Utc>),
        buckets: i32,
    ) -> Result<Self, Error> {
        let stretches = Stretches::of(from, to, buckets).ok_or_else(|| {
            Code::BadUserInput
                .error(format!("`from` must be before `to`, with 1 to {} buckets in between.", histogram::MAX_BUCKETS))
        })?;
        let mut tenant = searching(context, organization).await?;
        let found = histogram::of_webhooks(&mut tenant, organization, filter, &stretches).await.map_err(unread)?;
        let buckets: Vec<_> = found
            .buckets
            .iter()
            .enumerate()
            .map(|(index, standing)| {
                let (start, end) = stretches.bounds(index);
                HistogramBucket {
                    start,
                    end,
                    pending: standing.pending,
                    processing: standing.processing,
                    success: standing.success,
                    failed: standing.failed,
                    dead_lettered: standing.dead_lettered,
                    rejected: standing.rejected,
                    total: standing.total(),
                }
            })
            .collect();
        Ok(Self {
            total: buckets.iter().map(|bucket| bucket.total).sum(),
            buckets,
            truncated: found.counted_from.is_some(),
            counted_from: found.counted_from,
        })
    }
}

/// Dead letters with one error at one provider. The filter `{deadLettered: true, providerId, errorMessage}`
/// selects exactly these, for lists, `retryableCount` and `retryWebhooks`.
pub struct DeadLetterGroup(OrganizationId, summaries::DeadLetterGroup);

#[Object]
impl DeadLetterGroup {
    async fn provider(&self, context: &Context<'_>) -> Result<WebhookProvider, Error> {
        let row = load(context, ProviderOf(self.0, ProviderId::new(self.1.provider_id))).await?;
        row.map(WebhookProvider).ok_or_else(|| internal("a webhook's provider has no row"))
    }
    /// The last error, as in `Webhook.errorMessage`.
    async fn error_message(&self) -> Option<&str> {
        self.1.error_message.as_deref()
    }
    async fn count(&self) -> i64 {
        self.1.count
    }
    /// When the first of them was received.
    async fn oldest(&self) -> DateTime<Utc> {
        self.1.oldest
    }
    /// When the last of them was received.
    async fn newest(&self) -> DateTime<Utc> {
        self.1.newest
    }
}

/// Dead letters by error and provider.
#[derive(SimpleObject)]
pub struct DeadLetterGroups {
    /// The largest first; at most 200.
    groups: Vec<DeadLetterGroup>,
    /// Dead letters in these groups.
    total: i64,
    /// There are more than 50,000 dead letters, of which only the newest are counted.
    truncated: bool,
}

impl DeadLetterGroups {
    pub(crate) async fn read(context: &Context<'_>, organization: OrganizationId) -> Result<Self, Error> {
        let mut tenant = searching(context, organization).await?;
        let groups = summaries::dead_letter_groups(&mut *tenant, organization).await.map_err(unread)?;
        let total = groups.iter().map(|group| group.count).sum();
        let groups = groups.into_iter().map(|group| DeadLetterGroup(organization, group)).collect();
        Ok(Self { groups, total, truncated: total >= LOOKED_AT })
    }
}

/// A name, and the number of webhooks with it.
#[derive(SimpleObject)]
pub struct RankedName {
    /// Null if the sender gave none.
    name: Option<String>,
    count: i64,
    /// Share among `total`, 0 to 1.
    share: f64,
}

/// The most frequent names.
#[derive(SimpleObject)]
pub struct Ranking {
    /// The most frequent first.
    names: Vec<RankedName>,
    /// Webhooks that were counted.
    total: i64,
    /// There are more than 50,000, of which only the newest were counted.
    truncated: bool,
}

impl Ranking {
    pub(crate) async fn read(
        context: &Context<'_>,
        organization: OrganizationId,
        ranked: Ranked,
        provider: Option<ProviderId>,
        (from, to): (DateTime<Utc>, DateTime<Utc>),
        first: Option<i32>,
    ) -> Result<Self, Error> {
        let first = first.unwrap_or(DEFAULT_NAMES);
        if !(1..=MAX_NAMES).contains(&first) {
            return Err(Code::BadUserInput.error(format!("A ranking can have 1 to {MAX_NAMES} names.")));
        }
        let mut tenant = searching(context, organization).await?;
        let rows = summaries::ranking(&mut *tenant, organization, ranked, provider, (from, to), first.into()).await;
        let rows = rows.map_err(unread)?;
        let total = rows.first().map_or(0, |row| row.looked_at);
        let name =
            |row: summaries::Named| RankedName { share: share(row.count, total), name: row.name, count: row.count };
        Ok(Self { names: rows.into_iter().map(name).collect(), total, truncated: total >= LOOKED_AT })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share is for the eye")]
fn share(count: i64, total: i64) -> f64 {
    if total == 0 { 0.0 } else { count as f64 / total as f64 }
}

/// A provider's health in the last 24 hours.
#[derive(Clone, SimpleObject)]
pub struct ProviderHealth {
    /// Accepted webhooks, without duplicates.
    received: i64,
    /// Rejected requests.
    rejected: i64,
    /// Attempts that succeeded.
    succeeded: i64,
    /// Attempts that failed.
    failed: i64,
    /// Webhooks that became dead letters.
    dead_lettered: i64,
    /// Share of successful attempts among those that ended, 0 to 1; null if none ended.
    success_rate: Option<f64>,
    /// Time of the last request ever, accepted or rejected.
    last_received_at: Option<DateTime<Utc>>,
}

impl From<summaries::ProviderHealth> for ProviderHealth {
    fn from(row: summaries::ProviderHealth) -> Self {
        let ended = row.succeeded + row.failed;
        Self {
            received: row.received,
            rejected: row.rejected,
            succeeded: row.succeeded,
            failed: row.failed,
            dead_lettered: row.dead_lettered,
            success_rate: (ended > 0).then(|| share(row.succeeded, ended)),
            last_received_at: row.last_received_at,
        }
    }
}
