//! The progress of a follower while it holds the lease.

use std::time::Duration;

use chrono::{DateTime, Utc};
use hookledger_aggregates::Partition;
use tokio::time::Instant;

use super::checkpoints::Move;
use super::handler::Followed;
use crate::log::{Epoch, LogPosition, Scope};

/// Events per partition and batch.
pub(super) const BATCH: i64 = 1_000;
/// A stopped partition is retried this often, because a later release may know the event.
const RETRY_STOPPED: Duration = Duration::from_secs(30);

/// A follower's own knowledge while it holds the lease.
pub(super) struct Progress {
    /// The epoch of the log in which this is valid.
    pub(super) epoch: Epoch,
    /// When the last handled event was recorded.
    pub(super) applied_at: Option<DateTime<Utc>>,
    /// Events per partition and read.
    pub(super) batch: i64,
    /// By partition.
    ways: Vec<Way>,
    retry_stopped_at: Instant,
}

/// How far it has come in one partition.
#[derive(Clone, Copy)]
struct Way {
    /// The checkpoint in the database.
    stored: LogPosition,
    /// How far the log was looked through; beyond the checkpoint if no event there concerned the follower.
    seen: i64,
    is_stopped: bool,
}

impl Progress {
    /// From the checkpoints in the database, by partition.
    pub(super) fn new(epoch: Epoch, stored: Vec<LogPosition>) -> Self {
        let ways = stored.into_iter().map(|stored| Way { stored, seen: stored.position, is_stopped: false });
        Self {
            epoch,
            applied_at: None,
            batch: BATCH,
            ways: ways.collect(),
            retry_stopped_at: Instant::now() + RETRY_STOPPED,
        }
    }

    /// Where to read on, in each partition whose head is further.
    pub(super) fn cursors(&self, heads: &[i64]) -> Vec<LogPosition> {
        let behind = self.ways.iter().zip(heads).filter(|(way, head)| !way.is_stopped && **head > way.seen);
        behind.map(|(way, _)| LogPosition { position: way.seen.max(way.stored.position), ..way.stored }).collect()
    }

    /// Tries stopped partitions again, now and then.
    pub(super) fn retry_stopped(&mut self) {
        if Instant::now() >= self.retry_stopped_at {
            self.retry_stopped_at = Instant::now() + RETRY_STOPPED;
            for way in &mut self.ways {
                way.is_stopped = false;
            }
        }
    }

    /// Stops a partition, and returns the position of its checkpoint.
    pub(super) fn stop(&mut self, partition: Partition) -> i64 {
        let way = &mut self.ways[partition.index()];
        way.is_stopped = true;
        way.stored.position
    }

    /// The moves of the checkpoints to the last events of each partition. Events are grouped by partition.
    pub(super) fn moves<E: Followed>(&self, events: &[E]) -> Vec<Move> {
        let last = events.chunk_by(same_partition).filter_map(<[E]>::last);
        last.map(|last| Move {
            from: self.ways[last.at().partition.index()].stored,
            to: last.at().position,
            recorded_at: last.recorded_at(),
        })
        .collect()
    }

    /// Notes that the checkpoints were moved.
    pub(super) fn advance(&mut self, moves: &[Move]) {
        for Move { from, to, .. } in moves {
            self.ways[from.partition.index()].stored.position = *to;
        }
    }

    /// Notes how far a read has looked: up to the known head, where it did not reach its limit.
    pub(super) fn note_seen(&mut self, scope: Scope, cursors: &[LogPosition], full: &[Partition], heads: &[i64]) {
        for cursor in cursors {
            let way = &mut self.ways[cursor.partition.index()];
            if way.is_stopped {
                continue;
            }
            let applied = way.stored.position;
            way.seen = match scope {
                // In a full scope the checkpoint is the position seen.
                Scope::All => applied,
                Scope::Administrative | Scope::Pending if !full.contains(&cursor.partition) => {
                    applied.max(heads[cursor.partition.index()])
                }
                Scope::Administrative | Scope::Pending => applied,
            };
        }
    }

    /// Halves the next batches after one of `events` was too large.
    pub(super) fn take_less(&mut self, events: i64) {
        self.batch = (events / 2).max(1);
    }

    /// Lets batches grow again.
    pub(super) fn take_more(&mut self) {
        self.batch = (self.batch * 2).min(BATCH);
    }
}

pub(super) fn same_partition<E: Followed>(a: &E, b: &E) -> bool {
    a.at().partition == b.at().partition
}
