//! The queue of attempts: the only SQL on `webhook_due`, `attempt_responses`, `destination_circuits`,
//! `destination_busy` and `delivery_nodes`.
//!
//! A row is memory, not truth. It is created in the transaction that reads its webhook from the log, taken
//! with a lease by one node at a time, and deleted once the log has the end. A node that takes a row of a
//! dead holder asks the log how far the webhook came. Times in these tables are compared only with the
//! database's clock.

use std::time::Duration;

use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, ProviderId, WebhookId};
use hookledger_projections::unfinished::Unfinished;
use sqlx::{FromRow, PgConnection, PgExecutor, PgPool};
use tokio::time::Instant;
use uuid::Uuid;

use super::clock::{Reading, within};
use crate::directory::Hold;
use crate::log::{Epoch, Heads};

/// A webhook to put into the queue, because the log says that it is owed a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub organization: OrganizationId,
    pub webhook: WebhookId,
    pub provider: ProviderId,
    /// The next attempt.
    pub attempt: u32,
    /// Last known sequence of the webhook's stream.
    pub sequence: i64,
    /// A person requested the attempt.
    pub requested: bool,
    pub pending_since: DateTime<Utc>,
}

impl Entry {
    /// As it was put in.
    #[must_use]
    pub fn due(self, read: Reading) -> Due {
        Due {
            organization: self.organization,
            webhook: self.webhook,
            provider: self.provider,
            attempt: self.attempt,
            sequence: self.sequence,
            requested: self.requested,
            pending_for: (!self.requested).then(|| read.age(self.pending_since)),
            is_doubtful: false,
            read,
        }
    }
}

/// A webhook that this node took from the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub organization: OrganizationId,
    pub webhook: WebhookId,
    pub provider: ProviderId,
    /// The next attempt.
    pub attempt: u32,
    /// Last known sequence of the webhook's stream.
    pub sequence: i64,
    /// A person requested the attempt.
    pub requested: bool,
    /// How long the webhook had been waiting for a worker at the reading; `None` if waiting is no failure.
    pub pending_for: Option<Duration>,
    /// Its previous holder is gone, so only the log knows how far it came.
    pub is_doubtful: bool,
    /// Reading of the database's clock with this row.
    pub read: Reading,
}

#[derive(FromRow)]
struct Row {
    organization_id: Uuid,
    webhook_id: Uuid,
    provider_id: Uuid,
    attempt: i32,
    sequence: i64,
    requested: bool,
    /// Seconds.
    pending_for: Option<f64>,
    had_holder: bool,
    clock: DateTime<Utc>,
}

impl Row {
    fn due(self, asked: (Instant, Epoch)) -> Due {
        let pending_for = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Due {
            organization: OrganizationId::new(self.organization_id),
            webhook: WebhookId::new(self.webhook_id),
            provider: ProviderId::new(self.provider_id),
            attempt: self.attempt.cast_unsigned(),
            sequence: self.sequence,
            requested: self.requested,
            pending_for: self.pending_for.map(pending_for),
            is_doubtful: self.had_holder,
            read: Reading::new(self.clock, asked),
        }
    }
}

/// When a row is due again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// By this node's monotonic clock.
    In(Instant),
    /// A time from the log.
    At(DateTime<Utc>),
}

/// What happens to a row when its holder is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The log has the end, as this event of the stream or an earlier one.
    Done { sequence: i64 },
    /// Another attempt is due. `pending`: a worker could take it from that time.
    Again { attempt: u32, sequence: i64, due: When, requested: bool, pending: bool },
    /// Nothing was started: the row is given back, and is due after a pause. `waits_anew`: the cause was on
    /// our side, so the time it has been pending does not count.
    Back { pause: Duration, waits_anew: bool },
    /// Unknown whether the attempt was started: the next holder asks the log.
    Doubtful,
    /// It cannot be delivered until a person acts.
    Held(Hold),
}

/// A row's settlement, and the destination's answer.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Epoch of the log in which its row was read; void in another one.
    pub epoch: Epoch,
    pub organization: OrganizationId,
    pub webhook: WebhookId,
    pub settled: Settled,
    pub response: Option<Response>,
}

/// The beginning of a response body.
#[derive(Clone, Debug)]
pub struct Response {
    pub attempt: u32,
    pub excerpt: bytes::Bytes,
}

/// Free places of a destination on this node.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub organization: OrganizationId,
    pub provider: ProviderId,
    /// Running attempts.
    pub running: u32,
    pub free: u32,
}

/// A destination that cannot take more attempts on this node at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Busy {
    pub organization: OrganizationId,
    pub provider: ProviderId,
    pub reason: BusyReason,
}

/// Why a destination cannot take more attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BusyReason {
    Concurrency,
    CircuitOpen,
}

impl BusyReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::CircuitOpen => "circuit_open",
        }
    }
}

/// A delivering node, and its last heartbeat.
pub type Alive = (Uuid, DateTime<Utc>);

/// The queue, as used by one node.
#[derive(Clone, Debug)]
pub struct Queue {
    pool: PgPool,
    node: Uuid,
    heads: Heads,
}

/// Providers with rows, found by skipping from one to the next in an index. `$condition` applies to a row.
macro_rules! providers_of {
    ($condition:literal) => {
        concat!(
            "(select provider_id, organization_id from webhook_due where ",
            $condition,
            " order by provider_id limit 1)
             union all
             select n.provider_id, n.organization_id from busy b cross join lateral (
                 select provider_id, organization_id from webhook_due
                 where provider_id > b.provider_id and ",
            $condition,
            " order by provider_id limit 1) n"
        )
    };
}

/// Columns that a statement on rows `d` returns. Waiting for a busy destination is no failure.
const RETURNING: &str = "d.organization_id, d.webhook_id, d.provider_id, d.attempt, d.sequence, d.requested, \
                         case when not d.requested then extract(epoch from now() - greatest(d.pending_since, ( \
                             select max(b.busy_at) from destination_busy b \
                             where b.organization_id = d.organization_id and b.provider_id = d.provider_id \
                               and d.pending_since is not null)))::float8 end as pending_for, \
                         p.had_holder, clock_timestamp() as clock";

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

    /// Puts webhooks in, in the caller's transaction, and reads the database's clock. Webhooks that this node
    /// starts at once come with a lease. A webhook that is there already keeps its row, unless a person
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
                 insert into webhook_due as d (organization_id, webhook_id, provider_id, attempt, sequence, requested,
                                               due_at, pending_since, holder)
                 select organization_id, webhook_id, provider_id, attempt, sequence, requested,
                        now() + lease * interval '1 second', pending_since, holder
                 from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::bigint[], $6::bool[],
                             $7::timestamptz[], $8::uuid[], $9::float8[])
                      as n (organization_id, webhook_id, provider_id, attempt, sequence, requested, pending_since,
                            holder, lease)
                 on conflict (organization_id, webhook_id) do update
                 set attempt = excluded.attempt, sequence = excluded.sequence, requested = excluded.requested,
                     due_at = excluded.due_at, pending_since = excluded.pending_since, holder = excluded.holder,
                     held = null
                 where excluded.requested and excluded.sequence > d.sequence
             )
             select clock_timestamp()",
        )
        .bind(columns.organization)
        .bind(columns.webhook)
        .bind(columns.provider)
        .bind(columns.attempt)
        .bind(columns.sequence)
        .bind(columns.requested)
        .bind(columns.pending_since)
        .bind(columns.holder)
        .bind(columns.lease)
        .fetch_one(connection)
        .await?;
        Ok(Reading::new(clock, asked))
    }

    /// Restores missing rows as doubtful; returns their number.
    pub async fn restore(&self, unfinished: &[Unfinished]) -> Result<u64, sqlx::Error> {
        let (organizations, webhooks) = keys(unfinished.iter().map(|one| (one.organization, one.webhook)));
        let providers: Vec<Uuid> = unfinished.iter().map(|one| one.provider.uuid()).collect();
        let result = sqlx::query(
            "insert into webhook_due (organization_id, webhook_id, provider_id, attempt, sequence, requested, due_at,
                                      holder)
             select organization_id, webhook_id, provider_id, 1, 0, false, now(), $4
             from unnest($1::uuid[], $2::uuid[], $3::uuid[]) as n (organization_id, webhook_id, provider_id)
             on conflict do nothing",
        )
        .bind(organizations)
        .bind(webhooks)
        .bind(providers)
        .bind(self.node)
        .execute(&self.pool)
        .await?;
        Ok(result.rows_affected())
    }

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
        let providers: Vec<Uuid> = rooms.iter().map(|room| room.provider.uuid()).collect();
        let free: Vec<i64> = rooms.iter().map(|room| i64::from(room.free)).collect();
        let running: Vec<i64> = rooms.iter().map(|room| i64::from(room.running)).collect();
        let sql = format!(
            "with recursive busy as ({providers}),
             rooms as (
                 select * from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[])
                          as r (organization_id, provider_id, free, running)
             ),
             room as (
                 select b.provider_id, b.organization_id, coalesce(r.free, $5) as free, coalesce(r.running, 0) as running,
                        coalesce(o.running, 0) as of_organization
                 from busy b left join rooms r using (provider_id)
                 left join (select organization_id, sum(running) as running from rooms group by 1) o
                           on o.organization_id = b.organization_id
             ),
             -- Where all else is equal, chance decides.
             turn as (
                 select provider_id, free, count(*) over () as destinations,
                        of_organization + row_number() over (
                            partition by organization_id order by running, provider_id > $6 desc, provider_id) as turn,
                        running, provider_id > $6 as is_first
                 from room where free > 0
             ),
             p as materialized (
                 select d.organization_id, d.webhook_id, d.holder is not null as had_holder
                 from (select * from turn order by turn, running, is_first desc, provider_id) r
                 cross join lateral (
                     select * from webhook_due w
                     where w.provider_id = r.provider_id and w.due_at <= now()
                       and (w.holder is null or w.holder = $7
                            or not exists (select from delivery_nodes n where n.node = w.holder))
                     order by w.due_at limit least(r.free, ceil($8::numeric / r.destinations)::bigint)
                     for update skip locked) d
                 limit $8
             )
             update webhook_due d set holder = $7, due_at = now() + $9 * interval '1 second'
             from p where d.organization_id = p.organization_id and d.webhook_id = p.webhook_id
             returning {RETURNING}",
            providers = providers_of!("true"),
        );
        let asked = self.asked();
        let rows: Vec<Row> = within(
            sqlx::query_as(&sql)
                .bind(organizations)
                .bind(providers)
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
            "with recursive busy as ({providers}),
             p as materialized (
                 select d.organization_id, d.webhook_id, false as had_holder
                 from busy b cross join lateral (
                     select * from webhook_due w
                     where w.provider_id = b.provider_id and w.due_at <= now() and w.holder is null and not w.requested
                       and w.pending_since < now() - $1 * interval '1 second'
                     order by w.due_at limit $2 for update skip locked) d
                 where not exists (
                     select from destination_busy n
                     where n.organization_id = b.organization_id and n.provider_id = b.provider_id
                       and n.busy_at >= now() - $1 * interval '1 second')
                 limit $2
             )
             update webhook_due d set holder = $3, due_at = now() + $4 * interval '1 second'
             from p where d.organization_id = p.organization_id and d.webhook_id = p.webhook_id
             returning {RETURNING}",
            providers = providers_of!("true"),
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

    /// Holds everything that is due to a destination.
    pub async fn hold(&self, provider: ProviderId, hold: Hold) -> Result<u64, sqlx::Error> {
        let holding = within(
            sqlx::query(
                "update webhook_due set held = $2, due_at = 'infinity', pending_since = null
                 where provider_id = $1 and due_at <= now() and holder is null",
            )
            .bind(provider.uuid())
            .bind(hold.as_str())
            .execute(&self.pool),
        );
        Ok(holding.await?.rows_affected())
    }

    /// Providers whose deliveries are held.
    pub async fn held(&self) -> Result<Vec<ProviderId>, sqlx::Error> {
        let sql =
            concat!("with recursive busy as (", providers_of!("held is not null"), ") select provider_id from busy");
        let rows: Vec<Uuid> = within(sqlx::query_scalar(sql).fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(ProviderId::new).collect())
    }

    /// Releases everything that was held for a destination.
    pub async fn let_go(&self, provider: ProviderId) -> Result<u64, sqlx::Error> {
        let gone_on = within(
            sqlx::query(
                "update webhook_due set held = null, due_at = now(), pending_since = case when attempt = 1 then now() end
                 where provider_id = $1 and held is not null",
            )
            .bind(provider.uuid())
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
        let providers: Vec<Uuid> = busy.iter().map(|busy| busy.provider.uuid()).collect();
        let reasons: Vec<&str> = busy.iter().map(|busy| busy.reason.as_str()).collect();
        within(
            sqlx::query(
                "insert into destination_busy as b (organization_id, provider_id, node, reason, busy_at)
                 select distinct on (organization_id, provider_id) organization_id, provider_id, $4, reason, now()
                 from unnest($1::uuid[], $2::uuid[], $3::text[]) as n (organization_id, provider_id, reason)
                 where exists (select from webhook_due w where w.provider_id = n.provider_id and w.due_at <= now())
                 on conflict (organization_id, provider_id, node) do update
                 set reason = excluded.reason, busy_at = excluded.busy_at",
            )
            .bind(organizations)
            .bind(providers)
            .bind(reasons)
            .bind(self.node)
            .execute(&self.pool),
        )
        .await
        .map(drop)
    }

    /// Gives back rows that this node took but did not process.
    pub async fn release(&self, due: &[Due]) -> Result<(), sqlx::Error> {
        let (organizations, webhooks) = keys(due.iter().map(|due| (due.organization, due.webhook)));
        within(
            sqlx::query(
                "update webhook_due d set holder = null, due_at = now()
                 from unnest($1::uuid[], $2::uuid[]) as n (organization_id, webhook_id)
                 where d.organization_id = n.organization_id and d.webhook_id = n.webhook_id and d.holder = $3",
            )
            .bind(organizations)
            .bind(webhooks)
            .bind(self.node)
            .execute(&self.pool),
        )
        .await
        .map(drop)
    }

    /// Records settlements and answers of many webhooks at once. Does not touch rows that another node holds
    /// by now, or that a person's request renewed, because those concern a later event.
    ///
    /// # Errors
    /// After an error, nothing was recorded.
    pub async fn settle(&self, settlements: &[Settlement]) -> Result<(), sqlx::Error> {
        within(async {
            let mut transaction = self.pool.begin().await?;
            self.settle_done(&mut transaction, settlements).await?;
            self.settle_again(&mut transaction, settlements).await?;
            self.settle_back(&mut transaction, settlements).await?;
            keep_responses(&mut transaction, settlements).await?;
            transaction.commit().await
        })
        .await
    }

    async fn settle_done(&self, connection: &mut PgConnection, settlements: &[Settlement]) -> Result<(), sqlx::Error> {
        let (mut organizations, mut webhooks, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        for settlement in settlements {
            if let Settled::Done { sequence } = settlement.settled {
                organizations.push(settlement.organization.uuid());
                webhooks.push(settlement.webhook.uuid());
                sequences.push(sequence);
            }
        }
        if webhooks.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "delete from webhook_due d
             using unnest($1::uuid[], $2::uuid[], $3::bigint[]) as n (organization_id, webhook_id, sequence)
             where d.organization_id = n.organization_id and d.webhook_id = n.webhook_id
               and d.holder = $4 and d.sequence <= n.sequence",
        )
        .bind(organizations)
        .bind(webhooks)
        .bind(sequences)
        .bind(self.node)
        .execute(connection)
        .await
        .map(drop)
    }

    async fn settle_again(&self, connection: &mut PgConnection, settlements: &[Settlement]) -> Result<(), sqlx::Error> {
        let (mut organizations, mut webhooks) = (Vec::new(), Vec::new());
        let (mut attempts, mut sequences, mut times, mut waits) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut asked, mut pending) = (Vec::new(), Vec::new());
        let now = Instant::now();
        for settlement in settlements {
            let Settled::Again { attempt, sequence, due, requested, pending: is_pending } = settlement.settled else {
                continue;
            };
            organizations.push(settlement.organization.uuid());
            webhooks.push(settlement.webhook.uuid());
            attempts.push(attempt.cast_signed());
            sequences.push(sequence);
            let (time, wait) = match due {
                When::At(time) => (Some(time), 0.0),
                When::In(instant) => (None, instant.saturating_duration_since(now).as_secs_f64()),
            };
            times.push(time);
            waits.push(wait);
            asked.push(requested);
            pending.push(is_pending);
        }
        if webhooks.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "update webhook_due d
             set holder = null, attempt = n.attempt, sequence = n.sequence,
                 due_at = coalesce(n.due_at, now() + n.wait * interval '1 second'), requested = n.requested,
                 pending_since = case when n.pending then coalesce(d.pending_since, now()) end
             from unnest($1::uuid[], $2::uuid[], $3::int[], $4::bigint[], $5::timestamptz[], $6::float8[], $7::bool[],
                         $8::bool[])
                  as n (organization_id, webhook_id, attempt, sequence, due_at, wait, requested, pending)
             where d.organization_id = n.organization_id and d.webhook_id = n.webhook_id
               and d.holder = $9 and d.sequence <= n.sequence",
        )
        .bind(organizations)
        .bind(webhooks)
        .bind(attempts)
        .bind(sequences)
        .bind(times)
        .bind(waits)
        .bind(asked)
        .bind(pending)
        .bind(self.node)
        .execute(connection)
        .await
        .map(drop)
    }

    /// Gives back rows whose webhooks did not change.
    async fn settle_back(&self, connection: &mut PgConnection, settlements: &[Settlement]) -> Result<(), sqlx::Error> {
        let (mut organizations, mut webhooks) = (Vec::new(), Vec::new());
        let (mut pauses, mut anew, mut reasons, mut doubtful) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for settlement in settlements {
            let (pause, waits_anew, hold, is_doubtful) = match settlement.settled {
                Settled::Back { pause, waits_anew } => (pause, waits_anew, None, false),
                Settled::Doubtful => (Duration::ZERO, false, None, true),
                Settled::Held(hold) => (Duration::ZERO, false, Some(hold.as_str()), false),
                Settled::Done { .. } | Settled::Again { .. } => continue,
            };
            organizations.push(settlement.organization.uuid());
            webhooks.push(settlement.webhook.uuid());
            pauses.push(pause.as_secs_f64());
            anew.push(waits_anew);
            reasons.push(hold);
            doubtful.push(is_doubtful);
        }
        if webhooks.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "update webhook_due d
             set holder = case when n.doubtful then d.holder end, held = n.held,
                 due_at = case when n.held is null then now() + n.pause * interval '1 second' else 'infinity' end,
                 pending_since = case when n.held is not null or d.pending_since is null then null
                                      when n.anew then now() + n.pause * interval '1 second'
                                      else d.pending_since end
             from unnest($1::uuid[], $2::uuid[], $3::float8[], $4::bool[], $5::text[], $6::bool[])
                  as n (organization_id, webhook_id, pause, anew, held, doubtful)
             where d.organization_id = n.organization_id and d.webhook_id = n.webhook_id and d.holder = $7",
        )
        .bind(organizations)
        .bind(webhooks)
        .bind(pauses)
        .bind(anew)
        .bind(reasons)
        .bind(doubtful)
        .bind(self.node)
        .execute(connection)
        .await
        .map(drop)
    }

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
    /// delays. Returns the number of webhooks.
    pub async fn set_times_right(&self) -> Result<u64, sqlx::Error> {
        // Reads the whole queue, which is small; clocks rarely go back.
        let set_right = within(
            sqlx::query(
                "with busy as (update destination_busy set busy_at = now() where busy_at > now())
                 update webhook_due
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
                 update webhook_due set due_at = now() where holder in (select node from dead) and due_at > now()",
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
                 update webhook_due set due_at = now() where holder = $1",
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
                     (organization_id, provider_id, node, state, failures, opened_at, probe_at, changed_at)
                 values ($1, $2, $3, $4, $5, now() - $6 * interval '1 second', now() + $7 * interval '1 second', now())
                 on conflict (organization_id, provider_id, node) do update
                 set state = excluded.state, failures = excluded.failures, opened_at = excluded.opened_at,
                     probe_at = excluded.probe_at, changed_at = excluded.changed_at",
            )
            .bind(circuit.organization.uuid())
            .bind(circuit.provider.uuid())
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

/// A circuit, as a node reports it.
#[derive(Clone, Debug)]
pub struct CircuitRow {
    pub organization: OrganizationId,
    pub provider: ProviderId,
    pub state: &'static str,
    pub failures: u32,
    pub opened: Option<Instant>,
    pub probe: Option<Instant>,
}

/// What a webhook waits for, other than its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Held(Hold),
    Busy(BusyReason),
}

/// What queued webhooks without a running attempt wait for.
pub async fn waits_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    webhooks: &[WebhookId],
) -> Result<Vec<(WebhookId, Wait)>, sqlx::Error> {
    let ids: Vec<Uuid> = webhooks.iter().map(|id| id.uuid()).collect();
    let rows: Vec<(Uuid, Option<String>, Option<String>)> = sqlx::query_as(
        "select d.webhook_id, d.held, b.reason from webhook_due d
         left join lateral (
             select reason from destination_busy b
             where b.organization_id = d.organization_id and b.provider_id = d.provider_id and d.due_at <= now()
               and b.busy_at > now() - interval '5 seconds'
             order by busy_at desc limit 1) b on d.held is null
         where d.organization_id = $1 and d.webhook_id = any ($2) and d.holder is null",
    )
    .bind(organization.uuid())
    .bind(ids)
    .fetch_all(executor)
    .await?;
    let wait = |held: Option<String>, busy: Option<String>| match (held, busy) {
        (Some(held), _) => {
            let known = Hold::ALL.into_iter().find(|hold| hold.as_str() == held);
            known.map(Wait::Held).map(Some).ok_or_else(|| unknown("webhook_due.held", &held))
        }
        (None, Some(busy)) => {
            let known = [BusyReason::Concurrency, BusyReason::CircuitOpen].into_iter().find(|b| b.as_str() == busy);
            known.map(Wait::Busy).map(Some).ok_or_else(|| unknown("destination_busy.reason", &busy))
        }
        (None, None) => Ok(None),
    };
    let mut waits = Vec::with_capacity(rows.len());
    for (webhook, held, busy) in rows {
        waits.extend(wait(held, busy)?.map(|wait| (WebhookId::new(webhook), wait)));
    }
    Ok(waits)
}

fn unknown(column: &str, value: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column} holds {value:?}").into())
}

async fn keep_responses(connection: &mut PgConnection, settlements: &[Settlement]) -> Result<(), sqlx::Error> {
    let (mut organizations, mut webhooks, mut attempts, mut excerpts) = (vec![], vec![], vec![], vec![]);
    for settlement in settlements {
        if let Some(response) = &settlement.response {
            organizations.push(settlement.organization.uuid());
            webhooks.push(settlement.webhook.uuid());
            attempts.push(response.attempt.cast_signed());
            excerpts.push(&response.excerpt[..]);
        }
    }
    if webhooks.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into attempt_responses (organization_id, webhook_id, attempt_number, excerpt)
         select * from unnest($1::uuid[], $2::uuid[], $3::int[], $4::bytea[]) as n (organization, webhook, attempt, excerpt)
         where not body_is_erased(organization, webhook) on conflict do nothing",
    )
    .bind(organizations)
    .bind(webhooks)
    .bind(attempts)
    .bind(excerpts)
    .execute(connection)
    .await
    .map(drop)
}

fn keys(keys: impl Iterator<Item = (OrganizationId, WebhookId)>) -> (Vec<Uuid>, Vec<Uuid>) {
    keys.map(|(organization, webhook)| (organization.uuid(), webhook.uuid())).unzip()
}

#[derive(Default)]
struct Columns {
    organization: Vec<Uuid>,
    webhook: Vec<Uuid>,
    provider: Vec<Uuid>,
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
        self.webhook.push(due.webhook.uuid());
        self.provider.push(due.provider.uuid());
        self.attempt.push(due.attempt.cast_signed());
        self.sequence.push(due.sequence);
        self.requested.push(due.requested);
        self.pending_since.push(due.pending_since);
        self.holder.push(held.map(|(holder, _)| holder));
        self.lease.push(held.map_or(0.0, |(_, lease)| lease.as_secs_f64()));
    }
}

/// A circuit, as its node last reported it.
#[derive(Clone, Debug, FromRow)]
pub struct CircuitNote {
    pub provider_id: Uuid,
    pub node: Uuid,
    state: String,
    pub failures: i32,
    pub opened_at: Option<DateTime<Utc>>,
    pub probe_at: Option<DateTime<Utc>>,
    pub changed_at: DateTime<Utc>,
}

/// Name of a circuit's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    Closed,
    Open,
    HalfOpen,
}

impl CircuitNote {
    pub fn state(&self) -> Result<CircuitState, sqlx::Error> {
        match self.state.as_str() {
            "closed" => Ok(CircuitState::Closed),
            "open" => Ok(CircuitState::Open),
            "half_open" => Ok(CircuitState::HalfOpen),
            other => Err(sqlx::Error::Decode(format!("destination_circuits.state holds {other:?}").into())),
        }
    }
}

/// Circuits of providers' destinations that have opened at least once.
pub async fn circuits_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    providers: &[ProviderId],
) -> Result<Vec<CircuitNote>, sqlx::Error> {
    sqlx::query_as(
        "select provider_id, node, state, failures, opened_at, probe_at, changed_at from destination_circuits
         where organization_id = $1 and provider_id = any ($2) order by provider_id, node limit 1000",
    )
    .bind(organization.uuid())
    .bind(uuids(providers))
    .fetch_all(executor)
    .await
}

/// How many webhooks of providers wait for an attempt, or have a running one.
pub async fn waiting_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    providers: &[ProviderId],
) -> Result<Vec<(ProviderId, i64)>, sqlx::Error> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "select provider_id, count(*) from webhook_due
         where organization_id = $1 and provider_id = any ($2) group by provider_id",
    )
    .bind(organization.uuid())
    .bind(uuids(providers))
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(provider, count)| (ProviderId::new(provider), count)).collect())
}

/// Answers of destinations to attempts at webhooks.
pub async fn responses_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    webhooks: &[WebhookId],
) -> Result<Vec<(WebhookId, i32, Vec<u8>)>, sqlx::Error> {
    let ids: Vec<Uuid> = webhooks.iter().map(|id| id.uuid()).collect();
    let rows: Vec<(Uuid, i32, Vec<u8>)> = sqlx::query_as(
        "select webhook_id, attempt_number, excerpt from attempt_responses
         where organization_id = $1 and webhook_id = any ($2) order by webhook_id, attempt_number limit 1000",
    )
    .bind(organization.uuid())
    .bind(ids)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(webhook, attempt, excerpt)| (WebhookId::new(webhook), attempt, excerpt)).collect())
}

fn uuids(providers: &[ProviderId]) -> Vec<Uuid> {
    providers.iter().map(|id| id.uuid()).collect()
}
