//! Detection of a log that lost its end: which database is which, and what nodes noticed, for people to see.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use hookledger_aggregates::Partition;
use sqlx::{PgConnection, PgExecutor};

/// Identifies a database at a time: another one may have another log. A promotion, a restart and a restore
/// each make another incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Timeline of the server's write-ahead log; each promotion begins another one.
    pub timeline: u32,
    /// When the server was started.
    pub started_at: DateTime<Utc>,
    /// OID of the table of events, which differs in a restored database.
    pub table: i64,
}

impl Incarnation {
    /// Whether the other one is more than a restart of the same server.
    pub(super) fn is_another_history(self, other: Self) -> bool {
        (self.timeline, self.table) != (other.timeline, other.table)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeline, started_at, table } = self;
        let started_at = started_at.to_rfc3339_opts(SecondsFormat::Micros, true);
        write!(f, "timeline {timeline} of the server started at {started_at}, table {table}")
    }
}

/// A partition that is shorter than before, or has other events at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostTail {
    pub partition: Partition,
    /// The position up to which a node had known it.
    pub known: i64,
    /// The last position in the database now.
    pub found: i64,
}

/// A recorded lost tail.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Noticed {
    pub partition: i32,
    pub known: i64,
    pub found: i64,
    pub noticed_at: DateTime<Utc>,
}

/// Records it in the database that is there now, so that a restart of this node does not forget it.
pub(super) async fn note_lost(
    executor: impl PgExecutor<'_>,
    incarnation: Incarnation,
    lost: &[LostTail],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into log_tails_lost (partition, known, found, timeline)
         select partition, known, found, $4 from unnest($1::int[], $2::bigint[], $3::bigint[]) as n (partition, known, found)
         -- Of several nodes that notice it, the one that knew most is enough.
         where not exists (
             select from log_tails_lost l
             where l.partition = n.partition and l.timeline = $4 and l.known >= n.known)",
    )
    .bind(lost.iter().map(|lost| lost.partition.number()).collect::<Vec<_>>())
    .bind(lost.iter().map(|lost| lost.known).collect::<Vec<_>>())
    .bind(lost.iter().map(|lost| lost.found).collect::<Vec<_>>())
    .bind(i64::from(incarnation.timeline))
    .execute(executor)
    .await
    .map(drop)
}

/// The lost tails noticed since a time, in the order of partitions; the longest of each.
pub async fn noticed_since(
    connection: &mut PgConnection,
    since: Option<DateTime<Utc>>,
) -> Result<Vec<Noticed>, sqlx::Error> {
    sqlx::query_as(
        "select partition, max(known) as known, min(found) as found, min(noticed_at) as noticed_at
         from log_tails_lost where $1::timestamptz is null or noticed_at > $1 group by partition order by partition",
    )
    .bind(since)
    .fetch_all(connection)
    .await
}
