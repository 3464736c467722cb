//! Messages between nodes: that they are alive, and the state of their circuits.

use chrono::{DateTime, Utc};
use hookledger_aggregates::{DestinationId, OrganizationId};
use tokio::time::Instant;
use uuid::Uuid;

use super::Queue;
use crate::deliver::clock::within;

/// A delivering node, and its last heartbeat.
pub type Alive = (Uuid, DateTime<Utc>);

/// A circuit, as a node reports it.
#[derive(Clone, Debug)]
pub struct CircuitRow {
    pub organization: OrganizationId,
    pub destination: DestinationId,
    pub state: &'static str,
    pub failures: u32,
    pub opened: Option<Instant>,
    pub probe: Option<Instant>,
}

impl Queue {
    /// Records this node's heartbeat; returns the database's time and the last heartbeats of the others.
    pub async fn tell_alive(&self) -> Result<(DateTime<Utc>, Vec<Alive>), sqlx::Error> {
        let (clock, nodes, told): (DateTime<Utc>, Vec<Uuid>, Vec<DateTime<Utc>>) = within(
            sqlx::query_as(
                "with mine as (
                     insert into delivery_nodes (node, alive_at) values ($1, now())
                     on conflict (node) do update set alive_at = excluded.alive_at
                 )
                 select now(), coalesce(array_agg(node), '{}'), coalesce(array_agg(alive_at), '{}')
                 from delivery_nodes where node <> $1",
            )
            .bind(self.node)
            .fetch_one(&self.pool),
        )
        .await?;
        Ok((clock, nodes.into_iter().zip(told).collect()))
    }

    /// After the database's clock went back: moves times from the future back to now, with their intended
    /// delays. Returns the number of deliveries.
    pub async fn set_times_right(&self) -> Result<u64, sqlx::Error> {
        // Reads the whole queue, which is small; clocks rarely go back.
        let set_right = within(
            sqlx::query(
                "with busy as (update destination_busy set busy_at = now() where busy_at > now())
                 update delivery_due
                 set due_at = now() + greatest(due_at - due_set_at, interval '0'),
                     pending_since = least(pending_since, now())
                 where due_set_at > now() and due_at < 'infinity'",
            )
            .execute(&self.pool),
        );
        Ok(set_right.await?.rows_affected())
    }

    /// Makes rows of nodes available at once whose heartbeat has not changed since.
    pub async fn bury(&self, dead: &[Alive]) -> Result<(), sqlx::Error> {
        let (nodes, told): (Vec<Uuid>, Vec<DateTime<Utc>>) = dead.iter().copied().unzip();
        // Reads the whole queue, which is small; nodes rarely die.
        within(
            sqlx::query(
                "with dead as (
                     delete from delivery_nodes d using unnest($1::uuid[], $2::timestamptz[]) as n (node, alive_at)
                     where d.node = n.node and d.alive_at = n.alive_at returning d.node
                 ),
                 circuits as (delete from destination_circuits where node in (select node from dead)),
                 busy as (delete from destination_busy where node in (select node from dead))
                 update delivery_due set due_at = now() where holder in (select node from dead) and due_at > now()",
            )
            .bind(nodes)
            .bind(told)
            .execute(&self.pool),
        )
        .await
        .map(drop)
    }

    /// Records that this node stops, so that others need not wait for it.
    pub async fn leave(&self) -> Result<(), sqlx::Error> {
        within(
            sqlx::query(
                "with gone as (delete from delivery_nodes where node = $1),
                 circuits as (delete from destination_circuits where node = $1),
                 busy as (delete from destination_busy where node = $1)
                 update delivery_due set due_at = now() where holder = $1",
            )
            .bind(self.node)
            .execute(&self.pool),
        )
        .await
        .map(drop)
    }

    /// Records the state of a circuit, for people to see.
    pub async fn note_circuit(&self, circuit: &CircuitRow) -> Result<(), sqlx::Error> {
        let now = Instant::now();
        within(
            sqlx::query(
                "insert into destination_circuits as c
                     (organization_id, destination_id, node, state, failures, opened_at, probe_at, changed_at)
                 values ($1, $2, $3, $4, $5, now() - $6 * interval '1 second', now() + $7 * interval '1 second', now())
                 on conflict (organization_id, destination_id, node) do update
                 set state = excluded.state, failures = excluded.failures, opened_at = excluded.opened_at,
                     probe_at = excluded.probe_at, changed_at = excluded.changed_at",
            )
            .bind(circuit.organization.uuid())
            .bind(circuit.destination.uuid())
            .bind(self.node)
            .bind(circuit.state)
            .bind(circuit.failures.cast_signed())
            .bind(circuit.opened.map(|at| now.saturating_duration_since(at).as_secs_f64()))
            .bind(circuit.probe.map(|at| at.saturating_duration_since(now).as_secs_f64()))
            .execute(&self.pool),
        )
        .await
        .map(drop)
    }
}
