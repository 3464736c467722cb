//! `webhook_analytics`: counts per minute and provider. Written with `webhook_logs`, whose rows show which
//! provider an attempt's webhook belongs to.
//!
//! An organization's events are totally ordered, so each row remembers the last position that it counted, and
//! repeated events count nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Duration, DurationRound as _, Utc};
use hookledger_aggregates::delivery::DeliveryEvent;
use hookledger_aggregates::provider::ProviderEvent;
use hookledger_aggregates::webhook::WebhookEvent;
use hookledger_aggregates::{OrganizationId, ProviderId, RecordedEvent};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

/// Classes of the latency histogram: two per doubling, from 1 ms to 3 hours.
const CLASSES: usize = 48;

/// The length of a bucket in a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// 60 seconds, the finest.
    Minute,
    /// 60 minutes.
    Hour,
    /// 24 hours, from midnight UTC.
    Day,
}

impl Grain {
    /// The length.
    #[must_use]
    pub fn length(self) -> Duration {
        match self {
            Self::Minute => Duration::minutes(1),
            Self::Hour => Duration::hours(1),
            Self::Day => Duration::days(1),
        }
    }

    const fn interval(self) -> &'static str {
        match self {
            Self::Minute => "1 minute",
            Self::Hour => "1 hour",
            Self::Day => "1 day",
        }
    }
}

/// Whole buckets, in UTC, that cover a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    from: DateTime<Utc>,
    buckets: i32,
    grain: Grain,
}

impl Span {
    /// `None` if the span is empty, too far away, or has more than `most` buckets.
    #[must_use]
    pub fn covering(from: DateTime<Utc>, to: DateTime<Utc>, grain: Grain, most: i32) -> Option<Self> {
        let start = from.duration_trunc(grain.length()).ok()?;
        let length = to.signed_duration_since(start).num_milliseconds();
        let grain_length = grain.length().num_milliseconds();
        let buckets = i32::try_from(length.checked_add(grain_length - 1)?.div_euclid(grain_length)).ok()?;
        (from < to && buckets <= most).then_some(Self { from: start, buckets, grain })
    }

    fn start_of(&self, bucket: i32) -> DateTime<Utc> {
        self.from + self.grain.length() * bucket
    }

    fn index_of(&self, start: DateTime<Utc>) -> Option<usize> {
        let offset = start.signed_duration_since(self.from).num_milliseconds();
        usize::try_from(offset / self.grain.length().num_milliseconds()).ok()
    }
}

/// Counts in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accepted webhooks, without duplicates.
    pub received: i64,
    /// Further deliveries of known events.
    pub duplicates: i64,
    /// Rejected requests, including those that were only counted.
    pub rejected: i64,
    /// Attempts that succeeded.
    pub succeeded: i64,
    /// Attempts that failed.
    pub failed: i64,
    /// Webhooks that became dead letters.
    pub dead_lettered: i64,
    /// Ended attempts, with any outcome, that were not the first of their webhook.
    pub retried: i64,
    /// Time from receipt to success, of the webhooks that succeeded.
    pub latency: Histogram,
}

impl Counts {
    /// The share of successes among ended attempts; `None` if none ended.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share is for the eye")]
    pub fn success_rate(&self) -> Option<f64> {
        let ended = self.succeeded + self.failed;
        (ended > 0).then(|| self.succeeded as f64 / ended as f64)
    }

    fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.dead_lettered += other.dead_lettered;
        self.retried += other.retried;
        for (class, count) in other.latency.0.iter().enumerate() {
            self.latency.0[class] += count;
        }
    }
}

/// Milliseconds from receipt to success, in classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram([i64; CLASSES]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; CLASSES])
    }
}

impl Histogram {
    /// The class of a latency: 2e and 2e + 1 for the halves of each doubling.
    fn class(milliseconds: u64) -> usize {
        let n = milliseconds.saturating_add(1).min(1 << 30);
        let doubling = n.ilog2();
        let upper = n * n >= 1 << (2 * doubling + 1);
        (2 * doubling as usize + usize::from(upper)).min(CLASSES - 1)
    }

    /// The latency in milliseconds below which this part of the webhooks lies, accurate to a fifth.
    #[must_use]
    pub fn percentile(&self, part: f64) -> Option<i64> {
        let total: i64 = self.0.iter().sum();
        if total == 0 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "counts and milliseconds are far from where that matters"
        )]
        let rank = ((total as f64 * part).ceil() as i64).max(1);
        let mut seen = 0;
        let class = self.0.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        let bound = f64::exp2(f64::from(i32::try_from(class).ok()? + 1) * 0.5) - 1.0;
        #[expect(clippy::cast_possible_truncation, reason = "at most 2^24")]
        Some(bound.ceil() as i64)
    }
}

/// A bucket of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Start of the minute, hour or day, UTC.
    pub start: DateTime<Utc>,
    /// The counts until the next bucket starts.
    pub counts: Counts,
}

#[derive(FromRow)]
struct BucketRow {
    start: DateTime<Utc>,
    received: i64,
    duplicates: i64,
    rejected: i64,
    succeeded: i64,
    failed: i64,
    dead_lettered: i64,
    retried: i64,
}

/// Every bucket of the span, including empty ones: of an organization, or (for super admins only) of all.
pub async fn series(
    connection: &mut PgConnection,
    organization: Option<OrganizationId>,
    provider: Option<ProviderId>,
    span: &Span,
) -> Result<Vec<Bucket>, sqlx::Error> {
    let of_organization = if organization.is_some() { "a.organization_id = $5" } else { "$5::uuid is null" };
    let from = format!(
        "where {of_organization} and a.minute >= $2 and a.minute < $3
           and ($4::uuid is null or a.provider_id = $4)"
    );
    let start = "date_bin($1::interval, a.minute, timestamptz '2000-01-01 00:00:00Z')";
    let sums = format!(
        "select {start} as start, sum(a.received)::bigint as received, sum(a.duplicates)::bigint as duplicates,
                sum(a.rejected)::bigint as rejected, sum(a.succeeded)::bigint as succeeded,
                sum(a.failed)::bigint as failed, sum(a.dead_lettered)::bigint as dead_lettered,
                sum(a.retried)::bigint as retried
         from webhook_analytics a {from} group by 1"
    );
    let classes = format!(
        "select {start} as start, c.class::bigint, sum(c.count)::bigint
         from webhook_analytics a cross join unnest(a.latency) with ordinality as c (count, class) {from} and c.count > 0
         group by 1, 2"
    );
    let (to, id) = (span.start_of(span.buckets), organization.map(OrganizationId::uuid));
    let provider = provider.map(ProviderId::uuid);
    let interval = span.grain.interval();
    let rows: Vec<BucketRow> = sqlx::query_as(&sums)
        .bind(interval)
        .bind(span.from)
        .bind(to)
        .bind(provider)
        .bind(id)
        .fetch_all(&mut *connection)
        .await?;
    let latencies: Vec<(DateTime<Utc>, i64, i64)> = sqlx::query_as(&classes)
        .bind(interval)
        .bind(span.from)
        .bind(to)
        .bind(provider)
        .bind(id)
        .fetch_all(connection)
        .await?;
    let mut buckets: Vec<Bucket> =
        (0..span.buckets).map(|bucket| Bucket { start: span.start_of(bucket), counts: Counts::default() }).collect();
    for row in rows {
        let Some(bucket) = span.index_of(row.start).and_then(|index| buckets.get_mut(index)) else { continue };
        let latency = Histogram::default();
        let BucketRow { start: _, received, duplicates, rejected, succeeded, failed, dead_lettered, retried } = row;
        bucket.counts = Counts { received, duplicates, rejected, succeeded, failed, dead_lettered, retried, latency };
    }
    for (start, class, count) in latencies {
        let Some(bucket) = span.index_of(start).and_then(|index| buckets.get_mut(index)) else { continue };
        let class = usize::try_from(class - 1).unwrap_or_default().min(CLASSES - 1);
        bucket.counts.latency.0[class] += count;
    }
    Ok(buckets)
}

/// The sum of all buckets.
#[must_use]
pub fn total(buckets: &[Bucket]) -> Counts {
    buckets.iter().fold(Counts::default(), |mut total, bucket| {
        total.add(&bucket.counts);
        total
    })
}

/// Counts of a batch of events.
#[derive(Default)]
pub(crate) struct Tally {
    counted: Vec<Counted>,
    /// Origins of webhooks whose first event is in the batch.
    origins: HashMap<(Uuid, Uuid), Origin>,
}

#[derive(Clone, Copy)]
struct Origin {
    provider: Uuid,
    received_at: DateTime<Utc>,
}

struct Counted {
    organization: Uuid,
    /// The webhook; the provider itself for counts without a webhook.
    of: Uuid,
    at: DateTime<Utc>,
    position: i64,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Received,
    Duplicates(i64),
    Rejected,
    /// Number of requests that were rejected without being logged.
    Suppressed(i64),
    Succeeded {
        retry: bool,
    },
    Failed {
        retry: bool,
    },
    DeadLettered,
}

/// A row: organization, minute, provider.
type Key = (Uuid, DateTime<Utc>, Uuid);

impl Tally {
    pub(crate) fn note(&mut self, recorded: &RecordedEvent, event: &WebhookEvent) {
        let kind = match event {
            // An unverified webhook counts as received, even if it turns out to be forged.
            WebhookEvent::Received(receipt) | WebhookEvent::ReceivedUnverified { receipt, .. } => {
                self.originate(recorded, receipt.provider_id);
                Kind::Received
            }
            WebhookEvent::Rejected { receipt, .. } => {
                self.originate(recorded, receipt.provider_id);
                Kind::Rejected
            }
            WebhookEvent::VerificationFailed { .. } => Kind::Rejected,
            WebhookEvent::DuplicateReceived { .. } => Kind::Duplicates(1),
            WebhookEvent::DuplicatesCounted { count, .. } => {
                Kind::Duplicates(i64::try_from(*count).unwrap_or(i64::MAX))
            }
            WebhookEvent::Routed(routing) if routing.matched.is_empty() => Kind::Succeeded { retry: false },
            WebhookEvent::SignatureVerified(_)
            | WebhookEvent::Merged { .. }
            | WebhookEvent::Identified { .. }
            | WebhookEvent::TransmissionBound { .. }
            | WebhookEvent::Routed(_)
            | WebhookEvent::DuplicateBodyKept { .. } => return,
        };
        self.count(recorded, recorded.aggregate_id, kind);
    }

    pub(crate) fn note_delivery(&mut self, recorded: &RecordedEvent, webhook: Uuid, event: &DeliveryEvent) {
        let kind = match event {
            DeliveryEvent::AttemptSucceeded { attempt, .. } => Kind::Succeeded { retry: *attempt > 1 },
            DeliveryEvent::AttemptFailed { attempt, .. } | DeliveryEvent::AttemptAbandoned { attempt } => {
                Kind::Failed { retry: *attempt > 1 }
            }
            DeliveryEvent::DeadLettered { .. } => Kind::DeadLettered,
            DeliveryEvent::AttemptStarted { .. }
            | DeliveryEvent::RetryScheduled { .. }
            | DeliveryEvent::RetryRequested { .. }
            | DeliveryEvent::Cancelled { .. } => return,
        };
        self.count(recorded, webhook, kind);
    }

    pub(crate) fn note_provider(&mut self, recorded: &RecordedEvent, event: &ProviderEvent) {
        match event {
            ProviderEvent::RejectionsSuppressed { count, .. } => {
                self.count(
                    recorded,
                    recorded.aggregate_id,
                    Kind::Suppressed(i64::try_from(*count).unwrap_or(i64::MAX)),
                );
            }
            ProviderEvent::Connected { .. }
            | ProviderEvent::SecretRotated { .. }
            | ProviderEvent::SecretAdded { .. }
            | ProviderEvent::SecretLabelled { .. }
            | ProviderEvent::SecretRevoked { .. }
            | ProviderEvent::Activated {}
            | ProviderEvent::Deactivated {}
            | ProviderEvent::Deleted {} => {}
        }
    }

    fn originate(&mut self, recorded: &RecordedEvent, provider: ProviderId) {
        let origin = Origin { provider: provider.uuid(), received_at: recorded.recorded_at };
        self.origins.insert((recorded.organization.uuid(), recorded.aggregate_id), origin);
    }

    fn count(&mut self, recorded: &RecordedEvent, of: Uuid, kind: Kind) {
        self.counted.push(Counted {
            organization: recorded.organization.uuid(),
            of,
            at: recorded.recorded_at,
            position: recorded.position,
            kind,
        });
    }

    /// Adds the counts to the rows; `webhook_logs` already has the rows of the batch.
    pub(crate) async fn write(mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.find_origins(connection).await?;
        let mut rows: BTreeMap<Key, Vec<(&Counted, Option<Origin>)>> = BTreeMap::new();
        for counted in &self.counted {
            let origin = self.origins.get(&(counted.organization, counted.of)).copied();
            let provider = match (counted.kind, origin) {
                (Kind::Suppressed(_), _) => counted.of,
                (_, Some(origin)) => origin.provider,
                // An attempt at an unknown webhook belongs to no provider.
                (_, None) => continue,
            };
            let Ok(minute) = counted.at.duration_trunc(Duration::minutes(1)) else { continue };
            rows.entry((counted.organization, minute, provider)).or_default().push((counted, origin));
        }
        let applied = applied_positions(connection, rows.keys()).await?;
        let mut columns = Columns::default();
        for (key, events) in &rows {
            let after = applied.get(key).copied().unwrap_or_default();
            let fresh: Vec<_> = events.iter().filter(|(counted, _)| counted.position > after).collect();
            let Some(last) = fresh.iter().map(|(counted, _)| counted.position).max() else { continue };
            let mut counts = Counts::default();
            fresh.into_iter().for_each(|(counted, origin)| counts.count(counted, *origin));
            columns.push(*key, &counts, last);
        }
        columns.write(connection).await
    }

    async fn find_origins(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let missing: BTreeSet<(Uuid, Uuid)> = self
            .counted
            .iter()
            .filter(|counted| !matches!(counted.kind, Kind::Suppressed(_)))
            .map(|counted| (counted.organization, counted.of))
            .filter(|key| !self.origins.contains_key(key))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (organizations, webhooks): (Vec<Uuid>, Vec<Uuid>) = missing.into_iter().unzip();
        let rows: Vec<(Uuid, Uuid, Uuid, DateTime<Utc>)> = sqlx::query_as(
            "select w.organization_id, w.webhook_id, w.provider_id, w.received_at
             from webhook_logs w join unnest($1::uuid[], $2::uuid[]) as n (organization_id, webhook_id)
                  using (organization_id, webhook_id)",
        )
        .bind(organizations)
        .bind(webhooks)
        .fetch_all(connection)
        .await?;
        self.origins.extend(rows.into_iter().map(|(organization, webhook, provider, received_at)| {
            ((organization, webhook), Origin { provider, received_at })
        }));
        Ok(())
    }
}

impl Counts {
    fn count(&mut self, counted: &Counted, origin: Option<Origin>) {
        match counted.kind {
            Kind::Received => self.received += 1,
            Kind::Duplicates(count) => self.duplicates = self.duplicates.saturating_add(count),
            Kind::Rejected => self.rejected += 1,
            Kind::Suppressed(count) => self.rejected = self.rejected.saturating_add(count),
            Kind::Failed { retry } => {
                self.failed += 1;
                self.retried += i64::from(retry);
            }
            Kind::DeadLettered => self.dead_lettered += 1,
            Kind::Succeeded { retry } => {
                self.succeeded += 1;
                self.retried += i64::from(retry);
                let took = origin.map(|origin| (counted.at - origin.received_at).num_milliseconds());
                let took = took.and_then(|took| u64::try_from(took).ok()).unwrap_or_default();
                self.latency.0[Histogram::class(took)] += 1;
            }
        }
    }
}

async fn applied_positions(
    connection: &mut PgConnection,
    keys: impl Iterator<Item = &Key>,
) -> Result<HashMap<Key, i64>, sqlx::Error> {
    let (mut organizations, mut minutes, mut providers) = (vec![], vec![], vec![]);
    for (organization, minute, provider) in keys {
        organizations.push(*organization);
        minutes.push(*minute);
        providers.push(*provider);
    }
    if organizations.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(Uuid, DateTime<Utc>, Uuid, i64)> = sqlx::query_as(
        "select organization_id, minute, provider_id, a.applied_position
         from webhook_analytics a
         join unnest($1::uuid[], $2::timestamptz[], $3::uuid[]) as n (organization_id, minute, provider_id)
              using (organization_id, minute, provider_id)",
    )
    .bind(organizations)
    .bind(minutes)
    .bind(providers)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(organization, minute, provider, at)| ((organization, minute, provider), at)).collect())
}

#[derive(Default)]
struct Columns {
    organization: Vec<Uuid>,
    minute: Vec<DateTime<Utc>>,
    provider: Vec<Uuid>,
    received: Vec<i64>,
    duplicates: Vec<i64>,
    rejected: Vec<i64>,
    succeeded: Vec<i64>,
    failed: Vec<i64>,
    dead_lettered: Vec<i64>,
    retried: Vec<i64>,
    /// Arrays as text, because SQL's nested arrays cannot be unnested by one level.
    latency: Vec<String>,
    applied: Vec<i64>,
}

impl Columns {
    fn push(&mut self, (organization, minute, provider): Key, counts: &Counts, applied: i64) {
        self.organization.push(organization);
        self.minute.push(minute);
        self.provider.push(provider);
        self.received.push(counts.received);
        self.duplicates.push(counts.duplicates);
        self.rejected.push(counts.rejected);
        self.succeeded.push(counts.succeeded);
        self.failed.push(counts.failed);
        self.dead_lettered.push(counts.dead_lettered);
        self.retried.push(counts.retried);
        let classes: Vec<String> = counts.latency.0.iter().map(i64::to_string).collect();
        self.latency.push(format!("{{{}}}", classes.join(",")));
        self.applied.push(applied);
    }

    async fn write(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.organization.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into webhook_analytics as a (organization_id, minute, provider_id, received, duplicates, rejected,
                                                 succeeded, failed, dead_lettered, latency, applied_position, retried)
             select n.organization_id, n.minute, n.provider_id, n.received, n.duplicates, n.rejected, n.succeeded,
                    n.failed, n.dead_lettered, n.latency::bigint[], n.applied, n.retried
             from unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[],
                         $7::bigint[], $8::bigint[], $9::bigint[], $10::text[], $11::bigint[], $12::bigint[])
                  as n (organization_id, minute, provider_id, received, duplicates, rejected, succeeded, failed,
                        dead_lettered, latency, applied, retried)
             on conflict (organization_id, minute, provider_id) do update
             set received = a.received + excluded.received, duplicates = a.duplicates + excluded.duplicates,
                 rejected = a.rejected + excluded.rejected, succeeded = a.succeeded + excluded.succeeded,
                 failed = a.failed + excluded.failed, dead_lettered = a.dead_lettered + excluded.dead_lettered,
                 retried = a.retried + excluded.retried,
                 latency = (select array_agg(coalesce(c.old, 0) + coalesce(c.new, 0) order by c.class)
                            from unnest(a.latency, excluded.latency) with ordinality as c (old, new, class)),
                 applied_position = excluded.applied_position",
        )
        .bind(self.organization)
        .bind(self.minute)
        .bind(self.provider)
        .bind(self.received)
        .bind(self.duplicates)
        .bind(self.rejected)
        .bind(self.succeeded)
        .bind(self.failed)
        .bind(self.dead_lettered)
        .bind(self.latency)
        .bind(self.applied)
        .bind(self.retried)
        .execute(connection)
        .await
        .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_span_is_whole_buckets() {
        let span = |from, to, grain| Span::covering(at(from), at(to), grain, 10);
        let hours = span("2026-01-01T10:20:00Z", "2026-01-01T12:00:01Z", Grain::Hour).unwrap();
        assert_eq!((hours.from, hours.buckets), (at("2026-01-01T10:00:00Z"), 3));
        assert_eq!(hours.index_of(at("2026-01-01T12:00:00Z")), Some(2));
        assert_eq!(span("2026-01-01T10:00:00Z", "2026-01-01T10:10:01Z", Grain::Minute), None);
        assert_eq!(span("2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z", Grain::Minute), None);
        assert_eq!(span("2026-01-02T10:00:00Z", "2026-01-01T10:00:00Z", Grain::Day), None);
        assert_eq!(Span::covering(DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC, Grain::Minute, 10), None);
    }

    #[test]
    fn percentiles_are_within_a_fifth_above_a_few_milliseconds() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), None);
        for milliseconds in 1..=1_000 {
            histogram.0[Histogram::class(milliseconds)] += 1;
        }
        for (part, exact) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
            let told = f64::from(i32::try_from(histogram.percentile(part).unwrap()).unwrap());
            assert!(told >= exact && told <= exact * 1.45, "{part}: {told}");
        }
        assert_eq!(Histogram::class(0), 0);
        assert_eq!(Histogram::class(u64::MAX), CLASSES - 1);
    }
}
