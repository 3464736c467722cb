//! The queue of attempts: the only SQL on `webhook_due`, `attempt_responses` and
//! `destination_circuits`.
//!
//! A row is memory, not truth. It is made in the transaction in which its webhook is read from the
//! log, taken with a lease by one node at a time, and goes once the log holds the end. Whoever takes
//! a row whose holder is gone asks the log how far the webhook came.

use std::time::Duration;

use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, ProviderId, WebhookId};
use hookledger_projections::unfinished::Unfinished;
use sqlx::{FromRow, PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

/// One webhook that waits for an attempt, as its row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub organization: OrganizationId,
    pub webhook: WebhookId,
    pub provider: ProviderId,
    /// The attempt that comes next.
    pub attempt: u32,
    /// The last event of the webhook's stream, as far as is known.
    pub sequence: i64,
    /// A person asked for the attempt.
    pub requested: bool,
    /// Since when it is pending; nothing while it waits for a retry.
    pub pending_since: Option<DateTime<Utc>>,
    /// Somebody held it and is gone: the log knows how far it came.
    pub is_doubtful: bool,
}

#[derive(FromRow)]
struct Row {
    organization_id: Uuid,
    webhook_id: Uuid,
    provider_id: Uuid,
    attempt: i32,
    sequence: i64,
    requested: bool,
    pending_since: Option<DateTime<Utc>>,
    had_holder: bool,
}

impl From<Row> for Due {
    fn from(row: Row) -> Self {
        Self {
            organization: OrganizationId::new(row.organization_id),
            webhook: WebhookId::new(row.webhook_id),
            provider: ProviderId::new(row.provider_id),
            attempt: row.attempt.cast_unsigned(),
            sequence: row.sequence,
            requested: row.requested,
            pending_since: row.pending_since,
            is_doubtful: row.had_holder,
        }
    }
}

/// What becomes of a row that its holder is done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The log holds the end, which is this event of the stream or an earlier one.
    Done { sequence: i64 },
    /// An attempt is due then.
    Again { attempt: u32, sequence: i64, due_at: DateTime<Utc>, requested: bool, pending_since: Option<DateTime<Utc>> },
}

/// A row's end, and what the destination answered.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub organization: OrganizationId,
    pub webhook: WebhookId,
    pub settled: Settled,
    pub response: Option<Response>,
}

/// The beginning of an answer's body.
#[derive(Clone, Debug)]
pub struct Response {
    pub attempt: u32,
    pub excerpt: bytes::Bytes,
}

/// How much room a destination has.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub provider: ProviderId,
    pub free: u32,
}

/// The queue, as one node uses it.
#[derive(Clone, Debug)]
pub struct Queue {
    pool: PgPool,
    node: Uuid,
}

const RETURNING: &str = "d.organization_id, d.webhook_id, d.provider_id, d.attempt, d.sequence, d.requested, \
                         d.pending_since, p.had_holder";

impl Queue {
    #[must_use]
    pub fn new(pool: PgPool, node: Uuid) -> Self {
        Self { pool, node }
    }

    /// Puts webhooks in, in the caller's transaction. Those that this node works on at once come with
    /// a lease. A webhook that is there keeps its row, unless a person asked again.
    pub(super) async fn put(
        &self,
        connection: &mut PgConnection,
        due: &[(Due, Option<Duration>)],
    ) -> Result<(), sqlx::Error> {
        let mut columns = Columns::default();
        due.iter().for_each(|(due, lease)| columns.push(due, lease.map(|lease| (self.node, lease))));
        sqlx::query(
            "insert into webhook_due as d (organization_id, webhook_id, provider_id, attempt, sequence, requested,
                                           due_at, pending_since, holder)
             select organization_id, webhook_id, provider_id, attempt, sequence, requested,
                    now() + lease * interval '1 second', pending_since, holder
             from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::bigint[], $6::bool[], $7::timestamptz[],
                         $8::uuid[], $9::float8[])
                  as n (organization_id, webhook_id, provider_id, attempt, sequence, requested, pending_since, holder,
                        lease)
             on conflict (organization_id, webhook_id) do update
             set attempt = excluded.attempt, sequence = excluded.sequence, requested = excluded.requested,
                 due_at = excluded.due_at, pending_since = excluded.pending_since, holder = excluded.holder
             where excluded.requested and excluded.sequence > d.sequence",
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
        .execute(connection)
        .await
        .map(drop)
    }

    /// Puts back what is missing, in doubt; answers how many were.
    ///
    /// # Errors
    /// When the database does not answer.
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

    /// Takes what is due, the oldest of each destination first, as far as there is room; `full` are
    /// destinations with none. Those that are not named have `default_room`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim(
        &self,
        limited: &[Room],
        default_room: u32,
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<Due>, sqlx::Error> {
        let (providers, free): (Vec<Uuid>, Vec<i64>) =
            limited.iter().map(|room| (room.provider.uuid(), i64::from(room.free))).unzip();
        // A loose scan finds the destinations that have something due, without reading all of it.
        let sql = format!(
            "with recursive busy as (
                 (select provider_id from webhook_due order by provider_id limit 1)
                 union all
                 select (select n.provider_id from webhook_due n where n.provider_id > b.provider_id
                         order by n.provider_id limit 1)
                 from busy b where b.provider_id is not null
             ),
             room as (
                 select b.provider_id, coalesce(f.free, $3) as free
                 from busy b left join unnest($1::uuid[], $2::bigint[]) as f (provider_id, free) using (provider_id)
                 where b.provider_id is not null
             ),
             p as materialized (
                 select d.organization_id, d.webhook_id, d.holder is not null as had_holder
                 from room r cross join lateral (
                     select * from webhook_due w where w.provider_id = r.provider_id and w.due_at <= now()
                     order by w.due_at limit r.free for update skip locked) d
                 where r.free > 0
                 limit $4
             )
             update webhook_due d set holder = $5, due_at = now() + $6 * interval '1 second'
             from p where d.organization_id = p.organization_id and d.webhook_id = p.webhook_id
             returning {RETURNING}"
        );
        let rows: Vec<Row> = sqlx::query_as(&sql)
            .bind(providers)
            .bind(free)
            .bind(i64::from(default_room))
            .bind(i64::from(limit))
            .bind(self.node)
            .bind(lease.as_secs_f64())
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().map(Due::from).collect())
    }

    /// Takes what has been pending for too long, whatever room its destination has.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim_overdue(
        &self,
        pending_before: DateTime<Utc>,
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<Due>, sqlx::Error> {
        let sql = format!(
            "with p as materialized (
                 select organization_id, webhook_id, false as had_holder from webhook_due
                 where holder is null and pending_since < $1 order by pending_since limit $2 for update skip locked
             )
             update webhook_due d set holder = $3, due_at = now() + $4 * interval '1 second'
             from p where d.organization_id = p.organization_id and d.webhook_id = p.webhook_id
             returning {RETURNING}"
        );
        let rows: Vec<Row> = sqlx::query_as(&sql)
            .bind(pending_before)
            .bind(i64::from(limit))
            .bind(self.node)
            .bind(lease.as_secs_f64())
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().map(Due::from).collect())
    }

    /// Makes the leases of rows that this node holds end later.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn extend(&self, due: &[Due], lease: Duration) -> Result<(), sqlx::Error> {
        let (organizations, webhooks) = keys(due.iter().map(|due| (due.organization, due.webhook)));
        sqlx::query(
            "update webhook_due d set due_at = now() + $4 * interval '1 second'
             from unnest($1::uuid[], $2::uuid[]) as n (organization_id, webhook_id)
             where d.organization_id = n.organization_id and d.webhook_id = n.webhook_id and d.holder = $3",
        )
        .bind(organizations)
        .bind(webhooks)
        .bind(self.node)
        .bind(lease.as_secs_f64())
        .execute(&self.pool)
        .await
        .map(drop)
    }

    /// Gives rows back that this node took and did nothing about.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn release(&self, due: &[Due]) -> Result<(), sqlx::Error> {
        let (organizations, webhooks) = keys(due.iter().map(|due| (due.organization, due.webhook)));
        sqlx::query(
            "update webhook_due d set holder = null, due_at = now()
             from unnest($1::uuid[], $2::uuid[]) as n (organization_id, webhook_id)
             where d.organization_id = n.organization_id and d.webhook_id = n.webhook_id and d.holder = $3",
        )
        .bind(organizations)
        .bind(webhooks)
        .bind(self.node)
        .execute(&self.pool)
        .await
        .map(drop)
    }

    /// Lets rows be taken that this node may or may not have started.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn doubt(&self, due: &[Due]) -> Result<(), sqlx::Error> {
        self.extend(due, Duration::ZERO).await
    }

    /// Notes ends and answers of many webhooks at once. Rows that another node holds by now stay.
    ///
    /// # Errors
    /// When the database does not answer; nothing is noted then.
    pub async fn settle(&self, settlements: &[Settlement]) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        self.settle_done(&mut transaction, settlements).await?;
        self.settle_again(&mut transaction, settlements).await?;
        keep_responses(&mut transaction, settlements).await?;
        transaction.commit().await
    }

    /// A row that a person's request renewed meanwhile tells of a later event, and stays.
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
        let (mut attempts, mut sequences, mut times) = (Vec::new(), Vec::new(), Vec::new());
        let (mut asked, mut since) = (Vec::new(), Vec::new());
        for settlement in settlements {
            if let Settled::Again { attempt, sequence, due_at, requested, pending_since } = settlement.settled {
                organizations.push(settlement.organization.uuid());
                webhooks.push(settlement.webhook.uuid());
                attempts.push(attempt.cast_signed());
                sequences.push(sequence);
                times.push(due_at);
                asked.push(requested);
                since.push(pending_since);
            }
        }
        if webhooks.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "update webhook_due d
             set holder = null, attempt = n.attempt, sequence = n.sequence, due_at = n.due_at,
                 requested = n.requested, pending_since = n.pending_since
             from unnest($1::uuid[], $2::uuid[], $3::int[], $4::bigint[], $5::timestamptz[], $7::bool[],
                         $8::timestamptz[])
                  as n (organization_id, webhook_id, attempt, sequence, due_at, requested, pending_since)
             where d.organization_id = n.organization_id and d.webhook_id = n.webhook_id
               and d.holder = $6 and d.sequence <= n.sequence",
        )
        .bind(organizations)
        .bind(webhooks)
        .bind(attempts)
        .bind(sequences)
        .bind(times)
        .bind(self.node)
        .bind(asked)
        .bind(since)
        .execute(connection)
        .await
        .map(drop)
    }

    /// Tells that this node is alive, and lets what nodes held that have not told for too long be
    /// taken at once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keep_alive(&self, dead_after: Duration) -> Result<(), sqlx::Error> {
        sqlx::query(
            "insert into delivery_nodes (node, alive_at) values ($1, now())
             on conflict (node) do update set alive_at = excluded.alive_at",
        )
        .bind(self.node)
        .execute(&self.pool)
        .await?;
        let dead: Vec<Uuid> = sqlx::query_scalar(
            "delete from delivery_nodes where alive_at < now() - $1 * interval '1 second' returning node",
        )
        .bind(dead_after.as_secs_f64())
        .fetch_all(&self.pool)
        .await?;
        if !dead.is_empty() {
            // It reads the whole queue, which is small, and nodes die seldom.
            sqlx::query("update webhook_due set due_at = now() where holder = any ($1) and due_at > now()")
                .bind(&dead)
                .execute(&self.pool)
                .await?;
            sqlx::query("delete from destination_circuits where node = any ($1)")
                .bind(&dead)
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    /// Tells that this node stops, so that others need not wait for it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn leave(&self) -> Result<(), sqlx::Error> {
        sqlx::query("update webhook_due set due_at = now() where holder = $1")
            .bind(self.node)
            .execute(&self.pool)
            .await?;
        sqlx::query("delete from destination_circuits where node = $1").bind(self.node).execute(&self.pool).await?;
        sqlx::query("delete from delivery_nodes where node = $1").bind(self.node).execute(&self.pool).await.map(drop)
    }

    /// Writes down where a circuit stands, for people to see.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn note_circuit(&self, circuit: &CircuitRow) -> Result<(), sqlx::Error> {
        sqlx::query(
            "insert into destination_circuits as c
                 (organization_id, provider_id, node, state, failures, opened_at, probe_at, changed_at)
             values ($1, $2, $3, $4, $5, $6, $7, now())
             on conflict (organization_id, provider_id, node) do update
             set state = excluded.state, failures = excluded.failures, opened_at = excluded.opened_at,
                 probe_at = excluded.probe_at, changed_at = excluded.changed_at",
        )
        .bind(circuit.organization.uuid())
        .bind(circuit.provider.uuid())
        .bind(self.node)
        .bind(circuit.state)
        .bind(circuit.failures.cast_signed())
        .bind(circuit.opened_at)
        .bind(circuit.probe_at)
        .execute(&self.pool)
        .await
        .map(drop)
    }
}

/// A circuit as a node tells it.
#[derive(Clone, Debug)]
pub struct CircuitRow {
    pub organization: OrganizationId,
    pub provider: ProviderId,
    pub state: &'static str,
    pub failures: u32,
    pub opened_at: Option<DateTime<Utc>>,
    pub probe_at: Option<DateTime<Utc>>,
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
    pending_since: Vec<Option<DateTime<Utc>>>,
    holder: Vec<Option<Uuid>>,
    /// Seconds; 0 where it is due at once.
    lease: Vec<f64>,
}

impl Columns {
    fn push(&mut self, due: &Due, held: Option<(Uuid, Duration)>) {
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

/// A circuit as its node last told.
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

/// Where a circuit stands, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    Closed,
    Open,
    HalfOpen,
}

impl CircuitNote {
    /// # Errors
    /// When the table holds a state that does not exist.
    pub fn state(&self) -> Result<CircuitState, sqlx::Error> {
        match self.state.as_str() {
            "closed" => Ok(CircuitState::Closed),
            "open" => Ok(CircuitState::Open),
            "half_open" => Ok(CircuitState::HalfOpen),
            other => Err(sqlx::Error::Decode(format!("destination_circuits.state holds {other:?}").into())),
        }
    }
}

/// The circuits of providers' destinations that ever opened.
///
/// # Errors
/// When the database does not answer.
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

/// How many webhooks wait for an attempt at providers' destinations, or are in one.
///
/// # Errors
/// When the database does not answer.
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

/// What destinations answered to attempts at webhooks.
///
/// # Errors
/// When the database does not answer.
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
