//! Starts receiving: the directory, the receiver, and the tasks that log its counts.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::config::ServeSettings;
use super::core::Core;
use super::error::{NodeError, patiently};
use crate::directory::{Directory, DirectoryFollower};
use crate::log::FreshBodies;
use crate::platform::store::Store;
use crate::receive::paypal::{CertificateStore, Fetch, Verifier};
use crate::receive::{Admission, DuplicateCounter, Duplicates, Limits, Parts, Receiver, RejectionCounter, Rejections};

/// The directory, loaded once and followed until the node stops.
pub(super) async fn directory(core: &Core, store: &Store) -> Result<Directory, NodeError> {
    let directory = Directory::default();
    let mut follower =
        DirectoryFollower::new(directory.clone(), core.reader.clone(), core.heads.clone(), core.vault.clone())
            .watched(core.vitals.clone());
    patiently(store, async || Ok(follower.load().await?)).await?;
    core.spawn("directory", follower.run(core.stop.clone()));
    Ok(directory)
}

/// Starts receiving webhooks, the measurements for admission, and the verification of webhooks that wait for a certificate.
pub(super) fn start(
    settings: &ServeSettings,
    core: &Core,
    directory: &Directory,
    fresh: Arc<FreshBodies>,
    fetch: Arc<dyn Fetch>,
) -> Result<Receiver, NodeError> {
    let (limits, warner) = Limits::new(core.commands.clone(), &core.heads);
    core.spawn("warner", warner.run(core.stop.clone()));
    let certificates = CertificateStore::new(settings.paypal_cert_dir.clone(), settings.paypal_trust_roots.as_deref())?;
    let admission = Admission::default();
    let receiver = Receiver::new(Parts {
        directory: directory.clone(),
        log: core.log.clone(),
        reader: core.reader.clone(),
        rejections: count_rejections(core),
        duplicates: count_duplicates(core),
        limits,
        certificates: Arc::new(certificates),
        paypal_max_age: settings.paypal_max_age.0,
        fresh,
        admission: admission.clone(),
    });
    let measuring = admission.run(Handle::current(), core.stop.clone());
    core.tasks.spawn_on(core.vitals.watch("admission", core.stop.clone(), measuring), core.append_lane.handle());
    let verifier = Verifier::new(receiver.clone(), fetch);
    core.spawn("verifier", verifier.run(core.stop.clone()));
    Ok(receiver)
}

/// Starts the task that logs the number of suppressed rejections.
fn count_rejections(core: &Core) -> Arc<Rejections> {
    let rejections = Arc::new(Rejections::default());
    let counter = RejectionCounter::new(Arc::clone(&rejections), core.log.clone());
    core.spawn("rejections", counter.run(core.stop.clone()));
    rejections
}

/// Starts the task that logs the number of suppressed duplicates.
fn count_duplicates(core: &Core) -> Arc<Duplicates> {
    let duplicates = Arc::new(Duplicates::of(&core.heads));
    let counter = DuplicateCounter::new(Arc::clone(&duplicates), core.log.clone());
    core.spawn("duplicates", counter.run(core.stop.clone()));
    duplicates
}
