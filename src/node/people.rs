//! Starts the parts that serve people: sign-in links, sessions, refusals, and mails.

use std::sync::Arc;

use super::config::ServeSettings;
use super::core::Core;
use super::error::NodeError;
use super::keys;
use crate::identity::{Courier, Errands, Links, Refusals, Sessions, Tokens, sweep};
use crate::platform::mail::{MailQueue, Transport, TransportError};

/// The parts that the API needs for signing in.
pub(super) struct People {
    pub(super) links: Links,
    pub(super) sessions: Sessions,
    pub(super) refusals: Refusals,
    pub(super) errands: Errands,
}

/// The checked settings of these parts. A mistake is reported before the store starts.
pub(super) struct Checked {
    tokens: Arc<Tokens>,
    transport: Transport,
}

/// Checks the settings.
pub(super) fn check(settings: &ServeSettings) -> Result<Checked, NodeError> {
    let (keys, base_url) = (keys::jwt(&settings.store)?, settings.store.base_url.0.clone());
    let tokens = Arc::new(Tokens::new(keys, base_url, settings.session_ttl.0));
    Ok(Checked { tokens, transport: transport(settings)? })
}

/// Starts these parts.
pub(super) fn start(settings: &ServeSettings, core: &Core, checked: Checked) -> People {
    let Checked { tokens, transport } = checked;
    let links = core.links(&settings.store);
    let sessions = Sessions::new(core.pool.clone(), tokens, Arc::clone(&core.accounts));
    core.spawn("expiry", sweep(links.clone(), sessions.clone(), core.stop.clone()));
    let (refusals, recorder) = Refusals::new(core.log.clone());
    core.spawn("refusals", recorder.run(core.stop.clone()));
    let (mailer, queue) = MailQueue::new(transport, settings.mail_from.clone());
    core.spawn("mail", queue.run(core.stop.clone()));
    let (errands, courier) = Courier::new(
        core.pool.clone(),
        Arc::clone(&core.accounts),
        links.clone(),
        refusals.clone(),
        mailer,
        settings.store.base_url.0.clone(),
    );
    core.spawn("courier", courier.run(core.stop.clone()));
    People { links, sessions, refusals, errands }
}

/// The transport for mails. A directory takes precedence over a server, for tests and closed networks.
fn transport(settings: &ServeSettings) -> Result<Transport, TransportError> {
    match (&settings.mail_dir, &settings.smtp_url) {
        (Some(directory), _) => Transport::directory(directory.clone()),
        (None, Some(url)) => Transport::smtp(url),
        (None, None) => Ok(Transport::Log),
    }
}
