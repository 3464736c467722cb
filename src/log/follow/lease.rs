//! One lease: the right to follow under a name, and how its holder learns that it has ended.

use std::ops::{Deref, DerefMut};

use sqlx::{Executor as _, PgConnection, PgPool};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::leases::Leases;
use super::limit::{Borrowed, STATEMENT_LIMIT, within};

/// The end of a lease by this node's monotonic clock; `None` once another node holds it.
pub(super) type Good = Option<Instant>;

/// The right to follow under a name. A dropped lease is not renewed and runs out.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Leases,
    name: &'static str,
    pub(crate) epoch: i64,
    good: watch::Receiver<Good>,
}

impl Lease {
    pub(super) fn new(leases: Leases, name: &'static str, epoch: i64, good: watch::Receiver<Good>) -> Self {
        Self { leases, name, epoch, good }
    }

    /// Whether this node may still work under the lease.
    pub(crate) fn is_good(&self) -> bool {
        self.good.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Resolves when another node holds the lease, or when it could not be renewed in time, so that another
    /// node may hold it.
    pub(crate) async fn lost(&self) {
        let mut good = self.good.clone();
        loop {
            let Some(until) = *good.borrow_and_update() else { return };
            tokio::select! {
                () = sleep_until(until) => return,
                changed = good.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Notes that this node cannot continue after a log position, so that it leaves the lease to others.
    pub(super) fn is_stuck_after(&self, partition: i32, position: i64) {
        self.leases.is_stuck_after(self.name, partition, position);
    }

    /// Lets the next node take over at once.
    pub(crate) async fn release(self) {
        let (leases, name, epoch) = (self.leases.clone(), self.name, self.epoch);
        drop(self);
        leases.release(name, epoch).await;
    }

    /// Begins a transaction that no other holder of this lease has at the same time.
    ///
    /// A transaction of an earlier holder that is still open belongs to a node that stalls or is cut off, and
    /// would keep its row locks just as long. So its session is ended.
    ///
    /// # Errors
    /// Also fails if the earlier session does not end in time.
    pub(crate) async fn begin(&self, pool: &PgPool, isolation: Isolation) -> Result<LeaseTransaction, sqlx::Error> {
        match self.try_begin(pool, isolation).await {
            Err(error) if is_locked(&error) => {
                self.end_stalled_holders(pool).await?;
                self.try_begin(pool, isolation).await
            }
            other => other,
        }
    }

    async fn try_begin(&self, pool: &PgPool, isolation: Isolation) -> Result<LeaseTransaction, sqlx::Error> {
        let mut borrowed = Borrowed::from(pool).await?;
        // One round trip. The names are constants of this program.
        let sql = format!(
            "{}; set local lock_timeout = '1s'; select pg_advisory_xact_lock(7308, hashtext('{}')); \
             set local lock_timeout = '5s'",
            isolation.begin(),
            self.name
        );
        within(STATEMENT_LIMIT, borrowed.get().execute(sql.as_str())).await?;
        Ok(LeaseTransaction(borrowed))
    }

    async fn end_stalled_holders(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let mut borrowed = Borrowed::from(pool).await?;
        let ended = sqlx::query_scalar("select end_stalled_holders($1, $2)").bind(self.name).bind(self.epoch);
        let ended: i64 = within(STATEMENT_LIMIT, ended.fetch_one(borrowed.get())).await?;
        borrowed.is_sound();
        if ended > 0 {
            tracing::warn!(
                follower.name = self.name,
                "a previous holder of the lease kept a transaction open; ended its database session"
            );
            metrics::counter!("hookledger_stalled_holders_ended_total", "follower" => self.name)
                .increment(ended.unsigned_abs());
        }
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.forget(self.name, self.epoch);
    }
}

/// Whether a transaction sees concurrent commits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Isolation {
    ReadCommitted,
    /// One snapshot for the whole transaction.
    Snapshot,
}

impl Isolation {
    fn begin(self) -> &'static str {
        match self {
            Self::ReadCommitted => "begin",
            Self::Snapshot => "begin isolation level repeatable read",
        }
    }
}

/// A transaction of a lease's holder. Dropping it rolls it back and closes its connection.
pub(crate) struct LeaseTransaction(Borrowed);

impl LeaseTransaction {
    /// # Errors
    /// After an error the outcome is unknown.
    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.end("commit").await
    }

    /// Rolls back and returns the connection to the pool, whereas [`Drop`] closes it.
    pub(crate) async fn rollback(mut self) -> Result<(), sqlx::Error> {
        self.end("rollback").await
    }

    async fn end(&mut self, statement: &str) -> Result<(), sqlx::Error> {
        within(STATEMENT_LIMIT, self.0.get().execute(statement)).await?;
        self.0.is_sound();
        Ok(())
    }
}

impl Deref for LeaseTransaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.connection()
    }
}

impl DerefMut for LeaseTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.get()
    }
}

/// 55P03, `lock_not_available`.
fn is_locked(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "55P03")
}
