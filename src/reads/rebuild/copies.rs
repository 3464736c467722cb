//! A schema with copies of read models, and filling them from the log.

use hookledger_aggregates::{OrganizationId, Partition, RecordedEvent};
use hookledger_projections::{Interest, Projection};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::RebuildError;
use crate::log::{LogPosition, Positions, Reader, Scope};
use crate::platform::store::{Store, Use};

/// Events per partition that are applied at once.
const BATCH: i64 = 1_000;
/// Progress of each projection in a schema of copies.
const CHECKPOINTS: &str = "copy_checkpoints";

/// A schema with copies of read models.
pub(super) struct Copies {
    /// The owner of the schema, which acts as the worker for rows because row-level security applies to the
    /// owner too.
    pub(super) owner: PgConnection,
    pub(super) reader: Reader,
    /// Schema of the copies.
    pub(super) schema: String,
    /// Schema of the live ones.
    pub(super) live: String,
    /// If set, only this organization's events are applied.
    pub(super) organization: Option<OrganizationId>,
}

/// A quoted SQL identifier. Ours consist of letters, digits and underscores, so no escaping is needed.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Copies {
    pub(super) async fn open(store: &Store, schema: String) -> Result<Self, RebuildError> {
        let mut owner = store.owner().await?;
        let live: String = sqlx::query_scalar("select current_schema()::text").fetch_one(&mut owner).await?;
        let reader = Reader::new(store.pool(Use::Follow).await?);
        Ok(Self { owner, reader, schema, live, organization: None })
    }

    pub(super) async fn exists(&mut self, schema: &str) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("select exists (select from pg_namespace where nspname = $1)")
            .bind(schema)
            .fetch_one(&mut self.owner)
            .await
    }

    /// Creates the schema with empty copies, in one transaction; copies of `live` tables can replace these.
    pub(super) async fn make(
        &mut self,
        projections: &[Box<dyn Projection>],
        live: bool,
        about: &str,
    ) -> Result<(), RebuildError> {
        let schema = quoted(&self.schema);
        let mut transaction = self.owner.begin().await?;
        transaction
            .execute(
                format!(
                    "create schema {schema};
                     grant usage on schema {schema} to hookledger_worker;
                     comment on schema {schema} is '{}';
                     create table {schema}.{CHECKPOINTS} (
                         projection text, partition int, position bigint not null, primary key (projection, partition));
                     grant select, insert, update on {schema}.{CHECKPOINTS} to hookledger_worker",
                    about.replace('\'', "''")
                )
                .as_str(),
            )
            .await?;
        for projection in projections {
            for table in projection.tables() {
                sqlx::query("select copy_read_model($1::regclass, $2::name, $3)")
                    .bind(format!("{}.{}", quoted(&self.live), quoted(table)))
                    .bind(&self.schema)
                    .bind(live)
                    .execute(&mut *transaction)
                    .await?;
            }
            sqlx::query(&format!("insert into {schema}.{CHECKPOINTS} select $1, partition, 0 from log_heads"))
                .bind(projection.name())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Drops a schema of copies, if it exists.
    pub(super) async fn drop_schema(&mut self, schema: &str) -> Result<(), sqlx::Error> {
        self.owner.execute(format!("drop schema if exists {} cascade", quoted(schema)).as_str()).await.map(drop)
    }

    /// Progress of a projection here.
    pub(super) async fn positions(&mut self, projection: &str) -> Result<Positions, sqlx::Error> {
        positions(&mut self.owner, &self.schema, projection).await
    }

    /// Progress of the live projection.
    pub(super) async fn live_positions(&mut self, projection: &str) -> Result<Positions, sqlx::Error> {
        live_positions(&mut self.owner, projection).await
    }

    /// Applies events up to a target, one batch per transaction, so that a crash loses at most a batch.
    /// Reports the number of positions passed after each.
    pub(super) async fn advance(
        &mut self,
        projection: &dyn Projection,
        target: &Positions,
        mut passed: impl FnMut(i64),
    ) -> Result<(), RebuildError> {
        let mut at = self.positions(projection.name()).await?;
        while let Some(batch) = self.read(projection, &at, target).await? {
            let mut transaction = self.owner.begin().await?;
            become_worker(&mut transaction, &self.schema, &self.live).await?;
            apply(&mut transaction, &self.schema, projection, &batch).await?;
            transaction.commit().await?;
            at = batch.to;
            passed(at.iter().sum());
        }
        Ok(())
    }

    /// The next batch of every partition that is not at its target; `None` if all are.
    async fn read(
        &self,
        projection: &dyn Projection,
        at: &Positions,
        target: &Positions,
    ) -> Result<Option<Batch>, RebuildError> {
        read(&self.reader, projection, at, target, self.organization).await
    }
}

/// Events to apply, and the positions after them.
pub(super) struct Batch {
    events: Vec<RecordedEvent>,
    pub(super) to: Positions,
}

/// Reads the next events before a target.
pub(super) async fn read(
    reader: &Reader,
    projection: &dyn Projection,
    at: &Positions,
    target: &Positions,
    organization: Option<OrganizationId>,
) -> Result<Option<Batch>, RebuildError> {
    let cursors: Vec<LogPosition> = Partition::all()
        .filter(|partition| at[partition.index()] < target[partition.index()])
        .map(|partition| LogPosition { partition, position: at[partition.index()] })
        .collect();
    if cursors.is_empty() {
        return Ok(None);
    }
    let scope = match projection.interest() {
        Interest::All => Scope::All,
        Interest::Administrative => Scope::Administrative,
    };
    let batch = reader.after(&cursors, scope, BATCH).await?;
    let wanted = |place: &LogPosition| place.position <= target[place.partition.index()];
    if let Some(broken) = batch.broken.iter().find(|broken| wanted(&broken.at)) {
        return Err(RebuildError::Event { at: broken.at, reason: broken.reason.clone() });
    }
    let mut to = *at;
    for cursor in &cursors {
        let index = cursor.partition.index();
        let mut of_partition = batch.events.iter().filter(|event| event.partition == cursor.partition);
        let count = of_partition.clone().count();
        // A partial batch, or one beyond the target: no event before the target is left out.
        to[index] = match of_partition.next_back() {
            Some(last) if i64::try_from(count).is_ok_and(|count| count >= BATCH) => last.position.min(target[index]),
            _ => target[index],
        };
    }
    let events = batch.events.into_iter().filter(|event| {
        event.position <= target[event.partition.index()]
            && organization.is_none_or(|organization| event.organization == organization)
    });
    Ok(Some(Batch { events: events.collect(), to }))
}

/// Applies a batch and its checkpoints in the caller's transaction, as the worker.
pub(super) async fn apply(
    connection: &mut PgConnection,
    schema: &str,
    projection: &dyn Projection,
    batch: &Batch,
) -> Result<(), RebuildError> {
    if !batch.events.is_empty() {
        projection.apply(connection, &batch.events).await?;
    }
    let partitions: Vec<i32> = Partition::all().map(Partition::number).collect();
    sqlx::query(&format!(
        "update {}.{CHECKPOINTS} c set position = n.position
         from unnest($2::int[], $3::bigint[]) as n (partition, position)
         where c.projection = $1 and c.partition = n.partition and c.position < n.position",
        quoted(schema)
    ))
    .bind(projection.name())
    .bind(partitions)
    .bind(batch.to.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

/// Until the end of the transaction, rows are written to the copies, as the worker would write them. Prevents
/// lookups by key from becoming scans while new tables lack statistics. Commits do not wait for the disk,
/// because everything lost in a crash is derived again.
pub(super) async fn become_worker(transaction: &mut PgConnection, schema: &str, live: &str) -> Result<(), sqlx::Error> {
    transaction
        .execute(
            format!(
                "set local role hookledger_worker; set local search_path to {}, {};
                 set local enable_hashjoin to off; set local enable_mergejoin to off;
                 set local synchronous_commit to off; set local statement_timeout to '60s'",
                quoted(schema),
                quoted(live)
            )
            .as_str(),
        )
        .await
        .map(drop)
}

pub(super) async fn positions(
    connection: &mut PgConnection,
    schema: &str,
    projection: &str,
) -> Result<Positions, sqlx::Error> {
    let sql = format!("select partition, position from {}.{CHECKPOINTS} where projection = $1", quoted(schema));
    Ok(by_partition(&sqlx::query_as(&sql).bind(projection).fetch_all(connection).await?))
}

pub(super) async fn live_positions(connection: &mut PgConnection, projection: &str) -> Result<Positions, sqlx::Error> {
    let sql = "select partition, position from follower_checkpoints where name = $1";
    Ok(by_partition(&sqlx::query_as(sql).bind(projection).fetch_all(connection).await?))
}

fn by_partition(rows: &[(i32, i64)]) -> Positions {
    let mut positions = Positions::default();
    for (partition, position) in rows {
        if let Some(partition) = Partition::new(*partition) {
            positions[partition.index()] = *position;
        }
    }
    positions
}
