//! The heads of the log: how far each partition goes, as this node knows it, and which history of the
//! log that is.
//!
//! The writer moves them after its commits; what other nodes append is found by polling. NOTIFY
//! inside append transactions was measured to cost five to nine times the throughput.
//!
//! A database can come back without the end of its log: a replica was promoted that lacked it, or an
//! older backup was restored. Whatever a node remembers of the log is then void. Each look at the heads
//! compares the database with what was known before; where it is another one, the [`Epoch`] changes, and
//! everything that remembers positions begins again.

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
use super::tail::{Incarnation, LostTail, note_lost};
use super::unit::LogPosition;

/// How often other nodes' appends are looked for.
const POLL: Duration = Duration::from_millis(100);
/// How long one look may take.
const POLL_LIMIT: Duration = Duration::from_secs(5);
/// How often the events at remembered positions are compared although the database seems to be the same.
const COMPARE: Duration = Duration::from_secs(5);
/// Databases that were left behind, of which the last ones are remembered.
const FORMER: usize = 16;

/// Last known position of each partition.
pub type Positions = [i64; PARTITIONS as usize];

/// Which history of the log a memory belongs to. It changes when the database is not the one that it
/// was: what was remembered under another epoch is void.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Epoch {
    /// That in which a node starts.
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
    #[error(
        "the database is a replica that still replays; nothing can be appended to it. Promote it, or connect to the primary"
    )]
    Replica,
    #[error("the database is {0}, which was replaced by another one; this connection to it is closed")]
    Former(Incarnation),
    #[error("the database was replaced while it was read; it is read again")]
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

/// How an event at a remembered position is known again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mark {
    Recorded(DateTime<Utc>),
    /// This node appended it, to that stream.
    Stream(Uuid),
}

/// How far partitions go, and how the events there are known again; nothing where that is not known.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    positions: Positions,
    marks: [Option<Mark>; PARTITIONS as usize],
}

/// What is known of the log at a moment.
#[derive(Clone, Debug, Default)]
struct Known {
    epoch: Epoch,
    ends: Ends,
    /// The ends when events were compared last: each look at the heads forgets the ends before it.
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
    /// Waits for events of this node, or for another epoch, and in any case not longer than `limit`: what
    /// other nodes append is only polled for.
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
    /// Moves with every administrative event of this node, so that those who follow only such
    /// events sleep through the traffic of webhooks.
    administrative: watch::Sender<u64>,
    /// Lost tails that the database does not know of yet.
    unnoted: Arc<Mutex<Vec<LostTail>>>,
    /// How busy the writer is with what somebody waits for.
    pub pressure: Pressure,
}

impl Default for Heads {
    fn default() -> Self {
        Self {
            known: watch::Sender::new(Known::default()),
            administrative: watch::Sender::new(0),
            unnoted: Arc::default(),
            pressure: Pressure::default(),
        }
    }
}

/// What the database says.
struct Found {
    incarnation: Incarnation,
    heads: Vec<(LogPosition, Option<Mark>)>,
}

impl Heads {
    /// Notes that the log goes at least this far, in the history that was appended to. Each place comes
    /// with the stream of its event.
    pub fn advance(&self, epoch: Epoch, places: impl IntoIterator<Item = (LogPosition, Uuid)>) {
        self.known.send_if_modified(|known| {
            let mut moved = false;
            // What was appended to another history says nothing of this one.
            if known.epoch != epoch {
                return false;
            }
            for (LogPosition { partition, position }, stream) in places {
                moved |= known.ends.advance(partition, position, Some(Mark::Stream(stream)));
            }
            moved
        });
    }

    /// The heads as they are known now.
    #[must_use]
    pub fn now(&self) -> Positions {
        self.known.borrow().ends.positions
    }

    /// Which history of the log this node follows now.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.known.borrow().epoch
    }

    /// A memory of what the log says, which is empty again in each new epoch.
    #[must_use]
    pub fn remember<T: Default>(&self) -> Remembered<T> {
        Remembered { heads: self.clone(), epoch: self.epoch(), value: T::default() }
    }

    /// Notes that an administrative event was appended.
    pub fn advance_administrative(&self) {
        self.administrative.send_modify(|count| *count += 1);
    }

    /// Something that wakes when events of that scope come, or another epoch.
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
    /// When the database does not answer, or is not one that can be appended to.
    pub async fn refresh(&self, pool: &PgPool) -> Result<(), HeadsError> {
        self.look(pool, false).await
    }

    async fn look(&self, pool: &PgPool, compare: bool) -> Result<(), HeadsError> {
        let mut connection = pool.acquire().await?;
        let looked = self.look_on(&mut connection, compare).await;
        // The next one is made anew, and leads to the database that is in force.
        if let Err(HeadsError::Former(_) | HeadsError::Replica) = looked {
            connection.close_on_drop();
        }
        looked.map(drop)
    }

    /// Reads the heads where a connection leads to, and answers which history of the log that is. Whoever makes a connection to append by asks this
    /// first: no unit that was decided on another history may be appended by it.
    ///
    /// # Errors
    /// As [`Heads::refresh`].
    pub async fn refresh_on(&self, connection: &mut PgConnection) -> Result<Epoch, HeadsError> {
        self.look_on(connection, false).await
    }

    async fn look_on(&self, connection: &mut PgConnection, compare: bool) -> Result<Epoch, HeadsError> {
        // Known before it is asked: what was committed before a question is in the answer to it.
        let before = self.known.borrow().clone();
        let found = Found::read(connection).await?;
        if before.former.contains(&found.incarnation) {
            return Err(HeadsError::Former(found.incarnation));
        }
        let is_new = before.incarnation.is_some_and(|known| known != found.incarnation);
        // A server that was restarted lost nothing that anybody has seen, unless the comparison says so.
        let is_other = before.incarnation.is_some_and(|known| known.is_another_history(found.incarnation));
        let is_shorter = found.heads.iter().any(|(at, _)| at.position < before.ends.positions[at.partition.index()]);
        let mut lost = Vec::new();
        if is_new || is_shorter || compare {
            // Looks between two comparisons have only seen the database that is the same.
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
            // Those who follow only settings are woken by no position.
            self.advance_administrative();
            tell(epoch, before.incarnation, found.incarnation, &lost);
            self.unnoted().extend(lost);
        }
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

    /// Takes over what was found; answers the new epoch where one begins.
    fn take_over(
        &self,
        before: &Known,
        found: &Found,
        begin: bool,
        compared: bool,
    ) -> Result<Option<Epoch>, HeadsError> {
        let (mut new, mut is_replaced) = (None, false);
        // The epoch that is answered is that of this connection; whoever lost a race looks again.
        self.known.send_if_modified(|known| {
            if known.epoch != before.epoch {
                // Somebody else noticed meanwhile, and what was compared here is void.
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

    /// Another history of the log begins.
    #[cfg(test)]
    pub(crate) fn begin_again(&self) {
        self.known.send_modify(|known| known.epoch = Epoch(known.epoch.0 + 1));
    }

    /// Looks for other nodes' appends until stopped.
    pub async fn poll(self, pool: PgPool, stop: CancellationToken) {
        let mut compared = Instant::now();
        while stop.run_until_cancelled(tokio::time::sleep(POLL)).await.is_some() {
            let compare = compared.elapsed() >= COMPARE;
            // Where the network swallows packets, no answer ever comes.
            let looked = tokio::time::timeout(POLL_LIMIT, self.look(&pool, compare)).await;
            match looked.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut.into())) {
                Ok(()) if compare => compared = Instant::now(),
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "the heads of the log cannot be read; trying again");
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
            // Times tell events apart better than streams do.
            if let Some(Mark::Recorded(_)) = mark {
                self.marks[index] = mark;
            }
            return false;
        }
        self.positions[index] = position;
        self.marks[index] = mark;
        true
    }

    /// Partitions in which another event than the known one is at the known position, or none.
    async fn replaced(&self, connection: &mut PgConnection) -> Result<Vec<Partition>, sqlx::Error> {
        let (mut partitions, mut positions, mut times, mut streams) = (vec![], vec![], vec![], vec![]);
        for partition in Partition::all() {
            let Some(mark) = self.marks[partition.index()] else { continue };
            partitions.push(partition.number());
            positions.push(self.positions[partition.index()]);
            times.push(if let Mark::Recorded(at) = mark { Some(at) } else { None });
            streams.push(if let Mark::Stream(id) = mark { Some(id.to_string()) } else { None });
        }
        let replaced: Vec<i32> = sqlx::query_scalar(
            "select n.partition
             from unnest($1::int[], $2::bigint[], $3::timestamptz[], $4::text[]) as n (partition, position, at, stream)
             where not exists (
                 select from events e
                 where e.partition = n.partition and e.position = n.position
                   and (e.recorded_at = n.at or e.aggregate_id = n.stream))",
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
                    pg_postmaster_start_time(), 'events'::regclass::oid::bigint, h.partition, h.position,
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
            "the log lost its end: the database has fewer events than were committed, or others; this node begins \
             again from what is there. Run `hookledger audit declare-loss`"
        );
    }
    if lost.is_empty() {
        let before = before.map_or_else(String::new, |before| before.to_string());
        tracing::warn!(
            log.epoch = %epoch, database.before = before, database.now = %found,
            "the database was replaced by another one; nothing of the log is missing, and it is read again"
        );
    }
}

/// What somebody remembers of the log, for as long as it is the same log.
#[derive(Debug, Default)]
pub struct Remembered<T> {
    heads: Heads,
    epoch: Epoch,
    value: T,
}

impl<T: Default> Remembered<T> {
    /// What is remembered; nothing where another epoch began since it was.
    pub fn get(&mut self) -> &mut T {
        let epoch = self.heads.epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.value = T::default();
        }
        &mut self.value
    }

    /// Likewise, with the epoch in which it holds.
    pub fn get_with_epoch(&mut self) -> (&mut T, Epoch) {
        self.get();
        (&mut self.value, self.epoch)
    }

    /// Likewise, for what was read in that epoch; nothing where another one began since.
    pub fn get_in(&mut self, epoch: Epoch) -> Option<&mut T> {
        self.get();
        (self.epoch == epoch).then_some(&mut self.value)
    }
}
