//! Checkpoints: how far each follower has come, and waiting for a follower to reach a position.

use std::time::Duration;

use chrono::{DateTime, Utc};
use hookledger_aggregates::Partition;
use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;

use crate::log::{LogPosition, Scope, count_after};

/// Reads and moves checkpoints.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    pool: PgPool,
}

/// How far a follower is behind.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Lag {
    pub name: String,
    /// Events not handled yet, whether they concern the follower or not.
    pub events: i64,
    /// Age in seconds, by the database's clock, of the oldest unhandled event that concerns it, if any.
    pub age: Option<f64>,
    /// Why it stopped in a partition, if it did.
    pub stopped_by: Option<String>,
}

/// A follower's progress in a partition.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Standing {
    pub name: String,
    pub partition: i32,
    pub position: i64,
    /// The last position of the log there.
    pub head: i64,
    pub stopped_by: Option<String>,
}

/// A checkpoint to move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    pub(crate) from: LogPosition,
    pub(crate) to: i64,
    /// When its event was recorded, if an event was handled.
    pub(crate) recorded_at: Option<DateTime<Utc>>,
}

impl Checkpoints {
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The checkpoints of a follower; missing ones are created at 0.
    pub(crate) async fn load(&self, name: &str) -> Result<Vec<LogPosition>, sqlx::Error> {
        // Does not touch existing rows: `on conflict` alone would wait for a transaction that is about to
        // move one.
        sqlx::query(
            "insert into follower_checkpoints (name, partition, position)
             select $1, h.partition, 0 from log_heads h
             where not exists (select from follower_checkpoints c where c.name = $1 and c.partition = h.partition)
             on conflict do nothing",
        )
        .bind(name)
        .execute(&self.pool)
        .await?;
        self.of(name).await
    }

    /// How far a follower has come in each partition that it started on.
    pub async fn of(&self, name: &str) -> Result<Vec<LogPosition>, sqlx::Error> {
        let rows: Vec<(i32, i64)> =
            sqlx::query_as("select partition, position from follower_checkpoints where name = $1 order by partition")
                .bind(name)
                .fetch_all(&self.pool)
                .await?;
        Ok(rows
            .into_iter()
            .filter_map(|(partition, position)| Some(LogPosition { partition: Partition::new(partition)?, position }))
            .collect())
    }

    /// Moves checkpoints in the caller's transaction. Returns false if another follower took over, or if this
    /// database's log lacks the handled events because they were read from another database.
    pub(crate) async fn advance(
        connection: &mut PgConnection,
        name: &str,
        epoch: i64,
        moves: &[Move],
    ) -> Result<bool, sqlx::Error> {
        let partitions: Vec<i32> = moves.iter().map(|moved| moved.from.partition.number()).collect();
        let (from, to): (Vec<i64>, Vec<i64>) = moves.iter().map(|moved| (moved.from.position, moved.to)).unzip();
        let recorded_at: Vec<Option<DateTime<Utc>>> = moves.iter().map(|moved| moved.recorded_at).collect();
        let result = sqlx::query(
            "update follower_checkpoints c set position = n.to_, stopped_by = null
             from unnest($3::int[], $4::bigint[], $5::bigint[], $6::timestamptz[]) as n (partition, from_, to_, at)
             where c.name = $1 and c.partition = n.partition and c.position = n.from_
               and exists (select from followers f where f.name = $1 and f.epoch = $2)
               and (n.at is null or exists (
                   select from commits c
                   where c.partition = n.partition and c.position > n.to_ - 100 and c.position <= n.to_
                     and c.position + c.events > n.to_ and c.recorded_at = n.at))",
        )
        .bind(name)
        .bind(epoch)
        .bind(partitions)
        .bind(from)
        .bind(to)
        .bind(recorded_at)
        .execute(connection)
        .await?;
        Ok(result.rows_affected() == moves.len() as u64)
    }

    /// Notes for people that a follower cannot continue in a partition.
    pub(super) async fn stop(
        &self,
        name: &str,
        epoch: i64,
        partition: Partition,
        reason: &str,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "update follower_checkpoints set stopped_by = $3 where name = $1 and partition = $2
               and exists (select from followers f where f.name = $1 and f.epoch = $4)",
        )
        .bind(name)
        .bind(partition.number())
        .bind(reason)
        .bind(epoch)
        .execute(&self.pool)
        .await
        .map(drop)
    }

    /// Notes for people the progress of a follower that keeps its true position elsewhere, and why it
    /// stopped, if it did.
    #[cfg(feature = "eventstore")]
    pub(crate) async fn note(
        &self,
        name: &str,
        epoch: i64,
        places: &[LogPosition],
        stopped_by: &[Option<String>],
    ) -> Result<(), sqlx::Error> {
        let (partitions, positions): (Vec<i32>, Vec<i64>) =
            places.iter().map(|place| (place.partition.number(), place.position)).unzip();
        sqlx::query(
            "update follower_checkpoints c set position = n.position, stopped_by = n.stopped_by
             from unnest($3::int[], $4::bigint[], $5::text[]) as n (partition, position, stopped_by)
             where c.name = $1 and c.partition = n.partition
               and (c.position, c.stopped_by) is distinct from (n.position, n.stopped_by)
               and exists (select from followers f where f.name = $1 and f.epoch = $2)",
        )
        .bind(name)
        .bind(epoch)
        .bind(partitions)
        .bind(positions)
        .bind(stopped_by)
        .execute(&self.pool)
        .await
        .map(drop)
    }

    /// Waits until the followers have handled everything up to `place`; returns false after `limit`.
    pub async fn wait_for(&self, names: &[&str], place: LogPosition, limit: Duration) -> Result<bool, sqlx::Error> {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(2);
        loop {
            let reached: i64 = sqlx::query_scalar(
                "select count(*) from follower_checkpoints where name = any ($1) and partition = $2 and position >= $3",
            )
            .bind(names)
            .bind(place.partition.number())
            .bind(place.position)
            .fetch_one(&self.pool)
            .await?;
            if usize::try_from(reached).is_ok_and(|reached| reached == names.len()) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// How far each follower is behind: those of `all` by every event, those of `administrative` by
    /// administrative events. Others get no age.
    pub async fn lag(&self, all: &[&str], administrative: &[&str]) -> Result<Vec<Lag>, sqlx::Error> {
        sqlx::query_as(
            "select c.name,
                    sum(case when c.name = any ($2) and b.recorded_at is null then 0 else h.position - c.position end)::bigint
                        as events,
                    extract(epoch from clock_timestamp() - min(coalesce(a.recorded_at, b.recorded_at)))::float8 as age,
                    max(c.stopped_by) as stopped_by
             from follower_checkpoints c join log_heads h using (partition)
             left join lateral (
                 select e.recorded_at from commits e
                 where c.name = any ($1) and h.position > c.position and e.partition = c.partition
                   and e.position > c.position - 99 and e.position + e.events - 1 > c.position
                 order by e.position limit 1) a on true
             left join lateral (
                 select e.recorded_at from commits e
                 where c.name = any ($2) and h.position > c.position and e.partition = c.partition
                   and e.position > c.position - 99 and e.position + e.events - 1 > c.position
                   and (e.aggregate_type not in ('webhook', 'delivery') or starts_with(e.data, 'delivery.retry_requested')
                        or starts_with(e.data, 'delivery.cancelled'))
                 order by e.position limit 1) b on true
             group by c.name order by c.name",
        )
        .bind(all)
        .bind(administrative)
        .fetch_all(&self.pool)
        .await
    }

    /// Each follower's position in each partition. A follower of only some events counts as at the head if
    /// none of its events is left, because it writes no checkpoint for events that it skips.
    pub async fn standings(&self, scope_of: impl Fn(&str) -> Scope) -> Result<Vec<Standing>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let mut standings: Vec<Standing> = sqlx::query_as(
            "select c.name, c.partition, c.position, h.position as head, c.stopped_by
             from follower_checkpoints c join log_heads h using (partition) order by c.name, c.partition",
        )
        .fetch_all(&mut *connection)
        .await?;
        for follower in standings.chunk_by_mut(|one, other| one.name == other.name) {
            let scope = follower.first().map_or(Scope::All, |standing| scope_of(&standing.name));
            let is_behind = follower.iter().any(|standing| standing.position < standing.head);
            if scope == Scope::All || !is_behind {
                continue;
            }
            let cursors = follower.iter().filter_map(|standing| {
                Some(LogPosition { partition: Partition::new(standing.partition)?, position: standing.position })
            });
            let counts = count_after(&mut connection, &cursors.collect::<Vec<_>>(), scope).await?;
            for standing in follower {
                if counts.contains(&(standing.partition, 0)) {
                    standing.position = standing.position.max(standing.head);
                }
            }
        }
        Ok(standings)
    }

    /// Number of events in the log.
    pub async fn events(&self) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("select coalesce(sum(position), 0)::bigint from log_heads").fetch_one(&self.pool).await
    }
}
