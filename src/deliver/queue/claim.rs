//! Taking rows from the queue: fairly, and those that waited too long.

use std::time::Duration;

use uuid::Uuid;

use super::rows::Row;
use super::{Due, Queue, Room};
use crate::deliver::clock::within;

/// Destinations with rows, found by skipping from one to the next in an index.
const DESTINATIONS: &str = "(select destination_id, organization_id from delivery_due order by destination_id limit 1)
             union all
             select n.destination_id, n.organization_id from busy b cross join lateral (
                 select destination_id, organization_id from delivery_due
                 where destination_id > b.destination_id order by destination_id limit 1) n";

/// Columns that a statement on rows `d` returns. Waiting for a busy destination is no failure.
const RETURNING: &str = "d.organization_id, d.delivery_id, d.webhook_id, d.route_id, d.destination_id, \
                         d.attempt, d.sequence, d.requested, \
                         case when not d.requested then extract(epoch from now() - greatest(d.pending_since, ( \
                             select max(b.busy_at) from destination_busy b \
                             where b.organization_id = d.organization_id and b.destination_id = d.destination_id \
                               and d.pending_since is not null)))::float8 end as pending_for, \
                         p.had_holder, clock_timestamp() as clock";

impl Queue {
    /// Claims due rows, the oldest of each destination first, up to its free places; destinations that are
    /// not listed have `default_room`. If places are few, they are shared fairly among organizations and then
    /// among their destinations, preferring those with the fewest running attempts.
    ///
    /// Rows of another node are taken only once that node is dead, whatever their leases say: after an outage
    /// of the database or a change of its clock, all leases have ended.
    pub async fn claim(
        &self,
        rooms: &[Room],
        default_room: u32,
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<Due>, sqlx::Error> {
        let organizations: Vec<Uuid> = rooms.iter().map(|room| room.organization.uuid()).collect();
        let destinations: Vec<Uuid> = rooms.iter().map(|room| room.destination.uuid()).collect();
        let free: Vec<i64> = rooms.iter().map(|room| i64::from(room.free)).collect();
        let running: Vec<i64> = rooms.iter().map(|room| i64::from(room.running)).collect();
        let sql = format!(
            "with recursive busy as ({DESTINATIONS}),
             rooms as (
                 select * from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[])
                          as r (organization_id, destination_id, free, running)
             ),
             room as (
                 select b.destination_id, b.organization_id, coalesce(r.free, $5) as free, coalesce(r.running, 0) as running,
                        coalesce(o.running, 0) as of_organization
                 from busy b left join rooms r using (destination_id)
                 left join (select organization_id, sum(running) as running from rooms group by 1) o
                           on o.organization_id = b.organization_id
             ),
             -- Where all else is equal, chance decides.
             turn as (
                 select destination_id, free, count(*) over () as destinations,
                        of_organization + row_number() over (
                            partition by organization_id order by running, destination_id > $6 desc, destination_id) as turn,
                        running, destination_id > $6 as is_first
                 from room where free > 0
             ),
             p as materialized (
                 select d.organization_id, d.delivery_id, d.holder is not null as had_holder
                 from (select * from turn order by turn, running, is_first desc, destination_id) r
                 cross join lateral (
                     select * from delivery_due w
                     where w.destination_id = r.destination_id and w.due_at <= now()
                       and (w.holder is null or w.holder = $7
                            or not exists (select from delivery_nodes n where n.node = w.holder))
                     order by w.due_at limit least(r.free, ceil($8::numeric / r.destinations)::bigint)
                     for update skip locked) d
                 limit $8
             )
             update delivery_due d set holder = $7, due_at = now() + $9 * interval '1 second'
             from p where d.organization_id = p.organization_id and d.delivery_id = p.delivery_id
             returning {RETURNING}",
        );
        let asked = self.asked();
        let rows: Vec<Row> = within(
            sqlx::query_as(&sql)
                .bind(organizations)
                .bind(destinations)
                .bind(free)
                .bind(running)
                .bind(i64::from(default_room))
                .bind(Uuid::new_v4())
                .bind(self.node)
                .bind(i64::from(limit))
                .bind(lease.as_secs_f64())
                .fetch_all(&self.pool),
        )
        .await?;
        Ok(rows.into_iter().map(|row| row.due(asked)).collect())
    }

    /// Claims first attempts that no worker started for this long, except those that waited for a busy
    /// destination.
    pub async fn claim_overdue(
        &self,
        pending_for: Duration,
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<Due>, sqlx::Error> {
        let sql = format!(
            "with recursive busy as ({DESTINATIONS}),
             p as materialized (
                 select d.organization_id, d.delivery_id, false as had_holder
                 from busy b cross join lateral (
                     select * from delivery_due w
                     where w.destination_id = b.destination_id and w.due_at <= now() and w.holder is null and not w.requested
                       and w.pending_since < now() - $1 * interval '1 second'
                     order by w.due_at limit $2 for update skip locked) d
                 where not exists (
                     select from destination_busy n
                     where n.organization_id = b.organization_id and n.destination_id = b.destination_id
                       and n.busy_at >= now() - $1 * interval '1 second')
                 limit $2
             )
             update delivery_due d set holder = $3, due_at = now() + $4 * interval '1 second'
             from p where d.organization_id = p.organization_id and d.delivery_id = p.delivery_id
             returning {RETURNING}",
        );
        let asked = self.asked();
        let rows: Vec<Row> = within(
            sqlx::query_as(&sql)
                .bind(pending_for.as_secs_f64())
                .bind(i64::from(limit))
                .bind(self.node)
                .bind(lease.as_secs_f64())
                .fetch_all(&self.pool),
        )
        .await?;
        Ok(rows.into_iter().map(|row| row.due(asked)).collect())
    }
}
