//! Changes of webhooks: rows of `webhook_logs` after the read model has applied an event.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookledger_aggregates::{DeliveryId, OrganizationId, Partition, WebhookId};
use hookledger_projections::deliveries;
use hookledger_projections::webhook_logs::{self, WebhookLog};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::log::follow::{Checkpoints, within};
use crate::log::{Epoch, Heads, LogPosition, ReadError, Reader, Scope, Touched, What};
use crate::platform::store::Tenants;
use crate::platform::vitals::Vitals;

/// Changes queued for a slow subscriber; beyond it, the subscriber learns that it missed some.
const WAITING: usize = 512;
/// Changes of one organization that are sent individually per step.
const MOST_ROWS: usize = 250;
/// Events read per step.
const MOST_EVENTS: i64 = 5_000;
/// Pause between looks at the read model while changes are expected.
const STEP: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_secs(1);
const BACKOFF: Duration = Duration::from_secs(1);
/// How long a step may take.
const STEP_LIMIT: Duration = Duration::from_secs(15);
/// Name in the node's vitals, and the maximum age of the last successful look while somebody is subscribed.
const NAME: &str = "watcher";
const LONGEST_BLIND: Duration = Duration::from_secs(30);
/// The read model whose changes are sent.
const MODEL: &str = "webhook_logs";

/// A notification to a subscriber.
#[derive(Clone, Debug)]
pub enum Change {
    /// A row's new content, and whether the row is new.
    Row { row: Arc<WebhookLog>, created: bool },
    /// More changes than are sent: read the list again.
    Missed,
}

/// The subscriptions on this node, by organization.
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

    /// The subscribed organizations, by partition.
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
            // There may be no subscriber left.
            let _ = sender.send(change);
        }
    }
}

/// Looks for changes while somebody is subscribed.
pub struct Watcher {
    changes: Changes,
    reader: Reader,
    checkpoints: Checkpoints,
    heads: Heads,
    tenants: Tenants,
    /// Epoch of the log in which changes were sent.
    epoch: Epoch,
    /// Position in each watched partition up to which changes were sent.
    told: BTreeMap<Partition, i64>,
    vitals: Vitals,
}

impl Watcher {
    #[must_use]
    pub fn new(changes: Changes, reader: Reader, checkpoints: Checkpoints, heads: Heads, tenants: Tenants) -> Self {
        let (epoch, told, vitals) = (heads.epoch(), BTreeMap::new(), Vitals::default());
        Self { changes, reader, checkpoints, heads, tenants, epoch, told, vitals }
    }

    /// Reports to `vitals` when changes cannot be read.
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
                        tracing::warn!(%error, "could not read changes of webhooks; retrying");
                        tokio::time::sleep(BACKOFF).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(work).await;
        vitals.expect_no_looks(NAME);
    }

    /// Sends the changes since the last step; returns whether more are expected.
    async fn step(&mut self, watched: &BTreeMap<Partition, Vec<OrganizationId>>) -> Result<bool, ReadError> {
        let epoch = self.heads.epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.told.clear();
            // Events that were sent may have been lost with the end of the log.
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
            // A new subscription gets changes from here on.
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
        for one in self.reader.touched(after, to, organizations).await? {
            touched.entry(one.organization).or_default().push(one);
        }
        for (organization, touched) in touched {
            if touched.len() > MOST_ROWS {
                self.changes.tell(organization, Change::Missed);
                continue;
            }
            let mut tenant = self.tenants.of(organization).await.map_err(sqlx::Error::from)?;
            let deliveries = touched.iter().filter_map(|touched| match touched.what {
                What::Delivery(delivery) => Some(delivery),
                What::Webhook(_) => None,
            });
            let deliveries: Vec<DeliveryId> = deliveries.collect();
            let of = deliveries::webhooks_of(&mut *tenant, organization, &deliveries).await?;
            // The order of the last change, and whether the webhook is new.
            let mut webhooks: Vec<WebhookId> = Vec::with_capacity(touched.len());
            let mut created = HashSet::new();
            for touched in touched {
                let webhook = match touched.what {
                    What::Webhook(webhook) => Some(webhook),
                    What::Delivery(delivery) => of.get(&delivery).copied(),
                };
                let Some(webhook) = webhook else { continue };
                webhooks.retain(|known| *known != webhook);
                webhooks.push(webhook);
                if touched.created {
                    created.insert(webhook);
                }
            }
            let rows = webhook_logs::find_many(&mut *tenant, organization, &webhooks).await?;
            drop(tenant);
            let mut rows: HashMap<_, _> = rows.into_iter().map(|row| (row.webhook_id, row)).collect();
            for webhook in webhooks {
                if let Some(row) = rows.remove(&webhook.uuid()) {
                    let created = created.contains(&webhook);
                    self.changes.tell(organization, Change::Row { row: Arc::new(row), created });
                }
            }
        }
        Ok(())
    }
}
