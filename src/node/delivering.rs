//! Starts deliveries: the queue, its feeder, and the worker.

use std::sync::Arc;

use hookledger_aggregates::delivery::RetryPolicy;

use super::config::ServeSettings;
use super::core::Core;
use super::error::NodeError;
use crate::deliver::{Feeder, Parts, Places, Queue, Settings, Sweeper, Worker};
use crate::directory::Directory;
use crate::log::FreshBodies;
use crate::platform::egress::Egress;
use crate::platform::store::{Store, Use};

/// Starts processing webhooks: the queue's feeder and the worker.
pub(super) async fn start(
    store: &Store,
    settings: &ServeSettings,
    core: &Core,
    directory: &Directory,
    fresh: Arc<FreshBodies>,
    egress: Egress,
) -> Result<(), NodeError> {
    // A span in the settings is never negative.
    let attempt_timeout = settings.attempt_timeout.0.to_std().unwrap_or_default();
    let queue = Queue::new(store.pool(Use::Queue).await?, core.leases.node(), core.heads.clone());
    let sweeper = Sweeper::new(
        core.pool.clone(),
        queue.clone(),
        settings.pending_timeout.0.to_std().unwrap_or_default(),
        core.vitals.clone(),
    );
    let places = Arc::new(Places::default());
    let (hand, worker) = Worker::new(Parts {
        log: core.log.clone(),
        reader: core.reader.clone(),
        directory: directory.clone(),
        queue: queue.clone(),
        places: Arc::clone(&places),
        egress,
        fresh,
        settings: Settings {
            policy: RetryPolicy { delays: settings.retry_delays.0.clone() },
            pending_timeout: settings.pending_timeout.0.to_std().unwrap_or_default(),
            attempt_timeout,
        },
    });
    core.follow(Box::new(Feeder::new(directory.clone(), queue, places, attempt_timeout, hand)));
    core.spawn("worker", worker.run(core.stop.clone()));
    core.spawn("sweeper", sweeper.run(core.stop.clone()));
    Ok(())
}
