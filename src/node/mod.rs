//! One node: assembles everything that runs, and starts and stops it in order.

pub mod config;
mod core;
mod delivering;
mod error;
pub mod keys;
mod ledger;
mod listeners;
mod metrics;
mod people;
mod receiving;
mod relay;
pub mod settings;
mod upkeep;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::core::Core;
use self::core::STOP_LIMIT;
use crate::api::graphql::{App, Platform, Rendering, schema};
use crate::api::http::{Readiness, Services, Sockets};
use crate::demo::sandbox::Sandbox;
use crate::identity::Limits;
use crate::log::FreshBodies;
use crate::platform::egress::Egress;
use crate::platform::store::Store;
use crate::reads::changes::Ticks;
use crate::receive::BodyBudget;
use crate::receive::paypal::{Fetch, FetchFromPaypal};
use config::ServeSettings;
pub use error::NodeError;
use listeners::Listeners;

/// Serves until stopped. `ready` receives the address once requests are accepted.
pub async fn serve(
    store: &Store,
    settings: &ServeSettings,
    stop: CancellationToken,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), NodeError> {
    serve_fetching(store, settings, stop, ready, Arc::new(FetchFromPaypal::new()?)).await
}

/// Like [`serve`], with another source of certificates, so that tests need no network.
pub async fn serve_fetching(
    store: &Store,
    settings: &ServeSettings,
    stop: CancellationToken,
    ready: impl FnOnce(SocketAddr),
    fetch: Arc<dyn Fetch>,
) -> Result<(), NodeError> {
    let listeners = Listeners::bind(settings)?;
    let metrics = metrics::start();
    let checked = people::check(settings)?;
    let core = Core::start(store, &settings.store).await?;
    core.follow_ledger(store).await?;
    let ledgers = ledger::sign(settings, &core)?;
    let _relay = relay::start(&core, store, settings.eventstore_url.as_ref()).await?;
    let directory = receiving::directory(&core, store).await?;
    let fresh = Arc::new(FreshBodies::of(&core.heads));
    let egress = Egress::new(settings.egress_allow_cidrs.clone())?;
    delivering::start(store, settings, &core, &directory, Arc::clone(&fresh), egress.clone()).await?;
    let receiver = receiving::start(settings, &core, &directory, fresh, fetch)?;
    upkeep::check_conservation(&core);
    upkeep::remove_what_is_old(&core, settings.retention_bodies.0);
    let changes = upkeep::watch_changes(&core);
    let people = people::start(settings, &core, checked);
    let providers = core.providers();
    let sandbox = Sandbox::new(core.commands.clone(), core.reader.clone(), providers.clone(), directory.clone());
    let app = App {
        tenants: core.tenants.clone(),
        commands: core.commands.clone(),
        checkpoints: core.checkpoints.clone(),
        directory,
        providers,
        receiver: receiver.clone(),
        egress,
        log: core.log.clone(),
        base_url: settings.store.base_url.0.clone(),
        changes,
        ticks: Ticks::new(core.tenants.clone(), core.stop.clone()),
        accounts: Arc::clone(&core.accounts),
        sessions: people.sessions,
        refusals: people.refusals,
        errands: people.errands,
        limits: Arc::new(Limits::default()),
        platform: Platform {
            clock: core.clock.clone(),
            started_at: chrono::Utc::now(),
            settings: Arc::new(settings::of(settings)),
        },
        sandbox: settings.demo.then(|| Arc::new(sandbox)),
        ledgers,
        rendering: Rendering::default(),
    };
    let services = Services {
        receiver,
        schema: schema(app.clone()),
        sockets: Sockets::new(stop.clone()),
        links: people.links,
        checkpoints: core.checkpoints.clone(),
        vitals: core.vitals.clone(),
        metrics,
        max_body: settings.max_body.0,
        bodies: BodyBudget::new(settings.body_budget.0, settings.max_body.0),
        graphql_get: settings.graphql_get,
        operations_are_public: listeners.operators.is_none() && settings.is_local(),
        readiness: Readiness::default(),
        app,
    };
    ready(listeners.address);
    let stopping = {
        let stop = stop.clone();
        async move {
            stop.cancelled().await;
            Instant::now() + STOP_LIMIT
        }
    };
    let (deadline, ()) = tokio::join!(stopping, listeners.serve(Arc::new(services), stop));
    core.stop_until(deadline).await;
    Ok(())
}
