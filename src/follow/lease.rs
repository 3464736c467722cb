//! Leases: rows, not session locks, so that a lost connection loses nothing and any node can take
//! over once a lease ran out.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use uuid::Uuid;

/// How long a lease lasts without being renewed: how long a killed node's work rests.
const LEASE_SECONDS: f64 = 3.0;
const RENEW_AFTER: Duration = Duration::from_secs(1);

/// The right to follow under a name.
#[derive(Debug)]
pub(crate) struct Lease {
    name: &'static str,
    node: Uuid,
    pub(crate) epoch: i64,
    renewed: Instant,
}

impl Lease {
    /// Takes the lease if nobody holds it.
    pub(crate) async fn acquire(pool: &PgPool, name: &'static str, node: Uuid) -> Result<Option<Self>, sqlx::Error> {
        let epoch: Option<i64> = sqlx::query_scalar(
            "insert into followers as f (name, epoch, owner, lease_until)
             values ($1, 1, $2, now() + $3 * interval '1 second')
             on conflict (name) do update
             set epoch = f.epoch + 1, owner = $2, lease_until = excluded.lease_until
             where f.lease_until < now()
             returning epoch",
        )
        .bind(name)
        .bind(node)
        .bind(LEASE_SECONDS)
        .fetch_optional(pool)
        .await?;
        Ok(epoch.map(|epoch| Self { name, node, epoch, renewed: Instant::now() }))
    }

    /// Keeps the lease; false when another node took it over.
    pub(crate) async fn renew(&mut self, pool: &PgPool) -> Result<bool, sqlx::Error> {
        if self.renewed.elapsed() < RENEW_AFTER {
            return Ok(true);
        }
        let renewed = sqlx::query(
            "update followers set lease_until = now() + $4 * interval '1 second'
             where name = $1 and owner = $2 and epoch = $3",
        )
        .bind(self.name)
        .bind(self.node)
        .bind(self.epoch)
        .bind(LEASE_SECONDS)
        .execute(pool)
        .await?;
        self.renewed = Instant::now();
        Ok(renewed.rows_affected() == 1)
    }

    /// Lets the next node go on at once.
    pub(crate) async fn release(self, pool: &PgPool) -> Result<(), sqlx::Error> {
        sqlx::query("update followers set lease_until = '-infinity' where name = $1 and owner = $2 and epoch = $3")
            .bind(self.name)
            .bind(self.node)
            .bind(self.epoch)
            .execute(pool)
            .await
            .map(drop)
    }
}
