//! One flush: many units as arrays for one call of one SQL function, which is a transaction of its own. No
//! lock is held while this node computes, because the node may be paused at any time.

use chrono::{DateTime, Utc};
use hookledger_aggregates::Partition;
use hookledger_aggregates::ids::PARTITIONS;
use sqlx::postgres::PgArguments;
use sqlx::{PgConnection, Postgres};
use uuid::Uuid;

use super::commit::NewCommit;
use super::limits::Asked;
use super::record::Record;
use super::unit::{Appended, LogPosition, Unit, UsedMonth};

/// Outcome of one unit of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Appended(Appended),
    /// It does not go on where one of its streams ends.
    Conflict,
    /// Its organization has reached its monthly limit.
    OverLimit(UsedMonth),
    /// The usage of its organization cannot be counted at the moment.
    Uncounted,
}

impl Verdict {
    /// Log position of its last event.
    pub(super) fn place(&self) -> Option<LogPosition> {
        match self {
            Self::Appended(appended) => Some(appended.last),
            Self::Conflict | Self::OverLimit(_) | Self::Uncounted => None,
        }
    }
}

/// One verdict per unit, in order.
pub(super) type Verdicts = Vec<Verdict>;

type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// The columns of a batch's commits and bodies, as arrays.
#[derive(Default)]
pub(super) struct Columns<'a> {
    unit: Vec<i32>,
    partition: Vec<i32>,
    /// Of the commit's first event: 1, 2, 3… within the batch's events of the same partition.
    offset: Vec<i64>,
    /// How many.
    events: Vec<i32>,
    aggregate_type: Vec<&'a str>,
    stream: Vec<Uuid>,
    first_sequence: Vec<i32>,
    organization: Vec<Uuid>,
    metadata: Vec<&'a str>,
    data: Vec<String>,
    body_unit: Vec<i32>,
    body_partition: Vec<i32>,
    /// Offset of its unit's first event.
    body_offset: Vec<i64>,
    body_organization: Vec<Uuid>,
    body_webhook: Vec<Uuid>,
    body_headers: Vec<&'a [u8]>,
    body: Vec<&'a [u8]>,
    /// Offset of each unit's last event.
    ends: Vec<Option<i64>>,
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
        let (mut begin, mut end) = (None, None);
        for commit in NewCommit::all_of(unit) {
            let NewCommit { first, events, data } = commit;
            let count = &mut self.counts[first.partition.index()];
            let offset = *count + 1;
            *count += i64::from(events);
            begin = begin.or(Some(offset));
            end = Some(*count);
            self.offset.push(offset);
            self.unit.push(number);
            self.partition.push(first.partition.number());
            self.events.push(events.into());
            self.aggregate_type.push(first.aggregate_type);
            self.stream.push(first.aggregate_id);
            // No stream comes that far: the unit is in conflict.
            self.first_sequence.push(first.sequence.number().try_into().unwrap_or(i32::MAX));
            self.organization.push(first.organization.uuid());
            self.metadata.push(&first.metadata);
            self.data.push(data);
        }
        self.ends.push(end);
        if let (Some(body), Some(offset), Some(first)) = (&unit.body, begin, unit.events.first()) {
            self.body_unit.push(number);
            self.body_partition.push(first.partition.number());
            self.body_offset.push(offset);
            self.body_organization.push(body.organization.uuid());
            self.body_webhook.push(body.webhook.uuid());
            self.body_headers.push(&body.headers);
            self.body.push(&body.body);
        }
    }

    /// Binds the parameters of `append_batch`.
    fn bind<'q>(&'q self, query: Query<'q>) -> Query<'q> {
        query
            .bind(&self.partition)
            .bind(&self.offset)
            .bind(&self.events)
            .bind(&self.aggregate_type)
            .bind(&self.stream)
            .bind(&self.first_sequence)
            .bind(&self.organization)
            .bind(&self.metadata)
            .bind(&self.data)
            .bind(&self.body_partition)
            .bind(&self.body_offset)
            .bind(&self.body_organization)
            .bind(&self.body_webhook)
            .bind(&self.body_headers)
            .bind(&self.body)
    }

    /// Binds the parameters of `append_batch_checked`.
    fn bind_checked<'q>(&'q self, query: Query<'q>) -> Query<'q> {
        query
            .bind(&self.unit)
            .bind(&self.partition)
            .bind(&self.events)
            .bind(&self.aggregate_type)
            .bind(&self.stream)
            .bind(&self.first_sequence)
            .bind(&self.organization)
            .bind(&self.metadata)
            .bind(&self.data)
            .bind(&self.body_unit)
            .bind(&self.body_organization)
            .bind(&self.body_webhook)
            .bind(&self.body_headers)
            .bind(&self.body)
    }

    /// Log position of each unit's last event, given the heads before the batch.
    fn places(&self, units: &[Unit], heads: &[Option<i64>]) -> impl Iterator<Item = Option<LogPosition>> {
        units.iter().zip(&self.ends).map(move |(unit, end)| {
            let head = (*heads.get(unit.events.last()?.partition.index())?)?;
            unit.place(head + (*end)?)
        })
    }

    /// Partitions with events of this batch, in ascending order.
    fn touched(&self) -> Vec<i32> {
        Partition::all().filter(|p| self.counts[p.index()] > 0).map(Partition::number).collect()
    }
}

/// A flush without its units; the same for all its tries.
#[derive(Debug)]
pub(super) struct Flush {
    pub(super) id: Uuid,
    /// Readings of the time, to be checked against the database's clock.
    pub(super) clocks: Vec<DateTime<Utc>>,
}

/// Appends without checks. The first conflict fails the whole call with 23505; a batch that exceeds a limit
/// fails with [`super::limits::REACHED`].
pub(super) async fn append(
    connection: &mut PgConnection,
    flush: &Flush,
    units: &[Unit],
) -> Result<(DateTime<Utc>, Verdicts), sqlx::Error> {
    let (columns, asked) = (Columns::of(units), Asked::by_organization(units));
    let query = sqlx::query(
        "select recorded_at, is_checked, positions, over_limit, organizations, months, used
         from append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
                           $20, $21, $22, $23)",
    );
    let query = query.bind(flush.id).bind(&flush.clocks).bind(columns.touched());
    let query = columns.bind(query).bind(&asked.partition).bind(&asked.organization).bind(&asked.count);
    let row = query.bind(&asked.allowed).bind(&asked.since).fetch_one(connection).await?;
    Ok(verdicts(&Record::of(&row)?, &columns, units))
}

/// Appends the units without a conflict that fit their limits, and reports the others.
pub(super) async fn append_checked(
    connection: &mut PgConnection,
    flush: &Flush,
    units: &[Unit],
) -> Result<(DateTime<Utc>, Verdicts), sqlx::Error> {
    let (columns, asked) = (Columns::of(units), Asked::by_unit(units));
    let query = sqlx::query(
        "select recorded_at, is_checked, positions, over_limit, organizations, months, used
         from append_batch_checked($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                                   $19, $20, $21, $22, $23)",
    );
    let count = i32::try_from(units.len()).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let query = query.bind(flush.id).bind(&flush.clocks).bind(columns.touched()).bind(count);
    let query = columns.bind_checked(query).bind(&asked.unit).bind(&asked.partition).bind(&asked.organization);
    let row = query.bind(&asked.allowed).bind(&asked.since).fetch_one(connection).await?;
    Ok(verdicts(&Record::of(&row)?, &columns, units))
}

/// The outcome of an earlier try under the same ID, if it was committed.
pub(super) async fn recorded(
    connection: &mut PgConnection,
    flush: &Flush,
    units: &[Unit],
) -> Result<Option<(DateTime<Utc>, Verdicts)>, sqlx::Error> {
    let columns = Columns::of(units);
    // A try that is still running holds these locks, so it has ended once they are granted.
    sqlx::query("select lock_heads($1)").bind(columns.touched()).execute(&mut *connection).await?;
    let query = sqlx::query(
        "select recorded_at, is_checked, positions, over_limit, organizations, months, used from flushes where id = $1",
    );
    let row = query.bind(flush.id).fetch_optional(connection).await?;
    row.map(|row| Ok(verdicts(&Record::of(&row)?, &columns, units))).transpose()
}

/// Verdicts from a record; the earlier try may have been the other kind of call.
fn verdicts(record: &Record, columns: &Columns<'_>, units: &[Unit]) -> (DateTime<Utc>, Verdicts) {
    let verdicts: Verdicts = if record.is_checked {
        (0..).zip(units).map(|(number, unit)| record.verdict(number, unit)).collect()
    } else {
        let places = columns.places(units, &record.positions).zip(units);
        places.map(|(last, unit)| appended(last, record.used_by(unit))).collect()
    };
    (record.recorded_at, verdicts)
}

/// The verdict on a unit that was appended at `last`, or is in conflict.
pub(super) fn appended(last: Option<LogPosition>, used: Option<UsedMonth>) -> Verdict {
    last.map_or(Verdict::Conflict, |last| Verdict::Appended(Appended { last, used }))
}
