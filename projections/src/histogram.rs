//! The histogram above the list of webhooks: the number received in each stretch of time, by current status.
//! The rows are those of `webhook_logs`; the number of rows read is bounded.

use chrono::{DateTime, Duration, Utc};
use hookledger_aggregates::OrganizationId;
use sqlx::{FromRow, PgConnection};

use crate::webhook_logs::{Conditions, Value, WebhookFilter, WebhookStatus};

/// Maximum number of rows read, and of rows counted by an index alone.
const LOOKED_AT: i64 = 100_000;
const COUNTED: i64 = 1_000_000;
/// Maximum number of buckets.
pub const MAX_BUCKETS: i32 = 200;

/// Equal stretches of time, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretches {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    length: Duration,
    count: i32,
}

impl Stretches {
    /// `None` if the span is empty or too far away, or the number of buckets is not 1 to 200.
    #[must_use]
    pub fn of(from: DateTime<Utc>, to: DateTime<Utc>, count: i32) -> Option<Self> {
        let span = to.signed_duration_since(from).num_microseconds().filter(|span| *span > 0)?;
        if !(1..=MAX_BUCKETS).contains(&count) {
            return None;
        }
        let length = span.checked_add(i64::from(count) - 1)? / i64::from(count);
        Some(Self { from, to, length: Duration::microseconds(length), count })
    }

    /// Start of a stretch, and of the next one.
    #[must_use]
    pub fn bounds(&self, index: usize) -> (DateTime<Utc>, DateTime<Utc>) {
        let index = i32::try_from(index).unwrap_or(self.count);
        let start = |index| self.to.min(self.from + self.length * index);
        (start(index), start(index.saturating_add(1)))
    }

    fn index_of(&self, start: DateTime<Utc>) -> Option<usize> {
        let offset = start.signed_duration_since(self.from).num_microseconds()?;
        usize::try_from(offset / self.length.num_microseconds()?).ok()
    }

    fn empty(&self) -> Vec<Standing> {
        vec![Standing::default(); usize::try_from(self.count).unwrap_or_default()]
    }
}

/// Number of webhooks by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Waiting for an attempt, or for the signature to be verified.
    pub pending: i64,
    /// In an attempt.
    pub processing: i64,
    /// Delivered, or stored where there is no destination.
    pub success: i64,
    /// Failed, and waiting for a retry.
    pub failed: i64,
    /// The last retry failed; they need a person.
    pub dead_lettered: i64,
    /// Rejected and never processed.
    pub rejected: i64,
}

impl Standing {
    /// All webhooks together.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.pending + self.processing + self.success + self.failed + self.dead_lettered + self.rejected
    }
}

/// Number of webhooks by time and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// One for each stretch, the earliest first.
    pub buckets: Vec<Standing>,
    /// Set if there are more than are read: webhooks received before are not counted.
    pub counted_from: Option<DateTime<Utc>>,
}

/// A row's status, by name.
const STANDING: &str = "case when status <> 'failed' then status when not signature_valid then 'rejected'
                             when dead_lettered_at is not null then 'dead_lettered' else 'failed' end";

#[derive(FromRow)]
struct Group {
    start: DateTime<Utc>,
    standing: String,
    matching: i64,
    looked_at: i64,
    first: DateTime<Utc>,
}

/// The matching webhooks of an organization, by time and status.
pub async fn of_webhooks(
    connection: &mut PgConnection,
    organization: OrganizationId,
    filter: &WebhookFilter,
    stretches: &Stretches,
) -> Result<Histogram, sqlx::Error> {
    let filter = WebhookFilter {
        received_from: filter.received_from.max(Some(stretches.from)),
        received_to: Some(filter.received_to.map_or(stretches.to, |to| to.min(stretches.to))),
        ..filter.clone()
    };
    let looked = look(connection, organization, &filter, stretches).await?;
    if looked.counted_from.is_none() || !is_only_time_and_provider(&filter) {
        return Ok(looked);
    }
    // Nearly all are successes: the others have indexes of their own, and an index counts them all.
    let mut whole = count(connection, organization, &filter, stretches).await?;
    for statuses in [vec![WebhookStatus::Failed], vec![WebhookStatus::Pending, WebhookStatus::Processing]] {
        let filter = WebhookFilter { status: Some(statuses), ..filter.clone() };
        let others = look(connection, organization, &filter, stretches).await?;
        whole.counted_from = whole.counted_from.max(others.counted_from);
        for (bucket, others) in whole.buckets.iter_mut().zip(&others.buckets) {
            bucket.success = (bucket.success - others.total()).max(0);
            bucket.pending += others.pending;
            bucket.processing += others.processing;
            bucket.failed += others.failed;
            bucket.dead_lettered += others.dead_lettered;
            bucket.rejected += others.rejected;
        }
    }
    Ok(whole)
}

fn is_only_time_and_provider(filter: &WebhookFilter) -> bool {
    let WebhookFilter {
        provider: _,
        received_from: _,
        received_to: _,
        providers,
        status,
        event_type,
        event_types,
        error_message,
        signature_valid,
        dead_lettered,
        body_differs,
        suspected_replay,
        is_test,
        flagged,
        text,
    } = filter;
    let flags = [signature_valid, dead_lettered, body_differs, suspected_replay, is_test, flagged];
    let texts = [event_type, error_message, text];
    providers.is_none()
        && status.is_none()
        && event_types.is_none()
        && flags.iter().all(|flag| flag.is_none())
        && texts.iter().all(|text| text.is_none())
}

/// Reads the newest rows that an index finds, and counts those that match.
async fn look(
    connection: &mut PgConnection,
    organization: OrganizationId,
    filter: &WebhookFilter,
    stretches: &Stretches,
) -> Result<Histogram, sqlx::Error> {
    // Conditions that an index serves bound the rows read; the others apply to each row.
    let served = WebhookFilter {
        provider: filter.provider,
        status: filter.status.clone().filter(|all| filter.asks_for_open() || **all == [WebhookStatus::Failed]),
        signature_valid: filter.signature_valid.filter(|valid| !valid),
        dead_lettered: filter.dead_lettered.filter(|dead| *dead),
        suspected_replay: filter.suspected_replay.filter(|replay| *replay),
        is_test: filter.is_test.filter(|test| *test),
        body_differs: filter.body_differs.filter(|differs| *differs),
        flagged: filter.flagged.filter(|flagged| *flagged),
        received_from: filter.received_from,
        received_to: filter.received_to,
        ..WebhookFilter::default()
    };
    let rows = if served.asks_for_open() {
        "webhook_open join webhook_logs using (organization_id, received_at, position)"
    } else {
        "webhook_logs"
    };
    let mut told = Conditions::default();
    let (length, from) = (told.bind(Value::Span(stretches.length)), told.bind(Value::Time(stretches.from)));
    told.all.push("true".to_owned());
    told.of_filter(filter);
    let matches = std::mem::take(&mut told.all).join(" and ");
    let organization = told.bind(Value::Id(organization.uuid()));
    told.all.push(format!("organization_id = {organization}"));
    told.of_filter(&served);
    let limit = told.bind(Value::Number(LOOKED_AT));
    let sql = format!(
        "select date_bin({length}, t.received_at, {from}) as start, t.standing, count(*) filter (where t.matches) as matching,
                count(*) as looked_at, min(t.received_at) as first
         from (select received_at, {STANDING} as standing, {matches} as matches
               from {rows} where {} order by received_at desc, position desc limit {limit}) t
         group by 1, 2",
        told.all.join(" and ")
    );
    let groups: Vec<Group> = told.bind_to(sqlx::query_as(&sql)).fetch_all(connection).await?;
    let mut buckets = stretches.empty();
    for group in &groups {
        let Some(bucket) = stretches.index_of(group.start).and_then(|index| buckets.get_mut(index)) else { continue };
        let place = match group.standing.as_str() {
            "pending" => &mut bucket.pending,
            "processing" => &mut bucket.processing,
            "rejected" => &mut bucket.rejected,
            "dead_lettered" => &mut bucket.dead_lettered,
            "failed" => &mut bucket.failed,
            _ => &mut bucket.success,
        };
        *place += group.matching;
    }
    let looked_at: i64 = groups.iter().map(|group| group.looked_at).sum();
    let first = groups.iter().map(|group| group.first).min();
    Ok(Histogram { buckets, counted_from: first.filter(|_| looked_at >= LOOKED_AT) })
}

/// Counts all by time alone, from an index only; as successes.
async fn count(
    connection: &mut PgConnection,
    organization: OrganizationId,
    filter: &WebhookFilter,
    stretches: &Stretches,
) -> Result<Histogram, sqlx::Error> {
    let mut conditions = Conditions::default();
    let (length, from) = (conditions.bind(Value::Span(stretches.length)), conditions.bind(Value::Time(stretches.from)));
    let organization = conditions.bind(Value::Id(organization.uuid()));
    conditions.all.push(format!("organization_id = {organization}"));
    conditions.of_filter(filter);
    let limit = conditions.bind(Value::Number(COUNTED));
    let sql = format!(
        "select date_bin({length}, t.received_at, {from}) as start, count(*), min(t.received_at)
         from (select received_at from webhook_logs where {}
               order by received_at desc, position desc limit {limit}) t
         group by 1",
        conditions.all.join(" and ")
    );
    let groups: Vec<(DateTime<Utc>, i64, DateTime<Utc>)> =
        conditions.bind_to(sqlx::query_as(&sql)).fetch_all(connection).await?;
    let mut buckets = stretches.empty();
    for (start, count, _) in &groups {
        if let Some(bucket) = stretches.index_of(*start).and_then(|index| buckets.get_mut(index)) {
            bucket.success += count;
        }
    }
    let counted: i64 = groups.iter().map(|(_, count, _)| count).sum();
    let first = groups.iter().map(|(_, _, first)| *first).min();
    Ok(Histogram { buckets, counted_from: first.filter(|_| counted >= COUNTED) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn stretches_cover_a_span_and_end_with_it() {
        let (from, to) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:10Z"));
        let stretches = Stretches::of(from, to, 3).unwrap();
        assert_eq!(stretches.bounds(0).0, from);
        assert_eq!(stretches.bounds(2).1, to);
        assert_eq!(stretches.bounds(0).1, stretches.bounds(1).0);
        assert_eq!(stretches.index_of(stretches.bounds(2).0), Some(2));
    }

    #[test]
    fn a_span_that_is_empty_or_has_too_many_buckets_is_none() {
        let (from, to) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
        for (from, to, count) in [(from, from, 1), (to, from, 1), (from, to, 0), (from, to, 201), (from, to, -1)] {
            assert_eq!(Stretches::of(from, to, count), None);
        }
        assert_eq!(Stretches::of(DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC, 10), None);
    }

    #[test]
    fn nothing_but_time_and_provider_is_counted_by_an_index() {
        assert!(is_only_time_and_provider(&WebhookFilter { received_from: Some(Utc::now()), ..Default::default() }));
        assert!(!is_only_time_and_provider(&WebhookFilter { text: Some("x".to_owned()), ..Default::default() }));
        assert!(!is_only_time_and_provider(&WebhookFilter { flagged: Some(false), ..Default::default() }));
    }
}
