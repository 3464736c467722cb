//! Rebuilding one projection, and switching to the rebuilt read model.

use std::time::Duration;

use hookledger_projections::Projection;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::time::Instant;

use super::compare::{self, Comparison};
use super::copies::{self, become_worker, quoted};
use super::{Copies, RebuildError};
use crate::platform::store::Store;

/// Positions that may be applied while the live tables are locked.
const LAST_EVENTS: i64 = 2_000;
/// How long to wait for the locks on one table, with everybody else waiting behind. Below the 1 s after which
/// PostgreSQL checks for deadlocks, so that the switch always gives way.
const LOCK_LIMIT: Duration = Duration::from_millis(400);
/// How long switching is retried.
const SWITCH_LIMIT: Duration = Duration::from_secs(120);
/// How long to wait for another command: a killed one ends after its current statement.
const BUSY_LIMIT: Duration = Duration::from_secs(10);

/// Progress of a rebuild.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Applying events: positions done, and their total.
    Applying {
        done: i64,
        of: i64,
    },
    /// Gathering statistics.
    Analyzing,
    Comparing,
    Switching,
}

/// The rebuilt copy of one projection.
pub struct Rebuild {
    projection: Box<dyn Projection>,
    copies: Copies,
    previous: String,
}

impl Rebuild {
    /// Acquires the right to rebuild a projection; only one command at a time has it, on any machine.
    pub async fn open(store: &Store, name: &str) -> Result<Self, RebuildError> {
        let projection = find(name)?;
        let mut copies = Copies::open(store, format!("rebuild_{name}")).await?;
        take_turn(&mut copies.owner, name).await?;
        Ok(Self { projection, copies, previous: format!("previous_{name}") })
    }

    /// Whether there is a copy that was started, or is ready to be switched to.
    pub async fn is_begun(&mut self) -> Result<bool, RebuildError> {
        let schema = self.copies.schema.clone();
        Ok(self.copies.exists(&schema).await?)
    }

    /// Creates an empty copy, replacing an existing one.
    pub async fn begin(&mut self) -> Result<(), RebuildError> {
        let schema = self.copies.schema.clone();
        self.copies.drop_schema(&schema).await?;
        let about = format!("Hookledger: a rebuild of {}, not in use.", self.projection.name());
        self.copies.make(&[find(self.projection.name())?], true, &about).await
    }

    /// Applies the log until the copy is as far as the live read model.
    pub async fn catch_up(&mut self, mut told: impl FnMut(Step)) -> Result<(), RebuildError> {
        self.need_copy().await?;
        // The first round takes the longest, each further one applies the events of the meantime.
        for round in 0..20 {
            if self.apply_what_is_left(&mut told).await? <= LAST_EVENTS && round > 0 {
                break;
            }
        }
        told(Step::Analyzing);
        for table in self.projection.tables() {
            let sql = format!("vacuum (analyze) {}.{}", quoted(&self.copies.schema), quoted(table));
            self.copies.owner.execute(sql.as_str()).await?;
        }
        self.apply_what_is_left(&mut told).await?;
        Ok(())
    }

    /// Compares the copy and the live read model row by row, in one snapshot with equal positions.
    pub async fn compare(&mut self, mut told: impl FnMut(Step)) -> Result<Comparison, RebuildError> {
        self.need_copy().await?;
        self.apply_what_is_left(&mut told).await?;
        told(Step::Comparing);
        let Self { projection, copies, .. } = self;
        let mut transaction = copies.owner.begin_with("begin isolation level repeatable read").await?;
        become_worker(&mut transaction, &copies.schema, &copies.live).await?;
        apply_rest(&mut transaction, &copies.reader, projection.as_ref(), &copies.schema).await?;
        // Nested loops would be slow, because every row is compared.
        transaction
            .execute(
                "set local enable_hashjoin to on; set local enable_mergejoin to on; set local statement_timeout to 0",
            )
            .await?;
        let mut comparison = Comparison::default();
        for table in projection.tables() {
            let table = compare::compare(&mut transaction, &copies.live, &copies.schema, table, None).await?;
            comparison.tables.push(table);
        }
        transaction.commit().await?;
        Ok(comparison)
    }

    /// Switches the tables in one transaction. Readers and followers wait for it briefly, and continue with
    /// the new tables. The old ones are kept in a separate schema until the next rebuild.
    ///
    /// # Errors
    /// [`RebuildError::InUse`] if the tables stayed locked, [`RebuildError::Changed`] if their columns
    /// changed meanwhile.
    pub async fn switch(&mut self, mut told: impl FnMut(Step)) -> Result<i32, RebuildError> {
        self.need_copy().await?;
        let previous = self.previous.clone();
        self.copies.drop_schema(&previous).await?;
        let deadline = Instant::now() + SWITCH_LIMIT;
        loop {
            self.apply_what_is_left(&mut told).await?;
            told(Step::Switching);
            match self.try_switch().await {
                Ok(Some(version)) => return Ok(version),
                Ok(None) => {}
                Err(RebuildError::Database(error)) if is_lock_timeout(&error) => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= deadline {
                return Err(RebuildError::InUse(self.projection.name().to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The version that is now live; `None` if too much is left to apply under the locks.
    async fn try_switch(&mut self) -> Result<Option<i32>, RebuildError> {
        let Self { projection, copies, previous } = self;
        let (live, copy, previous) = (quoted(&copies.live), quoted(&copies.schema), quoted(previous));
        let tables: Vec<String> = projection.tables().iter().map(|table| format!("{live}.{}", quoted(table))).collect();
        let tables = tables.join(", ");
        let mut transaction = copies.owner.begin().await?;
        // First a lock that conflicts only with maintenance, which gives way to it after 1 s; then, briefly,
        // the lock that everybody waits for.
        transaction
            .execute(
                format!(
                    "set local lock_timeout to '5s'; lock table {tables} in share update exclusive mode;
                     set local lock_timeout to '{}ms'; lock table {tables} in access exclusive mode",
                    LOCK_LIMIT.as_millis()
                )
                .as_str(),
            )
            .await?;
        // Tables first, checkpoint second, as the live follower does: either it has committed, or it waits
        // for the tables and then writes to the new ones, from the same checkpoint.
        sqlx::query("select from follower_checkpoints where name = $1 for update")
            .bind(projection.name())
            .execute(&mut *transaction)
            .await?;
        let at = copies::positions(&mut transaction, &copies.schema, projection.name()).await?;
        let target = copies::live_positions(&mut transaction, projection.name()).await?;
        if target.iter().sum::<i64>() - at.iter().sum::<i64>() > LAST_EVENTS {
            return Ok(None);
        }
        become_worker(&mut transaction, &copies.schema, &copies.live).await?;
        apply_rest(&mut transaction, &copies.reader, projection.as_ref(), &copies.schema).await?;
        transaction.execute(format!("reset role; set local search_path to {live}").as_str()).await?;
        for table in projection.tables() {
            if !compare::has_same_columns(&mut transaction, &copies.live, &copies.schema, table).await? {
                return Err(RebuildError::Changed((*table).to_owned()));
            }
        }
        let mut moves = vec![format!(
            "create schema {previous}; comment on schema {previous} is 'Hookledger: what a rebuild replaced, not in use.'"
        )];
        for table in projection.tables().iter().map(|table| quoted(table)) {
            moves.push(format!("alter table {live}.{table} set schema {previous}"));
            moves.push(format!("alter table {copy}.{table} set schema {live}"));
        }
        // The checkpoints are valid for the old tables as well, so that they could be restored from here.
        moves.push(format!("alter table {copy}.copy_checkpoints set schema {previous}; drop schema {copy}"));
        transaction.execute(moves.join(";").as_str()).await?;
        let version: i32 = sqlx::query_scalar(
            "insert into projection_versions as v (name, version, switched_at) values ($1, 2, now())
             on conflict (name) do update set version = v.version + 1, switched_at = excluded.switched_at
             returning version",
        )
        .bind(projection.name())
        .fetch_one(&mut *transaction)
        .await?;
        transaction.execute("set local synchronous_commit to on").await?;
        transaction.commit().await?;
        Ok(Some(version))
    }

    /// Turns the replaced tables of the last switch into the copy again, to catch up and switch back.
    ///
    /// # Errors
    /// [`RebuildError::NoCopy`] if nothing is kept.
    pub async fn take_back(&mut self) -> Result<(), RebuildError> {
        let (previous, copy) = (self.previous.clone(), self.copies.schema.clone());
        if !self.copies.exists(&previous).await? {
            return Err(RebuildError::NoCopy(self.projection.name().to_owned()));
        }
        self.copies.drop_schema(&copy).await?;
        let sql = format!(
            "alter schema {} rename to {1}; grant usage on schema {1} to hookledger_worker",
            quoted(&previous),
            quoted(&copy)
        );
        self.copies.owner.execute(sql.as_str()).await?;
        Ok(())
    }

    /// Undoes [`Rebuild::take_back`].
    pub async fn put_back(&mut self) -> Result<(), RebuildError> {
        let sql = format!(
            "alter schema {0} rename to {1}; revoke usage on schema {1} from hookledger_worker",
            quoted(&self.copies.schema),
            quoted(&self.previous)
        );
        self.copies.owner.execute(sql.as_str()).await?;
        Ok(())
    }

    /// Drops the copy, and the tables that the last switch replaced.
    pub async fn drop_all(&mut self) -> Result<(), RebuildError> {
        for schema in [self.copies.schema.clone(), self.previous.clone()] {
            self.copies.drop_schema(&schema).await?;
        }
        Ok(())
    }

    async fn need_copy(&mut self) -> Result<(), RebuildError> {
        if self.is_begun().await? { Ok(()) } else { Err(RebuildError::NoCopy(self.projection.name().to_owned())) }
    }

    /// Applies up to the live read model's current position; returns the number of positions.
    async fn apply_what_is_left(&mut self, told: &mut impl FnMut(Step)) -> Result<i64, RebuildError> {
        let name = self.projection.name();
        let (at, target) = (self.copies.positions(name).await?, self.copies.live_positions(name).await?);
        if at.iter().zip(&target).any(|(at, target)| at > target) {
            return Err(RebuildError::Ahead);
        }
        let of = target.iter().sum();
        self.copies.advance(self.projection.as_ref(), &target, |done| told(Step::Applying { done, of })).await?;
        Ok(of - at.iter().sum::<i64>())
    }
}

/// Applies up to the live read model's checkpoint, as seen by the caller's transaction.
async fn apply_rest(
    transaction: &mut PgConnection,
    reader: &crate::log::Reader,
    projection: &dyn Projection,
    schema: &str,
) -> Result<(), RebuildError> {
    let mut at = copies::positions(transaction, schema, projection.name()).await?;
    let target = copies::live_positions(transaction, projection.name()).await?;
    while let Some(batch) = copies::read(reader, projection, &at, &target, None).await? {
        copies::apply(transaction, schema, projection, &batch).await?;
        at = batch.to;
    }
    Ok(())
}

pub(super) fn find(name: &str) -> Result<Box<dyn Projection>, RebuildError> {
    let all = hookledger_projections::all();
    let names: Vec<&str> = all.iter().map(|projection| projection.name()).collect();
    let unknown = RebuildError::Unknown(name.to_owned(), names.join(", "));
    all.into_iter().find(|projection| projection.name() == name).ok_or(unknown)
}

/// A lock of the session that does the work: it ends with the command, whose last statement is then committed
/// or not.
pub(super) async fn take_turn(owner: &mut PgConnection, name: &str) -> Result<(), RebuildError> {
    let deadline = Instant::now() + BUSY_LIMIT;
    loop {
        let mine: bool = sqlx::query_scalar("select pg_try_advisory_lock(7307, hashtext($1))")
            .bind(name)
            .fetch_one(&mut *owner)
            .await?;
        if mine {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(RebuildError::Busy(name.to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// 55P03, `lock_not_available`.
fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "55P03")
}
