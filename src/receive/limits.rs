//! This node's memory of reached monthly limits, and the warnings to people.
//!
//! The log decides (see `log::limits`). Its verdicts are remembered here, so that a flood to an organization
//! over its limit does not delay the appends of others.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{NaiveDate, Utc};
use hookledger_aggregates::usage::{Usage, UsageCommand, share_reached};
use hookledger_aggregates::{Metadata, OrganizationId, UsageId};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use crate::log::{Commands, Epoch, Heads, MonthlyLimit, Remembered, UsedMonth};

/// Queued warnings; a warning that finds no room is repeated with the next webhook.
const WAITING: usize = 256;
/// Concurrent database queries for organizations over their limit, and how long a request waits for one.
const QUESTIONS: usize = 4;
const TURN_LIMIT: Duration = Duration::from_secs(2);

/// A limit that was reached according to the log.
#[derive(Clone, Copy, Debug)]
struct Over {
    limit: MonthlyLimit,
    used: UsedMonth,
}

#[derive(Debug)]
struct Warning {
    organization: OrganizationId,
    limit: MonthlyLimit,
    used: UsedMonth,
}

/// Shared by all requests. The keys are existing organizations, so the maps are bounded.
#[derive(Debug)]
pub struct Limits {
    over: Mutex<Remembered<HashMap<OrganizationId, Over>>>,
    /// Month and share of the last warning.
    warned: Mutex<Remembered<HashMap<OrganizationId, (NaiveDate, u8)>>>,
    warnings: mpsc::Sender<Warning>,
    questions: Semaphore,
}

impl Limits {
    /// The limits, and the task that records warnings.
    #[must_use]
    pub fn new(commands: Commands, heads: &Heads) -> (std::sync::Arc<Self>, LimitWarner) {
        let (warnings, waiting) = mpsc::channel(WAITING);
        let questions = Semaphore::new(QUESTIONS);
        let (over, warned) = (Mutex::new(heads.remember()), Mutex::new(heads.remember()));
        let limits = Self { over, warned, warnings, questions };
        let limits = std::sync::Arc::new(limits);
        (std::sync::Arc::clone(&limits), LimitWarner { limits, waiting, commands })
    }

    /// An organization's usage, if its month is known to be used up under this limit.
    pub(super) fn used_up(&self, organization: OrganizationId, limit: MonthlyLimit) -> Option<UsedMonth> {
        let over = *locked(&self.over).get().get(&organization)?;
        (over.limit == limit && Utc::now() < over.used.resets_at()).then_some(over.used)
    }

    /// Waits for permission to ask the database whether a webhook is known; `None` if that takes too long.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(TURN_LIMIT, self.questions.acquire()).await.ok()?.ok()
    }

    /// Notes that the log refused a webhook in that epoch. Not remembered if another epoch began since: a log
    /// that lost its end counts anew.
    pub(super) fn note_used_up(
        &self,
        organization: OrganizationId,
        limit: MonthlyLimit,
        used: UsedMonth,
        epoch: Epoch,
    ) {
        if let Some(over) = locked(&self.over).get_in(epoch) {
            over.insert(organization, Over { limit, used });
        }
        self.warn(organization, limit, used, 100);
    }

    /// Notes the usage that the log reported, and warns if it is high.
    pub(super) fn note(&self, organization: OrganizationId, limit: MonthlyLimit, used: UsedMonth) {
        let share = share_reached(u64::try_from(used.accepted).unwrap_or_default(), limit.allowed);
        if share > 0 {
            self.warn(organization, limit, used, share);
        }
    }

    fn warn(&self, organization: OrganizationId, limit: MonthlyLimit, used: UsedMonth, share: u8) {
        let mut remembered = locked(&self.warned);
        let warned = remembered.get();
        let done = warned.get(&organization).is_some_and(|(month, done)| *month == used.month && *done >= share);
        if !done && self.warnings.try_send(Warning { organization, limit, used }).is_ok() {
            warned.insert(organization, (used.month, share));
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Logs each share of a limit that is reached, once a month.
pub struct LimitWarner {
    limits: std::sync::Arc<Limits>,
    waiting: mpsc::Receiver<Warning>,
    commands: Commands,
}

impl LimitWarner {
    /// Warns until stopped. Another node gives the warnings that are left, or this one after its next start.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(warning)) = stop.run_until_cancelled(self.waiting.recv()).await {
            let Warning { organization, limit, used } = warning;
            let accepted = u64::try_from(used.accepted).unwrap_or_default();
            let command = UsageCommand::Note { month: used.month, accepted, limit: limit.allowed };
            let id = UsageId::derive(organization, used.month).uuid();
            if let Err(error) = self.commands.execute::<Usage>(organization, id, command, &Metadata::default()).await {
                tracing::warn!(%error, organization.id = %organization, "could not append a warning about a monthly limit");
                // The next webhook triggers the warning again.
                locked(&self.limits.warned).get().remove(&organization);
            }
        }
    }
}
