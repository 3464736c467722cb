//! Starts upkeep: the comparison of read models with the log, retention, and news for subscribers.

use super::core::Core;
use crate::audit::conservation::Checker;
use crate::reads::changes::{Changes, Watcher};
use crate::retention::{Eraser, Sweep};

/// Compares the read models with the log for as long as the node runs.
pub(super) fn check_conservation(core: &Core) {
    let checker = Checker::new(core.followers.clone(), core.heads.clone(), core.leases.clone(), core.vitals.clone());
    core.tasks.spawn_on(checker.run(core.stop.clone()), core.follow_lane.handle());
}

/// Removes bodies that are older than `period`, or whose erasure was requested.
pub(super) fn remove_what_is_old(core: &Core, period: chrono::Duration) {
    core.follow(Box::new(Eraser::new(core.followers.clone())));
    let sweep = Sweep::new(core.pool.clone(), core.log.clone(), core.heads.clone(), core.leases.clone(), period)
        .watched(core.vitals.clone());
    core.spawn("retention", sweep.run(core.stop.clone()));
}

/// Starts the notification of subscribers about changes.
pub(super) fn watch_changes(core: &Core) -> Changes {
    let changes = Changes::default();
    let (reader, checkpoints, heads) = (core.reader.clone(), core.checkpoints.clone(), core.heads.clone());
    let watcher =
        Watcher::new(changes.clone(), reader, checkpoints, heads, core.tenants.clone()).watched(core.vitals.clone());
    core.spawn("watcher", watcher.run(core.stop.clone()));
    changes
}
