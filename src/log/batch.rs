//! One flush: many units, turned into arrays for one call of one SQL function.

use std::collections::HashMap;

use hookledger_aggregates::Partition;
use hookledger_aggregates::ids::PARTITIONS;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{PgConnection, Postgres, Row as _, Type};
use uuid::Uuid;

use super::unit::{Appended, LogPosition, Unit};

/// What became of each unit of a batch: where it went, or nothing where it is in conflict.
pub(super) type Verdicts = Vec<Option<Appended>>;

/// The columns of a batch's events and bodies, as arrays.
#[derive(Default)]
struct Columns<'a> {
    unit: Vec<i32>,
    partition: Vec<i32>,
    /// 1, 2, 3… within the batch's events of the same partition.
    offset: Vec<i64>,
    aggregate_type: Vec<&'a str>,
    aggregate_id: Vec<String>,
    sequence: Vec<i64>,
    event_type: Vec<&'a str>,
    event_version: Vec<&'a str>,
    payload: Vec<JsonText<'a>>,
    metadata: Vec<JsonText<'a>>,
    organization: Vec<Uuid>,
    body_unit: Vec<i32>,
    body_partition: Vec<i32>,
    /// That of its unit's first event.
    body_offset: Vec<i64>,
    body_organization: Vec<Uuid>,
    body_webhook: Vec<Uuid>,
    body_headers: Vec<&'a [u8]>,
    body: Vec<&'a [u8]>,
    /// Events per partition.
    counts: [i64; PARTITIONS as usize],
}

impl<'a> Columns<'a> {
    fn of(units: &'a [Unit]) -> Self {
        let mut columns = Self::default();
        for (number, unit) in (0..).zip(units) {
            columns.push(number, unit);
        }
        columns
    }

    fn push(&mut self, number: i32, unit: &'a Unit) {
        let first = self.offset.len();
        for event in &unit.events {
            let count = &mut self.counts[event.partition.index()];
            *count += 1;
            self.offset.push(*count);
            self.unit.push(number);
            self.partition.push(event.partition.number());
            self.aggregate_type.push(event.aggregate_type);
            self.aggregate_id.push(event.aggregate_id.to_string());
            self.sequence.push(event.sequence.number());
            self.event_type.push(&event.event_type);
            self.event_version.push(&event.event_version);
            self.payload.push(JsonText(&event.payload));
            self.metadata.push(JsonText(&event.metadata));
            self.organization.push(event.organization.uuid());
        }
        if let (Some(body), Some(offset)) = (&unit.body, self.offset.get(first)) {
            self.body_unit.push(number);
            self.body_partition.push(self.partition[first]);
            self.body_offset.push(*offset);
            self.body_organization.push(body.organization.uuid());
            self.body_webhook.push(body.webhook.uuid());
            self.body_headers.push(&body.headers);
            self.body.push(&body.body);
        }
    }

    fn touched(&self) -> (Vec<i32>, Vec<i64>) {
        let touched = Partition::all().map(|p| (p.number(), self.counts[p.index()]));
        touched.filter(|(_, count)| *count > 0).unzip()
    }
}

/// Text that is JSON already, sent as PostgreSQL's `json`.
struct JsonText<'a>(&'a str);

impl Type<Postgres> for JsonText<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(114))
    }
}

impl PgHasArrayType for JsonText<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(199))
    }
}

impl Encode<'_, Postgres> for JsonText<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <&str as Encode<Postgres>>::encode(self.0, buffer)
    }
}

/// Appends without looking: the first conflict fails the whole call with 23505.
pub(super) async fn append_optimistically(
    connection: &mut PgConnection,
    units: &[Unit],
) -> Result<Verdicts, sqlx::Error> {
    let columns = Columns::of(units);
    let (partitions, counts) = columns.touched();
    let rows = sqlx::query(
        "select base_partition, base_position
         from append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
    )
    .bind(partitions)
    .bind(counts)
    .bind(&columns.partition)
    .bind(&columns.offset)
    .bind(&columns.aggregate_type)
    .bind(&columns.aggregate_id)
    .bind(&columns.sequence)
    .bind(&columns.event_type)
    .bind(&columns.event_version)
    .bind(&columns.payload)
    .bind(&columns.metadata)
    .bind(&columns.organization)
    .bind(&columns.body_partition)
    .bind(&columns.body_offset)
    .bind(&columns.body_organization)
    .bind(&columns.body_webhook)
    .bind(&columns.body_headers)
    .bind(&columns.body)
    .fetch_all(connection)
    .await?;
    let bases: HashMap<i32, i64> =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, sqlx::Error>>()?;
    let mut ends = columns.offset.iter();
    Ok(units
        .iter()
        .map(|unit| {
            let offset = unit.events.iter().zip(ends.by_ref()).last().map(|(event, offset)| (event.partition, *offset));
            let (partition, offset) = offset?;
            let base = bases.get(&partition.number())?;
            Some(Appended { last: LogPosition { partition, position: base + offset } })
        })
        .collect())
}

/// Appends what is not in conflict, and says which units are.
pub(super) async fn append_carefully(connection: &mut PgConnection, units: &[Unit]) -> Result<Verdicts, sqlx::Error> {
    let columns = Columns::of(units);
    let (partitions, _) = columns.touched();
    let rows = sqlx::query(
        "select appended_unit, appended_position
         from append_events_checked($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(partitions)
    .bind(&columns.unit)
    .bind(&columns.partition)
    .bind(&columns.aggregate_type)
    .bind(&columns.aggregate_id)
    .bind(&columns.sequence)
    .bind(&columns.event_type)
    .bind(&columns.event_version)
    .bind(&columns.payload)
    .bind(&columns.metadata)
    .bind(&columns.organization)
    .bind(&columns.body_unit)
    .bind(&columns.body_organization)
    .bind(&columns.body_webhook)
    .bind(&columns.body_headers)
    .bind(&columns.body)
    .fetch_all(connection)
    .await?;
    let positions: HashMap<i32, i64> =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, sqlx::Error>>()?;
    Ok((0..)
        .zip(units)
        .map(|(number, unit)| {
            let partition = unit.events.last()?.partition;
            let position = *positions.get(&number)?;
            Some(Appended { last: LogPosition { partition, position } })
        })
        .collect())
}
