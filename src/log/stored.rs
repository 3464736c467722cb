//! Events as the columns hold them, for code that hashes, copies or mirrors the log without decoding events.

use std::collections::HashMap;

use futures::TryStreamExt as _;
use hookledger_aggregates::{OrganizationId, Partition};
use sqlx::{PgExecutor, Row as _};

use super::commit::{COLUMNS, Commit};
use super::read::{Batch, ReadError, Reader, Scope, commits_after};
use super::unit::LogPosition;
use crate::log::stored_event::StoredEvent;

impl Reader {
    /// Up to `limit` events of each partition after its cursor and the rest of the commit that the last is in, in
    /// order, each converted by `make`. Events are converted one by one, so few are in memory at a time.
    ///
    /// # Errors
    /// Also fails when a position is missing.
    pub async fn stored_after<T>(
        &self,
        cursors: &[LogPosition],
        limit: i64,
        mut make: impl FnMut(LogPosition, StoredEvent<&str>) -> T,
    ) -> Result<Batch<T>, ReadError> {
        let (recent, left) =
            self.take_recent(cursors, Scope::All, limit, |event| Some(make(event.at, event.stored(&event.stream()))));
        let batch = if left.is_empty() { Batch::default() } else { self.read_stored_after(&left, limit, make).await? };
        Ok(batch.and(recent))
    }

    async fn read_stored_after<T>(
        &self,
        cursors: &[LogPosition],
        limit: i64,
        mut make: impl FnMut(LogPosition, StoredEvent<&str>) -> T,
    ) -> Result<Batch<T>, ReadError> {
        let sql = commits_after(Scope::All);
        let (partitions, positions): (Vec<i32>, Vec<i64>) =
            cursors.iter().map(|cursor| (cursor.partition.number(), cursor.position)).unzip();
        let mut reached: HashMap<Partition, LogPosition> = cursors.iter().map(|c| (c.partition, *c)).collect();
        let mut rows = sqlx::query(&sql).bind(partitions).bind(positions).bind(limit).fetch(&self.pool);
        let mut gathered = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let commit = Commit::of(&row)?;
            let Some(last) = reached.get_mut(&commit.partition()?) else { continue };
            for line in commit.after(last.position) {
                if line.position != last.position + 1 {
                    let (partition, expected) = (last.partition, last.position + 1);
                    return Err(ReadError::Gap { partition, expected, found: line.position });
                }
                last.position = line.position;
                gathered.push((last.partition.number(), make(*last, commit.stored(&line))));
            }
        }
        // Rows arrive in this order, though SQL does not promise it.
        gathered.sort_by_key(|(partition, _)| *partition);
        Ok(Batch { events: gathered.into_iter().map(|(_, event)| event).collect(), ..Batch::default() })
    }
}

/// The commit of a position begins less than this before it.
const LOOK_BACK: i64 = 100;

/// The events of an organization at some positions of a partition, in order; skips missing ones.
pub async fn stored_at(
    executor: impl PgExecutor<'_>,
    organization: Option<OrganizationId>,
    partition: Partition,
    positions: &[i64],
) -> Result<Vec<StoredEvent>, sqlx::Error> {
    // The lowest position is computed here: row-level security keeps a condition that computes, and might tell
    // something, out of the index.
    let lowest: Vec<i64> = positions.iter().map(|position| position.saturating_sub(LOOK_BACK)).collect();
    let sql = format!(
        "select n.position as wanted, {COLUMNS} from unnest($2::bigint[], $4::bigint[]) as n (position, low)
         join commits c on c.partition = $1 and c.position > n.low and c.position <= n.position
                       and c.position + c.events > n.position and ($3::uuid is null or c.organization_id = $3)
         order by n.position"
    );
    let query = sqlx::query(&sql).bind(partition.number()).bind(positions);
    let rows = query.bind(organization.map(OrganizationId::uuid)).bind(lowest).fetch_all(executor).await?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        let (commit, wanted): (_, i64) = (Commit::of(row)?, row.try_get("wanted")?);
        events
            .extend(commit.lines().filter(|line| line.position == wanted).map(|line| commit.stored(&line).to_owned()));
    }
    Ok(events)
}

/// Age in seconds of the oldest event that a follower has not handled yet, if any.
pub async fn oldest_after_checkpoint(
    executor: impl PgExecutor<'_>,
    follower: &str,
) -> Result<Option<f64>, sqlx::Error> {
    sqlx::query_scalar(
        "select extract(epoch from clock_timestamp() - min(e.recorded_at))::float8
         from follower_checkpoints c
         join commits e on e.partition = c.partition and e.position > c.position - 99 and e.position <= c.position + 1
                       and e.position + e.events - 1 > c.position
         where c.name = $1",
    )
    .bind(follower)
    .fetch_one(executor)
    .await
}
