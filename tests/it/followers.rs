//! Followers of several nodes: leases, their clocks, and holders that stall, are cut off, or are too old.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use hookledger::audit::Leaf;
use hookledger::log::follow::{Followed, Follower, Handler, HandlerError, Leases};
use hookledger::log::{Heads, Scope};
use hookledger::platform::store::{Store, Use};
use hookledger::platform::vitals::Vitals;
use hookledger_aggregates::{OrganizationId, RecordedEvent};
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{GITHUB_SECRET, TestApp};
use crate::patience::PATIENCE;
use crate::proxy::{Network, Proxy};

/// Counts events, and is slow with each batch.
#[derive(Clone)]
struct Counting {
    name: &'static str,
    counted: Arc<AtomicUsize>,
    takes: Duration,
}

impl Counting {
    fn new(name: &'static str) -> Self {
        Self { name, counted: Arc::default(), takes: Duration::ZERO }
    }
}

impl<E: Followed> Handler<E> for Counting {
    fn name(&self) -> &'static str {
        self.name
    }

    fn scope(&self) -> Scope {
        Scope::All
    }

    fn react<'a>(&'a self, events: &'a [E]) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async {
            tokio::time::sleep(self.takes).await;
            self.counted.fetch_add(events.len(), Ordering::SeqCst);
            Ok(())
        })
    }
}

/// The followers of a node, with their lease.
struct Node {
    id: Uuid,
    stop: CancellationToken,
    running: Vec<JoinHandle<()>>,
}

impl Node {
    async fn start<E: Followed>(store: &Store, handler: Counting) -> Self {
        let (work, pool) = (store.pool(Use::Work).await.unwrap(), store.pool(Use::Follow).await.unwrap());
        let (id, stop, vitals, heads) = (Uuid::new_v4(), CancellationToken::new(), Vitals::default(), Heads::default());
        let leases = Leases::new(work.clone(), id);
        let follower = Follower::<E>::new(Box::new(handler), pool, heads.clone(), leases.clone());
        let running = vec![
            tokio::spawn(leases.run(vitals.clone(), stop.clone())),
            tokio::spawn(heads.poll(work, stop.clone())),
            tokio::spawn(follower.watched(vitals).run(stop.clone())),
        ];
        Self { id, stop, running }
    }

    async fn stop(self) {
        self.stop.cancel();
        for task in self.running {
            task.await.unwrap();
        }
    }
}

/// The row of a follower.
struct Known {
    epoch: i64,
    owner: Uuid,
    /// Positions that it is behind.
    behind: i64,
    stopped: i64,
}

async fn known(pool: &PgPool, name: &str) -> Option<Known> {
    let row: Option<(i64, Uuid, i64, i64)> = sqlx::query_as(
        "select f.epoch, f.owner, sum(h.position - c.position)::bigint, count(c.stopped_by)
         from followers f join follower_checkpoints c using (name) join log_heads h using (partition)
         where f.name = $1 group by 1, 2",
    )
    .bind(name)
    .fetch_optional(pool)
    .await
    .unwrap();
    row.map(|(epoch, owner, behind, stopped)| Known { epoch, owner, behind, stopped })
}

async fn until(pool: &PgPool, name: &str, what: &str, is: impl Fn(&Known) -> bool) -> Known {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = known(pool, name).await;
        if let Some(now) = now.filter(|now| is(now)) {
            return now;
        }
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An app with an organization, and a superuser's connection.
async fn app() -> (TestApp, PgPool) {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let pool = app.database.superuser().await;
    (app, pool)
}

async fn post(app: &TestApp, id: &str) {
    assert!(app.github("acme", id, "{}").send().await.unwrap().status().is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_stays_through_batches_that_take_longer_than_it_lasts() {
    let (app, pool) = app().await;
    let slow = Counting { takes: Duration::from_secs(6), ..Counting::new("slow") };
    let first = Node::start::<RecordedEvent>(&app.database.store(), slow.clone()).await;
    until(&pool, "slow", "nobody took the lease", |known| known.epoch == 1).await;
    let second = Node::start::<RecordedEvent>(&app.database.store(), slow).await;
    for n in 0..2 {
        post(&app, &format!("d-{n}")).await;
        let known = until(&pool, "slow", "no batch came through", |known| known.behind == 0).await;
        assert_eq!((known.epoch, known.owner), (1, first.id), "the lease was passed on");
    }
    // After a release, the other node gets it immediately.
    let id = second.id;
    first.stop().await;
    until(&pool, "slow", "nobody succeeded", |known| known.owner == id).await;
    second.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_clock_that_is_moved_keeps_a_lease_from_being_taken_or_takes_it_from_the_living() {
    let (app, pool) = app().await;
    // A node was killed, and then the database's clock went back by an hour.
    pool.execute(
        "insert into followers (name, epoch, owner, lease_until)
         values ('moved', 7, gen_random_uuid(), now() + interval '1 hour')",
    )
    .await
    .unwrap();
    let first = Node::start::<RecordedEvent>(&app.database.store(), Counting::new("moved")).await;
    until(&pool, "moved", "the lease is blocked", |known| known.behind == 0 && known.epoch == 8).await;

    // The clock goes back while the holder lives: it renews, and keeps its lease.
    let second = Node::start::<RecordedEvent>(&app.database.store(), Counting::new("moved")).await;
    pool.execute("update followers set lease_until = now() + interval '1 hour' where name = 'moved'").await.unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    post(&app, "d-1").await;
    let known = until(&pool, "moved", "no batch came through", |known| known.behind == 0).await;
    assert_eq!((known.epoch, known.owner), (8, first.id));

    // The clock goes forward: at worst, the other node takes over.
    pool.execute("update followers set lease_until = now() - interval '1 hour' where name = 'moved'").await.unwrap();
    post(&app, "d-2").await;
    until(&pool, "moved", "no batch came through", |known| known.behind == 0).await;
    first.stop().await;
    second.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_stalls_inside_a_transaction_is_succeeded() {
    let (app, pool) = app().await;
    pool.execute(
        "insert into followers (name, epoch, owner, lease_until)
         values ('stalled', 1, gen_random_uuid(), now() + interval '2 seconds');
         insert into follower_checkpoints (name, partition, position) select 'stalled', partition, 0 from log_heads",
    )
    .await
    .unwrap();
    // Like a holder that was stopped right before its commit.
    let mut stalled = PgConnection::connect(&app.database.url).await.unwrap();
    stalled
        .execute(
            "set idle_in_transaction_session_timeout = 0; begin;
             select pg_advisory_xact_lock(7308, hashtext('stalled'));
             update follower_checkpoints set position = 1 where name = 'stalled'",
        )
        .await
        .unwrap();
    let node = Node::start::<RecordedEvent>(&app.database.store(), Counting::new("stalled")).await;
    until(&pool, "stalled", "the successor can write nothing", |known| known.behind == 0).await;
    assert!(stalled.execute("commit").await.is_err(), "its session goes on");
    node.stop().await;
    app.stop().await;
}

/// Appends an event that no release knows.
async fn append_unknown(pool: &PgPool, aggregate_type: &str, aggregate_id: Uuid) {
    let organization = OrganizationId::from_slug("acme");
    let mut appending = pool.begin().await.unwrap();
    sqlx::query("select lock_heads(array[$1])")
        .bind(organization.partition().number())
        .execute(&mut *appending)
        .await
        .unwrap();
    sqlx::query(
        "insert into commits (partition, position, events, aggregate_type, stream_id, first_sequence, organization_id,
                              recorded_at, metadata, data)
         select $1, position + 1, 1, $3, $4, 1000, $2, now(), '{}', $3 || E'.from_the_future\\t7\\t{}'
         from log_heads where partition = $1",
    )
    .bind(organization.partition().number())
    .bind(organization.uuid())
    .bind(aggregate_type)
    .bind(aggregate_id)
    .execute(&mut *appending)
    .await
    .unwrap();
    appending.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_too_old_for_an_event_leaves_its_lease_to_one_that_is_not() {
    let (app, pool) = app().await;
    append_unknown(&pool, "webhook", Uuid::new_v4()).await;
    post(&app, "d-1").await;
    let store = app.database.store();
    let old = Node::start::<RecordedEvent>(&store, Counting::new("upgraded")).await;
    let stopped = until(&pool, "upgraded", "it does not stop", |known| known.stopped == 1).await;
    assert_eq!(stopped.owner, old.id);

    // Another old node tries once, and then the lease stays with its holder.
    let as_old = Node::start::<RecordedEvent>(&store, Counting::new("upgraded")).await;
    until(&pool, "upgraded", "it is not tried", |known| known.owner == as_old.id && known.stopped == 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let tried = known(&pool, "upgraded").await.unwrap();
    assert_eq!((tried.owner, tried.stopped), (as_old.id, 1), "it is passed back and forth");

    // A node of a release that knows every event: it does not decode them.
    let new = Node::start::<Leaf>(&store, Counting::new("upgraded")).await;
    let done = until(&pool, "upgraded", "nobody goes on", |known| known.behind == 0).await;
    assert_eq!((done.owner, done.stopped), (new.id, 0));
    tokio::time::sleep(Duration::from_secs(7)).await;
    let kept = known(&pool, "upgraded").await.unwrap();
    assert_eq!((kept.owner, kept.epoch), (new.id, done.epoch), "a node that is too old took it back");
    for node in [old, as_old, new] {
        node.stop().await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_goes_on_by_itself_when_the_network_swallowed_its_connections() {
    let (app, pool) = app().await;
    let proxy = Proxy::before(&app.database.url).await;
    let store = Store::at_url(&SecretString::from(proxy.url.clone())).unwrap();
    let counting = Counting::new("swallowed");
    let node = Node::start::<RecordedEvent>(&store, counting.clone()).await;
    until(&pool, "swallowed", "it does not begin", |known| known.behind == 0).await;
    let before = counting.counted.load(Ordering::SeqCst);
    // Every connection is silent for good; new ones work.
    proxy.set(Network::Swallows);
    tokio::time::sleep(Duration::from_millis(500)).await;
    proxy.set(Network::Good);
    post(&app, "d-1").await;
    until(&pool, "swallowed", "it hangs", |known| known.behind == 0).await;
    assert!(counting.counted.load(Ordering::SeqCst) > before);
    node.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_takes_too_long_comes_back_smaller() {
    /// The database cancels it whenever it gets more than 8 events at once.
    struct Overtaxed(Counting);

    impl Handler for Overtaxed {
        fn name(&self) -> &'static str {
            "overtaxed"
        }

        fn scope(&self) -> Scope {
            Scope::All
        }

        fn apply<'a>(
            &'a self,
            connection: &'a mut PgConnection,
            events: &'a [RecordedEvent],
        ) -> BoxFuture<'a, Result<(), HandlerError>> {
            Box::pin(async move {
                if events.len() > 8 {
                    connection.execute("set local statement_timeout = '1ms'; select pg_sleep(1)").await?;
                }
                self.0.counted.fetch_add(events.len(), Ordering::SeqCst);
                Ok(())
            })
        }
    }

    let (app, pool) = app().await;
    for n in 0..20 {
        post(&app, &format!("d-{n}")).await;
    }
    let store = app.database.store();
    let (work, follow) = (store.pool(Use::Work).await.unwrap(), store.pool(Use::Follow).await.unwrap());
    let (stop, heads, leases) = (CancellationToken::new(), Heads::default(), Leases::new(work.clone(), Uuid::new_v4()));
    let follower =
        Follower::new(Box::new(Overtaxed(Counting::new("overtaxed"))), follow, heads.clone(), leases.clone());
    let running = [
        tokio::spawn(leases.run(Vitals::default(), stop.clone())),
        // The app keeps appending events of the webhooks.
        tokio::spawn(heads.poll(work, stop.clone())),
        tokio::spawn(follower.run(stop.clone())),
    ];
    until(&pool, "overtaxed", "it is never applied", |known| known.behind == 0).await;
    stop.cancel();
    for task in running {
        task.await.unwrap();
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_not_behind_by_events_that_it_is_not_handed() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    for n in 0..30 {
        app.github("acme", &format!("d-{n}"), "{}").send().await.unwrap();
    }
    let processed = |nodes: &[Value]| nodes.len() == 30 && nodes.iter().all(|node| node["status"] == "SUCCESS");
    admin.webhooks_until("acme", "status", processed).await;
    let lags = async || {
        let data = admin.data("{ system { followers { name lag } } }", json!({})).await;
        let followers = data["system"]["followers"].as_array().unwrap().clone();
        assert!(followers.iter().any(|follower| follower["name"] == "sessions"), "{followers:?}");
        followers
    };
    crate::patience::until("no follower behind", async || lags().await.iter().all(|one| one["lag"] == 0)).await;
}
