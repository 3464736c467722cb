//! Read models beside the live ones: rebuilt under traffic, and replayed as of an earlier time.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use hookledger::log::LogPosition;
use hookledger::reads::rebuild::{AsOf, Rebuild, RebuildError, Replay, drop_replay};
use hookledger_aggregates::OrganizationId;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::app::{GITHUB_SECRET, TestApp};
use crate::kill::{ask, send, with_acme};
use crate::patience::PATIENCE;
use crate::process::Process;
use crate::projections::{caught_up, with_history};

const LIST: &str = "{ organization(slug: \"acme\") { webhookCount
    webhooks(first: 50) { nodes { webhookId status attempts { attemptNumber } provider { isActive } } }
    users(first: 10) { nodes { email } } auditLog(first: 10) { nodes { action } } } }";

/// Everything about a table but its columns: indexes, policies, grants, triggers, storage, comments.
async fn character(pool: &PgPool, schema: &str, table: &str) -> Vec<String> {
    sqlx::query_scalar(
        "with t as (select format('%I.%I', $1::text, $2::text)::regclass as oid)
         select replace(told, $1 || '.', '') from (
             select pg_get_indexdef(indexrelid) from pg_index, t where indrelid = t.oid
             union all select conname || pg_get_constraintdef(c.oid) from pg_constraint c, t where conrelid = t.oid
             union all select pg_get_triggerdef(g.oid) from pg_trigger g, t where tgrelid = t.oid
             union all select (policyname, permissive, roles, cmd, qual, with_check)::text from pg_policies
                       where schemaname = $1 and tablename = $2
             union all select (a.grantee::regrole, a.privilege_type)::text from pg_class c, t, aclexplode(c.relacl) a
                       where c.oid = t.oid
             union all select (reloptions, relrowsecurity, relforcerowsecurity, relowner::regrole,
                               obj_description(c.oid, 'pg_class'))::text from pg_class c, t where c.oid = t.oid
             union all select (attname, atttypid::regtype, attnotnull, attcollation, col_description(attrelid, attnum))::text
                       from pg_attribute, t where attrelid = t.oid and attnum > 0
         ) as all_ (told) order by 1",
    )
    .bind(schema)
    .bind(table)
    .fetch_all(pool)
    .await
    .unwrap()
}

/// Rows that are in one table and not in the other.
async fn differing(pool: &PgPool, table: &str, other: &str) -> i64 {
    let sql = format!(
        "select count(*) from ((table {table} except all table {other}) union all (table {other} except all table {table})) d"
    );
    sqlx::query_scalar(&sql).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_under_traffic_ends_with_what_grew_and_no_request_fails() {
    let app = Arc::new(TestApp::start().await);
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let pool = app.database.superuser().await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let senders: Vec<_> = (0..8)
        .map(|sender| {
            let (app, stop, sent) = (Arc::clone(&app), Arc::clone(&stop), Arc::clone(&sent));
            tokio::spawn(async move {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // Some are duplicates.
                    let delivery = format!("{sender}-{}", if n % 7 == 6 { n - 1 } else { n });
                    let response = app.github("acme", &delivery, format!("{{\"n\":\"{delivery}\"}}")).send().await;
                    assert_eq!(response.unwrap().status().as_u16(), 200);
                    sent.fetch_add(usize::from(n % 7 != 6), Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
        })
        .collect();
    app.user("acme", "ada@example.org", hookledger_aggregates::user::Role::Admin).await;
    admin.webhooks_until("acme", "status", |nodes| nodes.len() >= 200).await;
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (app, stop, token) = (Arc::clone(&app), Arc::clone(&stop), admin.token.clone());
            tokio::spawn(async move {
                let reader = crate::app::Actor { app: &app, token };
                let (mut asked, mut before) = (0, 1);
                while !stop.load(Ordering::Relaxed) {
                    let data = reader.data(LIST, json!({})).await;
                    let organization = &data["organization"];
                    // Rows never go missing: nobody sees a half-built read model.
                    let count = organization["webhookCount"].as_i64().unwrap();
                    assert!(count >= before, "{count} after {before}");
                    assert_eq!(organization["webhooks"]["nodes"].as_array().unwrap().len(), 50);
                    assert_eq!(organization["users"]["nodes"].as_array().unwrap().len(), 1);
                    (asked, before) = (asked + 1, count);
                }
                asked
            })
        })
        .collect();
    let store = app.database.store();
    let began = Instant::now();
    let names: Vec<&str> = hookledger_projections::all().iter().map(|projection| projection.name()).collect();
    // The busiest one twice: a rebuilt read model can be rebuilt.
    for (name, version) in names.iter().map(|name| (*name, 2)).chain([("webhook_logs", 3)]) {
        let mut rebuild = Rebuild::open(&store, name).await.unwrap();
        rebuild.begin().await.unwrap();
        rebuild.catch_up(|_| {}).await.unwrap();
        let comparison = rebuild.compare(|_| {}).await.unwrap();
        assert!(comparison.is_same(), "{comparison:#?}");
        assert_eq!(rebuild.switch(|_| {}).await.unwrap(), version, "{name}");
    }
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap();
    }
    for reader in readers {
        assert!(reader.await.unwrap() > 1);
    }
    let sent = sent.load(Ordering::Relaxed);
    eprintln!("{} rebuilds in {took:?}, {sent} webhooks", names.len() + 1);
    caught_up(&pool).await;
    let count = admin.data(LIST, json!({})).await["organization"]["webhookCount"].as_u64().unwrap();
    assert_eq!(usize::try_from(count).unwrap(), sent);

    // The replaced tables, brought up to date, equal the live ones, and keep their indexes, policies and grants.
    for projection in hookledger_projections::all() {
        let name = projection.name();
        for table in projection.tables() {
            let of = async |schema: &str| character(&pool, schema, table).await;
            assert_eq!(of("public").await, of(&format!("previous_{name}")).await, "{table}");
        }
        let mut previous = Rebuild::open(&store, name).await.unwrap();
        previous.take_back().await.unwrap();
        previous.catch_up(|_| {}).await.unwrap();
        for table in projection.tables() {
            let old = format!("rebuild_{name}.{table}");
            assert_eq!(differing(&pool, &format!("public.{table}"), &old).await, 0, "{table}");
        }
        previous.drop_all().await.unwrap();
    }
    app.github("acme", "last", "{}").send().await.unwrap();
    admin.webhooks_until("acme", "status", |nodes| nodes.iter().all(|node| node["status"] == "SUCCESS")).await;
    Arc::into_inner(app).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_named_and_a_rebuild_mends_it() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    for n in 0..5 {
        app.github("acme", &format!("d-{n}"), "{}").send().await.unwrap();
    }
    admin.webhooks_until("acme", "status", |all| all.len() == 5 && all.iter().all(|n| n["status"] == "SUCCESS")).await;
    let pool = app.database.superuser().await;
    caught_up(&pool).await;
    let (changed, gone): (Uuid, Uuid) = sqlx::query_as(
        "with changed as (update webhook_logs set status = 'failed', error_message = 'no' where provider_event_id = 'd-1'
                          returning webhook_id),
              gone as (delete from webhook_logs where provider_event_id = 'd-2' returning webhook_id)
         select changed.webhook_id, gone.webhook_id from changed, gone",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    let store = app.database.store();
    let mut rebuild = Rebuild::open(&store, "webhook_logs").await.unwrap();
    assert!(matches!(rebuild.compare(|_| {}).await, Err(RebuildError::NoCopy(_))));
    rebuild.begin().await.unwrap();
    rebuild.catch_up(|_| {}).await.unwrap();
    let comparison = rebuild.compare(|_| {}).await.unwrap();
    let logs = &comparison.tables[0];
    assert_eq!(
        (logs.table.as_str(), logs.same, logs.different, logs.only_live, logs.only_copy),
        ("webhook_logs", 3, 1, 0, 1)
    );
    let named = |id: Uuid| {
        let has = |(column, value): &(String, String)| column == "webhook_id" && *value == id.to_string();
        logs.examples.iter().find(|example| example.key.iter().any(has)).unwrap()
    };
    let columns: BTreeSet<&str> = named(changed).columns.iter().map(|(column, ..)| column.as_str()).collect();
    assert_eq!(columns, ["error_message", "status"].into());
    assert!(named(gone).in_copy && !named(gone).in_live);
    rebuild.switch(|_| {}).await.unwrap();
    drop(rebuild);
    let nodes = admin.webhooks("acme", "status").await;
    assert!(nodes.len() == 5 && nodes.iter().all(|node| node["status"] == "SUCCESS"), "{nodes:?}");
    assert!(matches!(Rebuild::open(&store, "nothing").await, Err(RebuildError::Unknown(..))));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_killed_leaves_everything_working_and_the_next_one_succeeds() {
    let mut process = Process::new();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    process.serve().await;
    let session = with_acme(&process, &client, GITHUB_SECRET).await;
    let (answered, stop) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
    let senders: Vec<_> = (0..4)
        .map(|sender| tokio::spawn(send(process.url(), 0, sender, Arc::clone(&answered), Arc::clone(&stop))))
        .collect();
    let count = || answered.lock().unwrap().len();
    while count() < 500 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It is killed at any stage: connecting, applying, comparing, switching.
    for (round, wait) in [40, 120, 250, 400, 600, 900].into_iter().enumerate() {
        let arguments: &[&str] = match round % 2 {
            0 => &["projections", "rebuild", "webhook_logs"],
            _ => &["projections", "rebuild", "webhook_logs", "--resume"],
        };
        let mut command = process.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let _ = command.kill();
        command.wait().unwrap();
        let before = count();
        ask(&process, &client, &session, LIST, json!({})).await;
        let deadline = Instant::now() + PATIENCE;
        while count() == before {
            assert!(Instant::now() < deadline, "nothing is accepted after a killed command");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let told = process.run(&["projections", "rebuild", "webhook_logs"]);
    assert!(told.contains("of webhook_logs is live") && told.contains("webhook_counts"), "{told}");
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap();
    }
    let told = process.run(&["projections", "compare", "webhook_logs"]);
    assert!(told.contains("No differences"), "{told}");
    let told = process.run(&["projections", "status"]);
    assert!(told.contains("previous_webhook_logs") && !told.contains("stopped:"), "{told}");
    let sent = count();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let data = ask(&process, &client, &session, LIST, json!({})).await;
        if data["organization"]["webhookCount"] == json!(sent) {
            break;
        }
        assert!(Instant::now() < deadline, "{} of {sent}", data["organization"]["webhookCount"]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = process.run(&["projections", "revert", "webhook_logs"]);
    assert!(told.contains("is live"), "{told}");
    process.run(&["projections", "drop", "webhook_logs"]);
    let unknown = process.command(&["projections", "rebuild", "webhooks"]).output().unwrap();
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no projection is called"), "{unknown:?}");
    process.terminate();
}

/// An event as the table has it: position, type, aggregate, payload, time.
type Raw = (i64, String, String, sqlx::types::Json<Value>, DateTime<Utc>);

/// An organization up to a position, folded from the JSON of its events alone.
#[derive(Default)]
struct Folded {
    organization: Option<(String, String, Option<i64>, bool)>,
    users: BTreeMap<Uuid, (String, bool)>,
    /// Active, deleted.
    providers: BTreeMap<Uuid, (bool, bool)>,
    /// URL, deleted.
    destinations: BTreeMap<Uuid, (String, bool)>,
    webhooks: BTreeMap<Uuid, (&'static str, i64)>,
    /// The webhook of each delivery; each webhook has one at most.
    deliveries: BTreeMap<Uuid, Uuid>,
}

impl Folded {
    fn note(&mut self, event_type: &str, id: Uuid, payload: &Value) {
        let text = |name: &str| payload[name].as_str().map(str::to_owned);
        let organization = &mut self.organization;
        match event_type {
            "organization.created" => {
                let limit = payload["webhookLimit"].as_i64();
                *organization = Some((text("name").unwrap(), text("plan").unwrap(), limit, true));
            }
            "organization.renamed" => organization.as_mut().unwrap().0 = text("name").unwrap(),
            "organization.plan_changed" => {
                let organization = organization.as_mut().unwrap();
                (organization.1, organization.2) = (text("plan").unwrap(), payload["webhookLimit"].as_i64());
            }
            "organization.activated" => organization.as_mut().unwrap().3 = true,
            "organization.deactivated" => organization.as_mut().unwrap().3 = false,
            "user.invited" | "user.registered" => drop(self.users.insert(id, (text("role").unwrap(), true))),
            "user.role_changed" => self.users.get_mut(&id).unwrap().0 = text("role").unwrap(),
            "user.activated" => self.users.get_mut(&id).unwrap().1 = true,
            "user.deactivated" => self.users.get_mut(&id).unwrap().1 = false,
            "provider.connected" => drop(self.providers.insert(id, (true, false))),
            "provider.activated" => self.providers.get_mut(&id).unwrap().0 = true,
            "provider.deactivated" => self.providers.get_mut(&id).unwrap().0 = false,
            "provider.deleted" => drop(self.providers.insert(id, (false, true))),
            "destination.set" => drop(self.destinations.insert(id, (text("url").unwrap(), false))),
            "destination.deleted" => self.destinations.get_mut(&id).unwrap().1 = true,
            "webhook.received" => drop(self.webhooks.insert(id, ("pending", 0))),
            "webhook.rejected" => drop(self.webhooks.insert(id, ("failed", 0))),
            "webhook.duplicate_received" => self.webhooks.get_mut(&id).unwrap().1 += 1,
            "webhook.duplicates_counted" => {
                self.webhooks.get_mut(&id).unwrap().1 += payload["count"].as_i64().unwrap();
            }
            "webhook.routed" => match payload["matched"].as_array().unwrap().first() {
                None => self.webhooks.get_mut(&id).unwrap().0 = "success",
                Some(to) => drop(self.deliveries.insert(to["deliveryId"].as_str().unwrap().parse().unwrap(), id)),
            },
            "delivery.attempt_started" => self.stands(id, "processing"),
            "delivery.attempt_succeeded" => self.stands(id, "success"),
            "delivery.attempt_failed" | "delivery.attempt_abandoned" => self.stands(id, "failed"),
            "delivery.retry_requested" => self.stands(id, "pending"),
            _ => {}
        }
    }

    fn stands(&mut self, delivery: Uuid, status: &'static str) {
        self.webhooks.get_mut(&self.deliveries[&delivery]).unwrap().0 = status;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_to_any_position_is_the_fold_of_the_events_up_to_there() {
    let (app, pool) = with_history().await;
    let admin = app.super_admin().await;
    let id = {
        let data = admin.data("{ organization(slug: \"acme\") { id } }", json!({})).await;
        data["organization"]["id"].clone()
    };
    for mutation in [
        "mutation($id: ID!) { updateOrganization(input: {id: $id, name: \"Acme Ltd\", plan: STARTER}) { organization { id } } }",
        "mutation($id: ID!) { inviteUser(input: {organizationId: $id, email: \"ada@example.org\", role: MEMBER}) { user { id } } }",
        "mutation($id: ID!) { setOrganizationActive(input: {id: $id, isActive: false}) { organization { id } } }",
        "mutation($id: ID!) { setOrganizationActive(input: {id: $id, isActive: true}) { organization { id } } }",
    ] {
        admin.data(mutation, json!({ "id": id })).await;
    }
    let user = app.user("acme", "bob@example.org", hookledger_aggregates::user::Role::Admin).await;
    user.data("{ viewer { isSuperAdmin } }", json!({})).await;
    // Another organization in the same partition, which must not be visible.
    let ours = OrganizationId::from_slug("acme");
    let other = (0..10_000)
        .map(|n| format!("other-{n}"))
        .find(|slug| OrganizationId::from_slug(slug).partition() == ours.partition());
    app.organization(&admin, &other.unwrap(), &[("GITHUB", GITHUB_SECRET)]).await;
    caught_up(&pool).await;
    let events: Vec<Raw> = sqlx::query_as(
        "select position, event_type, aggregate_id, payload, recorded_at from events where organization_id = $1 order by position",
    )
    .bind(ours.uuid())
    .fetch_all(&pool)
    .await
    .unwrap();
    let store = app.database.store();
    let random = usize::from(Uuid::new_v4().as_bytes()[0]);
    let places = [0, 7, random % events.len(), (random * 37) % events.len(), events.len() / 2, events.len() - 1];
    for (n, place) in places.into_iter().enumerate() {
        let (position, time) = (events[place].0, events[place].4);
        let at = LogPosition { partition: ours.partition(), position };
        // Once as of a time: it ends with the last event recorded by then.
        let as_of = if n == 4 { AsOf::Time(time) } else { AsOf::Position(at) };
        let mut folded = Folded::default();
        for (at, event_type, id, payload, recorded_at) in &events {
            if *at <= position || n == 4 && *recorded_at <= time {
                folded.note(event_type, id.parse().unwrap(), payload);
            }
        }
        let organization = Some("acme".to_owned());
        let replay = Replay { as_of, organization, schema: format!("replay_{n}") };
        let replayed = replay.run(&store, |_, _, _| {}).await.unwrap();
        let of = |table: &str| format!("from replay_{n}.{table}");
        let webhooks: Vec<(Uuid, String, i32)> =
            sqlx::query_as(&format!("select webhook_id, status, duplicate_count {}", of("webhook_logs")))
                .fetch_all(&pool)
                .await
                .unwrap();
        let expected: BTreeMap<_, _> = folded
            .webhooks
            .iter()
            .map(|(id, (status, count))| (*id, ((*status).to_owned(), i32::try_from(*count).unwrap())))
            .collect();
        let found = webhooks.into_iter().map(|(id, status, count)| (id, (status, count))).collect();
        assert_eq!(expected, found, "as of {as_of}");
        let users: Vec<(Uuid, String, bool)> =
            sqlx::query_as(&format!("select id, role, is_active {}", of("users"))).fetch_all(&pool).await.unwrap();
        assert_eq!(
            folded.users,
            users.into_iter().map(|(id, role, active)| (id, (role, active))).collect(),
            "as of {as_of}"
        );
        let providers: Vec<(Uuid, bool, bool)> =
            sqlx::query_as(&format!("select id, is_active, deleted_at is not null {}", of("webhook_providers")))
                .fetch_all(&pool)
                .await
                .unwrap();
        let found = providers.into_iter().map(|(id, active, deleted)| (id, (active, deleted))).collect();
        assert_eq!(folded.providers, found, "as of {as_of}");
        let destinations: Vec<(Uuid, String, bool)> =
            sqlx::query_as(&format!("select id, url, deleted_at is not null {}", of("destinations")))
                .fetch_all(&pool)
                .await
                .unwrap();
        let found = destinations.into_iter().map(|(id, url, deleted)| (id, (url, deleted))).collect();
        assert_eq!(folded.destinations, found, "as of {as_of}");
        let found: Option<(String, String, Option<i32>, bool)> =
            sqlx::query_as(&format!("select name, plan, webhook_limit, is_active {}", of("organizations")))
                .fetch_optional(&pool)
                .await
                .unwrap();
        let found = found.map(|(name, plan, limit, active)| (name, plan, limit.map(i64::from), active));
        assert_eq!(folded.organization, found, "as of {as_of}");
        // The comparison tells rows of then from rows of now.
        let users = replayed.comparison.tables.iter().find(|table| table.table == "users").unwrap();
        assert_eq!(usize::try_from(users.same + users.different).unwrap(), folded.users.len());
        let is_last = place == events.len() - 1;
        assert_eq!(replayed.comparison.is_same(), is_last, "as of {as_of}: {:#?}", replayed.comparison);
    }
    // All organizations, to the end of the log: no differences.
    let head: i64 = sqlx::query_scalar("select position from log_heads where partition = $1")
        .bind(ours.partition().number())
        .fetch_one(&pool)
        .await
        .unwrap();
    let at = LogPosition { partition: ours.partition(), position: head };
    let replay = Replay { as_of: AsOf::Time(Utc::now()), organization: None, schema: "replay_0".to_owned() };
    let replayed = replay.run(&store, |_, _, _| {}).await.unwrap();
    assert!(replayed.comparison.is_same(), "{:#?}", replayed.comparison);
    assert_eq!(replayed.positions[ours.partition().index()], head);
    // The role that reads for people cannot see it. Only schemas of replays are replaced or dropped.
    let mut tenant = store.tenants().await.unwrap().everybody().await.unwrap();
    let refused = sqlx::query("select from replay_0.users").execute(&mut *tenant).await.unwrap_err();
    assert!(refused.to_string().contains("permission denied"), "{refused}");
    let wrong = Replay { as_of: AsOf::Position(at), organization: None, schema: "public".to_owned() };
    assert!(matches!(wrong.run(&store, |_, _, _| {}).await, Err(RebuildError::NotOurs(_))));
    assert!(drop_replay(&store, "replay_0").await.unwrap() && !drop_replay(&store, "replay_0").await.unwrap());
    assert!(matches!(drop_replay(&store, "x; drop schema public").await, Err(RebuildError::SchemaName(_))));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_and_webhooks_are_told_as_they_stood() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let member = app.user("acme", "bob@example.org", hookledger_aggregates::user::Role::Member).await;
    app.github("acme", "d-1", "{}").send().await.unwrap();
    app.github("acme", "d-1", "{\"a\":1}").send().await.unwrap();
    let done = |nodes: &[Value]| nodes.iter().all(|node| node["status"] == "SUCCESS" && node["duplicateCount"] == 1);
    admin.webhooks_until("acme", "status duplicateCount", |nodes| nodes.len() == 1 && done(nodes)).await;
    let before = Utc::now();
    let provider = admin.data("{ organization(slug: \"acme\") { providers { id } } }", json!({})).await;
    let provider = &provider["organization"]["providers"][0]["id"];
    for mutation in [
        "mutation($id: ID!, $p: ID!) { updateOrganization(input: {id: $id, name: \"Other\", plan: FREE}) { organization { id } }
             setProviderDestination(input: {providerId: $p, url: \"https://example.com/\"}) { provider { id } } }",
        "mutation($id: ID!, $p: ID!) { setOrganizationActive(input: {id: $id, isActive: false}) { organization { id } }
             rotateProviderSecret(input: {providerId: $p, secret: \"new\", graceSeconds: 0}) { provider { id } } }",
    ] {
        admin.data(mutation, json!({ "id": id, "p": provider })).await;
    }
    let as_of = "query($time: DateTime!) { organization(slug: \"acme\") { asOf(time: $time) { time name plan webhookLimit isActive
        users { role isActive hasJoined user { email } }
        providers { providerName isActive destinationUrl secretVersions { version expiresAt } } } } }";
    let state = async |time: DateTime<Utc>| {
        let mut data = admin.data(as_of, json!({ "time": time })).await;
        data["organization"]["asOf"].take()
    };
    let then = state(before).await;
    assert_eq!((&then["name"], &then["plan"], &then["isActive"]), (&json!("acme"), &json!("PREMIUM"), &json!(true)));
    assert_eq!(
        then["users"],
        json!([{ "role": "MEMBER", "isActive": true, "hasJoined": true, "user": { "email": "bob@example.org" } }])
    );
    let github = |url: Value, version: u8| {
        json!([{ "providerName": "GITHUB", "isActive": true, "destinationUrl": url,
                 "secretVersions": [{ "version": version, "expiresAt": null }] }])
    };
    assert_eq!(then["providers"], github(json!(null), 1));
    let now = state(Utc::now()).await;
    assert_eq!((&now["name"], &now["plan"], &now["isActive"]), (&json!("Other"), &json!("FREE"), &json!(false)));
    // The destination's signing secret has versions of its own.
    assert_eq!(now["providers"], github(json!("https://example.com/"), 2));
    assert_eq!(admin.code(as_of, json!({ "time": "2020-01-01T00:00:00Z" })).await, "NOT_FOUND");
    drop(member);

    // A webhook: received, verified, then its success and the duplicate in either order.
    let query = "{ organization(slug: \"acme\") { webhooks(first: 1) { nodes {
        events { sequence eventType } status duplicateCount bodyDiffers processedAt
        before: stateAt(sequence: 0) { status } first: stateAt(sequence: 1) { sequence status duplicateCount }
        last: stateAt(sequence: 2000) { status duplicateCount bodyDiffers processedAt sequence } } } } }";
    let mut data = admin.data(query, json!({})).await;
    let webhook = data["organization"]["webhooks"]["nodes"][0].take();
    let events = webhook["events"].as_array().unwrap().len();
    assert!(events >= 4, "{webhook}");
    assert_eq!(webhook["before"], json!(null));
    assert_eq!(webhook["first"], json!({ "sequence": 1, "status": "PENDING", "duplicateCount": 0 }));
    for field in ["status", "duplicateCount", "bodyDiffers", "processedAt"] {
        assert_eq!(webhook["last"][field], webhook[field], "{field}");
    }
    assert_eq!((&webhook["last"]["sequence"], &webhook["duplicateCount"]), (&json!(events), &json!(1)));
    let far =
        "{ organization(slug: \"acme\") { webhooks(first: 1) { nodes { stateAt(sequence: 2001) { status } } } } }";
    assert_eq!(admin.code(far, json!({})).await, "BAD_USER_INPUT");
    app.stop().await;
}
