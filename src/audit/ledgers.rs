//! The server's ledger: signs heads, and proves statements about trees.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, Utc};
use sqlx::{PgConnection, PgPool};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::checkpoint::{Checkpoint, CheckpointError, LedgerKeys, Origin, PublicKey};
use super::file::CheckpointFile;
use super::lookup::{self, Place, Signed};
use super::loss;
use super::store::{self, Head, StoreError};
use super::tree::{Hash, ProofError, Statement, prove, tiles_to_prove};
use super::{FOLLOWER, LedgerId};
use crate::log::follow::{Checkpoints, STATEMENT_LIMIT, within};
use crate::platform::vitals::Vitals;

/// Heads signed together.
const PORTION: i64 = 200;
/// Maximum number of portions per round; the next round continues.
const PORTIONS: usize = 20;
/// How long a round may take, and the maximum age of the last successful one.
const ROUND_LIMIT: Duration = Duration::from_secs(30);
const LONGEST_BLIND: Duration = Duration::from_secs(60);
/// Name in the node's vitals.
const TASK: &str = "checkpoints";
/// Minimum interval between heads of a tree that are signed on demand.
const DEMAND: chrono::Duration = chrono::Duration::seconds(1);

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error("no checkpoint of this tree has {0} leaves")]
    NoCheckpoint(u64),
    /// A later try may succeed.
    #[error("the event is not in a signed tree yet")]
    NotYet,
    #[error("this tree has no event at that position")]
    NoEvent,
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Proof that an event is in the tree of a checkpoint.
#[derive(Clone, Debug)]
pub struct Inclusion {
    pub checkpoint: Signed,
    pub place: Place,
    pub proof: Vec<Hash>,
}

/// Proof that the tree of one checkpoint is the beginning of another's.
#[derive(Clone, Debug)]
pub struct Consistency {
    pub from: u64,
    pub checkpoint: Signed,
    pub proof: Vec<Hash>,
}

/// Signs, stores and proves. Clones share their state.
#[derive(Clone, Debug)]
pub struct Ledgers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    checkpoints: Checkpoints,
    node: Uuid,
    keys: LedgerKeys,
    base_url: String,
    file: Option<CheckpointFile>,
    witness: Option<mpsc::Sender<Signed>>,
    /// Serializes signing on demand, so that concurrent requests share one head.
    demand: tokio::sync::Mutex<()>,
}

impl Ledgers {
    /// `pool` acts as `hookledger_worker`; `node` is that of the ledger's follower.
    #[must_use]
    pub fn new(
        pool: PgPool,
        node: Uuid,
        keys: LedgerKeys,
        base_url: String,
        file: Option<CheckpointFile>,
        witness: Option<mpsc::Sender<Signed>>,
    ) -> Self {
        let checkpoints = Checkpoints::new(pool.clone());
        let demand = tokio::sync::Mutex::default();
        Self(Arc::new(Inner { pool, checkpoints, node, keys, base_url, file, witness, demand }))
    }

    /// The first line of a tree's checkpoints.
    #[must_use]
    pub fn origin(&self, ledger: LedgerId) -> Origin {
        Origin::new(&self.0.base_url, ledger)
    }

    /// The keys that verify checkpoints, the signing key first.
    #[must_use]
    pub fn public_keys(&self) -> Vec<PublicKey> {
        self.0.keys.public()
    }

    /// Signs the heads of trees that have grown, at this interval, until stopped. Only the node that builds
    /// the trees signs.
    pub async fn run(self, every: Duration, vitals: Vitals, stop: CancellationToken) {
        vitals.expect_looks(TASK, every + LONGEST_BLIND);
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match within(ROUND_LIMIT, self.sign_grown()).await {
                Ok(()) => vitals.seen(TASK),
                Err(error) => {
                    metrics::counter!("hookledger_ledger_errors_total").increment(1);
                    tracing::error!(%error, "could not sign checkpoints; retrying");
                }
            }
            if let Err(error) = within(STATEMENT_LIMIT, self.measure()).await {
                tracing::warn!(%error, "could not measure the ledger's lag");
            }
        }
        vitals.expect_no_looks(TASK);
    }

    /// Signs the heads of all trees that have grown.
    pub async fn sign_grown(&self) -> Result<(), LedgerError> {
        for _ in 0..PORTIONS {
            let heads = store::unsigned(&self.0.pool, FOLLOWER, self.0.node, PORTION).await?;
            let all = i64::try_from(heads.len()).is_ok_and(|count| count < PORTION);
            self.sign(&heads).await?;
            if all {
                break;
            }
        }
        Ok(())
    }

    async fn sign(&self, heads: &[Head]) -> Result<(), LedgerError> {
        if heads.is_empty() {
            return Ok(());
        }
        let signed_at: DateTime<Utc> = Utc::now().trunc_subsecs(6);
        let mut signed = Vec::with_capacity(heads.len());
        let ledgers: Vec<_> = heads.iter().map(|head| head.ledger).collect();
        let losses = loss::counts(&self.0.pool, &ledgers).await?;
        for Head { ledger, size, last, root } in heads.iter().copied() {
            // Nobody can prove that the tree continues the lost one, so from here on it is another tree.
            let origin = self.origin(ledger).after(losses.get(&ledger).copied().unwrap_or_default());
            let checkpoint = Checkpoint { origin, size, root, signed_at, last };
            let note = checkpoint.sign(&self.0.keys)?;
            signed.push(Signed { ledger, size, root, last, signed_at, note });
        }
        // Stored in the database before the file, so that `verify` can report one that is missing from the
        // database.
        store::keep(&self.0.pool, &signed).await?;
        // A full disk must not prevent proofs.
        if let Some(file) = &self.0.file
            && let Err(error) = file.append(signed.iter().map(|signed| signed.note.clone()).collect()).await
        {
            metrics::counter!("hookledger_checkpoint_file_errors_total").increment(1);
            tracing::error!(path = %file.path().display(), %error, "could not append checkpoints to their file");
        }
        metrics::counter!("hookledger_checkpoints_signed_total").increment(signed.len() as u64);
        if let Some(witness) = &self.0.witness {
            for signed in signed {
                // A witness that is too slow gets a later head instead.
                let _ = witness.try_send(signed);
            }
        }
        Ok(())
    }

    /// The latest checkpoint of a tree, signed now if the tree has grown since. `None` if it is empty.
    pub async fn fresh_checkpoint(&self, ledger: LedgerId) -> Result<Option<Signed>, LedgerError> {
        let _one = self.0.demand.lock().await;
        let latest = lookup::checkpoint(&self.0.pool, ledger, None).await?;
        if latest.as_ref().is_some_and(|latest| Utc::now() - latest.signed_at < DEMAND) {
            return Ok(latest);
        }
        let Some(head) = store::head_of(&self.0.pool, ledger).await? else { return Ok(None) };
        if latest.as_ref().is_some_and(|latest| latest.size == head.size) {
            return Ok(latest);
        }
        self.sign(&[head]).await?;
        Ok(lookup::checkpoint(&self.0.pool, ledger, None).await?)
    }

    /// Proves that the event at a position is in the tree of the latest checkpoint, or of the one with that
    /// size.
    pub async fn inclusion(
        &self,
        connection: &mut PgConnection,
        ledger: LedgerId,
        position: i64,
        size: Option<u64>,
    ) -> Result<Inclusion, LedgerError> {
        let Some(place) = lookup::leaf_at(&mut *connection, ledger, position).await? else {
            let grown_to = store::head_of(&mut *connection, ledger).await?.map_or(0, |head| head.last);
            return Err(if position > grown_to { LedgerError::NotYet } else { LedgerError::NoEvent });
        };
        let mut checkpoint = self.checkpoint(connection, ledger, size).await?;
        if checkpoint.size <= place.index && size.is_none() {
            checkpoint = self.fresh_checkpoint(ledger).await?.ok_or(LedgerError::NotYet)?;
        }
        if checkpoint.size <= place.index {
            return Err(LedgerError::NotYet);
        }
        let statement = Statement::Inclusion { index: place.index };
        let proof = Self::prove(connection, &checkpoint, statement).await?;
        Ok(Inclusion { checkpoint, place, proof })
    }

    /// Proves that the tree of the first `from` leaves is the beginning of a checkpoint's tree: of the
    /// latest, or of the one with that size.
    pub async fn consistency(
        &self,
        connection: &mut PgConnection,
        ledger: LedgerId,
        from: u64,
        to: Option<u64>,
    ) -> Result<Consistency, LedgerError> {
        let checkpoint = self.checkpoint(connection, ledger, to).await?;
        let proof = Self::prove(connection, &checkpoint, Statement::Consistency { from }).await?;
        Ok(Consistency { from, checkpoint, proof })
    }

    async fn checkpoint(
        &self,
        connection: &mut PgConnection,
        ledger: LedgerId,
        size: Option<u64>,
    ) -> Result<Signed, LedgerError> {
        if let Some(found) = lookup::checkpoint(connection, ledger, size).await? {
            return Ok(found);
        }
        match size {
            Some(size) => Err(LedgerError::NoCheckpoint(size)),
            None => self.fresh_checkpoint(ledger).await?.ok_or(LedgerError::NotYet),
        }
    }

    async fn prove(
        connection: &mut PgConnection,
        checkpoint: &Signed,
        statement: Statement,
    ) -> Result<Vec<Hash>, LedgerError> {
        let wanted = tiles_to_prove(statement, checkpoint.size)?;
        let tiles = lookup::tiles(connection, checkpoint.ledger, &wanted).await?;
        Ok(prove(statement, checkpoint.size, checkpoint.root, &tiles)?)
    }

    /// The same, without a connection.
    pub(super) async fn prove_consistency(&self, checkpoint: &Signed, from: u64) -> Result<Vec<Hash>, LedgerError> {
        let mut connection = self.0.pool.acquire().await?;
        Self::prove(&mut connection, checkpoint, Statement::Consistency { from }).await
    }

    /// Number of leaves of a tree.
    pub(super) async fn size(&self, ledger: LedgerId) -> Result<u64, LedgerError> {
        let head = within(STATEMENT_LIMIT, store::head_of(&self.0.pool, ledger)).await?;
        Ok(head.map_or(0, |head| head.size))
    }

    /// Measures how far the trees are behind the log.
    async fn measure(&self) -> Result<(), LedgerError> {
        let behind = store::behind(&self.0.pool, FOLLOWER).await?;
        metrics::gauge!("hookledger_ledger_lag_seconds").set(behind.map_or(0.0, |behind| behind.max(0.0)));
        Ok(())
    }

    /// Waits until everything up to a log position is in its tree; returns false after `limit`.
    pub async fn wait_for(&self, place: crate::log::LogPosition, limit: Duration) -> Result<bool, sqlx::Error> {
        self.0.checkpoints.wait_for(&[FOLLOWER], place, limit).await
    }
}
