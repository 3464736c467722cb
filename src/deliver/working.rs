//! Attempts in progress on this node. Their leases may end meanwhile, for example during an outage of the
//! database; the node does not take such a row a second time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hookledger_aggregates::DeliveryId;

use super::queue::Due;

type Key = (DeliveryId, u32);

/// The attempts in progress.
#[derive(Clone, Debug, Default)]
pub(super) struct Working(Arc<Mutex<HashSet<Key>>>);

/// An attempt in progress, until this is dropped.
#[derive(Debug)]
pub(super) struct InHand {
    working: Working,
    key: Key,
}

impl Working {
    fn lock(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers an attempt; `None` if it is in progress already.
    pub fn take(&self, due: &Due) -> Option<InHand> {
        let key = (due.delivery, due.attempt);
        self.lock().insert(key).then(|| InHand { working: self.clone(), key })
    }

    pub fn has(&self, delivery: DeliveryId, attempt: u32) -> bool {
        self.lock().contains(&(delivery, attempt))
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.working.lock().remove(&self.key);
    }
}
