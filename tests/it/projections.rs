//! Projections: repeated events are harmless, a rebuild equals the live rows, and a broken event stops the follower.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use hookledger::log::follow::{Follower, Handler, HandlerError, Leases};
use hookledger::log::{Heads, Scope};
use hookledger::platform::store::Use;
use hookledger::platform::vitals::Vitals;
use hookledger_aggregates::RecordedEvent;
use serde_json::json;
use sqlx::{Executor as _, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{GITHUB_SECRET, TestApp};
use crate::patience::PATIENCE;
use crate::senders::{STANDARD_SECRET, Sender};
use crate::sink::Sink;

/// The followers that may read all events again. The ledger and the balances add up their input, so they would refuse,
/// or count twice.
const REPLAYED: &str = "name not in ('ledger', 'conservation')";

/// Every row of every read model as text, in order.
async fn rows(pool: &PgPool) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for table in hookledger_projections::all().iter().flat_map(|projection| projection.tables()) {
        let sql = format!("select t::text from {table} t order by 1");
        all.push(((*table).to_owned(), sqlx::query_scalar(&sql).fetch_all(pool).await.unwrap()));
    }
    all
}

/// Waits until followers and worker are done, also with the webhooks that the feeder left to the worker because a
/// duplicate came in between.
pub async fn caught_up(pool: &PgPool) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let behind: i64 = sqlx::query_scalar(
            "select count(*) + (select count(*) from delivery_due) from follower_checkpoints c
             where c.name = 'webhook_logs'
               and c.position < (select position from log_heads h where h.partition = c.partition)
                or c.name = 'processing' and c.position < (
                    select coalesce(max(position), 0) from events e where e.partition = c.partition
                    and e.event_type in ('webhook.routed', 'delivery.retry_requested'))
                or c.name not in ('webhook_logs', 'processing', 'conservation') and c.position < (
                    select coalesce(max(position), 0) from events e where e.partition = c.partition
                    and (e.aggregate_type not in ('webhook', 'delivery') or e.event_type = 'delivery.retry_requested'))",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        if behind == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told: Vec<String> = sqlx::query_scalar(
        "select 'due ' || w::text from delivery_due w
         union all select c.name || ' ' || c.partition || ' at ' || c.position || ' of ' || h.position
         from follower_checkpoints c join log_heads h using (partition) where c.position < h.position",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    panic!("the projections do not catch up: {told:#?}");
}

pub async fn with_history() -> (TestApp, PgPool) {
    let app = TestApp::with(|settings| settings.egress_allow_cidrs = "127.0.0.0/8".parse().unwrap()).await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let provider = admin.connect(&id, "STRIPE", "a").await;
    for mutation in [
        "mutation($id: ID!) { rotateProviderSecret(input: {providerId: $id, secret: \"b\"}) { provider { id } } }",
        "mutation($id: ID!) { setProviderActive(input: {id: $id, isActive: false}) { provider { id } } }",
        "mutation($id: ID!) { setProviderDestination(input: {providerId: $id, url: \"https://example.com/\"}) { provider { id } } }",
        "mutation($id: ID!) { rotateDestinationSecret(input: {providerId: $id}) { provider { id } } }",
        "mutation($id: ID!) { deleteProvider(input: {id: $id}) { provider { id } } }",
    ] {
        admin.data(mutation, json!({ "id": provider })).await;
    }
    admin.connect(&id, "STRIPE", "c").await;
    // One webhook is delivered.
    let sink = Sink::start().await;
    let standard = admin.connect(&id, "STANDARD", STANDARD_SECRET).await;
    let deliver = "mutation($id: ID!, $url: String!) { setProviderDestination(input: {providerId: $id, url: $url}) { provider { id } } }";
    admin.data(deliver, json!({ "id": standard, "url": sink.url("/x") })).await;
    let mut post = app.client.post(app.webhooks("acme", "standard")).body("{}");
    for (name, value) in Sender::Standard.genuine("msg_1", chrono::Utc::now(), b"{}") {
        post = post.header(name, value);
    }
    assert!(post.send().await.unwrap().status().is_success());
    sink.until("/x", 1).await;
    // 150 events, each three times, some with another body, and some forgeries between them.
    for wave in 0..3 {
        let posts = (0..150).map(|n| {
            let body = if wave == 2 && n % 10 == 0 { "{\"other\":1}" } else { "{}" };
            app.github("acme", &format!("d-{n}"), body).send()
        });
        futures::future::join_all(posts).await;
        app.client.post(app.webhooks("acme", "github")).body("{}").send().await.unwrap();
    }
    let pool = app.database.superuser().await;
    // Duplicates beyond a rate are counted, and recorded a little later.
    let told = "select coalesce(sum(case event_type when 'webhook.duplicate_received' then 1
                                                    else (payload ->> 'count')::bigint end), 0)::bigint
                from events where event_type in ('webhook.duplicate_received', 'webhook.duplicates_counted')";
    let deadline = Instant::now() + PATIENCE;
    while sqlx::query_scalar::<_, i64>(told).fetch_one(&pool).await.unwrap() < 300 {
        assert!(Instant::now() < deadline, "the duplicates are not recorded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    caught_up(&pool).await;
    (app, pool)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_equals_what_grew_and_replay_changes_nothing() {
    let (app, pool) = with_history().await;
    let (database, settings) = (crate::app::Database { url: app.database.url.clone() }, app.settings.clone());
    app.stop().await;
    let grown = rows(&pool).await;
    assert!(grown.iter().all(|(table, rows)| !rows.is_empty() || table == "webhook_open"), "{grown:?}");

    // Apply the events again, from the beginning and from the middle, over the existing rows.
    for rewind in ["position = 0", "position = position / 2", "position = greatest(position - 7, 0)"] {
        pool.execute(format!("update follower_checkpoints set {rewind} where {REPLAYED}").as_str()).await.unwrap();
        let app = TestApp::on(crate::app::Database { url: database.url.clone() }, settings.clone()).await;
        caught_up(&pool).await;
        app.stop().await;
        for (before, after) in grown.iter().zip(rows(&pool).await) {
            assert!(*before == after, "{} after {rewind}", before.0);
        }
    }

    // Rebuild from nothing.
    for (table, _) in &grown {
        pool.execute(format!("delete from {table}").as_str()).await.unwrap();
    }
    pool.execute(format!("update follower_checkpoints set position = 0 where {REPLAYED}").as_str()).await.unwrap();
    let app = TestApp::on(database, settings).await;
    caught_up(&pool).await;
    app.stop().await;
    for (before, after) in grown.iter().zip(rows(&pool).await) {
        assert!(*before == after, "{} after a rebuild:\n{:#?}\n{:#?}", before.0, before.1, after.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_event_stops_its_partition_and_no_other() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    // Two organizations in different partitions.
    let (a, b) = ("one", "three");
    let partition = |slug| hookledger_aggregates::OrganizationId::from_slug(slug).partition();
    assert_ne!(partition(a), partition(b));
    for slug in [a, b] {
        app.organization(&admin, slug, &[("GITHUB", GITHUB_SECRET)]).await;
    }
    let pool = app.database.superuser().await;
    sqlx::query(
        "insert into commits (partition, position, events, aggregate_type, stream_id, first_sequence, organization_id,
                              recorded_at, metadata, data)
         select partition, position + 1, 1, 'webhook', gen_random_uuid(), 1, $2, now(), '{}',
                E'webhook.from_the_future\\t7\\t{}'
         from log_heads where partition = $1",
    )
    .bind(partition(a).number())
    .bind(hookledger_aggregates::OrganizationId::from_slug(a).uuid())
    .execute(&pool)
    .await
    .unwrap();
    for slug in [a, b] {
        assert!(app.github(slug, "d", "{}").send().await.unwrap().status().is_success());
    }
    admin.webhooks_until(b, "status", |nodes| nodes.len() == 1).await;
    let stopped: Vec<String> = sqlx::query_scalar(
        "select stopped_by from follower_checkpoints where name = 'webhook_logs' and stopped_by is not null",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(stopped.len() == 1 && stopped[0].contains("webhook.from_the_future"), "{stopped:?}");
    assert!(admin.webhooks(a, "status").await.is_empty());
    let ready = app.client.get(format!("{}/readyz", app.url)).send().await.unwrap();
    assert_eq!(ready.status().as_u16(), 503);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_goes_on_when_one_is_gone() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let other = app.second_node().await;
    app.github("acme", "d-1", "{}").send().await.unwrap();
    admin.webhooks_until("acme", "status", |nodes| nodes.len() == 1).await;
    let token = admin.token.clone();
    app.stop().await;
    assert!(other.github("acme", "d-2", "{}").send().await.unwrap().status().is_success());
    let admin = crate::app::Actor { app: &other, token };
    admin
        .webhooks_until("acme", "status", |nodes| nodes.len() == 2 && nodes.iter().all(|n| n["status"] == "SUCCESS"))
        .await;
    other.stop().await;
}

/// Panics at its first batch, as a defect would.
struct Clumsy {
    handed: Arc<AtomicUsize>,
}

impl Handler for Clumsy {
    fn name(&self) -> &'static str {
        "clumsy"
    }

    fn scope(&self) -> Scope {
        Scope::All
    }

    fn react<'a>(&'a self, _: &'a [RecordedEvent]) -> BoxFuture<'a, Result<(), HandlerError>> {
        assert!(self.handed.fetch_add(1, Ordering::SeqCst) > 0, "as a defect would");
        Box::pin(std::future::ready(Ok(())))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_panics_is_missed_and_goes_on() {
    let app = TestApp::start().await;
    let (pool, vitals, stop) =
        (app.database.store().pool(Use::Follow).await.unwrap(), Vitals::default(), CancellationToken::new());
    let handed = Arc::default();
    let handler = Box::new(Clumsy { handed: Arc::clone(&handed) });
    let leases = Leases::new(pool.clone(), Uuid::new_v4());
    let follower = Follower::new(handler, pool.clone(), Heads::default(), leases.clone()).watched(vitals.clone());
    let renewing = tokio::spawn(leases.run(vitals.clone(), stop.clone()));
    let running = tokio::spawn(follower.run(stop.clone()));
    let deadline = Instant::now() + PATIENCE;
    let mut missed = false;
    while handed.load(Ordering::SeqCst) < 2 || !vitals.reasons().is_empty() {
        missed |= !vitals.reasons().is_empty();
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(missed && !vitals.is_past_help());
    stop.cancel();
    running.await.unwrap();
    renewing.await.unwrap();
    app.stop().await;
}
