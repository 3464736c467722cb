//! The heads of the log: how far each partition goes, as this node knows it.
//!
//! The writer moves them after its commits; what other nodes append is found by polling. NOTIFY
//! inside append transactions was measured to cost five to nine times the throughput.

use std::time::Duration;

use hookledger_aggregates::ids::PARTITIONS;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::unit::LogPosition;

/// How often other nodes' appends are looked for.
const POLL: Duration = Duration::from_millis(100);

/// Last known position of each partition.
pub type Positions = [i64; PARTITIONS as usize];

/// Shared knowledge of the heads.
#[derive(Clone, Debug)]
pub struct Heads(watch::Sender<Positions>);

impl Default for Heads {
    fn default() -> Self {
        Self(watch::Sender::new([0; PARTITIONS as usize]))
    }
}

impl Heads {
    /// Notes that the log goes at least this far.
    pub fn advance(&self, positions: impl IntoIterator<Item = LogPosition>) {
        self.0.send_if_modified(|heads| {
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
        *self.0.borrow()
    }

    /// A receiver that wakes when a head moves.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Positions> {
        self.0.subscribe()
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
            if let Err(error) = self.refresh(&pool).await {
                tracing::warn!(%error, "the heads of the log cannot be read; trying again");
                tokio::time::sleep(POLL * 5).await;
            }
        }
    }
}
