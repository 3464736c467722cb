//! Reading the log: after cursors for followers, and one stream for people.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use hookledger_aggregates::event::DecodeError;
use hookledger_aggregates::{Event, Metadata, OrganizationId, Partition, RecordedEvent};
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use super::unit::LogPosition;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("the log has no event at {partition}:{expected} but one at {partition}:{found}")]
    Gap { partition: Partition, expected: i64, found: i64 },
    #[error("events at {partition}:{position}: {source}")]
    Decode { partition: Partition, position: i64, source: DecodeError },
}

/// Which events a follower wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every event.
    All,
    /// What people and operators did: everything but the traffic of webhooks.
    Administrative,
    /// What makes a webhook pending.
    Pending,
}

/// Events after some cursors, in order within each partition.
#[derive(Debug, Default)]
pub struct Batch {
    pub events: Vec<RecordedEvent>,
    /// Partitions in which an event cannot be understood. What follows it is not in the batch.
    pub broken: Vec<Broken>,
}

/// An event that cannot be understood.
#[derive(Debug)]
pub struct Broken {
    pub at: LogPosition,
    pub reason: String,
}

/// Reads the log.
#[derive(Clone, Debug)]
pub struct Reader {
    pool: PgPool,
}

const COLUMNS: &str = "e.partition, e.position, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, \
                       e.event_version, e.payload, e.metadata, e.organization_id, e.recorded_at";

impl Reader {
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Up to `limit` events of each partition after its cursor.
    ///
    /// # Errors
    /// When the database does not answer, or (in [`Scope::All`]) a position is missing.
    pub async fn after(&self, cursors: &[LogPosition], scope: Scope, limit: i64) -> Result<Batch, ReadError> {
        // The predicate of the partial index `events_administrative`, word for word.
        let wanted = match scope {
            Scope::All => "true",
            Scope::Administrative => "(e.aggregate_type <> 'webhook' or e.event_type = 'webhook.retry_requested')",
            Scope::Pending => "e.event_type in ('webhook.signature_verified', 'webhook.retry_requested')",
        };
        let sql = format!(
            "select e.* from unnest($1::int[], $2::bigint[]) as c (partition, after)
             cross join lateral (
                 select {COLUMNS} from events e
                 where e.partition = c.partition and e.position > c.after and {wanted}
                 order by e.position limit $3) e
             order by e.partition, e.position"
        );
        let (partitions, positions): (Vec<i32>, Vec<i64>) =
            cursors.iter().map(|cursor| (cursor.partition.number(), cursor.position)).unzip();
        let rows = sqlx::query(&sql).bind(partitions).bind(positions).bind(limit).fetch_all(&self.pool).await?;

        let mut batch = Batch { events: Vec::with_capacity(rows.len()), broken: Vec::new() };
        let mut reached: HashMap<Partition, i64> = cursors.iter().map(|c| (c.partition, c.position)).collect();
        for row in &rows {
            let at = place(row)?;
            if batch.broken.iter().any(|broken| broken.at.partition == at.partition) {
                continue;
            }
            let before = reached.insert(at.partition, at.position).unwrap_or_default();
            if scope == Scope::All && at.position != before + 1 {
                return Err(ReadError::Gap { partition: at.partition, expected: before + 1, found: at.position });
            }
            match event(row, at) {
                Ok(event) => batch.events.push(event),
                Err(ReadError::Decode { source, .. }) => batch.broken.push(Broken { at, reason: source.to_string() }),
                Err(other) => return Err(other),
            }
        }
        Ok(batch)
    }

    /// The events of one stream of an organization, in order, up to `limit`.
    ///
    /// # Errors
    /// When the database does not answer or an event cannot be understood.
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

    /// The raw headers and body of a webhook, unless retention removed them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn body(
        &self,
        organization: OrganizationId,
        webhook: hookledger_aggregates::WebhookId,
    ) -> Result<Option<RawRequest>, ReadError> {
        let row: Option<(Vec<u8>, Vec<u8>)> =
            sqlx::query_as(
                "select b.headers, b.body
                 from events e join webhook_bodies b on b.organization_id = e.organization_id and b.position = e.position
                 where e.organization_id = $1 and e.aggregate_type = 'webhook' and e.aggregate_id = $2
                   and e.partition = $3 and e.sequence = 1",
            )
            .bind(organization.uuid())
            .bind(webhook.to_string())
            .bind(organization.partition().number())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|(headers, body)| RawRequest { headers, body }))
    }
}

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// `name:value` lines.
    pub headers: Vec<u8>,
    pub body: Vec<u8>,
}

impl RawRequest {
    /// The headers as pairs; what is not UTF-8 is replaced.
    #[must_use]
    pub fn header_pairs(&self) -> Vec<(String, String)> {
        self.headers
            .split(|byte| *byte == b'\n')
            .filter_map(|line| {
                let colon = line.iter().position(|byte| *byte == b':')?;
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                Some((text(&line[..colon]), text(&line[colon + 1..])))
            })
            .collect()
    }
}

fn column_error(column: &'static str, value: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("events.{column} holds {value:?}, which is not possible").into())
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
