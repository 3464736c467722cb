//! Starts the ledger: its trees, its signed heads, and the warnings about a log that lost its end.

use std::time::Duration;

use super::config::ServeSettings;
use super::core::{Core, pool_of};
use super::error::NodeError;
use super::keys;
use crate::audit::checkpoint::LedgerKeys;
use crate::audit::file::CheckpointFile;
use crate::audit::loss::watch::LossWatch;
use crate::audit::{LedgerFollower, Ledgers, Witness};
use crate::log::follow::Follower;
use crate::platform::store::{Store, Use};

impl Core {
    /// Adds new events to the ledger's trees. Runs on its own thread, because it hashes every event and must
    /// stay within seconds of the log whatever projections do.
    pub async fn follow_ledger(&self, store: &Store) -> Result<(), NodeError> {
        let pool = pool_of(&self.ledger_lane, store, Use::Ledger).await?;
        let follower =
            Follower::new(Box::new(LedgerFollower::default()), pool, self.heads.clone(), self.leases.clone())
                .watched(self.vitals.clone());
        let following = self.vitals.watch("ledger", self.stop.clone(), follower.run(self.stop.clone()));
        self.tasks.spawn_on(following, self.ledger_lane.handle());
        Ok(())
    }
}

/// Starts signing the heads of the ledger's trees, and sending them to a witness.
pub(super) fn sign(settings: &ServeSettings, core: &Core) -> Result<Ledgers, NodeError> {
    let file = settings.checkpoint_file().map(CheckpointFile::new);
    let losses = LossWatch {
        pool: core.pool.clone(),
        keys: LedgerKeys::derive(&keys::master(&settings.store)?).public(),
        file: settings.checkpoint_file(),
        vitals: core.vitals.clone(),
    };
    core.spawn("losses", losses.run(core.stop.clone()));
    let witness = |url| Witness::new(url, file.clone(), core.vitals.clone());
    let (put, witness) = settings.witness_url.as_deref().map(witness).transpose()?.unzip();
    let keys = LedgerKeys::derive(&keys::master(&settings.store)?);
    let base_url = settings.store.base_url.0.clone();
    let ledgers = Ledgers::new(core.pool.clone(), core.leases.node(), keys, base_url, file, put);
    if let Some(witness) = witness {
        core.tasks.spawn(witness.run(ledgers.clone(), core.stop.clone()));
    }
    let every = settings.checkpoint_interval.0.to_std().unwrap_or(Duration::from_secs(5));
    core.spawn("checkpoints", ledgers.clone().run(every, core.vitals.clone(), core.stop.clone()));
    Ok(ledgers)
}
