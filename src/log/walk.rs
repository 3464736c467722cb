//! The whole log in order, with the stored requests, for checks and copies. Streamed: one event is in memory
//! at a time.

use futures::StreamExt as _;
use futures::stream::BoxStream;
use hookledger_aggregates::{OrganizationId, Partition};
use sqlx::postgres::PgRow;
use sqlx::{Executor as _, PgConnection, PgExecutor, Row as _};
use uuid::Uuid;

use super::commit::{Commit, Line};
use super::unit::{LogPosition, is_administrative};
use crate::log::stored_event::StoredEvent;

/// An event, and the stored request that it is about, if any.
#[derive(Clone, Debug)]
pub struct Walked<'a> {
    pub event: StoredEvent<&'a str>,
    pub kept: Option<KeptRequest<'a>>,
}

/// A row of `webhook_bodies`.
#[derive(Clone, Copy, Debug)]
pub struct KeptRequest<'a> {
    pub webhook: Uuid,
    pub headers: &'a [u8],
    pub body: &'a [u8],
}

/// A commit from [`walk`], decoded on demand because decoding borrows.
#[derive(Debug)]
pub struct Row {
    row: PgRow,
    to: i64,
}

impl Row {
    pub fn read(&self) -> Result<WalkedCommit<'_>, sqlx::Error> {
        let webhook: Option<Uuid> = self.row.try_get("kept_webhook_id")?;
        let kept = match webhook {
            None => None,
            Some(webhook) => Some(KeptRequest {
                webhook,
                headers: self.row.try_get("kept_headers")?,
                body: self.row.try_get("kept_body")?,
            }),
        };
        Ok(WalkedCommit { commit: Commit::of(&self.row)?, kept, to: self.to })
    }
}

/// A commit, and the stored request that its first event is about, if any.
pub struct WalkedCommit<'a> {
    commit: Commit<'a>,
    kept: Option<KeptRequest<'a>>,
    to: i64,
}

impl WalkedCommit<'_> {
    /// Position of its first event.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.commit.position
    }

    /// Where it is, how many events it says it has, and how many it has, where that differs.
    #[must_use]
    pub fn miscount(&self) -> Option<(i64, i16, usize)> {
        let count = self.commit.lines().count();
        (i16::try_from(count) != Ok(self.commit.events)).then_some((self.commit.position, self.commit.events, count))
    }

    /// Whether it holds what no unit has written: text after the metadata of an event, or an administrative event
    /// together with others, where followers do not look for it.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        let is_of_people = |line: &Line<'_>| is_administrative(self.commit.aggregate_type, line.event_type);
        let first = self.commit.lines().next().is_some_and(|line| is_of_people(&line));
        self.commit.lines().any(|line| line.goes_on || is_of_people(&line) != first)
    }

    /// Its events up to the position that was walked to, in order.
    pub fn events(&self) -> impl Iterator<Item = Walked<'_>> {
        let lines = self.commit.lines().filter(move |line| line.position <= self.to);
        lines.enumerate().map(move |(number, line)| Walked {
            event: self.commit.stored(&line),
            kept: self.kept.filter(|_| number == 0),
        })
    }
}

/// The query of [`walk`]. An event outside its organization's partition is never about a request, although its
/// position may equal that of another event.
macro_rules! walk {
    ($organization:literal) => {
        concat!(
            "select c.partition, c.position, c.events, c.organization_id, c.aggregate_type, c.stream_id, c.first_sequence,
                    c.recorded_at, c.metadata, c.data,
                    b.webhook_id as kept_webhook_id, b.headers as kept_headers, b.body as kept_body
             from commits c
             left join webhook_bodies b
               on b.organization_id = c.organization_id and b.position = c.position and c.aggregate_type = 'webhook'
             where c.partition = $1 and c.position <= $2 and ",
            $organization,
            " order by c.position"
        )
    };
}

/// The events of a partition from the first up to a position, of all organizations or of one, in order. Needs
/// a connection of [`begin`].
pub fn walk(
    connection: &mut PgConnection,
    partition: Partition,
    organization: Option<OrganizationId>,
    to: i64,
) -> BoxStream<'_, Result<Row, sqlx::Error>> {
    // Two texts, so that the planner uses the organization's index.
    let query = match organization {
        Some(organization) => {
            sqlx::query(walk!("c.organization_id = $3")).bind(partition.number()).bind(to).bind(organization.uuid())
        }
        None => sqlx::query(walk!("true")).bind(partition.number()).bind(to),
    };
    query.fetch(connection).map(move |row| row.map(|row| Row { row, to })).boxed()
}

/// Begins a read-only transaction on one snapshot of the log: a new one, or that of another connection.
/// Returns the snapshot's name, so that other connections can share it.
pub async fn begin(connection: &mut PgConnection, same_as: Option<&str>) -> Result<String, sqlx::Error> {
    connection.execute("begin isolation level repeatable read read only").await?;
    if let Some(snapshot) = same_as {
        // Names of snapshots consist of hexadecimal digits and dashes, and come from PostgreSQL.
        let name: String = snapshot.chars().filter(|c| c.is_ascii_hexdigit() || *c == '-').collect();
        connection.execute(format!("set transaction snapshot '{name}'").as_str()).await?;
    }
    // A log takes longer than any limit for people's queries. Row by row and in order: a sort or a hash would
    // write the log to disk once more.
    connection
        .execute(
            "set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0;
             set local enable_hashjoin = off; set local enable_mergejoin = off; set local enable_sort = off;
             set local enable_bitmapscan = off; set local enable_seqscan = off; set local jit = off",
        )
        .await?;
    sqlx::query_scalar("select pg_export_snapshot()").fetch_one(connection).await
}

/// The head of each partition, after which the next append continues.
pub async fn ends(executor: impl PgExecutor<'_>) -> Result<Vec<LogPosition>, sqlx::Error> {
    let rows: Vec<(i32, i64)> =
        sqlx::query_as("select partition, position from log_heads order by partition").fetch_all(executor).await?;
    let place = |(partition, position)| Some(LogPosition { partition: Partition::new(partition)?, position });
    Ok(rows.into_iter().filter_map(place).collect())
}

/// How many commits are in partitions that do not exist, where nothing follows them; none is `None`.
pub async fn outside_partitions(executor: impl PgExecutor<'_>) -> Result<Option<i64>, sqlx::Error> {
    let strays: i64 = sqlx::query_scalar(
        "select (select count(*) from commits where partition < 0) + (select count(*) from commits where partition > 15)",
    )
    .fetch_one(executor)
    .await?;
    Ok((strays > 0).then_some(strays))
}

/// Number of stored requests, of all organizations or of one.
pub async fn kept_requests(
    executor: impl PgExecutor<'_>,
    organization: Option<OrganizationId>,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(*) from webhook_bodies where $1::uuid is null or organization_id = $1")
        .bind(organization.map(OrganizationId::uuid))
        .fetch_one(executor)
        .await
}

/// The first stored request whose event is missing or is not about a request.
pub async fn stray_request(
    executor: impl PgExecutor<'_>,
    organization: Option<OrganizationId>,
) -> Result<Option<(OrganizationId, i64)>, sqlx::Error> {
    let row: Option<(Uuid, i64)> = sqlx::query_as(
        "select b.organization_id, b.position from webhook_bodies b
         where ($1::uuid is null or b.organization_id = $1)
           and not exists (
               select from events e
               where e.organization_id = b.organization_id and e.first_position = b.position and e.position = b.position
                 -- As `OrganizationId::partition` says.
                 and e.partition = get_byte(uuid_send(b.organization_id), 15) % 16
                 and e.event_type in ('webhook.received', 'webhook.received_unverified', 'webhook.rejected',
                                      'webhook.duplicate_body_kept'))
         order by b.organization_id, b.position limit 1",
    )
    .bind(organization.map(OrganizationId::uuid))
    .fetch_optional(executor)
    .await?;
    Ok(row.map(|(organization, position)| (OrganizationId::new(organization), position)))
}
