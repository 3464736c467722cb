//! The heads of the log: the last position of each partition that this node knows, and the epoch of the log.
//!
//! The writer moves the heads after its commits; polling finds the appends of other nodes. NOTIFY inside
//! append transactions was measured to cost a factor of 5 to 9 in throughput.
//!
//! A database can come back without the end of its log: a replica that lacked it was promoted, or an older
//! backup was restored. Everything that a node remembers of the log is then void. Each look at the heads
//! compares the database with the one known before. If it is another one, the [`Epoch`] changes, and
//! everything that remembers positions starts again.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use hookledger_aggregates::Partition;
use hookledger_aggregates::ids::PARTITIONS;
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::pressure::Pressure;
use super::read::Scope;
use super::recent::Recent;
use super::tail::{Incarnation, LostTail, note_lost};
use super::unit::LogPosition;

/// Interval of looks for other nodes' appends.
const POLL: Duration = Duration::from_millis(100);
/// How long one look may take.
const POLL_LIMIT: Duration = Duration::from_secs(5);
/// Interval at which the events at remembered positions are compared even if the database seems to be the
/// same.
const COMPARE: Duration = Duration::from_secs(5);
/// How many of the databases left behind are remembered.
const FORMER: usize = 16;

/// Last known position of each partition.
pub type Positions = [i64; PARTITIONS as usize];

/// The epoch of the log that a memory belongs to. It changes when the database is replaced by another one;
/// memories of earlier epochs are void.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch in which a node starts.
    pub const FIRST: Self = Self(0);
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HeadsError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("the database is a read-only replica. Promote it, or connect to the primary")]
    Replica,
    #[error("the database is {0}, which was replaced by another one; closed this connection to it")]
    Former(Incarnation),
    #[error("the database was replaced during the read; reading it again")]
    Replaced,
}

impl From<HeadsError> for sqlx::Error {
    fn from(error: HeadsError) -> Self {
        match error {
            HeadsError::Database(error) => error,
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// How the event at a remembered position is recognized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mark {
    Recorded(DateTime<Utc>),
    /// Its stream; this node appended it.
    Stream(Uuid),
}

/// Last positions of partitions, and how to recognize the events there; `None` where unknown.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    positions: Positions,
    marks: [Option<Mark>; PARTITIONS as usize],
}

/// State of the log as known at one moment.
#[derive(Clone, Debug, Default)]
struct Known {
    epoch: Epoch,
    ends: Ends,
    /// The ends at the last comparison of events; each look at the heads replaces the ends of the look
    /// before.
    compared: Ends,
    incarnation: Option<Incarnation>,
    former: Vec<Incarnation>,
}

/// Wakes a follower.
#[derive(Debug)]
pub struct Wake(Waking);

#[derive(Debug)]
enum Waking {
    Positions(watch::Receiver<Known>),
    Administrative(watch::Receiver<u64>),
}

impl Wake {
    /// Waits for events of this node or for another epoch, and at most for `limit`, because the appends of
    /// other nodes are found only by polling.
    pub async fn wait(&mut self, limit: Duration) {
        let _ = match &mut self.0 {
            Waking::Positions(heads) => tokio::time::timeout(limit, heads.changed()).await,
            Waking::Administrative(count) => tokio::time::timeout(limit, count.changed()).await,
        };
    }
}

/// Shared knowledge of the heads.
#[derive(Clone, Debug)]
pub struct Heads {
    known: watch::Sender<Known>,
    /// Moves with every administrative event of this node, so that followers of only such events sleep
    /// through the traffic of webhooks.
    administrative: watch::Sender<u64>,
    /// Lost tails that are not recorded in the database yet.
    unnoted: Arc<Mutex<Vec<LostTail>>>,
    /// How busy the writer is with units that somebody waits for.
    pub pressure: Pressure,
    /// The newest events of this node.
    pub(super) recent: Recent,
}

impl Default for Heads {
    fn default() -> Self {
        Self {
            known: watch::Sender::new(Known::default()),
            administrative: watch::Sender::new(0),
            unnoted: Arc::default(),
            pressure: Pressure::default(),
            recent: Recent::default(),
        }
    }
}

/// Heads and incarnation as the database reports them.
struct Found {
    incarnation: Incarnation,
    heads: Vec<(LogPosition, Option<Mark>)>,
}

impl Heads {
    /// Notes that the log reaches at least these positions in the given epoch. Each position comes with its
    /// event's stream.
    pub fn advance(&self, epoch: Epoch, places: impl IntoIterator<Item = (LogPosition, Uuid)>) {
        self.known.send_if_modified(|known| {
            let mut moved = false;
            // Appends to another epoch say nothing about this one.
            if known.epoch != epoch {
                return false;
            }
            for (LogPosition { partition, position }, stream) in places {
                moved |= known.ends.advance(partition, position, Some(Mark::Stream(stream)));
            }
            moved
        });
    }

    /// The heads as known now.
    #[must_use]
    pub fn now(&self) -> Positions {
        self.known.borrow().ends.positions
    }

    /// The epoch of the log that this node follows now.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.known.borrow().epoch
    }

    /// A memory that becomes empty with each new epoch.
    #[must_use]
    pub fn remember<T: Default>(&self) -> Remembered<T> {
        Remembered { heads: self.clone(), epoch: self.epoch(), value: T::default() }
    }

    /// Notes that an administrative event was appended.
    pub fn advance_administrative(&self) {
        self.administrative.send_modify(|count| *count += 1);
    }

    /// Wakes for events of that scope, and for a new epoch.
    #[must_use]
    pub fn wake(&self, scope: Scope) -> Wake {
        Wake(match scope {
            Scope::All | Scope::Pending => Waking::Positions(self.known.subscribe()),
            Scope::Administrative => Waking::Administrative(self.administrative.subscribe()),
        })
    }

    /// Reads the heads once.
    ///
    /// # Errors
    /// Also fails on a database that cannot be appended to.
    pub async fn refresh(&self, pool: &PgPool) -> Result<(), HeadsError> {
        self.look(pool, false).await
    }

    async fn look(&self, pool: &PgPool, compare: bool) -> Result<(), HeadsError> {
        let mut connection = pool.acquire().await?;
        let looked = self.look_on(&mut connection, compare).await;
        // The next connection is a new one, and leads to the database that is in force.
        if let Err(HeadsError::Former(_) | HeadsError::Replica) = looked {
            connection.close_on_drop();
        }
        looked.map(drop)
    }

    /// Reads the heads through this connection and returns the epoch that it leads to. A new connection for
    /// appending needs this first, because no unit of another epoch may be appended through it.
    pub async fn refresh_on(&self, connection: &mut PgConnection) -> Result<Epoch, HeadsError> {
        self.look_on(connection, false).await
    }

    async fn look_on(&self, connection: &mut PgConnection, compare: bool) -> Result<Epoch, HeadsError> {
        // Taken before the question: the answer contains everything committed before it.
        let before = self.known.borrow().clone();
        let found = Found::read(connection).await?;
        if before.former.contains(&found.incarnation) {
            return Err(HeadsError::Former(found.incarnation));
        }
        let is_new = before.incarnation.is_some_and(|known| known != found.incarnation);
        // A restart of the same server loses nothing that anybody has seen, unless the comparison shows
        // otherwise.
        let is_other = before.incarnation.is_some_and(|known| known.is_another_history(found.incarnation));
        let is_shorter = found.heads.iter().any(|(at, _)| at.position < before.ends.positions[at.partition.index()]);
        let mut lost = Vec::new();
        if is_new || is_shorter || compare {
            // Looks between two comparisons have only seen an unchanged database.
            let known = if is_new || is_shorter { &before.ends } else { &before.compared };
            let replaced = known.replaced(connection).await?;
            for (at, _) in &found.heads {
                let known = known.positions[at.partition.index()];
                if at.position < known || replaced.contains(&at.partition) {
                    lost.push(LostTail { partition: at.partition, known, found: at.position });
                }
            }
        }
        let epoch = self.take_over(&before, &found, is_other || !lost.is_empty(), compare)?;
        if let Some(epoch) = epoch {
            // Followers of settings alone are not woken by positions.
            self.advance_administrative();
            tell(epoch, before.incarnation, found.incarnation, &lost);
            self.unnoted().extend(lost);
        }
        for (at, mark) in &found.heads {
            if let Some(Mark::Recorded(recorded_at)) = mark {
                self.recent.note_end(epoch.unwrap_or(before.epoch), *at, *recorded_at);
            }
        }
        self.recent.expire();
        let unnoted = self.unnoted().clone();
        if !unnoted.is_empty() {
            note_lost(connection, found.incarnation, &unnoted).await?;
            self.unnoted().retain(|lost| !unnoted.contains(lost));
        }
        Ok(epoch.unwrap_or(before.epoch))
    }

    fn unnoted(&self) -> MutexGuard<'_, Vec<LostTail>> {
        self.unnoted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adopts the reported heads; returns the new epoch if one begins.
    fn take_over(
        &self,
        before: &Known,
        found: &Found,
        begin: bool,
        compared: bool,
    ) -> Result<Option<Epoch>, HeadsError> {
        let (mut new, mut is_replaced) = (None, false);
        // The returned epoch is that of this connection; the loser of a race looks again.
        self.known.send_if_modified(|known| {
            if known.epoch != before.epoch {
                // Another look was faster, so this comparison is void.
                is_replaced = true;
                return false;
            }
            if begin {
                known.epoch = Epoch(known.epoch.0 + 1);
                known.ends = Ends::default();
                new = Some(known.epoch);
            }
            if let Some(former) = known.incarnation.filter(|former| *former != found.incarnation) {
                known.former.push(former);
                let excess = known.former.len().saturating_sub(FORMER);
                known.former.drain(..excess);
            }
            known.incarnation = Some(found.incarnation);
            let mut moved = begin;
            for (at, mark) in &found.heads {
                moved |= known.ends.advance(at.partition, at.position, *mark);
            }
            if begin || compared || before.incarnation.is_none() {
                known.compared = known.ends;
            }
            moved
        });
        if is_replaced { Err(HeadsError::Replaced) } else { Ok(new) }
    }

    /// Begins a new epoch of the log.
    #[cfg(test)]
    pub(crate) fn begin_again(&self) {
        self.known.send_modify(|known| known.epoch = Epoch(known.epoch.0 + 1));
    }

    /// Polls for other nodes' appends until stopped.
    pub async fn poll(self, pool: PgPool, stop: CancellationToken) {
        let mut compared = Instant::now();
        while stop.run_until_cancelled(tokio::time::sleep(POLL)).await.is_some() {
            let compare = compared.elapsed() >= COMPARE;
            // No answer ever comes when the network drops packets.
            let looked = tokio::time::timeout(POLL_LIMIT, self.look(&pool, compare)).await;
            match looked.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut.into())) {
                Ok(()) if compare => compared = Instant::now(),
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "could not read the heads of the log; retrying");
                    tokio::time::sleep(POLL * 5).await;
                }
            }
        }
    }
}

impl Ends {
    fn advance(&mut self, partition: Partition, position: i64, mark: Option<Mark>) -> bool {
        let index = partition.index();
        if position < self.positions[index] {
            return false;
        }
        if position == self.positions[index] {
            // Times distinguish events better than streams do.
            if let Some(Mark::Recorded(_)) = mark {
                self.marks[index] = mark;
            }
            return false;
        }
        self.positions[index] = position;
        self.marks[index] = mark;
        true
    }

    /// Partitions whose event at the known position is missing or another one.
    async fn replaced(&self, connection: &mut PgConnection) -> Result<Vec<Partition>, sqlx::Error> {
        let (mut partitions, mut positions, mut times, mut streams) = (vec![], vec![], vec![], vec![]);
        for partition in Partition::all() {
            let Some(mark) = self.marks[partition.index()] else { continue };
            partitions.push(partition.number());
            positions.push(self.positions[partition.index()]);
            times.push(if let Mark::Recorded(at) = mark { Some(at) } else { None });
            streams.push(if let Mark::Stream(id) = mark { Some(id) } else { None });
        }
        let replaced: Vec<i32> = sqlx::query_scalar(
            "select n.partition
             from unnest($1::int[], $2::bigint[], $3::timestamptz[], $4::uuid[]) as n (partition, position, at, stream)
             where not exists (
                 select from commits c
                 where c.partition = n.partition and c.position > n.position - 100 and c.position <= n.position
                   and c.position + c.events > n.position and (c.recorded_at = n.at or c.stream_id = n.stream))",
        )
        .bind(partitions)
        .bind(positions)
        .bind(times)
        .bind(streams)
        .fetch_all(connection)
        .await?;
        Ok(replaced.into_iter().filter_map(Partition::new).collect())
    }
}

impl Found {
    async fn read(connection: &mut PgConnection) -> Result<Self, HeadsError> {
        type Row = (Option<String>, DateTime<Utc>, i64, i32, i64, Option<DateTime<Utc>>);
        let rows: Vec<Row> = sqlx::query_as(
            "select case when pg_is_in_recovery() then null
                         else substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) end,
                    pg_postmaster_start_time(), 'commits'::regclass::oid::bigint, h.partition, h.position,
                    nullif(h.recorded_at, '-infinity')
             from log_heads h",
        )
        .fetch_all(connection)
        .await?;
        let Some((timeline, started_at, table, ..)) = rows.first() else {
            return Err(sqlx::Error::Decode("log_heads has no row".into()).into());
        };
        let timeline = timeline.as_deref().ok_or(HeadsError::Replica)?;
        let timeline = u32::from_str_radix(timeline, 16).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let incarnation = Incarnation { timeline, started_at: *started_at, table: *table };
        let heads = rows.iter().filter_map(|(_, _, _, partition, position, recorded_at)| {
            let at = LogPosition { partition: Partition::new(*partition)?, position: *position };
            Some((at, recorded_at.map(Mark::Recorded)))
        });
        Ok(Self { incarnation, heads: heads.collect() })
    }
}

fn tell(epoch: Epoch, before: Option<Incarnation>, found: Incarnation, lost: &[LostTail]) {
    metrics::counter!("hookledger_log_epochs_total").increment(1);
    for LostTail { partition, known, found } in lost {
        metrics::counter!("hookledger_log_tails_lost_total").increment(1);
        tracing::error!(
            log.partition = %partition, log.known = known, log.found = found,
            "the log lost its end: the database has fewer or other events than were committed; this node continues \
             with what is there. Run `hookledger audit declare-loss`"
        );
    }
    if lost.is_empty() {
        let before = before.map_or_else(String::new, |before| before.to_string());
        tracing::warn!(
            log.epoch = %epoch, database.before = before, database.now = %found,
            "the database was replaced by another one; nothing of the log is missing; reading it again"
        );
    }
}

/// A memory of the log that is valid within one epoch.
#[derive(Debug, Default)]
pub struct Remembered<T> {
    heads: Heads,
    epoch: Epoch,
    value: T,
}

impl<T: Default> Remembered<T> {
    /// The memory; emptied if another epoch began since it was filled.
    pub fn get(&mut self) -> &mut T {
        let epoch = self.heads.epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.value = T::default();
        }
        &mut self.value
    }

    /// The memory, with the epoch in which it is valid.
    pub fn get_with_epoch(&mut self) -> (&mut T, Epoch) {
        self.get();
        (&mut self.value, self.epoch)
    }

    /// The memory for data read in that epoch; `None` if another epoch began since.
    pub fn get_in(&mut self, epoch: Epoch) -> Option<&mut T> {
        self.get();
        (self.epoch == epoch).then_some(&mut self.value)
    }
}
