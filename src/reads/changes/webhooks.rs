//! Changes of webhooks: rows of `webhook_logs` as they are once the read model knows of an event.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookledger_aggregates::{OrganizationId, Partition, WebhookId};
use hookledger_projections::webhook_logs::{self, WebhookLog};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::log::follow::{Checkpoints, within};
use crate::log::{Epoch, Heads, LogPosition, ReadError, Reader, Scope, Touched};
use crate::platform::store::Tenants;
use crate::platform::vitals::Vitals;

/// Changes that wait for a slow watcher; then it misses some, and is told so.
const WAITING: usize = 512;
/// Changes of one organization that are told one by one in one step.
const MOST_ROWS: usize = 250;
/// Events that one step reads back.
const MOST_EVENTS: i64 = 5_000;
/// Between looks at the read model while something is on its way.
const STEP: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_secs(1);
const BACKOFF: Duration = Duration::from_secs(1);
/// How long a step may take.
const STEP_LIMIT: Duration = Duration::from_secs(15);
/// Under this name the node's vitals miss it, and how long ago the last good look may be while somebody watches.
const NAME: &str = "watcher";
const LONGEST_BLIND: Duration = Duration::from_secs(30);
/// The read model that is watched.
const MODEL: &str = "webhook_logs";

/// What a watcher is told.
#[derive(Clone, Debug)]
pub enum Change {
    /// A row as it is now, and whether it is new.
    Row { row: Arc<WebhookLog>, created: bool },
    /// More changed than is told: read the list again.
    Missed,
}

/// Who watches which organization on this node.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    watched: Arc<Mutex<HashMap<OrganizationId, broadcast::Sender<Change>>>>,
    somebody: Arc<Notify>,
}

impl Changes {
    /// Changes of an organization's webhooks from about now on.
    #[must_use]
    pub fn watch(&self, organization: OrganizationId) -> broadcast::Receiver<Change> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = watched.entry(organization).or_insert_with(|| broadcast::Sender::new(WAITING)).subscribe();
        self.somebody.notify_one();
        receiver
    }

    /// The organizations that are watched, by partition.
    fn watched(&self) -> BTreeMap<Partition, Vec<OrganizationId>> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|_, sender| sender.receiver_count() > 0);
        let mut partitions: BTreeMap<Partition, Vec<OrganizationId>> = BTreeMap::new();
        watched.keys().for_each(|id| partitions.entry(id.partition()).or_default().push(*id));
        partitions
    }

    fn tell(&self, organization: OrganizationId, change: Change) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = watched.get(&organization) {
            // Nobody may be left to hear it.
            let _ = sender.send(change);
        }
    }
}

/// Looks for changes while somebody watches.
pub struct Watcher {
    changes: Changes,
    reader: Reader,
    checkpoints: Checkpoints,
    heads: Heads,
    tenants: Tenants,
    /// In which epoch of the log it was told.
    epoch: Epoch,
    /// Up to where each watched partition was told.
    told: BTreeMap<Partition, i64>,
    vitals: Vitals,
}

impl Watcher {
    #[must_use]
    pub fn new(changes: Changes, reader: Reader, checkpoints: Checkpoints, heads: Heads, tenants: Tenants) -> Self {
        let (epoch, told, vitals) = (heads.epoch(), BTreeMap::new(), Vitals::default());
        Self { changes, reader, checkpoints, heads, tenants, epoch, told, vitals }
    }

    /// Told there when changes cannot be read.
    #[must_use]
    pub fn watched(self, vitals: Vitals) -> Self {
        Self { vitals, ..self }
    }

    /// Runs until stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let (changes, vitals) = (self.changes.clone(), self.vitals.clone());
        let work = async {
            let mut wake = self.heads.wake(Scope::All);
            self.vitals.expect_looks(NAME, LONGEST_BLIND);
            loop {
                let watched = changes.watched();
                if watched.is_empty() {
                    self.told.clear();
                    self.vitals.expect_no_looks(NAME);
                    changes.somebody.notified().await;
                    self.vitals.expect_looks(NAME, LONGEST_BLIND);
                    continue;
                }
                let stepped = within(STEP_LIMIT, self.step(&watched)).await;
                if stepped.is_ok() {
                    self.vitals.seen(NAME);
                }
                match stepped {
                    Ok(true) => tokio::time::sleep(STEP).await,
                    Ok(false) => tokio::select! {
                        () = wake.wait(IDLE) => {}
                        () = changes.somebody.notified() => {}
                    },
                    Err(error) => {
                        tracing::warn!(%error, "changes of webhooks cannot be read; trying again");
                        tokio::time::sleep(BACKOFF).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(work).await;
        vitals.expect_no_looks(NAME);
    }

    /// Tells what the read model took in since the last step; whether more is on its way.
    async fn step(&mut self, watched: &BTreeMap<Partition, Vec<OrganizationId>>) -> Result<bool, ReadError> {
        let epoch = self.heads.epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.told.clear();
            // What was told may never have happened.
            let organizations = watched.values().flatten();
            organizations.for_each(|organization| self.changes.tell(*organization, Change::Missed));
        }
        self.told.retain(|partition, _| watched.contains_key(partition));
        let heads = self.heads.now();
        let is_behind = |told: &BTreeMap<Partition, i64>, partition: &Partition| {
            told.get(partition).is_none_or(|told| *told < heads[partition.index()])
        };
        if !watched.keys().any(|partition| is_behind(&self.told, partition)) {
            return Ok(false);
        }
        for LogPosition { partition, position } in self.checkpoints.of(MODEL).await? {
            let Some(organizations) = watched.get(&partition) else { continue };
            // Who begins to watch is told of what comes from here on.
            let told = *self.told.entry(partition).or_insert(position);
            if position > told {
                self.tell(LogPosition { partition, position: told }, position, organizations).await?;
                self.told.insert(partition, position);
            }
        }
        Ok(watched.keys().any(|partition| is_behind(&self.told, partition)))
    }

    async fn tell(&self, after: LogPosition, to: i64, organizations: &[OrganizationId]) -> Result<(), ReadError> {
        if to - after.position > MOST_EVENTS {
            organizations.iter().for_each(|organization| self.changes.tell(*organization, Change::Missed));
            return Ok(());
        }
        let mut touched: HashMap<OrganizationId, Vec<Touched>> = HashMap::new();
        for webhook in self.reader.touched(after, to, organizations).await? {
            touched.entry(webhook.organization).or_default().push(webhook);
        }
        for (organization, webhooks) in touched {
            if webhooks.len() > MOST_ROWS {
                self.changes.tell(organization, Change::Missed);
                continue;
            }
            let ids: Vec<WebhookId> = webhooks.iter().map(|touched| touched.webhook).collect();
            let mut tenant = self.tenants.of(organization).await.map_err(sqlx::Error::from)?;
            let rows = webhook_logs::find_many(&mut *tenant, organization, &ids).await?;
            drop(tenant);
            let mut rows: HashMap<_, _> = rows.into_iter().map(|row| (row.webhook_id, row)).collect();
            for Touched { webhook, created, .. } in webhooks {
                if let Some(row) = rows.remove(&webhook.uuid()) {
                    self.changes.tell(organization, Change::Row { row: Arc::new(row), created });
                }
            }
        }
        Ok(())
    }
}
