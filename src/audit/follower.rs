//! The ledger as a follower of the log: each event becomes a leaf of its tree.
//!
//! Full tiles are written once. For partial ones, a batch writes one or two rows per tree, never one per
//! event. Growing trees are in memory, and are read again whenever memory may be out of date.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger_aggregates::OrganizationId;
use sqlx::PgConnection;

use super::growing::{Changes, Growing};
use super::tree::Hash;
use super::{LedgerId, store};
use crate::log::follow::{Followed, Handler, HandlerError, UnderPressure};
use crate::log::stored_event::StoredEvent;
use crate::log::{Batch, LogPosition, ReadError, Reader, Scope};

/// Name of its lease and checkpoints.
pub const FOLLOWER: &str = "ledger";
/// Trees kept in memory, at about 10 KiB each. Beyond it, all are read again as they grow.
const KEPT: usize = 2_000;
/// Pause after a batch, to gather more events.
const GATHER: Duration = Duration::from_millis(200);

/// An event as a leaf.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    pub ledger: LedgerId,
    pub at: LogPosition,
    /// Only for pace and metrics; nothing where it is no time that there is.
    pub recorded_at: Option<DateTime<Utc>>,
    pub hash: Hash,
}

impl Leaf {
    /// The leaf of an event at that log position.
    pub(crate) fn new<T: AsRef<str>>(at: LogPosition, event: &StoredEvent<T>) -> Self {
        Self {
            ledger: LedgerId::of(OrganizationId::new(event.organization), at.partition),
            at,
            recorded_at: DateTime::from_timestamp_micros(event.recorded_at),
            hash: event.leaf_hash(),
        }
    }
}

impl Followed for Leaf {
    fn at(&self) -> LogPosition {
        self.at
    }

    fn recorded_at(&self) -> Option<DateTime<Utc>> {
        self.recorded_at
    }

    fn read<'a>(
        reader: &'a Reader,
        cursors: &'a [LogPosition],
        _scope: Scope,
        limit: i64,
    ) -> BoxFuture<'a, Result<Batch<Self>, ReadError>> {
        Box::pin(reader.stored_after(cursors, limit, |at, event| Self::new(at, &event)))
    }
}

/// Adds leaves to trees.
#[derive(Debug, Default)]
pub struct LedgerFollower {
    trees: Mutex<HashMap<LedgerId, Growing>>,
    /// The trees that the last batch changed, until it is committed.
    grown: Mutex<BTreeMap<LedgerId, Growing>>,
}

impl LedgerFollower {
    /// The trees of a batch, from memory or from the tables. They leave memory until the batch is committed,
    /// so that after a failure they are read again.
    async fn take(
        &self,
        connection: &mut PgConnection,
        ledgers: impl Iterator<Item = LedgerId>,
    ) -> Result<BTreeMap<LedgerId, Growing>, HandlerError> {
        lock(&self.grown).clear();
        let (mut trees, mut missing) = (BTreeMap::new(), Vec::new());
        {
            let mut kept = lock(&self.trees);
            for ledger in ledgers {
                match kept.remove(&ledger) {
                    Some(tree) => drop(trees.insert(ledger, tree)),
                    None => missing.push(ledger),
                }
            }
        }
        if !missing.is_empty() {
            trees.extend(store::load(connection, &missing).await?);
        }
        Ok(trees)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handler<Leaf> for LedgerFollower {
    fn name(&self) -> &'static str {
        FOLLOWER
    }

    fn scope(&self) -> Scope {
        Scope::All
    }

    fn gather(&self) -> Duration {
        GATHER
    }

    /// A large batch costs little more than a small one, so it takes few, and is never later than this.
    fn under_pressure(&self) -> UnderPressure {
        UnderPressure { batch: 2_000, rest: 8, oldest: chrono::Duration::milliseconds(2_500) }
    }

    fn begin(&self) {
        lock(&self.trees).clear();
        lock(&self.grown).clear();
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        leaves: &'a [Leaf],
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            let mut by_ledger: BTreeMap<LedgerId, Vec<(i64, Hash)>> = BTreeMap::new();
            for leaf in leaves {
                by_ledger.entry(leaf.ledger).or_default().push((leaf.at.position, leaf.hash));
            }
            let mut trees = self.take(connection, by_ledger.keys().copied()).await?;
            let mut changes = Changes::default();
            for (ledger, leaves) in by_ledger {
                if !trees.entry(ledger).or_default().add(ledger, leaves, &mut changes) {
                    let told = format!("the tree {ledger} has leaves from beyond the checkpoint already");
                    return Err(HandlerError::Unappliable(told));
                }
            }
            if !store::write(connection, &changes).await? {
                return Err(HandlerError::Transient("another node added leaves; the trees are read again".to_owned()));
            }
            *lock(&self.grown) = trees;
            Ok(())
        })
    }

    fn committed(&self) {
        let (mut kept, grown) = (lock(&self.trees), std::mem::take(&mut *lock(&self.grown)));
        if kept.len() + grown.len() > KEPT {
            kept.clear();
        }
        kept.extend(grown);
    }
}
