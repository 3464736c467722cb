//! One flush: many units, turned into arrays for one call of one SQL function.

use std::collections::HashMap;

use hookledger_aggregates::Partition;
use hookledger_aggregates::ids::PARTITIONS;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgHasArrayType, PgTypeInfo};
use sqlx::{PgConnection, Postgres, Row as _, Type};
use uuid::Uuid;

use super::unit::{Appended, LogPosition, Unit, UsedMonth};

/// What became of a unit of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Appended(Appended),
    /// Another event is at one of its sequences.
    Conflict,
    /// Its organization has used up its month.
    OverLimit(UsedMonth),
    /// What its organization used of the month cannot be counted for now.
    Uncounted,
}

impl Verdict {
    /// Where it was appended.
    pub(super) fn place(&self) -> Option<LogPosition> {
        match self {
            Self::Appended(appended) => Some(appended.last),
            Self::Conflict | Self::OverLimit(_) | Self::Uncounted => None,
        }
    }
}

/// One for each unit, in order.
pub(super) type Verdicts = Vec<Verdict>;

type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// The columns of a batch's events and bodies, as arrays.
#[derive(Default)]
pub(super) struct Columns<'a> {
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
    pub(super) fn of(units: &'a [Unit]) -> Self {
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

    /// The first 18 parameters of the functions that append without looking.
    pub(super) fn bind_optimistic<'q>(&'q self, query: Query<'q>) -> Query<'q> {
        let (partitions, counts) = self.touched();
        query
            .bind(partitions)
            .bind(counts)
            .bind(&self.partition)
            .bind(&self.offset)
            .bind(&self.aggregate_type)
            .bind(&self.aggregate_id)
            .bind(&self.sequence)
            .bind(&self.event_type)
            .bind(&self.event_version)
            .bind(&self.payload)
            .bind(&self.metadata)
            .bind(&self.organization)
            .bind(&self.body_partition)
            .bind(&self.body_offset)
            .bind(&self.body_organization)
            .bind(&self.body_webhook)
            .bind(&self.body_headers)
            .bind(&self.body)
    }

    /// The first 16 parameters of the functions that look first.
    pub(super) fn bind_checked<'q>(&'q self, query: Query<'q>) -> Query<'q> {
        query
            .bind(self.touched().0)
            .bind(&self.unit)
            .bind(&self.partition)
            .bind(&self.aggregate_type)
            .bind(&self.aggregate_id)
            .bind(&self.sequence)
            .bind(&self.event_type)
            .bind(&self.event_version)
            .bind(&self.payload)
            .bind(&self.metadata)
            .bind(&self.organization)
            .bind(&self.body_unit)
            .bind(&self.body_organization)
            .bind(&self.body_webhook)
            .bind(&self.body_headers)
            .bind(&self.body)
    }

    /// What says which streams and sequences are asked for: the first 5 parameters of `over_limits`.
    pub(super) fn bind_streams<'q>(&'q self, query: Query<'q>) -> Query<'q> {
        query
            .bind(self.touched().0)
            .bind(&self.unit)
            .bind(&self.aggregate_type)
            .bind(&self.aggregate_id)
            .bind(&self.sequence)
    }

    /// Where each unit's last event went, given what each partition held before.
    pub(super) fn places(
        &self,
        units: &[Unit],
        bases: &HashMap<i32, i64>,
    ) -> impl Iterator<Item = Option<LogPosition>> {
        let mut ends = self.offset.iter();
        units.iter().map(move |unit| {
            let offset = ends.by_ref().take(unit.events.len()).last()?;
            let base = bases.get(&unit.events.last()?.partition.number())?;
            unit.place(base + offset)
        })
    }

    /// The partitions that the batch has events in, and how many.
    pub(super) fn touched(&self) -> (Vec<i32>, Vec<i64>) {
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
    let query = sqlx::query(
        "select base_partition, base_position
         from append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
    );
    let rows = columns.bind_optimistic(query).fetch_all(connection).await?;
    let bases = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, sqlx::Error>>()?;
    Ok(columns.places(units, &bases).map(|last| appended(last, None)).collect())
}

/// Appends what is not in conflict, and says which units are.
pub(super) async fn append_carefully(connection: &mut PgConnection, units: &[Unit]) -> Result<Verdicts, sqlx::Error> {
    let columns = Columns::of(units);
    let query = sqlx::query(
        "select appended_unit, appended_position
         from append_events_checked($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    );
    let rows = columns.bind_checked(query).fetch_all(connection).await?;
    let positions: HashMap<i32, i64> =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, sqlx::Error>>()?;
    Ok((0..)
        .zip(units)
        .map(|(number, unit)| appended(positions.get(&number).and_then(|position| unit.place(*position)), None))
        .collect())
}

/// The verdict on a unit that went there, or is in conflict.
pub(super) fn appended(last: Option<LogPosition>, used: Option<UsedMonth>) -> Verdict {
    last.map_or(Verdict::Conflict, |last| Verdict::Appended(Appended { last, used }))
}
