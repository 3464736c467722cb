//! The queue of attempts: the only SQL on `delivery_due`, `attempt_responses`, `destination_circuits`,
//! `destination_busy` and `delivery_nodes`.
//!
//! A row is memory, not truth. It is created in the transaction that reads its delivery from the log, taken
//! with a lease by one node at a time, and deleted once the log has the end. A node that takes a row of a
//! dead holder asks the log how far the delivery came. Times in these tables are compared only with the
//! database's clock.

mod claim;
mod nodes;
mod rows;
mod settle;
mod shown;

use std::time::Duration;

use chrono::{DateTime, Utc};
use hookledger_aggregates::{DeliveryId, DestinationId, OrganizationId, RouteId};
use hookledger_projections::unfinished::Unfinished;
use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;
use uuid::Uuid;

use super::clock::{Reading, within};
use crate::directory::Hold;
use crate::log::{Epoch, Heads};

pub use nodes::{Alive, CircuitRow};
pub use rows::{Busy, BusyReason, Due, Entry, Response, Room, Settled, Settlement, When};
pub use shown::{CircuitNote, CircuitState, Wait, circuits_of, responses_of, waiting_of, waits_of};

/// The queue, as used by one node.
#[derive(Clone, Debug)]
pub struct Queue {
    pool: PgPool,
    node: Uuid,
    heads: Heads,
}

impl Queue {
    #[must_use]
    pub fn new(pool: PgPool, node: Uuid, heads: Heads) -> Self {
        Self { pool, node, heads }
    }

    /// The epoch of the log in which rows are read now.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.heads.epoch()
    }

    fn asked(&self) -> (Instant, Epoch) {
        (Instant::now(), self.epoch())
    }

    #[must_use]
    pub fn node(&self) -> Uuid {
        self.node
    }

    /// Puts deliveries in, in the caller's transaction, and reads the database's clock. Those that this node
    /// starts at once come with a lease. One that is there already keeps its row, unless a person
    /// requested it again.
    pub(super) async fn put(
        &self,
        connection: &mut PgConnection,
        entries: &[(Entry, Option<Duration>)],
    ) -> Result<Reading, sqlx::Error> {
        let mut columns = Columns::default();
        entries.iter().for_each(|(entry, lease)| columns.push(entry, lease.map(|lease| (self.node, lease))));
        let asked = self.asked();
        let clock = sqlx::query_scalar(
            "with put as (
                 insert into delivery_due as d (organization_id, delivery_id, webhook_id, route_id, destination_id, attempt,
                                                sequence, requested, due_at, pending_since, holder)
                 select organization_id, delivery_id, webhook_id, route_id, destination_id, attempt, sequence, requested,
                        now() + lease * interval '1 second', pending_since, holder
                 from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::bigint[], $6::bool[],
                             $7::timestamptz[], $8::uuid[], $9::float8[], $10::uuid[], $11::uuid[])
                      as n (organization_id, delivery_id, destination_id, attempt, sequence, requested, pending_since,
                            holder, lease, webhook_id, route_id)
                 on conflict (organization_id, delivery_id) do update
                 set attempt = excluded.attempt, sequence = excluded.sequence, requested = excluded.requested,
                     due_at = excluded.due_at, pending_since = excluded.pending_since, holder = excluded.holder,
                     held = null
                 where excluded.requested and excluded.sequence > d.sequence
             )
             select clock_timestamp()",
        )
        .bind(columns.organization)
        .bind(columns.delivery)
        .bind(columns.destination)
        .bind(columns.attempt)
        .bind(columns.sequence)
        .bind(columns.requested)
        .bind(columns.pending_since)
        .bind(columns.holder)
        .bind(columns.lease)
        .bind(columns.webhook)
        .bind(columns.route)
        .fetch_one(connection)
        .await?;
        Ok(Reading::new(clock, asked))
    }

    /// Restores missing rows as doubtful; returns their number.
    pub async fn restore(&self, unfinished: &[Unfinished]) -> Result<u64, sqlx::Error> {
        let (organizations, deliveries) = keys(unfinished.iter().map(|one| (one.organization, one.delivery)));
        let column = |of: fn(&Unfinished) -> Uuid| unfinished.iter().map(of).collect::<Vec<_>>();
        let result = sqlx::query(
            "insert into delivery_due (organization_id, delivery_id, webhook_id, route_id, destination_id, attempt,
                                       sequence, requested, due_at, holder)
             select organization_id, delivery_id, webhook_id, route_id, destination_id, 1, 0, false, now(), $6
             from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[])
                  as n (organization_id, delivery_id, webhook_id, route_id, destination_id)
             on conflict do nothing",
        )
        .bind(organizations)
        .bind(deliveries)
        .bind(column(|one| one.webhook.uuid()))
        .bind(column(|one| one.route.uuid()))
        .bind(column(|one| one.destination.uuid()))
        .bind(self.node)
        .execute(&self.pool)
        .await?;
        Ok(result.rows_affected())
    }

    /// Holds everything that is due by a route to a destination.
    pub async fn hold(&self, route: RouteId, destination: DestinationId, hold: Hold) -> Result<u64, sqlx::Error> {
        let holding = within(
            sqlx::query(
                "update delivery_due set held = $3, due_at = 'infinity', pending_since = null
                 where destination_id = $2 and route_id = $1 and due_at <= now() and holder is null",
            )
            .bind(route.uuid())
            .bind(destination.uuid())
            .bind(hold.as_str())
            .execute(&self.pool),
        );
        Ok(holding.await?.rows_affected())
    }

    /// Routes and destinations whose deliveries are held, found by skipping from one to the next in an index.
    pub async fn held(&self) -> Result<Vec<(RouteId, DestinationId)>, sqlx::Error> {
        let rows: Vec<(Uuid, Uuid)> = within(
            sqlx::query_as(
                "with recursive held as (
                     (select destination_id, route_id from delivery_due where held is not null
                      order by destination_id, route_id limit 1)
                     union all
                     select n.destination_id, n.route_id from held h cross join lateral (
                         select destination_id, route_id from delivery_due
                         where held is not null and (destination_id, route_id) > (h.destination_id, h.route_id)
                         order by destination_id, route_id limit 1) n)
                 select route_id, destination_id from held",
            )
            .fetch_all(&self.pool),
        )
        .await?;
        let pair = |(route, destination)| (RouteId::new(route), DestinationId::new(destination));
        Ok(rows.into_iter().map(pair).collect())
    }

    /// Releases everything that was held by a route to a destination.
    pub async fn let_go(&self, route: RouteId, destination: DestinationId) -> Result<u64, sqlx::Error> {
        let gone_on = within(
            sqlx::query(
                "update delivery_due
                 set held = null, due_at = now(), pending_since = case when attempt = 1 then now() end
                 where destination_id = $2 and route_id = $1 and held is not null",
            )
            .bind(route.uuid())
            .bind(destination.uuid())
            .execute(&self.pool),
        );
        Ok(gone_on.await?.rows_affected())
    }

    /// Notes busy destinations for which something waits.
    pub async fn note_busy(&self, busy: &[Busy]) -> Result<(), sqlx::Error> {
        if busy.is_empty() {
            return Ok(());
        }
        let organizations: Vec<Uuid> = busy.iter().map(|busy| busy.organization.uuid()).collect();
        let destinations: Vec<Uuid> = busy.iter().map(|busy| busy.destination.uuid()).collect();
        let reasons: Vec<&str> = busy.iter().map(|busy| busy.reason.as_str()).collect();
        within(
            sqlx::query(
                "insert into destination_busy as b (organization_id, destination_id, node, reason, busy_at)
                 select distinct on (organization_id, destination_id) organization_id, destination_id, $4, reason, now()
                 from unnest($1::uuid[], $2::uuid[], $3::text[]) as n (organization_id, destination_id, reason)
                 where exists (select from delivery_due w where w.destination_id = n.destination_id and w.due_at <= now())
                 on conflict (organization_id, destination_id, node) do update
                 set reason = excluded.reason, busy_at = excluded.busy_at",
            )
            .bind(organizations)
            .bind(destinations)
            .bind(reasons)
            .bind(self.node)
            .execute(&self.pool),
        )
        .await
        .map(drop)
    }

    /// Gives back rows that this node took but did not process.
    pub async fn release(&self, due: &[Due]) -> Result<(), sqlx::Error> {
        let (organizations, deliveries) = keys(due.iter().map(|due| (due.organization, due.delivery)));
        within(
            sqlx::query(
                "update delivery_due d set holder = null, due_at = now()
                 from unnest($1::uuid[], $2::uuid[]) as n (organization_id, delivery_id)
                 where d.organization_id = n.organization_id and d.delivery_id = n.delivery_id and d.holder = $3",
            )
            .bind(organizations)
            .bind(deliveries)
            .bind(self.node)
            .execute(&self.pool),
        )
        .await
        .map(drop)
    }
}

fn keys(keys: impl Iterator<Item = (OrganizationId, DeliveryId)>) -> (Vec<Uuid>, Vec<Uuid>) {
    keys.map(|(organization, delivery)| (organization.uuid(), delivery.uuid())).unzip()
}

#[derive(Default)]
struct Columns {
    organization: Vec<Uuid>,
    delivery: Vec<Uuid>,
    webhook: Vec<Uuid>,
    route: Vec<Uuid>,
    destination: Vec<Uuid>,
    attempt: Vec<i32>,
    sequence: Vec<i64>,
    requested: Vec<bool>,
    pending_since: Vec<DateTime<Utc>>,
    holder: Vec<Option<Uuid>>,
    /// Seconds; 0 if it is due at once.
    lease: Vec<f64>,
}

impl Columns {
    fn push(&mut self, due: &Entry, held: Option<(Uuid, Duration)>) {
        self.organization.push(due.organization.uuid());
        self.delivery.push(due.delivery.uuid());
        self.webhook.push(due.webhook.uuid());
        self.route.push(due.route.uuid());
        self.destination.push(due.destination.uuid());
        self.attempt.push(due.attempt.cast_signed());
        self.sequence.push(due.sequence);
        self.requested.push(due.requested);
        self.pending_since.push(due.pending_since);
        self.holder.push(held.map(|(holder, _)| holder));
        self.lease.push(held.map_or(0.0, |(_, lease)| lease.as_secs_f64()));
    }
}
