//! Deliveries that wait: for a destination that is removed or busy, or for the database. Waiting is
//! neither a success nor a failure, and uses up no attempt.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hookledger::deliver::{Queue, Room};
use hookledger::node::config::{Delays, ServeSettings, Span};
use hookledger_aggregates::{DeliveryId, DestinationId, OrganizationId, ProviderId, ProviderName, RouteId, WebhookId};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use crate::app::{Actor, Database, GITHUB_SECRET, TestApp};
use crate::deliveries::{forwarding, post, quick};
use crate::sink::Sink;

const FIELDS: &str = "id webhookId providerEventId status waitsFor retryCount errorMessage deadLetteredAt \
                      attempts { attemptNumber succeeded statusCode errorDetails requestUrl }";
/// Longer than anything takes here on a slow machine.
const LIMIT: Duration = Duration::from_secs(90);

/// Waits until the webhooks of an organization meet the condition, however slow the machine is.
async fn until(admin: &Actor<'_>, slug: &str, wished: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let nodes = admin.webhooks(slug, FIELDS).await;
        if wished(&nodes) {
            return nodes;
        }
        assert!(Instant::now() < deadline, "{nodes:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn all(field: &'static str, value: &'static str) -> impl Fn(&[Value]) -> bool {
    move |nodes| !nodes.is_empty() && nodes.iter().all(|node| node[field] == value)
}

fn all_dead(nodes: &[Value]) -> bool {
    !nodes.is_empty() && nodes.iter().all(|node| !node["deadLetteredAt"].is_null())
}

async fn set_destination(admin: &Actor<'_>, provider: &str, url: &str, concurrency: u32) {
    let set =
        "mutation($input: SetProviderDestinationInput!) { setProviderDestination(input: $input) { provider { id } } }";
    let input = json!({ "providerId": provider, "url": url, "concurrency": concurrency });
    admin.data(set, json!({ "input": input })).await;
}

async fn remove_destination(admin: &Actor<'_>, provider: &str) {
    let remove =
        "mutation($id: ID!) { setProviderDestination(input: {providerId: $id, url: null}) { provider { id } } }";
    admin.data(remove, json!({ "id": provider })).await;
}

/// Retries every failed webhook of acme. Returns how many were retried, and how many were skipped.
async fn retry_all(admin: &Actor<'_>) -> Value {
    let counted = "{ organization(slug: \"acme\") { id retryableCount } }";
    let data = admin.data(counted, json!({})).await;
    let retry = "mutation($id: ID!, $count: Int!) {
        retryWebhooks(input: {organizationId: $id, expectedCount: $count}) { retriedCount skippedCount } }";
    let variables = json!({ "id": data["organization"]["id"], "count": data["organization"]["retryableCount"] });
    admin.data(retry, variables).await["retryWebhooks"].take()
}

/// A retry that is due soon, and none after it.
fn one_retry(settings: &mut ServeSettings) {
    quick(settings);
    settings.retry_delays = Delays(vec![chrono::Duration::seconds(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_destination_holds_what_waits_until_there_is_one_again() {
    let app = TestApp::with(one_retry).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    let (provider, _) = forwarding(&admin, "acme", &sink.url("/500")).await;
    for n in 0..5 {
        post(&app, "acme", &format!("d{n}"), "{}").await;
    }
    sink.until("/500", 5).await;
    remove_destination(&admin, &provider).await;
    let nodes = until(&admin, "acme", all("waitsFor", "DESTINATION_REMOVED")).await;
    assert_eq!(nodes.len(), 5);
    for node in &nodes {
        assert_eq!(node["status"], "FAILED", "{node:#}");
        assert_eq!(node["attempts"].as_array().unwrap().len(), 1, "{node:#}");
    }
    // A webhook that is received now only has to be recorded. It is not delivered.
    post(&app, "acme", "recorded", "{}").await;
    let recorded = |nodes: &[Value]| nodes.iter().any(|node| node["status"] == "SUCCESS");
    let nodes = until(&admin, "acme", recorded).await;
    let node = nodes.iter().find(|node| node["providerEventId"] == "recorded").unwrap();
    assert_eq!((&node["status"], &node["attempts"][0]["requestUrl"]), (&json!("SUCCESS"), &Value::Null));
    set_destination(&admin, &provider, &sink.url("/ok"), 4).await;
    let nodes = until(&admin, "acme", all("status", "SUCCESS")).await;
    assert!(nodes.iter().all(|node| node["waitsFor"].is_null()));
    assert_eq!(sink.at("/ok").len(), 5);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_retried_without_a_destination_is_held_and_no_success() {
    let app = TestApp::with(|settings| {
        one_retry(settings);
        settings.retry_delays = Delays(Vec::new());
        settings.pending_timeout = Span(chrono::Duration::seconds(1));
    })
    .await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    let (provider, _) = forwarding(&admin, "acme", &sink.url("/500")).await;
    post(&app, "acme", "d", "{}").await;
    until(&admin, "acme", all_dead).await;
    remove_destination(&admin, &provider).await;
    assert_eq!(retry_all(&admin).await["retriedCount"], 1);
    until(&admin, "acme", all("waitsFor", "DESTINATION_REMOVED")).await;
    // Longer than anything may be pending.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let nodes = until(&admin, "acme", all("status", "PENDING")).await;
    assert_eq!(nodes[0]["attempts"].as_array().unwrap().len(), 1);
    set_destination(&admin, &provider, &sink.url("/ok"), 1).await;
    until(&admin, "acme", all("status", "SUCCESS")).await;
    assert_eq!(sink.at("/ok")[0].header("hookledger-attempt"), "2");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_held_while_its_provider_or_organization_is_disabled_or_gone() {
    let app = TestApp::with(one_retry).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    let (provider, _) = forwarding(&admin, "acme", &sink.url("/switch")).await;
    let organization = admin.data("{ organization(slug: \"acme\") { id } }", json!({})).await;
    let organization = organization["organization"]["id"].as_str().unwrap().to_owned();
    let set_provider = "mutation($id: ID!, $on: Boolean!) {
        setProviderActive(input: {id: $id, isActive: $on}) { provider { id } } }";
    let set_organization = "mutation($id: ID!, $on: Boolean!) {
        setOrganizationActive(input: {id: $id, isActive: $on}) { organization { id } } }";
    let cases = [
        ("PROVIDER_DISABLED", set_provider, provider.as_str()),
        ("ORGANIZATION_DISABLED", set_organization, organization.as_str()),
    ];
    for (n, (reason, set, id)) in cases.into_iter().enumerate() {
        sink.repaired.store(false, Ordering::SeqCst);
        post(&app, "acme", &format!("d{n}"), "{}").await;
        sink.until("/switch", 2 * n + 1).await;
        admin.data(set, json!({ "id": id, "on": false })).await;
        sink.repaired.store(true, Ordering::SeqCst);
        until(&admin, "acme", |nodes| nodes.iter().any(|node| node["waitsFor"] == reason)).await;
        assert_eq!(sink.at("/switch").len(), 2 * n + 1);
        admin.data(set, json!({ "id": id, "on": true })).await;
        until(&admin, "acme", all("status", "SUCCESS")).await;
    }
    sink.repaired.store(false, Ordering::SeqCst);
    post(&app, "acme", "deleted", "{}").await;
    sink.until("/switch", 5).await;
    let delete = "mutation($id: ID!) { deleteProvider(input: {id: $id}) { provider { id } } }";
    admin.data(delete, json!({ "id": provider })).await;
    until(&admin, "acme", |nodes| nodes.iter().any(|node| node["waitsFor"] == "PROVIDER_DELETED")).await;
    let provider = admin.connect(&organization, "GITHUB", GITHUB_SECRET).await;
    set_destination(&admin, &provider, &sink.url("/ok"), 1).await;
    until(&admin, "acme", all("status", "SUCCESS")).await;
    assert_eq!(sink.at("/ok").len(), 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_received_right_after_its_destination_was_set_is_delivered_by_every_node() {
    let app = TestApp::with(quick).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    // Its follower may feed both nodes, and learns of each destination a moment later.
    let other = app.second_node().await;
    for n in 0..20 {
        let slug = format!("acme-{n}");
        forwarding(&admin, &slug, &sink.url("/ok")).await;
        let (app, slug) = (&app, &slug);
        futures::future::join_all((0..5).map(|d| async move { post(app, slug, &format!("d{d}"), "{}").await })).await;
    }
    for n in 0..20 {
        let slug = format!("acme-{n}");
        let nodes = until(&admin, &slug, |nodes| nodes.len() == 5 && all("status", "SUCCESS")(nodes)).await;
        assert!(nodes.iter().all(|node| node["attempts"][0]["statusCode"] == 200), "{nodes:#?}");
    }
    assert_eq!(sink.at("/ok").len(), 100);
    other.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_full_destination_says_so_and_does_not_time_out() {
    let app = TestApp::with(|settings| {
        quick(settings);
        settings.pending_timeout = Span(chrono::Duration::seconds(1));
    })
    .await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    let (provider, _) = forwarding(&admin, "acme", &sink.url("/late")).await;
    set_destination(&admin, &provider, &sink.url("/late"), 1).await;
    post(&app, "acme", "first", "{}").await;
    sink.until("/late", 1).await;
    for n in 0..3 {
        post(&app, "acme", &format!("d{n}"), "{}").await;
    }
    until(&admin, "acme", |nodes| {
        nodes.iter().filter(|node| node["waitsFor"] == "CONCURRENCY" && node["status"] == "PENDING").count() == 3
    })
    .await;
    // The first is answered after 4 s; the others had waited for much longer than they may be pending.
    let nodes = until(&admin, "acme", all("status", "SUCCESS")).await;
    assert!(nodes.iter().all(|node| node["attempts"].as_array().unwrap().len() == 1), "{nodes:#?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_retry_is_never_used_up_by_waiting() {
    let app = TestApp::with(|settings| {
        quick(settings);
        settings.retry_delays = Delays(Vec::new());
        settings.pending_timeout = Span(chrono::Duration::seconds(1));
    })
    .await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    let (provider, _) = forwarding(&admin, "acme", &sink.url("/500")).await;
    let count = 60;
    for n in 0..count {
        post(&app, "acme", &format!("d{n}"), "{}").await;
    }
    until(&admin, "acme", |nodes| nodes.len() == count && all_dead(nodes)).await;
    // One after the other, 100 ms each: six times as long as anything may be pending.
    set_destination(&admin, &provider, &sink.url("/slow"), 1).await;
    assert_eq!(retry_all(&admin).await, json!({ "retriedCount": count, "skippedCount": 0 }));
    let nodes = until(&admin, "acme", |nodes| nodes.iter().all(|node| node["status"] != "PENDING")).await;
    let untried: Vec<_> = nodes.iter().filter(|node| node["errorMessage"] == "pending timeout").collect();
    assert!(untried.is_empty(), "{} of {count} were never tried", untried.len());
    until(&admin, "acme", all("status", "SUCCESS")).await;
    app.stop().await;
}

/// Makes the clock of a database adjustable: the search path finds `now()` and `clock_timestamp()` in a schema before
/// PostgreSQL's own.
async fn make_clock_movable(database: &Database) {
    let superuser = database.superuser().await;
    let clock = "create schema skew; grant usage on schema skew to public;
                 create table skew.clock (ahead interval not null); insert into skew.clock values ('0');
                 grant select on skew.clock to public";
    superuser.execute(clock).await.unwrap();
    for clock in ["now", "clock_timestamp"] {
        let skewed = format!(
            "create function skew.{clock}() returns timestamptz language sql stable
             as 'select pg_catalog.{clock}() + ahead from skew.clock'"
        );
        superuser.execute(skewed.as_str()).await.unwrap();
    }
    let name = database.url.rsplit_once('/').unwrap().1;
    let path = format!("alter database {name} set search_path = skew, pg_catalog, public");
    superuser.execute(path.as_str()).await.unwrap();
}

/// Sets how far the database's clock is ahead of all other clocks.
async fn set_clock(database: &Database, ahead: &str) {
    let moved = format!("update skew.clock set ahead = '{ahead}'");
    database.superuser().await.execute(moved.as_str()).await.unwrap();
}

/// The log believes both clocks, which are 3 minutes apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_comes_in_time_though_the_databases_clock_went_back() {
    let database = Database::fresh().await;
    make_clock_movable(&database).await;
    let mut settings = crate::app::settings(Some(&database.url));
    one_retry(&mut settings);
    settings.retry_delays = Delays(vec![chrono::Duration::seconds(5); 10]);
    let app = TestApp::on(database, settings).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    forwarding(&admin, "acme", &sink.url("/switch")).await;
    set_clock(&app.database, "3 minutes").await;
    post(&app, "acme", "d", "{}").await;
    sink.until("/switch", 1).await;
    until(&admin, "acme", all("status", "FAILED")).await;
    // The due time in its row is by the clock that is ahead.
    let superuser = app.database.superuser().await;
    let deadline = Instant::now() + LIMIT;
    while sqlx::query_scalar::<_, i64>("select count(*) from delivery_due where holder is null")
        .fetch_one(&superuser)
        .await
        .unwrap()
        == 0
    {
        assert!(Instant::now() < deadline, "the row is never given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sink.repaired.store(true, Ordering::SeqCst);
    set_clock(&app.database, "0").await;
    // The limit is half of what the clocks are apart.
    until(&admin, "acme", all("status", "SUCCESS")).await;
    app.stop().await;
}

/// The node's clock is 2 minutes ahead of the database's, which the log still believes.
#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_clock_that_is_ahead_times_nothing_out() {
    let database = Database::fresh().await;
    make_clock_movable(&database).await;
    set_clock(&database, "-2 minutes").await;
    let mut settings = crate::app::settings(Some(&database.url));
    one_retry(&mut settings);
    // Less than the difference between the clocks, and enough for a slow machine.
    settings.pending_timeout = Span(chrono::Duration::seconds(100));
    let app = TestApp::on(database, settings).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    forwarding(&admin, "acme", &sink.url("/switch")).await;
    post(&app, "acme", "d", "{}").await;
    sink.until("/switch", 1).await;
    sink.repaired.store(true, Ordering::SeqCst);
    let nodes = until(&admin, "acme", all("status", "SUCCESS")).await;
    assert_eq!(nodes[0]["attempts"][0]["statusCode"], 500, "{nodes:#?}");
    // The retry was due by the database's clock, too: neither minutes late nor immediately.
    let came = sink.at("/switch");
    assert!(came[1].at - came[0].at >= Duration::from_secs(2));
    app.stop().await;
}

/// Ends all connections to this database and refuses new ones, until they are allowed again.
struct Away {
    admin: PgConnection,
    name: String,
}

impl Away {
    async fn send(app: &TestApp) -> Self {
        let (server, name) = app.database.url.rsplit_once('/').unwrap();
        let mut admin = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
        admin.execute(format!("alter database {name} allow_connections false").as_str()).await.unwrap();
        sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1")
            .bind(name)
            .execute(&mut admin)
            .await
            .unwrap();
        Self { admin, name: name.to_owned() }
    }

    async fn come_back(mut self) {
        let back = format!("alter database {} allow_connections true", self.name);
        self.admin.execute(back.as_str()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_held_while_the_database_is_away() {
    let app = TestApp::with(quick).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    forwarding(&admin, "acme", &sink.url("/late")).await;
    post(&app, "acme", "d", "{}").await;
    sink.until("/late", 1).await;
    let away = Away::send(&app).await;
    // It was answered after 4 s, and its lease is over.
    tokio::time::sleep(Duration::from_secs(20)).await;
    away.come_back().await;
    let deadline = Instant::now() + LIMIT;
    loop {
        // The node's own reads may fail for a moment.
        let query = format!("{{ organization(slug: \"acme\") {{ webhooks {{ nodes {{ {FIELDS} }} }} }} }}");
        let answer = admin.ask(&query, json!({})).await;
        let node = &answer["data"]["organization"]["webhooks"]["nodes"][0];
        if node["status"] == "SUCCESS" {
            let attempts = node["attempts"].as_array().unwrap();
            assert_eq!((attempts.len(), &attempts[0]["statusCode"]), (1, &json!(200)), "{node:#}");
            break;
        }
        assert!(Instant::now() < deadline, "{answer:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(sink.at("/late").len(), 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_read_now_uses_up_no_attempt() {
    let app = TestApp::with(one_retry).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    forwarding(&admin, "acme", &sink.url("/switch")).await;
    post(&app, "acme", "d", "{}").await;
    sink.until("/switch", 1).await;
    let superuser = app.database.superuser().await;
    superuser.execute("alter table webhook_bodies rename to elsewhere").await.unwrap();
    sink.repaired.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    superuser.execute("alter table elsewhere rename to webhook_bodies").await.unwrap();
    let nodes = until(&admin, "acme", |nodes| all("status", "SUCCESS")(nodes) || all_dead(nodes)).await;
    let codes: Vec<_> = nodes[0]["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["statusCode"]).collect();
    assert_eq!(codes, [500, 200], "{nodes:#?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_duplicates_is_in_no_retrys_way() {
    let app = TestApp::with(|settings| {
        quick(settings);
        settings.retry_delays = Delays(Vec::new());
    })
    .await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    forwarding(&admin, "acme", &sink.url("/switch")).await;
    let first = post(&app, "acme", "d", "{}").await;
    until(&admin, "acme", all_dead).await;
    // More than are ever read at once, appended as the log's own functions would.
    let superuser = app.database.superuser().await;
    let (partition, id) = (OrganizationId::from_slug("acme").partition(), first["webhook_id"].as_str().unwrap());
    let duplicates = 100_500_i64;
    let mut transaction = superuser.begin().await.unwrap();
    // Appends take this lock, so that nobody takes the same positions.
    sqlx::query("select pg_advisory_xact_lock(7307, $1)")
        .bind(partition.number())
        .execute(&mut *transaction)
        .await
        .unwrap();
    sqlx::query(
        "insert into commits (partition, position, events, aggregate_type, stream_id, first_sequence, organization_id,
                              recorded_at, metadata, data)
         select c.partition, h.position + n, 1, c.aggregate_type, c.stream_id, last.sequence + n, c.organization_id,
                c.recorded_at, c.metadata,
                concat_ws(E'\\t', 'webhook.duplicate_received', '1',
                          '{\"bodySha256\":\"aa\",\"bodySize\":2,\"bodyDiffers\":false}')
         from commits c
         join (select position from log_heads where partition = $1) h on true
         join (select max(sequence) as sequence from events where aggregate_id = $2) last on true
         cross join generate_series(1, $3) n
         where c.partition = $1 and c.stream_id = $2::uuid and c.aggregate_type = 'webhook' and c.first_sequence = 1",
    )
    .bind(partition.number())
    .bind(id)
    .bind(duplicates)
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    // So many events take the followers a while.
    let deadline = Instant::now() + 4 * LIMIT;
    while admin.webhooks("acme", "duplicateCount").await[0]["duplicateCount"] != duplicates {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // By a bulk retry, and one by one.
    assert_eq!(retry_all(&admin).await, json!({ "retriedCount": 1, "skippedCount": 0 }));
    sink.until("/switch", 2).await;
    let nodes = until(&admin, "acme", all_dead).await;
    sink.repaired.store(true, Ordering::SeqCst);
    let retry = "mutation($id: ID!) { retryWebhook(input: {webhookId: $id}) { webhook { status } } }";
    admin.data(retry, json!({ "id": nodes[0]["id"] })).await;
    until(&admin, "acme", all("status", "SUCCESS")).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_worker_takes_in_time_goes_on_to_its_retry() {
    let app = TestApp::with(|settings| {
        one_retry(settings);
        settings.pending_timeout = Span(chrono::Duration::seconds(1));
    })
    .await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    forwarding(&admin, "acme", &sink.url("/ok")).await;
    let superuser = app.database.superuser().await;
    let mut lock = superuser.begin().await.unwrap();
    lock.execute("lock table delivery_due in access exclusive mode").await.unwrap();
    post(&app, "acme", "d", "{}").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    lock.commit().await.unwrap();
    let nodes = until(&admin, "acme", all("status", "SUCCESS")).await;
    let attempts = nodes[0]["attempts"].as_array().unwrap();
    assert_eq!(attempts[0]["errorDetails"], "pending timeout", "{nodes:#?}");
    assert_eq!((attempts.len(), sink.at("/ok").len()), (2, 1));
    app.stop().await;
}

/// A provider's own destination.
fn destination(organization: OrganizationId, provider: ProviderName) -> DestinationId {
    DestinationId::of_provider(ProviderId::derive(organization, provider))
}

/// A queue with that many webhooks for each destination, and the connection to it.
async fn queue_of(rows: &[(&str, ProviderName, i32)]) -> (Database, Queue) {
    let database = Database::fresh().await;
    let superuser = database.superuser().await;
    for (slug, provider, count) in rows {
        let organization = OrganizationId::from_slug(slug);
        sqlx::query(
            "insert into delivery_due (organization_id, delivery_id, webhook_id, route_id, destination_id, attempt,
                                       sequence, requested, due_at)
             select $1, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), $2, 1, 0, false, now() - n * interval '1 ms' from generate_series(1, $3) n",
        )
        .bind(organization.uuid())
        .bind(destination(organization, *provider).uuid())
        .bind(count)
        .execute(&superuser)
        .await
        .unwrap();
    }
    let queue = Queue::new(superuser, Uuid::new_v4(), hookledger::log::Heads::default());
    (database, queue)
}

#[tokio::test(flavor = "multi_thread")]
async fn organizations_and_then_their_destinations_share_the_places_there_are() {
    let kinds = ProviderName::ALL;
    let mut rows: Vec<(&str, ProviderName, i32)> = kinds.into_iter().map(|kind| ("large", kind, 500)).collect();
    rows.extend([("small", ProviderName::Github, 500), ("tiny", ProviderName::Stripe, 500)]);
    let (_database, queue) = queue_of(&rows).await;
    // Each takes as many as it can get, and keeps its places.
    let mut rooms: Vec<Room> = rows
        .iter()
        .map(|(slug, kind, _)| {
            let organization = OrganizationId::from_slug(slug);
            Room { organization, destination: destination(organization, *kind), running: 0, free: 256 }
        })
        .collect();
    for _ in 0..30 {
        let taken = queue.claim(&rooms, 1, 3, Duration::from_secs(60)).await.unwrap();
        assert_eq!(taken.len(), 3);
        for due in taken {
            let room = rooms.iter_mut().find(|room| room.destination == due.destination).unwrap();
            room.running += 1;
        }
    }
    let of = |slug| {
        let organization = OrganizationId::from_slug(slug);
        rooms.iter().filter(|room| room.organization == organization).map(|room| room.running).collect::<Vec<_>>()
    };
    assert_eq!([of("small"), of("tiny")], [[30], [30]]);
    let large = of("large");
    assert_eq!(large.iter().sum::<u32>(), 30);
    assert!(large.iter().all(|running| *running == 6), "{large:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_stands_still_for_no_node_that_lost_the_right_to_feed_it() {
    let app = TestApp::with(quick).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    let (provider, _) = forwarding(&admin, "acme", &sink.url("/ok")).await;
    set_destination(&admin, &provider, &sink.url("/ok"), 1).await;
    // This node decides about a webhook, and cannot commit before another node follows the log.
    let superuser = app.database.superuser().await;
    let mut lock = superuser.begin().await.unwrap();
    lock.execute("lock table delivery_due in access exclusive mode").await.unwrap();
    post(&app, "acme", "d0", "{}").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let steal = "update followers set epoch = epoch + 1, owner = gen_random_uuid(),
                        lease_until = now() + interval '5 seconds' where name = 'processing'";
    superuser.execute(steal).await.unwrap();
    let other_node = tokio::spawn({
        let superuser = superuser.clone();
        async move {
            loop {
                let renew = "update followers set lease_until = now() + interval '5 seconds' where name = 'processing'";
                superuser.execute(renew).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    });
    lock.commit().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Meanwhile, another webhook is due that this node has to deliver.
    let organization = OrganizationId::from_slug("acme");
    let webhook: Uuid = sqlx::query_scalar(
        "select stream_id from events where organization_id = $1 and event_type = 'webhook.received'",
    )
    .bind(organization.uuid())
    .fetch_one(&superuser)
    .await
    .unwrap();
    let route = RouteId::of_provider(ProviderId::derive(organization, ProviderName::Github));
    sqlx::query(
        "insert into delivery_due (organization_id, delivery_id, webhook_id, route_id, destination_id, attempt, sequence,
                                   requested, due_at)
         values ($1, $4, $2, $5, $3, 1, 0, false, now())",
    )
    .bind(organization.uuid())
    .bind(webhook)
    .bind(destination(organization, ProviderName::Github).uuid())
    .bind(DeliveryId::derive(WebhookId::new(webhook), route).uuid())
    .bind(route.uuid())
    .execute(&superuser)
    .await
    .unwrap();
    // It keeps its right, so this node delivers with the place that its lost decision gave back.
    sink.until("/ok", 1).await;
    other_node.abort();
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_not_lost_with_a_database_that_was_away() {
    let app = TestApp::with(quick).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    let (_, status) = (forwarding(&admin, "acme", &sink.url("/late")).await, StatusCode::OK);
    let superuser = app.database.superuser().await;
    post(&app, "acme", "d", "{}").await;
    sink.until("/late", 1).await;
    superuser.execute("alter table attempt_responses rename to elsewhere").await.unwrap();
    let ended = |nodes: &[Value]| nodes.iter().any(|node| node["attempts"][0]["statusCode"] == status.as_u16());
    until(&admin, "acme", ended).await;
    // Longer than five attempts take.
    tokio::time::sleep(Duration::from_secs(4)).await;
    superuser.execute("alter table elsewhere rename to attempt_responses").await.unwrap();
    let deadline = Instant::now() + LIMIT;
    loop {
        let nodes = admin.webhooks("acme", "attempts { responseExcerpt }").await;
        if nodes[0]["attempts"][0]["responseExcerpt"] == "ok" {
            break;
        }
        assert!(Instant::now() < deadline, "{nodes:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    app.stop().await;
}
