//! The database's record of a flush, written in the flush's own transaction. So a flush whose outcome is
//! unknown can be sent again under its ID: it gets the first answer, or is appended now.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row as _};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::batch::{Verdict, appended};
use super::limits::limited;
use super::unit::{Unit, UsedMonth};

/// Interval of the removal of old records. They are kept for 10 minutes; a flush is tried for seconds.
const SWEEP: Duration = Duration::from_secs(60);
/// Records removed per statement.
const PORTION: i64 = 1_000;

/// A row of `flushes`.
pub(super) struct Record {
    pub(super) recorded_at: DateTime<Utc>,
    pub(super) is_checked: bool,
    pub(super) positions: Vec<Option<i64>>,
    over_limit: Vec<i32>,
    /// Usage of each organization with a limit; `None` if it cannot be counted yet.
    used: HashMap<Uuid, Option<UsedMonth>>,
}

impl Record {
    pub(super) fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let organizations: Vec<Uuid> = row.try_get("organizations")?;
        let months: Vec<NaiveDate> = row.try_get("months")?;
        let used: Vec<Option<i64>> = row.try_get("used")?;
        let used = months.into_iter().zip(used);
        let used = used.map(|(month, accepted)| accepted.map(|accepted| UsedMonth { month, accepted }));
        Ok(Self {
            recorded_at: row.try_get("recorded_at")?,
            is_checked: row.try_get("is_checked")?,
            positions: row.try_get("positions")?,
            over_limit: row.try_get("over_limit")?,
            used: organizations.into_iter().zip(used).collect(),
        })
    }

    /// Monthly usage of the organization of a unit with a limit.
    pub(super) fn used_by(&self, unit: &Unit) -> Option<UsedMonth> {
        let (organization, _, _) = limited(unit)?;
        self.used.get(&organization).copied().flatten()
    }

    /// Outcome of a unit of a checked flush.
    pub(super) fn verdict(&self, number: i32, unit: &Unit) -> Verdict {
        if self.over_limit.contains(&number) {
            return self.used_by(unit).map_or(Verdict::Uncounted, Verdict::OverLimit);
        }
        let position = usize::try_from(number).ok().and_then(|number| *self.positions.get(number)?);
        appended(position.and_then(|position| unit.place(position)), self.used_by(unit))
    }
}

/// Removes old records of all nodes until stopped.
pub(super) async fn sweep(pool: PgPool, stop: CancellationToken) {
    let mut after = DateTime::UNIX_EPOCH;
    while stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
        let swept = stop.run_until_cancelled(remove_old_flushes(&pool, &mut after)).await;
        if let Some(Err(error)) = swept {
            tracing::warn!(%error, "could not remove records of old flushes; retrying in a minute");
        }
    }
}

/// Removes records older than 10 minutes. Continues after the last removed one: while a snapshot lasts, dead
/// rows remain and would be read each time.
pub async fn remove_old_flushes(pool: &PgPool, after: &mut DateTime<Utc>) -> Result<(), sqlx::Error> {
    loop {
        let removed: Vec<DateTime<Utc>> = sqlx::query_scalar(
            "delete from flushes where ctid = any (array(
                 select f.ctid from flushes f
                 where f.recorded_at >= least($1, clock_timestamp() - interval '20 min')
                   and f.recorded_at < clock_timestamp() - interval '10 min'
                 order by f.recorded_at limit $2))
             returning recorded_at",
        )
        .bind(*after)
        .bind(PORTION)
        .fetch_all(pool)
        .await?;
        *after = removed.iter().max().copied().unwrap_or(*after).max(*after);
        if i64::try_from(removed.len()).unwrap_or(i64::MAX) < PORTION {
            return Ok(());
        }
    }
}
