//! The heads of the log: how far each partition goes, as this node knows it.
//!
//! The writer moves them after its commits; what other nodes append is found by polling. NOTIFY
//! inside append transactions was measured to cost five to nine times the throughput.

use std::time::Duration;

use hookledger_aggregates::ids::PARTITIONS;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::pressure::Pressure;
use super::read::Scope;
use super::unit::LogPosition;

/// How often other nodes' appends are looked for.
const POLL: Duration = Duration::from_millis(100);
/// How long one look may take.
const POLL_LIMIT: Duration = Duration::from_secs(5);

/// Last known position of each partition.
pub type Positions = [i64; PARTITIONS as usize];

/// Wakes a follower.
#[derive(Debug)]
pub enum Wake {
    Positions(watch::Receiver<Positions>),
    Administrative(watch::Receiver<u64>),
}

impl Wake {
    /// Waits for events of this node, and in any case not longer than `limit`: what other nodes
    /// append is only polled for.
    pub async fn wait(&mut self, limit: Duration) {
        let _ = match self {
            Self::Positions(heads) => tokio::time::timeout(limit, heads.changed()).await,
            Self::Administrative(count) => tokio::time::timeout(limit, count.changed()).await,
        };
    }
}

/// Shared knowledge of the heads.
#[derive(Clone, Debug)]
pub struct Heads {
    positions: watch::Sender<Positions>,
    /// Moves with every administrative event of this node, so that those who follow only such
    /// events sleep through the traffic of webhooks.
    administrative: watch::Sender<u64>,
    /// How busy the writer is with what somebody waits for.
    pub pressure: Pressure,
}

impl Default for Heads {
    fn default() -> Self {
        Self {
            positions: watch::Sender::new([0; PARTITIONS as usize]),
            administrative: watch::Sender::new(0),
            pressure: Pressure::default(),
        }
    }
}

impl Heads {
    /// Notes that the log goes at least this far.
    pub fn advance(&self, positions: impl IntoIterator<Item = LogPosition>) {
        self.positions.send_if_modified(|heads| {
            let mut moved = false;
            for LogPosition { partition, position } in positions {
                let head = &mut heads[partition.index()];
                if position > *head {
                    *head = position;
                    moved = true;
                }
            }
            moved
        });
    }

    /// The heads as they are known now.
    #[must_use]
    pub fn now(&self) -> Positions {
        *self.positions.borrow()
    }

    /// Notes that an administrative event was appended.
    pub fn advance_administrative(&self) {
        self.administrative.send_modify(|count| *count += 1);
    }

    /// Something that wakes when events of that scope come.
    #[must_use]
    pub fn wake(&self, scope: Scope) -> Wake {
        match scope {
            Scope::All | Scope::Pending => Wake::Positions(self.positions.subscribe()),
            Scope::Administrative => Wake::Administrative(self.administrative.subscribe()),
        }
    }

    /// Reads the heads once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refresh(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let rows: Vec<(i32, i64)> = sqlx::query_as("select partition, position from log_heads").fetch_all(pool).await?;
        self.advance(rows.into_iter().filter_map(|(partition, position)| {
            let partition = hookledger_aggregates::Partition::new(partition)?;
            Some(LogPosition { partition, position })
        }));
        Ok(())
    }

    /// Looks for other nodes' appends until stopped.
    pub async fn poll(self, pool: PgPool, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(POLL)).await.is_some() {
            // Where the network swallows packets, no answer ever comes.
            let looked = tokio::time::timeout(POLL_LIMIT, self.refresh(&pool)).await;
            if let Err(error) = looked.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut)) {
                tracing::warn!(%error, "the heads of the log cannot be read; trying again");
                tokio::time::sleep(POLL * 5).await;
            }
        }
    }
}
