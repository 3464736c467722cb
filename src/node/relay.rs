//! The mirror of the log in an EventStoreDB.

use secrecy::SecretString;

use super::core::Core;
#[cfg(feature = "eventstore")]
use super::core::pool_of;
use super::error::NodeError;
#[cfg(not(feature = "eventstore"))]
use crate::log::relay::RelayError;
#[cfg(feature = "eventstore")]
use crate::log::relay::{Relay, Target};
use crate::platform::lane::Lane;
#[cfg(feature = "eventstore")]
use crate::platform::lane::Niceness;
use crate::platform::store::Store;
#[cfg(feature = "eventstore")]
use crate::platform::store::Use;

/// Mirrors the log into an EventStoreDB if one is configured, on a thread that ends when the returned lane is
/// dropped.
#[cfg(feature = "eventstore")]
pub(super) async fn start(core: &Core, store: &Store, url: Option<&SecretString>) -> Result<Option<Lane>, NodeError> {
    let Some(url) = url else { return Ok(None) };
    let target = Target::new(url).await?;
    let lane = Lane::start("relay", Niceness::Background).map_err(NodeError::Thread)?;
    let pool = pool_of(&lane, store, Use::Relay).await?;
    let relay = Relay { target, pool, heads: core.heads.clone(), leases: core.leases.clone() };
    let relaying = core.vitals.watch("relay", core.stop.clone(), relay.run(core.stop.clone()));
    core.tasks.spawn_on(relaying, lane.handle());
    Ok(Some(lane))
}

#[cfg(not(feature = "eventstore"))]
pub(super) async fn start(_: &Core, _: &Store, url: Option<&SecretString>) -> Result<Option<Lane>, NodeError> {
    url.map_or(Ok(None), |_| Err(RelayError::NotBuilt.into()))
}
