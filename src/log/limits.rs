//! Appending where organizations have a monthly limit. It is decided by the database under the lock
//! that makes an organization's appends take turns, so it is exact on any number of nodes.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::{Connection as _, PgConnection, Row as _};
use uuid::Uuid;

use super::batch::{self, Columns, Verdict, Verdicts, appended};
use super::unit::{Appended, MonthlyLimit, Unit, UsedMonth};

/// SQLSTATE of a batch that not all of fits into the limits; nothing of it was appended.
pub(super) const REACHED: &str = "HL001";

/// Appends without looking for conflicts, where all of it fits into the limits.
pub(super) async fn append_optimistically(
    connection: &mut PgConnection,
    units: &[Unit],
) -> Result<Verdicts, sqlx::Error> {
    let (columns, asked) = (Columns::of(units), Asked::by_organization(units));
    let query = sqlx::query(
        "select base_partition, base_position, limited_organization_id, used_month, used
         from append_events_limited($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                                    $18, $19, $20, $21, $22, $23)",
    );
    let query = columns.bind_optimistic(query).bind(&asked.partition).bind(&asked.organization).bind(&asked.number);
    let rows = query.bind(&asked.allowed).bind(&asked.since).fetch_all(connection).await?;
    let (mut bases, mut used) = (HashMap::new(), HashMap::new());
    for row in &rows {
        match row.try_get::<Option<Uuid>, _>(2)? {
            Some(organization) => drop(used.insert(organization, used_month(row, 3)?)),
            None => drop(bases.insert(row.try_get(0)?, row.try_get(1)?)),
        }
    }
    let of = |unit: &Unit| limited(unit).and_then(|(organization, _, _)| used.get(&organization).copied().flatten());
    Ok(columns.places(units, &bases).zip(units).map(|(last, unit)| appended(last, of(unit))).collect())
}

/// Appends what is neither in conflict nor over a limit, and says which units are.
pub(super) async fn append_carefully(connection: &mut PgConnection, units: &[Unit]) -> Result<Verdicts, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let mut verdicts: Vec<Option<Verdict>> = vec![None; units.len()];
    for (number, verdict) in over_limits(&mut transaction, units).await? {
        if let Some(slot) = verdicts.get_mut(number) {
            *slot = Some(verdict);
        }
    }
    pass_on_refusals(units, &mut verdicts);
    // Only what the limits leave in goes on; to leave nothing out is the usual case.
    let within: Vec<usize> = (0..units.len()).filter(|number| verdicts[*number].is_none()).collect();
    let some: Vec<Unit>;
    let kept = if within.len() == units.len() {
        units
    } else {
        some = within.iter().map(|number| units[*number].clone()).collect();
        &some
    };
    let appended_or_not = batch::append_carefully(&mut transaction, kept).await?;
    let taken = kept.iter().zip(&appended_or_not).filter(|(_, verdict)| verdict.place().is_some());
    let used = count_appended(&mut transaction, taken.filter_map(|(unit, _)| limited(unit)).collect(), kept).await?;
    transaction.commit().await?;
    for (number, verdict) in within.into_iter().zip(appended_or_not) {
        let of = limited(&units[number]).and_then(|(organization, _, _)| used.get(&organization).copied());
        verdicts[number] = Some(match verdict {
            Verdict::Appended(Appended { last, used: _ }) => Verdict::Appended(Appended { last, used: of }),
            other => other,
        });
    }
    // What is left out was judged before the others of its batch were counted.
    let now = |unit: &Unit, before| limited(unit).and_then(|(id, _, _)| used.get(&id).copied()).unwrap_or(before);
    let verdicts = verdicts.into_iter().zip(units).map(|(verdict, unit)| match verdict {
        Some(Verdict::OverLimit(before)) => Verdict::OverLimit(now(unit, before)),
        Some(verdict) => verdict,
        None => Verdict::Conflict,
    });
    Ok(verdicts.collect())
}

/// The units that are left out, by number.
async fn over_limits(connection: &mut PgConnection, units: &[Unit]) -> Result<Vec<(usize, Verdict)>, sqlx::Error> {
    let (columns, asked) = (Columns::of(units), Asked::by_unit(units));
    let query =
        sqlx::query("select over_unit, used_month, used from over_limits($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)");
    let unit: Vec<i32> = asked.number.iter().filter_map(|number| i32::try_from(*number).ok()).collect();
    let query = columns.bind_streams(query).bind(unit).bind(&asked.partition).bind(&asked.organization);
    let rows = query.bind(&asked.allowed).bind(&asked.since).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let number = row.try_get::<i32, _>(0)?;
            let number = usize::try_from(number).map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok((number, used_month(row, 1)?.map_or(Verdict::Uncounted, Verdict::OverLimit)))
        })
        .collect()
}

/// Counts what went in, and says what each organization has used now.
async fn count_appended(
    connection: &mut PgConnection,
    taken: Vec<(Uuid, i32, MonthlyLimit)>,
    units: &[Unit],
) -> Result<HashMap<Uuid, UsedMonth>, sqlx::Error> {
    let mut counts: BTreeMap<Uuid, i64> = BTreeMap::new();
    for (organization, _, _) in taken {
        *counts.entry(organization).or_default() += 1;
    }
    let (organizations, counts): (Vec<Uuid>, Vec<i64>) = counts.into_iter().unzip();
    if organizations.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query("select limited_organization_id, used_month, used from count_appended($1, $2, $3)")
        .bind(Columns::of(units).touched().0)
        .bind(organizations)
        .bind(counts)
        .fetch_all(connection)
        .await?;
    let used = rows.iter().map(|row| Ok(used_month(row, 1)?.map(|used| (row.try_get(0), used))));
    let used: Vec<_> = used.collect::<Result<Vec<_>, sqlx::Error>>()?;
    used.into_iter().flatten().map(|(organization, used)| Ok((organization?, used))).collect()
}

/// A unit that repeats one of the same batch which is over the limit is over it as well: without the
/// other it would be no repetition, and nobody has counted it.
fn pass_on_refusals(units: &[Unit], verdicts: &mut [Option<Verdict>]) {
    let places = |unit: &Unit| -> Vec<(Uuid, i64)> {
        let places = unit.events.iter().map(|event| (event.aggregate_id, event.sequence.number()));
        places.filter(|(_, sequence)| *sequence > 0).collect()
    };
    let mut refused: HashMap<(Uuid, i64), Verdict> = HashMap::new();
    for (unit, verdict) in units.iter().zip(verdicts.iter()) {
        if let Some(verdict) = verdict {
            refused.extend(places(unit).into_iter().map(|place| (place, *verdict)));
        }
    }
    if refused.is_empty() {
        return;
    }
    for (unit, verdict) in units.iter().zip(verdicts) {
        if unit.limit.is_some() && verdict.is_none() {
            *verdict = places(unit).iter().find_map(|place| refused.get(place).copied());
        }
    }
}

fn used_month(row: &sqlx::postgres::PgRow, first: usize) -> Result<Option<UsedMonth>, sqlx::Error> {
    let month: Option<NaiveDate> = row.try_get(first)?;
    let accepted: Option<i64> = row.try_get(first + 1)?;
    Ok(month.zip(accepted).map(|(month, accepted)| UsedMonth { month, accepted }))
}

fn limited(unit: &Unit) -> Option<(Uuid, i32, MonthlyLimit)> {
    let first = unit.events.first()?;
    Some((first.organization.uuid(), first.partition.number(), unit.limit?))
}

/// What a batch asks of the limits, as arrays.
#[derive(Default)]
struct Asked {
    /// How many units of an organization, or which one.
    number: Vec<i64>,
    partition: Vec<i32>,
    organization: Vec<Uuid>,
    allowed: Vec<i64>,
    since: Vec<DateTime<Utc>>,
}

impl Asked {
    fn push(&mut self, number: i64, (organization, partition, limit): (Uuid, i32, MonthlyLimit)) {
        self.number.push(number);
        self.partition.push(partition);
        self.organization.push(organization);
        self.allowed.push(limit.allowed.into());
        self.since.push(limit.since);
    }

    fn by_unit(units: &[Unit]) -> Self {
        let mut asked = Self::default();
        for (number, unit) in (0..).zip(units) {
            if let Some(limited) = limited(unit) {
                asked.push(number, limited);
            }
        }
        asked
    }

    /// One row an organization, in one order for everybody. Where requests knew different limits,
    /// the lowest is asked for; the careful way then tells them apart.
    fn by_organization(units: &[Unit]) -> Self {
        let mut organizations: BTreeMap<Uuid, (i64, i32, MonthlyLimit)> = BTreeMap::new();
        for (organization, partition, limit) in units.iter().filter_map(limited) {
            let (count, _, lowest) = organizations.entry(organization).or_insert((0, partition, limit));
            *count += 1;
            lowest.allowed = lowest.allowed.min(limit.allowed);
            lowest.since = lowest.since.max(limit.since);
        }
        let mut asked = Self::default();
        for (organization, (count, partition, limit)) in organizations {
            asked.push(count, (organization, partition, limit));
        }
        asked
    }
}
