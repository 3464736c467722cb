//! The latest minutes of the analytics, read once per second for each subscribed organization.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use hookledger_aggregates::OrganizationId;
use hookledger_projections::analytics::{self, Bucket, Grain, Span};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::platform::store::Tenants;

const EVERY: Duration = Duration::from_secs(1);

/// The previous minute, and the current one so far.
pub type Tick = Arc<Vec<Bucket>>;

/// An organization; `None` for all of them together.
type Whose = Option<OrganizationId>;

/// Reads for subscribers, as long as there are any.
#[derive(Clone)]
pub struct Ticks {
    tenants: Tenants,
    stop: CancellationToken,
    watched: Arc<Mutex<HashMap<Whose, watch::Sender<Tick>>>>,
}

impl Ticks {
    #[must_use]
    pub fn new(tenants: Tenants, stop: CancellationToken) -> Self {
        Self { tenants, stop, watched: Arc::default() }
    }

    /// Changes of the latest minutes, from now on.
    #[must_use]
    pub fn watch(&self, whose: Whose) -> watch::Receiver<Tick> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = watched.get(&whose) {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(Tick::default());
        watched.insert(whose, sender);
        tokio::spawn(self.clone().run(whose));
        receiver
    }

    async fn run(self, whose: Whose) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.stop.run_until_cancelled(every.tick()).await.is_some() && self.is_watched(whose) {
            match self.read(whose).await {
                Ok(tick) => self.tell(whose, tick),
                Err(error) => tracing::warn!(%error, "could not read the latest analytics; retrying"),
            }
        }
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&whose);
    }

    /// Whether somebody is still subscribed; if not, the next subscriber starts again.
    fn is_watched(&self, whose: Whose) -> bool {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let is_watched = watched.get(&whose).is_some_and(|sender| sender.receiver_count() > 0);
        if !is_watched {
            watched.remove(&whose);
        }
        is_watched
    }

    fn tell(&self, whose: Whose, tick: Vec<Bucket>) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = watched.get(&whose) {
            sender.send_if_modified(|last| {
                let is_new = **last != tick;
                if is_new {
                    *last = Arc::new(tick);
                }
                is_new
            });
        }
    }

    async fn read(&self, whose: Whose) -> Result<Vec<Bucket>, sqlx::Error> {
        let now = Utc::now();
        let Some(span) = Span::covering(now - chrono::Duration::minutes(1), now, Grain::Minute, 3) else {
            return Ok(Vec::new());
        };
        let mut tenant = match whose {
            Some(organization) => self.tenants.of(organization).await?,
            None => self.tenants.everybody().await?,
        };
        analytics::series(&mut tenant, whose, None, &span).await
    }
}
