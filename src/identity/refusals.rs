//! Records in the log what people were refused, up to a rate per person; beyond it, refusals are counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use hookledger_aggregates::access::{AccessEvent, SignInRefusal};
use hookledger_aggregates::{Label, Metadata, OrganizationId, UserId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::log::{Log, NewEvent, Sequence, Unit};
use crate::platform::rate::Rate;

/// Refusals per person that are recorded at once, and the rate after that.
const NOTED: Rate = Rate::new(30, Duration::from_secs(60));
/// Queued refusals; more are counted.
const QUEUE: usize = 256;
/// Interval of logging counts.
const REPORT: Duration = Duration::from_secs(60);

/// Refusals that were counted instead of recorded.
struct Suppressed {
    count: u64,
    since: DateTime<Utc>,
}

/// Accepts refusals. The keys are existing people, so the map is bounded. Cheap to clone.
#[derive(Clone)]
pub struct Refusals {
    limiter: Arc<DefaultKeyedRateLimiter<UserId>>,
    suppressed: Arc<Mutex<HashMap<(OrganizationId, UserId), Suppressed>>>,
    queue: mpsc::Sender<Unit>,
}

/// Appends queued refusals, and once a minute the counts.
pub struct RefusalRecorder {
    refusals: Refusals,
    queue: mpsc::Receiver<Unit>,
    log: Log,
}

impl Refusals {
    /// The handle, and the task that appends.
    #[must_use]
    pub fn new(log: Log) -> (Self, RefusalRecorder) {
        let (to_queue, queue) = mpsc::channel(QUEUE);
        let refusals =
            Self { limiter: Arc::new(RateLimiter::keyed(NOTED.quota())), suppressed: Arc::default(), queue: to_queue };
        (refusals.clone(), RefusalRecorder { refusals, queue, log })
    }

    /// A person's role did not allow this action.
    pub fn action(&self, organization: OrganizationId, user: UserId, action: &str, metadata: &Metadata) {
        self.note(organization, user, &AccessEvent::ActionRefused { action: Label::new(action) }, metadata);
    }

    /// A person with an account could not sign in.
    pub fn sign_in(&self, organization: OrganizationId, user: UserId, reason: SignInRefusal, metadata: &Metadata) {
        self.note(organization, user, &AccessEvent::SignInRefused { reason }, metadata);
    }

    fn note(&self, organization: OrganizationId, user: UserId, event: &AccessEvent, metadata: &Metadata) {
        let event = match NewEvent::of(organization, user.uuid(), Sequence::End, event, metadata) {
            Ok(event) => event,
            Err(error) => return tracing::error!(%error, "could not serialize an event"),
        };
        let noted = self.limiter.check_key(&user).is_ok() && self.queue.try_send(Unit::new(vec![event])).is_ok();
        if !noted {
            let mut suppressed = self.suppressed.lock().unwrap_or_else(PoisonError::into_inner);
            suppressed.entry((organization, user)).or_insert(Suppressed { count: 0, since: Utc::now() }).count += 1;
        }
    }
}

impl RefusalRecorder {
    /// Records until stopped, and then the remaining refusals.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut report = tokio::time::interval(REPORT);
        loop {
            tokio::select! {
                Some(unit) = self.queue.recv() => self.append(vec![unit]).await,
                _ = report.tick() => self.append(self.counted()).await,
                () = stop.cancelled() => break,
            }
        }
        let mut rest = self.counted();
        while let Ok(unit) = self.queue.try_recv() {
            rest.push(unit);
        }
        self.append(rest).await;
    }

    fn counted(&self) -> Vec<Unit> {
        let suppressed: Vec<_> =
            self.refusals.suppressed.lock().unwrap_or_else(PoisonError::into_inner).drain().collect();
        let unit = |((organization, user), Suppressed { count, since }): ((OrganizationId, UserId), Suppressed)| {
            let event = AccessEvent::RefusalsSuppressed { count, since };
            let event = NewEvent::of(organization, user.uuid(), Sequence::End, &event, &Metadata::default()).ok()?;
            Some(Unit::new(vec![event]))
        };
        suppressed.into_iter().filter_map(unit).collect()
    }

    async fn append(&self, units: Vec<Unit>) {
        if units.is_empty() {
            return;
        }
        match self.log.append_all(units).await {
            Ok(verdicts) if verdicts.iter().all(Result::is_ok) => {}
            Ok(_) => tracing::warn!("could not record refusals in the log"),
            Err(error) => tracing::warn!(%error, "could not record refusals in the log"),
        }
    }
}
