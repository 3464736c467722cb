//! Reading the log: after cursors for followers, and single streams for people.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use hookledger_aggregates::event::DecodeError;
use hookledger_aggregates::webhook::WebhookEvent;
use hookledger_aggregates::{DeliveryId, DestinationId, Event, OrganizationId, Partition, RecordedEvent, WebhookId};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::commit::{COLUMNS, Commit, Line, MOST, events};
use super::heads::{Heads, HeadsError, Positions};
use super::recent::RecentEvent;
use super::unit::{LogPosition, NewEvent};

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("the log has an event at {partition}:{found} but none at {partition}:{expected}")]
    Gap { partition: Partition, expected: i64, found: i64 },
    #[error("event at {partition}:{position}: {source}")]
    Decode { partition: Partition, position: i64, source: DecodeError },
}

impl From<HeadsError> for ReadError {
    fn from(error: HeadsError) -> Self {
        Self::Database(error.into())
    }
}

/// Which events a follower receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every event.
    All,
    /// Events caused by people and operators, without the traffic of webhooks.
    Administrative,
    /// Events that make deliveries pending.
    Pending,
}

impl Scope {
    /// The same as [`Scope::condition`], on an event in memory.
    pub(super) fn wants(self, event: &NewEvent) -> bool {
        match self {
            Self::All => true,
            Self::Administrative => event.is_administrative(),
            Self::Pending => is_pending(&event.event_type),
        }
    }

    /// The condition on a row `c` of `commits` that has such events.
    const fn condition(self) -> &'static str {
        match self {
            Self::All => "true",
            // The predicate of the partial index `commits_administrative`, word for word.
            Self::Administrative => ADMINISTRATIVE,
            Self::Pending => {
                "(starts_with(c.data, 'webhook.routed') or starts_with(c.data, 'delivery.retry_requested') \
                  or c.events > 1 and strpos(c.data, E'\\nwebhook.routed\\t') > 0)"
            }
        }
    }

    /// Whether it has an event of a commit that its condition holds for.
    fn has(self, line: &Line<'_>) -> bool {
        match self {
            // A commit has events of one kind.
            Self::All | Self::Administrative => true,
            Self::Pending => is_pending(line.event_type),
        }
    }
}

/// Commits of people and operators.
pub(super) const ADMINISTRATIVE: &str = "(c.aggregate_type not in ('webhook', 'delivery') \
     or starts_with(c.data, 'delivery.retry_requested') or starts_with(c.data, 'delivery.cancelled'))";

fn is_pending(event_type: &str) -> bool {
    matches!(event_type, "webhook.routed" | "delivery.retry_requested")
}

/// Events after some cursors, in order within each partition.
#[derive(Debug)]
pub struct Batch<E = RecordedEvent> {
    pub events: Vec<E>,
    /// Partitions of which there may be more up to the known head, because the limit was reached.
    pub full: Vec<Partition>,
    /// Partitions with an event that cannot be decoded. The batch ends before it.
    pub broken: Vec<Broken>,
}

impl<E> Default for Batch<E> {
    fn default() -> Self {
        Self { events: Vec::new(), full: Vec::new(), broken: Vec::new() }
    }
}

impl<E> Batch<E> {
    /// Both, which are of different partitions.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.events.extend(other.events);
        self.full.extend(other.full);
        self.broken.extend(other.broken);
        self
    }
}

/// An event that cannot be decoded.
#[derive(Debug)]
pub struct Broken {
    pub at: LogPosition,
    pub reason: String,
    pub organization: OrganizationId,
    pub aggregate_type: String,
    pub aggregate_id: String,
}

/// A webhook or a delivery that has new events.
#[derive(Clone, Copy, Debug)]
pub struct Touched {
    pub organization: OrganizationId,
    pub what: What,
    /// Whether the webhook's first event is among them.
    pub created: bool,
}

/// A stream with new events.
#[derive(Clone, Copy, Debug)]
pub enum What {
    Webhook(WebhookId),
    Delivery(DeliveryId),
}

/// Reads the log.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(super) pool: PgPool,
    /// Set where the newest events are taken from memory.
    heads: Option<Heads>,
}

impl Reader {
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool, heads: None }
    }

    /// A reader that takes the newest events from memory, where this node appended them.
    #[must_use]
    pub fn with_recent(pool: PgPool, heads: Heads) -> Self {
        Self { pool, heads: Some(heads) }
    }

    /// Takes the events after cursors from memory, and makes something of each. Returns also the cursors whose
    /// events are not in memory, or of which it makes nothing.
    pub(super) fn take_recent<T>(
        &self,
        cursors: &[LogPosition],
        scope: Scope,
        limit: i64,
        mut make: impl FnMut(&RecentEvent) -> Option<T>,
    ) -> (Batch<T>, Vec<LogPosition>) {
        let (mut found, mut left) = (Batch::default(), Vec::new());
        let Some(heads) = &self.heads else { return (found, cursors.to_vec()) };
        let (epoch, ends) = (heads.epoch(), heads.now());
        for cursor in cursors {
            let head = ends[cursor.partition.index()];
            let limit = usize::try_from(limit).unwrap_or_default();
            let recent = heads.recent.after(epoch, *cursor, head, scope, limit);
            match recent.and_then(|recent| recent.iter().map(|event| make(event)).collect::<Option<Vec<_>>>()) {
                Some(events) => {
                    if events.len() >= limit {
                        found.full.push(cursor.partition);
                    }
                    found.events.extend(events);
                }
                None => left.push(*cursor),
            }
        }
        (found, left)
    }

    /// The database's time, by which ages are told.
    pub async fn time(&self) -> Result<DateTime<Utc>, ReadError> {
        Ok(sqlx::query_scalar("select clock_timestamp()").fetch_one(&self.pool).await?)
    }

    /// Reads the heads once.
    pub async fn refresh(&self, heads: &Heads) -> Result<(), ReadError> {
        Ok(heads.refresh(&self.pool).await?)
    }

    /// Up to `limit` events of each partition after its cursor, and the rest of the commit that the last is in.
    ///
    /// # Errors
    /// In [`Scope::All`] also when a position is missing.
    pub async fn after(&self, cursors: &[LogPosition], scope: Scope, limit: i64) -> Result<Batch, ReadError> {
        let (recent, left) = self.take_recent(cursors, scope, limit, |event| event.recorded().cloned());
        let batch = if left.is_empty() { Batch::default() } else { self.read_after(&left, scope, limit).await? };
        Ok(batch.and(recent))
    }

    async fn read_after(&self, cursors: &[LogPosition], scope: Scope, limit: i64) -> Result<Batch, ReadError> {
        let (partitions, positions): (Vec<i32>, Vec<i64>) =
            cursors.iter().map(|cursor| (cursor.partition.number(), cursor.position)).unzip();
        let sql = commits_after(scope);
        let rows = sqlx::query(&sql).bind(partitions).bind(positions).bind(limit).fetch_all(&self.pool).await?;
        let mut commits = rows.iter().map(Commit::of).collect::<Result<Vec<_>, _>>()?;
        // Rows arrive in order, though SQL does not promise it. Sorting such wide rows in SQL took as long as
        // reading them.
        commits.sort_by_key(Commit::key);

        let mut batch = Batch { events: Vec::with_capacity(rows.len()), ..Batch::default() };
        // The limit counts commits, and the first of them may have been read in part before.
        for commits in commits.chunk_by(|a, b| a.key().0 == b.key().0) {
            if i64::try_from(commits.len()).is_ok_and(|count| count >= limit) {
                batch.full.extend(commits.first().map(Commit::partition).transpose()?);
            }
        }
        let mut reached: HashMap<Partition, i64> = cursors.iter().map(|c| (c.partition, c.position)).collect();
        for commit in &commits {
            let partition = commit.partition()?;
            let before = reached.entry(partition).or_default();
            for line in commit.after(*before).filter(|line| scope.has(line)) {
                if batch.broken.iter().any(|broken| broken.at.partition == partition) {
                    break;
                }
                if scope == Scope::All && line.position != *before + 1 {
                    return Err(ReadError::Gap { partition, expected: *before + 1, found: line.position });
                }
                *before = line.position;
                match commit.decode(&line) {
                    Ok(event) => batch.events.push(event),
                    Err(ReadError::Decode { source, .. }) => batch.broken.push(Broken {
                        at: commit.place(&line)?,
                        reason: source.to_string(),
                        organization: OrganizationId::new(commit.organization),
                        aggregate_type: commit.aggregate_type.to_owned(),
                        aggregate_id: commit.stream.to_string(),
                    }),
                    Err(other) => return Err(other),
                }
            }
        }
        Ok(batch)
    }

    /// Webhooks and deliveries of these organizations with events between two positions of one partition, the most
    /// recently touched last.
    pub async fn touched(
        &self,
        after: LogPosition,
        to: i64,
        organizations: &[OrganizationId],
    ) -> Result<Vec<Touched>, ReadError> {
        let ids: Vec<Uuid> = organizations.iter().map(|id| id.uuid()).collect();
        let rows: Vec<(Uuid, Uuid, bool, bool)> = sqlx::query_as(
            "select organization_id, stream_id, aggregate_type = 'delivery',
                    bool_or(starts_with(data, E'webhook.received\\t') or starts_with(data, E'webhook.rejected\\t'))
             from commits
             where partition = $1 and position > $2 - 100 and position + events - 1 > $2 and position <= $3
               and aggregate_type in ('webhook', 'delivery') and organization_id = any ($4)
             group by 1, 2, 3 order by max(position)",
        )
        .bind(after.partition.number())
        .bind(after.position)
        .bind(to)
        .bind(ids)
        .fetch_all(&self.pool)
        .await?;
        let touched = rows.into_iter().map(|(organization, id, is_delivery, created)| Touched {
            organization: OrganizationId::new(organization),
            what: if is_delivery { What::Delivery(DeliveryId::new(id)) } else { What::Webhook(WebhookId::new(id)) },
            created,
        });
        Ok(touched.collect())
    }

    /// Up to `limit` events of one stream of an organization, in order.
    pub async fn stream(
        &self,
        organization: OrganizationId,
        aggregate_type: &str,
        aggregate_id: Uuid,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let sql = format!(
            "select {COLUMNS} from commits c
             where c.organization_id = $1 and c.aggregate_type = $2 and c.stream_id = $3 and c.partition = $4
             order by c.first_sequence limit $5"
        );
        let rows = sqlx::query(&sql)
            .bind(organization.uuid())
            .bind(aggregate_type)
            .bind(aggregate_id)
            .bind(organization.partition().number())
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        Ok(first(events(&rows, |_, _| true)?, limit))
    }

    /// One page of a delivery's events after an event of its stream, in order.
    pub async fn story(
        &self,
        organization: OrganizationId,
        delivery: DeliveryId,
        after: i64,
    ) -> Result<Tail, ReadError> {
        let tails = tails_of(&self.pool, organization, &[delivery], after).await?;
        Ok(tails.into_iter().next().unwrap_or(Tail { delivery, events: Vec::new(), sequence: after, is_last: true }))
    }

    /// The events of some deliveries, from their beginning.
    pub async fn stories(
        &self,
        organization: OrganizationId,
        deliveries: &[DeliveryId],
    ) -> Result<Vec<Tail>, ReadError> {
        tails_of(&self.pool, organization, deliveries, 0).await
    }

    /// Receipts of the last days, of every organization, that are still unverified and undecided; in the
    /// order of the log, after a log position.
    pub async fn unverified(&self, after: Option<LogPosition>, limit: i64) -> Result<Vec<RecordedEvent>, ReadError> {
        let (partition, position) = after.map_or((-1, 0), |after| (after.partition.number(), after.position));
        let sql = format!(
            "select {COLUMNS} from commits c
             where starts_with(c.data, 'webhook.received_unverified') and c.events = 1
               and c.recorded_at > now() - interval '4 days' and (c.partition, c.position) > ($1, $2)
               and not exists (
                   select from commits n
                   where n.stream_id = c.stream_id and n.aggregate_type = c.aggregate_type
                     and n.first_sequence = 2 and n.partition = c.partition)
             order by c.partition, c.position limit $3"
        );
        let rows = sqlx::query(&sql).bind(partition).bind(position).bind(limit).fetch_all(&self.pool).await?;
        events(&rows, |_, _| true)
    }
}

/// A selection of an organization's events; a `None` does not restrict it.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSpan {
    /// After this position of the organization's partition.
    pub after: Option<i64>,
    pub aggregate_id: Option<Uuid>,
    /// Recorded at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Recorded before this time.
    pub to: Option<DateTime<Utc>>,
}

/// The events of an organization, in order.
pub async fn events_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    span: &LogSpan,
    limit: i64,
) -> Result<Vec<RecordedEvent>, ReadError> {
    // Added only when requested, so that the planner uses the stream's index.
    let of_aggregate = if span.aggregate_id.is_some() { "c.stream_id = $4" } else { "$4::uuid is null" };
    // Times never decrease within a partition, so a time is a position, which an index finds.
    let sql = format!(
        "select {COLUMNS} from commits c
         where c.organization_id = $1 and c.partition = $2 and {of_aggregate}
           and c.position > $3 - 100 and c.position + c.events - 1 > $3
           and c.position >= case when $5::timestamptz is null then 0 else first_position_since($1, $2, $5) end
           and c.position < case when $6::timestamptz is null then {} else first_position_since($1, $2, $6) end
         order by c.position limit $7",
        i64::MAX
    );
    let after = span.after.unwrap_or_default();
    let rows = sqlx::query(&sql)
        .bind(organization.uuid())
        .bind(organization.partition().number())
        .bind(after)
        .bind(span.aggregate_id)
        .bind(span.from)
        .bind(span.to)
        .bind(limit)
        .fetch_all(executor)
        .await?;
    Ok(first(events(&rows, |_, line| line.position > after)?, limit))
}

/// Up to `limit` events that changed an organization's settings, users, providers, destinations and routes until a time, in order.
/// Leaves out sign-ins and events that only count.
pub async fn settings_until(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    time: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<RecordedEvent>, ReadError> {
    const LEFT_OUT: [&str; 4] =
        ["user.signed_in", "user.session_ended", "user.sessions_ended", "provider.rejections_suppressed"];
    // A commit of nothing but one of these is not even read.
    let sql = format!(
        "select {COLUMNS} from commits c
         where c.organization_id = $1 and c.partition = $2 and {} and c.recorded_at <= $3
           and c.aggregate_type in ('organization', 'user', 'provider', 'destination', 'route')
           and not (c.events = 1 and split_part(c.data, E'\\t', 1) = any ($5))
         order by c.position limit $4",
        Scope::Administrative.condition()
    );
    let rows = sqlx::query(&sql)
        .bind(organization.uuid())
        .bind(organization.partition().number())
        .bind(time)
        .bind(limit)
        .bind(LEFT_OUT.as_slice())
        .fetch_all(executor)
        .await?;
    Ok(first(events(&rows, |_, line| !LEFT_OUT.contains(&line.event_type))?, limit))
}

/// Number of events in each partition after its cursor, in commits of that scope; of 1,000,000 commits at most.
pub async fn count_after(
    connection: &mut PgConnection,
    cursors: &[LogPosition],
    scope: Scope,
) -> Result<Vec<(i32, i64)>, sqlx::Error> {
    let (partitions, positions): (Vec<i32>, Vec<i64>) =
        cursors.iter().map(|cursor| (cursor.partition.number(), cursor.position)).unzip();
    let events = match scope {
        Scope::All | Scope::Administrative => "least(c.events, c.position + c.events - 1 - n.after)",
        // A commit has others, too, and the cursor may be among them.
        Scope::Pending => {
            "(select count(*) from unnest(string_to_array(c.data, E'\\n')) with ordinality as l (line, number)
              where c.position + l.number - 1 > n.after
                and (starts_with(l.line, 'webhook.routed') or starts_with(l.line, 'delivery.retry_requested')))"
        }
    };
    let sql = format!(
        "select n.partition, (select coalesce(sum(m.events), 0)::bigint from (
             select {events} as events from commits c
             where c.partition = n.partition and c.position > n.after - 100 and c.position + c.events - 1 > n.after
               and {} limit 1000000) m)
         from unnest($1::int[], $2::bigint[]) as n (partition, after)",
        scope.condition()
    );
    sqlx::query_as(&sql).bind(partitions).bind(positions).fetch_all(connection).await
}

/// The last position of each partition recorded at a time or before. Times never decrease within a partition,
/// so a binary search finds it.
pub async fn positions_at(connection: &mut PgConnection, time: DateTime<Utc>) -> Result<Positions, sqlx::Error> {
    let heads: Vec<(i32, i64)> =
        sqlx::query_as("select partition, position from log_heads").fetch_all(&mut *connection).await?;
    let mut found = Positions::default();
    for (number, head) in heads {
        let Some(partition) = Partition::new(number) else { continue };
        // Everything up to `low` was recorded by then, nothing from `high` on.
        let (mut low, mut high) = (0, head + 1);
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            let at = recorded_at(&mut *connection, LogPosition { partition, position: middle }).await?;
            if at.is_some_and(|at| at <= time) { low = middle } else { high = middle }
        }
        found[partition.index()] = low;
    }
    Ok(found)
}

/// When an event was recorded.
pub async fn recorded_at(executor: impl PgExecutor<'_>, at: LogPosition) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar(
        "select recorded_at from commits
         where partition = $1 and position > $2 - 100 and position <= $2 and position + events > $2",
    )
    .bind(at.partition.number())
    .bind(at.position)
    .fetch_optional(executor)
    .await
}

/// The last changes of destinations, in order, up to a limit per destination.
pub async fn destination_changes(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    destinations: &[DestinationId],
) -> Result<Vec<RecordedEvent>, ReadError> {
    let ids: Vec<Uuid> = destinations.iter().map(|id| id.uuid()).collect();
    let sql = format!(
        "select {COLUMNS} from unnest($2::uuid[]) as s (id)
         cross join lateral (
             select c.* from commits c
             where c.organization_id = $1 and c.aggregate_type = 'destination' and c.stream_id = s.id
               and c.partition = $3 and strpos(c.data, E'destination.set\\t') > 0
             order by c.first_sequence desc limit 200) c
         order by c.position"
    );
    let rows = sqlx::query(&sql)
        .bind(organization.uuid())
        .bind(ids)
        .bind(organization.partition().number())
        .fetch_all(executor)
        .await?;
    events(&rows, |_, line| line.event_type == "destination.set")
}

/// The log position of a stream's last event.
pub async fn end_of_stream(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    aggregate_type: &str,
    aggregate_id: Uuid,
) -> Result<Option<LogPosition>, sqlx::Error> {
    let partition = organization.partition();
    let position: Option<i64> = sqlx::query_scalar(
        "select position + events - 1 from commits
         where organization_id = $1 and aggregate_type = $2 and stream_id = $3 and partition = $4
         order by first_sequence desc limit 1",
    )
    .bind(organization.uuid())
    .bind(aggregate_type)
    .bind(aggregate_id)
    .bind(partition.number())
    .fetch_optional(executor)
    .await?;
    Ok(position.map(|position| LogPosition { partition, position }))
}

/// The events of several streams of an organization, in order; up to `each` per stream and `together` in all.
pub async fn streams_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    aggregate_type: &str,
    aggregate_ids: &[Uuid],
    each: i64,
    together: i64,
) -> Result<Vec<RecordedEvent>, ReadError> {
    let sql = format!(
        "select {COLUMNS} from unnest($3::uuid[]) as s (id)
         cross join lateral (
             select c.* from commits c
             where c.organization_id = $1 and c.aggregate_type = $2 and c.stream_id = s.id and c.partition = $4
               and c.first_sequence <= $5
             order by c.first_sequence) c
         limit $6"
    );
    let rows = sqlx::query(&sql)
        .bind(organization.uuid())
        .bind(aggregate_type)
        .bind(aggregate_ids)
        .bind(organization.partition().number())
        .bind(each)
        .bind(together)
        .fetch_all(executor)
        .await?;
    Ok(first(events(&rows, |_, line| line.sequence <= each)?, together))
}

/// The events of webhooks and of their deliveries, in the order of the log; up to `each` per stream and `together` in
/// all of webhooks, and of deliveries.
pub async fn stories_of(
    connection: &mut PgConnection,
    organization: OrganizationId,
    webhooks: &[WebhookId],
    each: i64,
    together: i64,
) -> Result<HashMap<WebhookId, Vec<RecordedEvent>>, ReadError> {
    let ids: Vec<Uuid> = webhooks.iter().map(|id| id.uuid()).collect();
    let own = streams_of(&mut *connection, organization, "webhook", &ids, each, together).await?;
    let mut webhook_of: HashMap<Uuid, WebhookId> = webhooks.iter().map(|id| (id.uuid(), *id)).collect();
    let mut deliveries = Vec::new();
    for recorded in &own {
        if let Event::Webhook(WebhookEvent::Routed(routing)) = &recorded.event {
            for to in &routing.matched {
                webhook_of.insert(to.delivery_id.uuid(), WebhookId::new(recorded.aggregate_id));
                deliveries.push(to.delivery_id.uuid());
            }
        }
    }
    let theirs = if deliveries.is_empty() {
        Vec::new()
    } else {
        streams_of(connection, organization, "delivery", &deliveries, each, together).await?
    };
    let mut stories: HashMap<WebhookId, Vec<RecordedEvent>> = HashMap::with_capacity(webhooks.len());
    for recorded in own.into_iter().chain(theirs) {
        if let Some(webhook) = webhook_of.get(&recorded.aggregate_id) {
            stories.entry(*webhook).or_default().push(recorded);
        }
    }
    stories.values_mut().for_each(|story| story.sort_by_key(|recorded| recorded.position));
    Ok(stories)
}

/// A delivery's events after some event of its stream.
#[derive(Debug)]
pub struct Tail {
    pub delivery: DeliveryId,
    /// In order.
    pub events: Vec<RecordedEvent>,
    /// Sequence of the last event; where the page began, if there is none.
    pub sequence: i64,
    /// Whether the stream ends here.
    pub is_last: bool,
}

/// Most commits in one [`Tail`].
const TAIL: i64 = 1_000;

/// The events of several deliveries after a given event of each. A delivery without any has no tail.
pub async fn tails_of(
    executor: impl PgExecutor<'_>,
    organization: OrganizationId,
    deliveries: &[DeliveryId],
    after: i64,
) -> Result<Vec<Tail>, ReadError> {
    let ids: Vec<Uuid> = deliveries.iter().map(|id| id.uuid()).collect();
    let sql = format!(
        "select {COLUMNS} from unnest($2::uuid[]) as s (id)
         cross join lateral (
             select c.* from commits c
             where c.organization_id = $1 and c.aggregate_type = 'delivery' and c.stream_id = s.id and c.partition = $3
               and c.first_sequence > $4 - 100 and c.first_sequence + c.events - 1 > $4
             order by c.first_sequence limit $5) c"
    );
    let rows = sqlx::query(&sql)
        .bind(organization.uuid())
        .bind(ids)
        .bind(organization.partition().number())
        .bind(after)
        .bind(TAIL)
        .fetch_all(executor)
        .await?;
    let mut tails: HashMap<DeliveryId, (Tail, i64)> = HashMap::with_capacity(deliveries.len());
    for row in &rows {
        let commit = Commit::of(row)?;
        let delivery = DeliveryId::new(commit.stream);
        let new = || (Tail { delivery, events: Vec::new(), sequence: after, is_last: true }, 0);
        let (tail, commits) = tails.entry(delivery).or_insert_with(new);
        *commits += 1;
        for line in commit.lines().filter(|line| line.sequence > after) {
            tail.events.push(commit.decode(&line)?);
        }
    }
    for (tail, commits) in tails.values_mut() {
        tail.events.sort_by_key(|event| event.sequence);
        tail.is_last = *commits < TAIL;
        tail.sequence = tail.events.last().map_or(after, |last| last.sequence);
    }
    Ok(deliveries.iter().filter_map(|id| tails.remove(id)).map(|(tail, _)| tail).collect())
}

/// Commits `c` after the cursors of partitions ($1 and $2), for about $3 events of each.
pub(super) fn commits_after(scope: Scope) -> String {
    // Every position is there: the end is a position, too, and the commit that holds the next event is looked up.
    let (begins, ends) = if scope == Scope::All {
        let begins = "coalesce((select max(b.position) from commits b
                                where b.partition = n.partition and b.position <= n.after + 1), 0)";
        (begins.to_owned(), "and c.position <= n.after + $3 order by c.position")
    } else {
        (format!("n.after - {}", MOST - 1), "order by c.position limit $3")
    };
    format!(
        "select {COLUMNS} from unnest($1::int[], $2::bigint[]) as n (partition, after)
         cross join lateral (
             select c.* from commits c
             where c.partition = n.partition and c.position >= {begins} and c.position + c.events - 1 > n.after
               and {} {ends}) c",
        scope.condition()
    )
}

fn first(mut events: Vec<RecordedEvent>, limit: i64) -> Vec<RecordedEvent> {
    events.truncate(usize::try_from(limit).unwrap_or_default());
    events
}
