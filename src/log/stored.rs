//! Events as the columns hold them, for code that hashes, copies or mirrors the log without decoding events.

use std::collections::HashMap;

use futures::TryStreamExt as _;
use hookledger_aggregates::{OrganizationId, Partition};
use sqlx::postgres::{PgRow, PgValueFormat};
use sqlx::{PgExecutor, Row as _};
use uuid::Uuid;

use super::read::{Batch, Broken, ReadError, Reader};
use super::unit::LogPosition;
use crate::log::stored_event::StoredEvent;

/// In the order that [`stored`] expects. JSON has the type `json`, so its text is as it was written.
const COLUMNS: &str = "e.partition, e.position, e.organization_id, e.sequence, e.recorded_at, e.aggregate_type, \
                       e.aggregate_id, e.event_type, e.event_version, e.payload, e.metadata";
/// Microseconds from 1970 to 2000, where PostgreSQL starts to count.
const EPOCH: i64 = 946_684_800_000_000;

impl Reader {
    /// Up to `limit` events of each partition after its cursor, in order, each converted by `make`. Events
    /// are converted one by one, so few are in memory at a time.
    ///
    /// # Errors
    /// Also fails when a position is missing.
    pub async fn stored_after<T>(
        &self,
        cursors: &[LogPosition],
        limit: i64,
        mut make: impl FnMut(LogPosition, StoredEvent<&str>) -> T,
    ) -> Result<Batch<T>, ReadError> {
        let sql = format!(
            "select {COLUMNS} from unnest($1::int[], $2::bigint[]) as c (partition, after)
             cross join lateral (
                 select * from events e
                 where e.partition = c.partition and e.position > c.after
                 order by e.position limit $3) e"
        );
        let (partitions, positions): (Vec<i32>, Vec<i64>) =
            cursors.iter().map(|cursor| (cursor.partition.number(), cursor.position)).unzip();
        let mut reached: HashMap<i32, LogPosition> = cursors.iter().map(|c| (c.partition.number(), *c)).collect();
        let mut rows = sqlx::query(&sql).bind(partitions).bind(positions).bind(limit).fetch(&self.pool);
        let mut gathered = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let event = stored(&row)?;
            let Some(last) = reached.get_mut(&event.partition) else { continue };
            if event.position != last.position + 1 {
                let (partition, expected) = (last.partition, last.position + 1);
                return Err(ReadError::Gap { partition, expected, found: event.position });
            }
            last.position = event.position;
            gathered.push((event.partition, make(*last, event)));
        }
        // Rows arrive in this order, though SQL does not promise it.
        gathered.sort_by_key(|(partition, _)| *partition);
        Ok(Batch { events: gathered.into_iter().map(|(_, event)| event).collect(), broken: Vec::<Broken>::new() })
    }
}

/// The events of an organization at some positions of a partition, in order; skips missing ones.
pub async fn stored_at(
    executor: impl PgExecutor<'_>,
    organization: Option<OrganizationId>,
    partition: Partition,
    positions: &[i64],
) -> Result<Vec<StoredEvent>, sqlx::Error> {
    let sql = format!(
        "select {COLUMNS} from events e
         where e.partition = $1 and e.position = any ($2) and ($3::uuid is null or e.organization_id = $3)
         order by e.position"
    );
    let query = sqlx::query(&sql).bind(partition.number()).bind(positions);
    let rows = query.bind(organization.map(OrganizationId::uuid)).fetch_all(executor).await?;
    rows.iter().map(|row| Ok(stored(row)?.to_owned())).collect()
}

/// A row of [`COLUMNS`]. A superuser can store `infinity` as a time, which has to be readable as well.
pub(super) fn stored(row: &PgRow) -> Result<StoredEvent<&str>, sqlx::Error> {
    Ok(StoredEvent {
        partition: row.try_get(0)?,
        position: row.try_get(1)?,
        organization: row.try_get::<Uuid, _>(2)?,
        sequence: row.try_get(3)?,
        recorded_at: microseconds(row, 4)?,
        aggregate_type: row.try_get(5)?,
        aggregate_id: row.try_get(6)?,
        event_type: row.try_get(7)?,
        event_version: row.try_get(8)?,
        payload: row.try_get_unchecked(9)?,
        metadata: row.try_get_unchecked(10)?,
    })
}

fn microseconds(row: &PgRow, column: usize) -> Result<i64, sqlx::Error> {
    let value = row.try_get_raw(column)?;
    let wrong = || sqlx::Error::Decode("events.recorded_at is not a time in PostgreSQL's binary form".into());
    if value.format() != PgValueFormat::Binary {
        return Err(wrong());
    }
    let bytes = value.as_bytes().map_err(sqlx::Error::Decode)?;
    let since_2000 = i64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?);
    Ok(since_2000.saturating_add(EPOCH))
}

/// Age in seconds of the oldest event that a follower has not handled yet, if any.
pub async fn oldest_after_checkpoint(
    executor: impl PgExecutor<'_>,
    follower: &str,
) -> Result<Option<f64>, sqlx::Error> {
    sqlx::query_scalar(
        "select extract(epoch from clock_timestamp() - min(e.recorded_at))::float8
         from follower_checkpoints c join events e on e.partition = c.partition and e.position = c.position + 1
         where c.name = $1",
    )
    .bind(follower)
    .fetch_one(executor)
    .await
}
