//! `deliveries`: one row per webhook and route that it matched. Written with `webhook_logs`, whose status is a fold of
//! these.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use hookledger_aggregates::delivery::DeliveryEvent;
use hookledger_aggregates::routing::Match;
use hookledger_aggregates::{DeliveryId, OrganizationId, Phase, RecordedEvent, WebhookId};
use sqlx::{FromRow, PgConnection, PgExecutor};
use uuid::Uuid;

use crate::ProjectionError;
use crate::webhook_retries::WORKER_LOST;

/// A row of `deliveries`.
#[derive(Clone, Debug, FromRow)]
pub struct Delivery {
    /// The organization that it belongs to.
    pub organization_id: Uuid,
    /// Derived from webhook and route.
    pub delivery_id: Uuid,
    /// The delivered webhook.
    pub webhook_id: Uuid,
    /// The route that the webhook matched.
    pub route_id: Uuid,
    /// The version of the route that decided.
    pub route_version: i32,
    /// Where it goes.
    pub destination_id: Uuid,
    /// Position of the event that routed the webhook: the order of lists.
    pub position: i64,
    /// Position of its last event.
    pub applied_position: i64,
    /// A [`Phase`], as text; see [`Delivery::phase`].
    pub phase: String,
    /// The running or the last attempt; 0 before the first.
    pub attempt: i32,
    /// The last error; `None` unless it failed.
    pub error_message: Option<String>,
    /// When its webhook was routed.
    pub created_at: DateTime<Utc>,
    /// Time of its last event.
    pub updated_at: DateTime<Utc>,
    /// When it succeeded.
    pub processed_at: Option<DateTime<Utc>>,
    /// When its automatic retry is due.
    pub next_retry_at: Option<DateTime<Utc>>,
    /// When it became a dead letter; `None` again once a person retries it.
    pub dead_lettered_at: Option<DateTime<Utc>>,
}

/// The phases of deliveries, by their names in the table.
const PHASES: [(&str, Phase); 6] = [
    ("pending", Phase::Pending),
    ("processing", Phase::Processing),
    ("succeeded", Phase::Succeeded),
    ("awaiting_retry", Phase::AwaitingRetry),
    ("dead_lettered", Phase::DeadLettered),
    ("cancelled", Phase::Cancelled),
];

fn name(phase: Phase) -> &'static str {
    PHASES.into_iter().find(|(_, known)| *known == phase).map_or("pending", |(name, _)| name)
}

impl Delivery {
    /// Where it stands, unless the table holds an unknown phase.
    pub fn phase(&self) -> Result<Phase, ProjectionError> {
        let known = PHASES.into_iter().find(|(name, _)| *name == self.phase);
        known.map(|(_, phase)| phase).ok_or_else(|| ProjectionError::Corrupt {
            table: "deliveries",
            column: "phase",
            value: self.phase.clone(),
        })
    }
}

const COLUMNS: &str = "organization_id, delivery_id, webhook_id, route_id, route_version, destination_id, position, \
                       applied_position, phase, attempt, error_message, created_at, updated_at, processed_at, \
                       next_retry_at, dead_lettered_at";

/// The deliveries of webhooks of an organization, in the order of their routes.
pub async fn of_webhooks(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    webhooks: &[WebhookId],
) -> Result<Vec<Delivery>, sqlx::Error> {
    let ids: Vec<Uuid> = webhooks.iter().map(|id| id.uuid()).collect();
    sqlx::query_as(&format!(
        "select {COLUMNS} from deliveries where organization_id = $1 and webhook_id = any ($2)
         order by webhook_id, position, route_id limit 20000"
    ))
    .bind(organization.uuid())
    .bind(ids)
    .fetch_all(executor)
    .await
}

/// The webhooks of deliveries of an organization.
pub async fn webhooks_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    deliveries: &[DeliveryId],
) -> Result<HashMap<DeliveryId, WebhookId>, sqlx::Error> {
    let ids: Vec<Uuid> = deliveries.iter().map(|id| id.uuid()).collect();
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "select delivery_id, webhook_id from deliveries where organization_id = $1 and delivery_id = any ($2)",
    )
    .bind(organization.uuid())
    .bind(ids)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(delivery, webhook)| (DeliveryId::new(delivery), WebhookId::new(webhook))).collect())
}

/// A delivery while a batch of events changes it.
#[derive(Clone, Debug)]
pub(crate) struct Folded {
    pub(crate) row: Delivery,
    pub(crate) phase: Phase,
    /// Whether it has to be written.
    pub(crate) is_changed: bool,
}

impl Folded {
    /// As the routing of its webhook makes it.
    pub(crate) fn new(recorded: &RecordedEvent, to: &Match) -> Self {
        let row = Delivery {
            organization_id: recorded.organization.uuid(),
            delivery_id: to.delivery_id.uuid(),
            webhook_id: recorded.aggregate_id,
            route_id: to.route_id.uuid(),
            route_version: to.version.cast_signed(),
            destination_id: to.destination_id.uuid(),
            position: recorded.position,
            applied_position: recorded.position,
            phase: name(Phase::Pending).to_owned(),
            attempt: 0,
            error_message: None,
            created_at: recorded.recorded_at,
            updated_at: recorded.recorded_at,
            processed_at: None,
            next_retry_at: None,
            dead_lettered_at: None,
        };
        Self { row, phase: Phase::Pending, is_changed: true }
    }

    fn stored(row: Delivery) -> Result<Self, ProjectionError> {
        Ok(Self { phase: row.phase()?, row, is_changed: false })
    }

    /// Applies an event that the row does not have yet; returns whether it was one.
    pub(crate) fn note(&mut self, recorded: &RecordedEvent, event: &DeliveryEvent) -> bool {
        if recorded.position <= self.row.applied_position {
            return false;
        }
        let at = recorded.recorded_at;
        let error = self.row.error_message.take();
        (self.row.processed_at, self.row.next_retry_at, self.row.dead_lettered_at) = (None, None, None);
        match event {
            DeliveryEvent::AttemptStarted { attempt } => self.attempt(Phase::Processing, *attempt),
            DeliveryEvent::AttemptSucceeded { attempt, outcome: _ } => {
                self.attempt(Phase::Succeeded, *attempt);
                self.row.processed_at = Some(at);
            }
            DeliveryEvent::AttemptFailed { attempt, outcome } => {
                self.attempt(Phase::AwaitingRetry, *attempt);
                self.row.error_message = outcome.error.as_ref().map(|error| error.as_str().to_owned());
            }
            DeliveryEvent::AttemptAbandoned { attempt } => {
                self.attempt(Phase::AwaitingRetry, *attempt);
                self.row.error_message = Some(WORKER_LOST.to_owned());
            }
            // These two follow a failure in the same unit and keep its error.
            DeliveryEvent::RetryScheduled { attempt: _, retry_at } => {
                (self.row.error_message, self.row.next_retry_at) = (error, Some(*retry_at));
            }
            DeliveryEvent::DeadLettered { attempts } => {
                self.attempt(Phase::DeadLettered, *attempts);
                (self.row.error_message, self.row.dead_lettered_at) = (error, Some(at));
            }
            DeliveryEvent::RetryRequested { attempt, .. } => self.attempt(Phase::Pending, *attempt),
            DeliveryEvent::Cancelled { .. } => {
                self.phase = Phase::Cancelled;
                self.row.error_message = error;
            }
        }
        name(self.phase).clone_into(&mut self.row.phase);
        (self.row.applied_position, self.row.updated_at) = (recorded.position, at);
        self.is_changed = true;
        true
    }

    fn attempt(&mut self, phase: Phase, attempt: u32) {
        (self.phase, self.row.attempt) = (phase, attempt.cast_signed());
    }
}

/// A delivery or a webhook, with its organization.
pub(crate) type Key = (Uuid, Uuid);

/// The deliveries that a batch concerns, and all others of their webhooks.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    all: BTreeMap<Key, Folded>,
    of_webhooks: BTreeMap<Key, Vec<Uuid>>,
}

impl Deliveries {
    pub(crate) fn put(&mut self, folded: Folded) {
        let row = &folded.row;
        let (key, webhook) = ((row.organization_id, row.delivery_id), (row.organization_id, row.webhook_id));
        self.of_webhooks.entry(webhook).or_default().push(row.delivery_id);
        self.all.insert(key, folded);
    }

    pub(crate) fn get_mut(&mut self, delivery: Key) -> Option<&mut Folded> {
        self.all.get_mut(&delivery)
    }

    /// All deliveries of a webhook; `None` if they are not known here.
    pub(crate) fn of_webhook(&self, webhook: Key) -> Option<impl Iterator<Item = &Folded>> {
        let ids = self.of_webhooks.get(&webhook)?;
        Some(ids.iter().filter_map(move |id| self.all.get(&(webhook.0, *id))))
    }

    /// Adds the rows of deliveries that earlier batches made, and the others of their webhooks.
    pub(crate) async fn load(
        &mut self,
        connection: &mut PgConnection,
        deliveries: impl Iterator<Item = Key>,
    ) -> Result<(), ProjectionError> {
        let (mut organizations, mut ids): (Vec<Uuid>, Vec<Uuid>) =
            deliveries.filter(|key| !self.all.contains_key(key)).unzip();
        if ids.is_empty() {
            return Ok(());
        }
        // An attempt has several events.
        let mut distinct: Vec<_> = organizations.drain(..).zip(ids.drain(..)).collect();
        distinct.sort_unstable();
        distinct.dedup();
        (organizations, ids) = distinct.into_iter().unzip();
        let columns = COLUMNS.split(", ").map(|column| format!("s.{}", column.trim())).collect::<Vec<_>>().join(", ");
        let rows: Vec<Delivery> = sqlx::query_as(&format!(
            "select {columns}
             from (select distinct d.organization_id, d.webhook_id
                   from unnest($1::uuid[], $2::uuid[]) as n (organization_id, delivery_id)
                   join deliveries d using (organization_id, delivery_id)) w
             join deliveries s using (organization_id, webhook_id)"
        ))
        .bind(organizations)
        .bind(ids)
        .fetch_all(connection)
        .await?;
        for row in rows {
            self.put(Folded::stored(row)?);
        }
        Ok(())
    }

    /// Writes the changed rows.
    pub(crate) async fn write(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let mut columns = Columns::default();
        self.all.into_values().filter(|folded| folded.is_changed).for_each(|folded| columns.push(folded.row));
        columns.write(connection).await
    }
}

#[derive(Default)]
struct Columns {
    organization: Vec<Uuid>,
    delivery: Vec<Uuid>,
    webhook: Vec<Uuid>,
    route: Vec<Uuid>,
    version: Vec<i32>,
    destination: Vec<Uuid>,
    position: Vec<i64>,
    applied: Vec<i64>,
    phase: Vec<String>,
    attempt: Vec<i32>,
    error: Vec<Option<String>>,
    created_at: Vec<DateTime<Utc>>,
    updated_at: Vec<DateTime<Utc>>,
    processed_at: Vec<Option<DateTime<Utc>>>,
    next_retry_at: Vec<Option<DateTime<Utc>>>,
    dead_lettered_at: Vec<Option<DateTime<Utc>>>,
}

impl Columns {
    fn push(&mut self, row: Delivery) {
        self.organization.push(row.organization_id);
        self.delivery.push(row.delivery_id);
        self.webhook.push(row.webhook_id);
        self.route.push(row.route_id);
        self.version.push(row.route_version);
        self.destination.push(row.destination_id);
        self.position.push(row.position);
        self.applied.push(row.applied_position);
        self.phase.push(row.phase);
        self.attempt.push(row.attempt);
        self.error.push(row.error_message);
        self.created_at.push(row.created_at);
        self.updated_at.push(row.updated_at);
        self.processed_at.push(row.processed_at);
        self.next_retry_at.push(row.next_retry_at);
        self.dead_lettered_at.push(row.dead_lettered_at);
    }

    async fn write(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.delivery.is_empty() {
            return Ok(());
        }
        // Transactions of a follower exclude each other, so no row appears between the look and the insertion.
        // `on conflict` would write more of the log of the database, for each row.
        sqlx::query(&format!(
            "with n as (
                 select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::int[], $6::uuid[],
                                      $7::bigint[], $8::bigint[], $9::text[], $10::int[], $11::text[],
                                      $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[],
                                      $16::timestamptz[]) as n ({COLUMNS})
             ),
             changed as (
                 update deliveries d
                 set applied_position = n.applied_position, phase = n.phase, attempt = n.attempt,
                     error_message = n.error_message, updated_at = n.updated_at, processed_at = n.processed_at,
                     next_retry_at = n.next_retry_at, dead_lettered_at = n.dead_lettered_at
                 from n
                 where d.organization_id = n.organization_id and d.delivery_id = n.delivery_id
                   and d.applied_position < n.applied_position
             )
             insert into deliveries ({COLUMNS})
             select * from n
             where not exists (select from deliveries d
                               where d.organization_id = n.organization_id and d.delivery_id = n.delivery_id)"
        ))
        .bind(self.organization)
        .bind(self.delivery)
        .bind(self.webhook)
        .bind(self.route)
        .bind(self.version)
        .bind(self.destination)
        .bind(self.position)
        .bind(self.applied)
        .bind(self.phase)
        .bind(self.attempt)
        .bind(self.error)
        .bind(self.created_at)
        .bind(self.updated_at)
        .bind(self.processed_at)
        .bind(self.next_retry_at)
        .bind(self.dead_lettered_at)
        .execute(connection)
        .await
        .map(drop)
    }
}
