//! The leases of a node: acquired and renewed together, concurrently with the work under them.
//!
//! Leases are rows, not session locks, so that a lost connection loses nothing and any node can take over.
//! One statement per second renews all leases of a node, however long its batches take, and another looks at
//! the leases it waits for.
//!
//! **When a lease is free.** Its row contains its end by the database's clock, and that clock can be moved.
//! Moved forward, a lease ends early, which costs one change of holder. Moved back, the end of a dead node's
//! lease would lie in the future by as much. So a waiting node also watches by its own monotonic clock
//! whether the row changes: without a renewal for the length of a lease, its holder is gone. Moving the clock
//! cannot affect that, and a live holder is left alone. Either way, the row is taken only if it is unchanged.
//! A lease that is taken too early is fenced by the epoch and by positions: that costs a batch, never the
//! order.
//!
//! **When a holder stops.** It counts by its own monotonic clock from before it asked for the renewal, and
//! gives up its work before another node may begin.
//!
//! **Followers that cannot continue.** A follower that stops at an event that its release cannot apply notes
//! it in its checkpoint. A node that has not tried that event takes the lease over; a node that has does not
//! take it back while another one renews it.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{FromRow, PgPool};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::lease::{Good, Lease};
use super::limit::{Borrowed, within};
use crate::platform::vitals::Vitals;

/// How long a lease lasts without renewal, and so how long a killed node's work rests.
const LEASE: Duration = Duration::from_secs(5);
/// Its holder gives up its work this long before the end.
const MARGIN: Duration = Duration::from_millis(500);
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// Interval of looks at the leases of other nodes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long one statement may take; several fit into the length of a lease.
const LIMIT: Duration = Duration::from_millis(1_500);
/// Name in the node's vitals.
const NAME: &str = "leases";
const LONGEST_BLIND: Duration = Duration::from_secs(10);

/// Acquires and renews a node's leases. Clones share their state.
#[derive(Clone, Debug)]
pub struct Leases(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    node: Uuid,
    state: Mutex<State>,
    /// Notified when somebody waits for a lease.
    asked: Notify,
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<&'static str, Held>,
    wanted: BTreeMap<&'static str, Wanted>,
    /// Log positions (name, partition, position) after which this node could not continue.
    stuck: HashSet<(&'static str, i32, i64)>,
}

#[derive(Debug)]
struct Held {
    epoch: i64,
    good: watch::Sender<Good>,
}

#[derive(Debug)]
struct Wanted {
    grant: oneshot::Sender<Lease>,
    /// The row at its last change, and the time of that change.
    watched: Option<(Version, Instant)>,
}

/// Changes with every renewal and every change of holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Version {
    epoch: i64,
    lease_until: String,
}

/// The row of a lease that somebody on this node waits for.
#[derive(FromRow)]
struct Row {
    name: String,
    epoch: Option<i64>,
    lease_until: Option<String>,
    owner: Option<Uuid>,
    is_over: bool,
    stopped_partitions: Vec<i32>,
    stopped_after: Vec<i64>,
}

impl Leases {
    /// `pool` acts as `hookledger_worker`.
    #[must_use]
    pub fn new(pool: PgPool, node: Uuid) -> Self {
        Self(Arc::new(Inner { pool, node, state: Mutex::default(), asked: Notify::new() }))
    }

    /// The node that holds these leases.
    #[must_use]
    pub fn node(&self) -> Uuid {
        self.0.node
    }

    /// Acquires and renews leases until stopped. Without it nobody gets a lease.
    pub async fn run(self, vitals: Vitals, stop: CancellationToken) {
        vitals.expect_looks(NAME, LONGEST_BLIND);
        let mut renewed: Option<Instant> = None;
        while !stop.is_cancelled() {
            match self.round(&mut renewed).await {
                Ok(()) => vitals.seen(NAME),
                Err(error) => tracing::warn!(%error, "could not renew or acquire leases; retrying"),
            }
            let pause = async {
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = self.0.asked.notified() => {}
                }
            };
            let _ = stop.run_until_cancelled(pause).await;
        }
        vitals.expect_no_looks(NAME);
    }

    /// Waits for a lease. Only one task of a node at a time may wait for the same name.
    pub(crate) async fn want(&self, name: &'static str) -> Lease {
        loop {
            let (grant, granted) = oneshot::channel();
            self.state().wanted.insert(name, Wanted { grant, watched: None });
            self.0.asked.notify_one();
            // Not granted only if another task asks for the same lease.
            if let Ok(lease) = granted.await {
                return lease;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn round(&self, renewed: &mut Option<Instant>) -> Result<(), sqlx::Error> {
        if renewed.is_none_or(|at| at.elapsed() >= RENEW_EVERY) {
            let asked = Instant::now();
            self.renew(asked).await?;
            *renewed = Some(asked);
        }
        self.take_what_is_free().await
    }

    async fn renew(&self, asked: Instant) -> Result<(), sqlx::Error> {
        let (names, epochs): (Vec<&str>, Vec<i64>) =
            self.state().held.iter().map(|(name, held)| (*name, held.epoch)).unzip();
        if names.is_empty() {
            return Ok(());
        }
        let renew = sqlx::query_scalar(
            "update followers f set lease_until = now() + $4 * interval '1 second'
             from unnest($2::text[], $3::bigint[]) as h (name, epoch)
             where f.name = h.name and f.epoch = h.epoch and f.owner = $1 returning f.name",
        )
        .bind(self.0.node)
        .bind(&names)
        .bind(&epochs)
        .bind(LEASE.as_secs_f64());
        let mut borrowed = Borrowed::from(&self.0.pool).await?;
        let renewed: Vec<String> = within(LIMIT, renew.fetch_all(borrowed.get())).await?;
        borrowed.is_sound();
        let state = self.state();
        for (name, epoch) in names.into_iter().zip(epochs) {
            if let Some(held) = state.held.get(name).filter(|held| held.epoch == epoch) {
                let good = renewed.iter().any(|renewed| renewed == name).then(|| good_until(asked));
                held.good.send_replace(good);
            }
        }
        Ok(())
    }

    async fn take_what_is_free(&self) -> Result<(), sqlx::Error> {
        let wanted: Vec<&'static str> = {
            let mut state = self.state();
            // A waiting task may have been stopped.
            state.wanted.retain(|_, wanted| !wanted.grant.is_closed());
            state.wanted.keys().copied().collect()
        };
        if wanted.is_empty() {
            return Ok(());
        }
        let look = sqlx::query_as(
            "select w.name, f.epoch, f.lease_until::text as lease_until, f.owner,
                    coalesce(f.lease_until < now(), true) as is_over,
                    coalesce(s.partitions, '{}') as stopped_partitions, coalesce(s.positions, '{}') as stopped_after
             from unnest($1::text[]) as w (name) left join followers f using (name)
             left join lateral (
                 select array_agg(c.partition) as partitions, array_agg(c.position) as positions
                 from follower_checkpoints c where c.name = w.name and c.stopped_by is not null) s on true",
        )
        .bind(&wanted);
        let mut borrowed = Borrowed::from(&self.0.pool).await?;
        let rows: Vec<Row> = within(LIMIT, look.fetch_all(borrowed.get())).await?;
        borrowed.is_sound();
        for row in rows {
            let Some(name) = wanted.iter().copied().find(|name| *name == row.name) else { continue };
            if let Some(seen) = self.is_free(name, row) {
                self.take(name, &seen).await?;
            }
        }
        Ok(())
    }

    /// The row to take, if the lease is free.
    fn is_free(&self, name: &'static str, row: Row) -> Option<Version> {
        let seen = Version { epoch: row.epoch.unwrap_or_default(), lease_until: row.lease_until.unwrap_or_default() };
        let mut state = self.state();
        let State { held, wanted, stuck } = &mut *state;
        let watched = &mut wanted.get_mut(name)?.watched;
        let since = match watched {
            Some((version, since)) if *version == seen => *since,
            _ => watched.insert((seen.clone(), Instant::now())).1,
        };
        // This node held it, and no task uses it any more.
        let is_ours = row.owner == Some(self.0.node) && !held.contains_key(name);
        let is_gone = since.elapsed() >= LEASE;
        let mut stops = row.stopped_partitions.into_iter().zip(row.stopped_after);
        let is_stopped = stops.any(|(partition, position)| !stuck.contains(&(name, partition, position)));
        (row.is_over || is_ours || is_gone || is_stopped).then_some(seen)
    }

    async fn take(&self, name: &'static str, seen: &Version) -> Result<(), sqlx::Error> {
        let asked = Instant::now();
        let take = sqlx::query_scalar(
            "insert into followers as f (name, epoch, owner, lease_until)
             values ($1, 1, $2, now() + $3 * interval '1 second')
             on conflict (name) do update
             set epoch = f.epoch + 1, owner = excluded.owner, lease_until = excluded.lease_until
             where f.epoch = $4 and f.lease_until::text = $5
             returning epoch",
        )
        .bind(name)
        .bind(self.0.node)
        .bind(LEASE.as_secs_f64())
        .bind(seen.epoch)
        .bind(&seen.lease_until);
        let mut borrowed = Borrowed::from(&self.0.pool).await?;
        let taken: Option<i64> = within(LIMIT, take.fetch_optional(borrowed.get())).await?;
        borrowed.is_sound();
        drop(borrowed);
        let Some(epoch) = taken else { return Ok(()) };
        let lease = {
            let mut state = self.state();
            let (good, watched) = watch::channel(Some(good_until(asked)));
            state.held.insert(name, Held { epoch, good });
            Lease::new(self.clone(), name, epoch, watched)
        };
        let wanted = self.state().wanted.remove(name);
        let refused = match wanted {
            Some(wanted) => wanted.grant.send(lease).err(),
            None => Some(lease),
        };
        if let Some(lease) = refused {
            // The waiting task was stopped meanwhile.
            Box::pin(lease.release()).await;
        }
        Ok(())
    }

    pub(super) async fn release(&self, name: &'static str, epoch: i64) {
        let release =
            sqlx::query("update followers set lease_until = '-infinity' where name = $1 and owner = $2 and epoch = $3")
                .bind(name)
                .bind(self.0.node)
                .bind(epoch);
        let released = async {
            let mut borrowed = Borrowed::from(&self.0.pool).await?;
            release.execute(borrowed.get()).await?;
            borrowed.is_sound();
            Ok::<_, sqlx::Error>(())
        };
        if let Err(error) = within(LIMIT, released).await {
            tracing::debug!(follower.name = name, %error, "could not release a lease; it expires by itself");
        }
    }

    pub(super) fn forget(&self, name: &'static str, epoch: i64) {
        let mut state = self.state();
        if state.held.get(name).is_some_and(|held| held.epoch == epoch) {
            state.held.remove(name);
        }
    }

    pub(super) fn is_stuck_after(&self, name: &'static str, partition: i32, position: i64) {
        self.state().stuck.insert((name, partition, position));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a lease that was requested at `asked` and granted.
fn good_until(asked: Instant) -> Instant {
    asked + LEASE - MARGIN
}
