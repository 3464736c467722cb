//! Reading the log: after cursors for followers, and single streams for people.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use hookledger_aggregates::event::DecodeError;
use hookledger_aggregates::{Event, Metadata, OrganizationId, Partition, ProviderId, RecordedEvent, WebhookId};
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor, PgPool, Row as _};
use uuid::Uuid;

use super::heads::{Heads, HeadsError, Positions};
use super::unit::LogPosition;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("the log has an event at {partition}:{found} but none at {partition}:{expected}")]
    Gap { partition: Partition, expected: i64, found: i64 },
    #[error("event at {partition}:{position}: {source}")]
    Decode { partition: Partition, position: i64, source: DecodeError },
}

impl From<HeadsError> for ReadError {
    fn from(error: HeadsError) -> Self {
        Self::Database(error.into())
    }
}

/// Which events a follower receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every event.
    All,
    /// Events caused by people and operators, without the traffic of webhooks.
    Administrative,
    /// Events that make a webhook pending.
    Pending,
}

impl Scope {
    /// The condition on a row `e` of the log.
    const fn condition(self) -> &'static str {
        match self {
            Self::All => "true",
            // The predicate of the partial index `events_administrative`, word for word.
            Self::Administrative => "(e.aggregate_type <> 'webhook' or e.event_type = 'webhook.retry_requested')",
            Self::Pending => "e.event_type in ('webhook.signature_verified', 'webhook.retry_requested')",
        }
    }
}

/// Events after some cursors, in order within each partition.
#[derive(Debug)]
pub struct Batch<E = RecordedEvent> {
    pub events: Vec<E>,
    /// Partitions with an event that cannot be decoded. The batch ends before it.
    pub broken: Vec<Broken>,
}

/// An event that cannot be decoded.
#[derive(Debug)]
pub struct Broken {
    pub at: LogPosition,
    pub reason: String,
    pub organization: OrganizationId,
    pub aggregate_type: String,
    pub aggregate_id: String,
}

/// A webhook that has new events.
#[derive(Clone, Copy, Debug)]
pub struct Touched {
    pub organization: OrganizationId,
    pub webhook: WebhookId,
    /// Whether its first event is among them.
    pub created: bool,
}

/// Reads the log.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(super) pool: PgPool,
}

const COLUMNS: &str = "e.partition, e.position, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, \
                       e.event_version, e.payload, e.metadata, e.organization_id, e.recorded_at";

impl Reader {
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Reads the heads once.
    pub async fn refresh(&self, heads: &Heads) -> Result<(), ReadError> {
        Ok(heads.refresh(&self.pool).await?)
    }

    /// Up to `limit` events of each partition after its cursor.
    ///
    /// # Errors
    /// In [`Scope::All`] also when a position is missing.
    pub async fn after(&self, cursors: &[LogPosition], scope: Scope, limit: i64) -> Result<Batch, ReadError> {
        let wanted = scope.condition();
        let sql = format!(
            "select e.* from unnest($1::int[], $2::bigint[]) as c (partition, after)
             cross join lateral (
                 select {COLUMNS} from events e
                 where e.partition = c.partition and e.position > c.after and {wanted}
                 order by e.position limit $3) e"
        );
        let (partitions, positions): (Vec<i32>, Vec<i64>) =
            cursors.iter().map(|cursor| (cursor.partition.number(), cursor.position)).unzip();
        let rows = sqlx::query(&sql).bind(partitions).bind(positions).bind(limit).fetch_all(&self.pool).await?;
        // Rows arrive in order, though SQL does not promise it. Sorting such wide rows in SQL took as long as
        // reading them.
        let mut rows = rows.into_iter().map(|row| Ok((place(&row)?, row))).collect::<Result<Vec<_>, sqlx::Error>>()?;
        rows.sort_by_key(|(at, _)| (at.partition.index(), at.position));

        let mut batch = Batch { events: Vec::with_capacity(rows.len()), broken: Vec::new() };
        let mut reached: HashMap<Partition, i64> = cursors.iter().map(|c| (c.partition, c.position)).collect();
        for (at, row) in &rows {
            let at = *at;
            if batch.broken.iter().any(|broken| broken.at.partition == at.partition) {
                continue;
            }
            let before = reached.insert(at.partition, at.position).unwrap_or_default();
            if scope == Scope::All && at.position != before + 1 {
                return Err(ReadError::Gap { partition: at.partition, expected: before + 1, found: at.position });
            }
            match event(row, at) {
                Ok(event) => batch.events.push(event),
                Err(ReadError::Decode { source, .. }) => batch.broken.push(Broken {
                    at,
                    reason: source.to_string(),
                    organization: OrganizationId::new(row.try_get("organization_id")?),
                    aggregate_type: row.try_get("aggregate_type")?,
                    aggregate_id: row.try_get("aggregate_id")?,
                }),
                Err(other) => return Err(other),
            }
        }
        Ok(batch)
    }

    /// Webhooks of these organizations with events between two positions of one partition, the most recently
    /// touched last.
    pub async fn touched(
        &self,
        after: LogPosition,
        to: i64,
        organizations: &[OrganizationId],
    ) -> Result<Vec<Touched>, ReadError> {
        let ids: Vec<Uuid> = organizations.iter().map(|id| id.uuid()).collect();
        let rows: Vec<(Uuid, String, bool)> = sqlx::query_as(
            "select organization_id, aggregate_id, bool_or(event_type in ('webhook.received', 'webhook.rejected'))
             from events
             where partition = $1 and position > $2 and position <= $3
               and aggregate_type = 'webhook' and organization_id = any ($4)
             group by 1, 2 order by max(position)",
        )
        .bind(after.partition.number())
        .bind(after.position)
        .bind(to)
        .bind(ids)
        .fetch_all(&self.pool)
        .await?;
        let touched = rows.into_iter().map(|(organization, webhook, created)| {
            let webhook = webhook.parse().map_err(|_| column_error("aggregate_id", &webhook))?;
            Ok(Touched { organization: OrganizationId::new(organization), webhook, created })
        });
        touched.collect()
    }

    /// Up to `limit` events of one stream of an organization, in order.
    pub async fn stream(
        &self,
        organization: OrganizationId,
        aggregate_type: &str,
        aggregate_id: Uuid,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let sql = format!(
            "select {COLUMNS} from events e
             where e.organization_id = $1 and e.aggregate_type = $2 and e.aggregate_id = $3 and e.partition = $4
             order by e.sequence limit $5"
        );
        let rows = sqlx::query(&sql)
            .bind(organization.uuid())
            .bind(aggregate_type)
            .bind(aggregate_id.to_string())
            .bind(organization.partition().number())
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| event(row, place(row)?)).collect()
    }

    /// One page of a webhook's events after an event of its stream, in order. Leaves out duplicates, of which
    /// there may be any number.
    pub async fn story(&self, organization: OrganizationId, webhook: WebhookId, after: i64) -> Result<Tail, ReadError> {
        let tails = tails_of(&self.pool, organization, &[webhook], after).await?;
        Ok(tails.into_iter().next().unwrap_or(Tail { webhook, events: Vec::new(), sequence: after, is_last: true }))
    }

    /// Whether a provider had a destination at a position of its organization's partition.
    pub async fn had_destination(
        &self,
        organization: OrganizationId,
        provider: ProviderId,
        position: i64,
    ) -> Result<bool, ReadError> {
        let last: Option<String> = sqlx::query_scalar(
            "select event_type from events
             where organization_id = $1 and aggregate_type = 'provider' and aggregate_id = $2 and partition = $3
               and position < $4
               and event_type in ('provider.destination_set', 'provider.destination_removed', 'provider.deleted')
             order by sequence desc limit 1",
        )
        .bind(organization.uuid())
        .bind(provider.to_string())
        .bind(organization.partition().number())
        .bind(position)
        .fetch_optional(&self.pool)
        .await?;
        Ok(last.is_some_and(|last| last == "provider.destination_set"))
    }

    /// Receipts of the last days, of every organization, that are still unverified and undecided; in the
    /// order of the log, after a log position.
    pub async fn unverified(&self, after: Option<LogPosition>, limit: i64) -> Result<Vec<RecordedEvent>, ReadError> {
        let (partition, position) = after.map_or((-1, 0), |after| (after.partition.number(), after.position));
        let sql = format!(
            "select {COLUMNS} from events e
             where e.event_type = 'webhook.received_unverified' and e.recorded_at > now() - interval '4 days'
               and (e.partition, e.position) > ($1, $2)
               and not exists (
                   select from events n
                   where n.aggregate_id = e.aggregate_id and n.aggregate_type = e.aggregate_type
                     and n.sequence = 2 and n.partition = e.partition)
             order by e.partition, e.position limit $3"
        );
        let rows = sqlx::query(&sql).bind(partition).bind(position).bind(limit).fetch_all(&self.pool).await?;
        rows.iter().map(|row| event(row, place(row)?)).collect()
    }
}

/// A selection of an organization's events; a `None` does not restrict it.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSpan {
    /// After this position of the organization's partition.
    pub after: Option<i64>,
    pub aggregate_id: Option<Uuid>,
    /// Recorded at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Recorded before this time.
    pub to: Option<DateTime<Utc>>,
}

/// The events of an organization, in order.
pub async fn events_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    span: &LogSpan,
    limit: i64,
) -> Result<Vec<RecordedEvent>, ReadError> {
    // Added only when requested, so that the planner uses the stream's index.
    let of_aggregate = if span.aggregate_id.is_some() { "e.aggregate_id = $4" } else { "$4::text is null" };
    let sql = format!(
        "select {COLUMNS} from events e
         where e.organization_id = $1 and e.partition = $2 and e.position > $3 and {of_aggregate}
           and ($5::timestamptz is null or e.recorded_at >= $5)
           and ($6::timestamptz is null or e.recorded_at < $6)
         order by e.position limit $7"
    );
    let rows = sqlx::query(&sql)
        .bind(organization.uuid())
        .bind(organization.partition().number())
        .bind(span.after.unwrap_or_default())
        .bind(span.aggregate_id.map(|id| id.to_string()))
        .bind(span.from)
        .bind(span.to)
        .bind(limit)
        .fetch_all(executor)
        .await?;
    rows.iter().map(|row| event(row, place(row)?)).collect()
}

/// Up to `limit` events that changed an organization's settings, users and providers until a time, in order.
/// Leaves out sign-ins and events that only count.
pub async fn settings_until(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    time: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<RecordedEvent>, ReadError> {
    let sql = format!(
        "select {COLUMNS} from events e
         where e.organization_id = $1 and e.partition = $2 and {} and e.recorded_at <= $3
           and e.aggregate_type in ('organization', 'user', 'provider')
           and e.event_type not in ('user.signed_in', 'user.session_ended', 'user.sessions_ended',
                                    'provider.rejections_suppressed')
         order by e.position limit $4",
        Scope::Administrative.condition()
    );
    let rows = sqlx::query(&sql)
        .bind(organization.uuid())
        .bind(organization.partition().number())
        .bind(time)
        .bind(limit)
        .fetch_all(executor)
        .await?;
    rows.iter().map(|row| event(row, place(row)?)).collect()
}

/// Number of events of that scope in each partition after its cursor; 1,000,000 at most.
pub async fn count_after(
    connection: &mut PgConnection,
    cursors: &[LogPosition],
    scope: Scope,
) -> Result<Vec<(i32, i64)>, sqlx::Error> {
    let (partitions, positions): (Vec<i32>, Vec<i64>) =
        cursors.iter().map(|cursor| (cursor.partition.number(), cursor.position)).unzip();
    let sql = format!(
        "select c.partition, (select count(*) from (
             select from events e
             where e.partition = c.partition and e.position > c.after and {} limit 1000000) n)
         from unnest($1::int[], $2::bigint[]) as c (partition, after)",
        scope.condition()
    );
    sqlx::query_as(&sql).bind(partitions).bind(positions).fetch_all(connection).await
}

/// The last position of each partition recorded at a time or before. Times never decrease within a partition,
/// so a binary search finds it.
pub async fn positions_at(connection: &mut PgConnection, time: DateTime<Utc>) -> Result<Positions, sqlx::Error> {
    let heads: Vec<(i32, i64)> =
        sqlx::query_as("select partition, position from log_heads").fetch_all(&mut *connection).await?;
    let mut found = Positions::default();
    for (number, head) in heads {
        let Some(partition) = Partition::new(number) else { continue };
        // Everything up to `low` was recorded by then, nothing from `high` on.
        let (mut low, mut high) = (0, head + 1);
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            let at = recorded_at(&mut *connection, LogPosition { partition, position: middle }).await?;
            if at.is_some_and(|at| at <= time) { low = middle } else { high = middle }
        }
        found[partition.index()] = low;
    }
    Ok(found)
}

/// When an event was recorded.
pub async fn recorded_at(executor: impl PgExecutor<'_>, at: LogPosition) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar("select recorded_at from events where partition = $1 and position = $2")
        .bind(at.partition.number())
        .bind(at.position)
        .fetch_optional(executor)
        .await
}

/// The last changes of each provider's destination, in order, up to a limit per provider.
pub async fn destination_changes(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    providers: &[ProviderId],
) -> Result<Vec<RecordedEvent>, ReadError> {
    let ids: Vec<String> = providers.iter().map(ToString::to_string).collect();
    let sql = format!(
        "select e.* from unnest($2::text[]) as s (id)
         cross join lateral (
             select {COLUMNS} from events e
             where e.organization_id = $1 and e.aggregate_type = 'provider' and e.aggregate_id = s.id and e.partition = $3
               and e.event_type in ('provider.destination_set', 'provider.destination_removed')
             order by e.sequence desc limit 200) e
         order by e.position"
    );
    let rows = sqlx::query(&sql)
        .bind(organization.uuid())
        .bind(ids)
        .bind(organization.partition().number())
        .fetch_all(executor)
        .await?;
    rows.iter().map(|row| event(row, place(row)?)).collect()
}

/// The log position of a stream's last event.
pub async fn end_of_stream(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    aggregate_type: &str,
    aggregate_id: Uuid,
) -> Result<Option<LogPosition>, sqlx::Error> {
    let partition = organization.partition();
    let position: Option<i64> = sqlx::query_scalar(
        "select position from events
         where organization_id = $1 and aggregate_type = $2 and aggregate_id = $3 and partition = $4
         order by sequence desc limit 1",
    )
    .bind(organization.uuid())
    .bind(aggregate_type)
    .bind(aggregate_id.to_string())
    .bind(partition.number())
    .fetch_optional(executor)
    .await?;
    Ok(position.map(|position| LogPosition { partition, position }))
}

/// The events of several streams of an organization, in order; up to `each` per stream and `together` in all.
pub async fn streams_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    aggregate_type: &str,
    aggregate_ids: &[WebhookId],
    each: i64,
    together: i64,
) -> Result<Vec<RecordedEvent>, ReadError> {
    let ids: Vec<String> = aggregate_ids.iter().map(ToString::to_string).collect();
    let sql = format!(
        "select e.* from unnest($3::text[]) as s (id)
         cross join lateral (
             select {COLUMNS} from events e
             where e.organization_id = $1 and e.aggregate_type = $2 and e.aggregate_id = s.id and e.partition = $4
             order by e.sequence limit $5) e
         limit $6"
    );
    let rows = sqlx::query(&sql)
        .bind(organization.uuid())
        .bind(aggregate_type)
        .bind(ids)
        .bind(organization.partition().number())
        .bind(each)
        .bind(together)
        .fetch_all(executor)
        .await?;
    rows.iter().map(|row| event(row, place(row)?)).collect()
}

/// A webhook's events after some event of its stream.
#[derive(Debug)]
pub struct Tail {
    pub webhook: WebhookId,
    /// In order, without duplicates.
    pub events: Vec<RecordedEvent>,
    /// Sequence of the stream's last event, which may be a duplicate; if `is_last` is false, of the last
    /// event here.
    pub sequence: i64,
    /// Whether the stream ends here.
    pub is_last: bool,
}

/// Most events in one [`Tail`].
const TAIL: i64 = 1_000;

/// The events of several webhooks after a given event of each. A single query, so nothing can happen between
/// reading the events and the end of their stream.
pub async fn tails_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    webhooks: &[WebhookId],
    after: i64,
) -> Result<Vec<Tail>, ReadError> {
    let ids: Vec<String> = webhooks.iter().map(ToString::to_string).collect();
    let sql = format!(
        "select s.id, l.sequence as last, e.* from unnest($2::text[]) as s (id)
         cross join lateral (
             select e.sequence from events e
             where e.organization_id = $1 and e.aggregate_type = 'webhook' and e.aggregate_id = s.id and e.partition = $3
             order by e.sequence desc limit 1) l
         left join lateral (
             select {COLUMNS} from events e
             where e.organization_id = $1 and e.aggregate_type = 'webhook' and e.aggregate_id = s.id and e.partition = $3
               and e.sequence > $4 and e.event_type <> 'webhook.duplicate_received'
             order by e.sequence limit $5) e on true"
    );
    let rows = sqlx::query(&sql)
        .bind(organization.uuid())
        .bind(ids)
        .bind(organization.partition().number())
        .bind(after)
        .bind(TAIL)
        .fetch_all(executor)
        .await?;
    let mut tails: HashMap<WebhookId, Tail> = HashMap::with_capacity(webhooks.len());
    for row in &rows {
        let id: &str = row.try_get("id")?;
        let webhook: WebhookId = id.parse().map_err(|_| column_error("aggregate_id", id))?;
        let sequence = row.try_get("last")?;
        let tail =
            tails.entry(webhook).or_insert_with(|| Tail { webhook, events: Vec::new(), sequence, is_last: true });
        if row.try_get::<Option<i32>, _>("partition")?.is_some() {
            tail.events.push(event(row, place(row)?)?);
        }
    }
    let full = |tail: &Tail| i64::try_from(tail.events.len()).is_ok_and(|count| count >= TAIL);
    for tail in tails.values_mut() {
        tail.events.sort_by_key(|event| event.sequence);
        if full(tail) {
            tail.is_last = false;
            tail.sequence = tail.events.last().map_or(after, |last| last.sequence);
        }
    }
    Ok(webhooks.iter().filter_map(|id| tails.remove(id)).collect())
}

fn column_error(column: &'static str, value: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("events.{column} has the invalid value {value:?}").into())
}

fn place(row: &PgRow) -> Result<LogPosition, sqlx::Error> {
    let partition: i32 = row.try_get("partition")?;
    let partition = Partition::new(partition).ok_or_else(|| column_error("partition", &partition.to_string()))?;
    Ok(LogPosition { partition, position: row.try_get("position")? })
}

fn event(row: &PgRow, at: LogPosition) -> Result<RecordedEvent, ReadError> {
    let aggregate_id: &str = row.try_get("aggregate_id")?;
    let Json(payload): Json<&RawValue> = row.try_get("payload")?;
    let Json(metadata): Json<HashMap<String, String>> = row.try_get("metadata")?;
    let recorded_at: DateTime<Utc> = row.try_get("recorded_at")?;
    let event = Event::decode(
        row.try_get("aggregate_type")?,
        row.try_get("event_type")?,
        row.try_get("event_version")?,
        payload,
    )
    .map_err(|source| ReadError::Decode { partition: at.partition, position: at.position, source })?;
    Ok(RecordedEvent {
        partition: at.partition,
        position: at.position,
        organization: OrganizationId::new(row.try_get("organization_id")?),
        aggregate_id: aggregate_id.parse().map_err(|_| column_error("aggregate_id", aggregate_id))?,
        sequence: row.try_get("sequence")?,
        event,
        metadata: Metadata::from_map(&metadata),
        recorded_at,
    })
}
