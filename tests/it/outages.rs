//! The store goes away and comes back: the network breaks, PostgreSQL restarts. The node recovers without help.

use std::process::Command;
use std::time::{Duration, Instant};

use futures::future::join_all;
use hookledger::platform::secrets::master::generate;
use hookledger::platform::store::{Use, is_unreachable};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};

use crate::app::{Database, GITHUB_SECRET, TestApp, settings};
use crate::kill::with_acme;
use crate::patience::PATIENCE;
use crate::process::Process;
use crate::proxy::{Network, Proxy};

/// Waits for a condition.
macro_rules! until {
    ($what:expr, $condition:expr) => {
        let begun = Instant::now();
        while !$condition {
            assert!(begun.elapsed() < PATIENCE, "{}", $what);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
}

async fn readiness(url: &str) -> (StatusCode, String) {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
    match client.get(format!("{url}/readyz")).send().await {
        Ok(response) => (response.status(), response.text().await.unwrap_or_default()),
        Err(error) => (StatusCode::GATEWAY_TIMEOUT, error.to_string()),
    }
}

async fn is_ready(url: &str) -> bool {
    readiness(url).await.0 == StatusCode::OK
}

/// A node whose database is behind a proxy.
async fn behind_a_proxy() -> (TestApp, Proxy, Database) {
    let direct = Database::fresh().await;
    let proxy = Proxy::before(&direct.url).await;
    let app = TestApp::on(Database { url: proxy.url.clone() }, settings(Some(&proxy.url))).await;
    (app, proxy, direct)
}

/// A server as a separate process, whose database is behind a proxy.
fn process_on(url: &str) -> Process {
    let mut process = Process::new();
    process.environment = vec![
        ("DATABASE_URL", url.to_owned()),
        ("HOOKLEDGER_MASTER_KEYS", generate("k1").unwrap()),
        ("HOOKLEDGER_JWT_KEYS", generate("j1").unwrap()),
    ];
    process
}

#[tokio::test]
async fn the_proxy_holds_and_swallows_without_a_word_and_resets() {
    let database = Database::fresh().await;
    let proxy = Proxy::before(&database.url).await;
    let mut held = sqlx::PgConnection::connect(&proxy.url).await.unwrap();
    let mut swallowed = sqlx::PgConnection::connect(&proxy.url).await.unwrap();
    let silence = Duration::from_millis(200);
    proxy.set(Network::Holds);
    {
        let asking = sqlx::query("select 1").execute(&mut held);
        tokio::pin!(asking);
        assert!(tokio::time::timeout(silence, &mut asking).await.is_err());
        proxy.set(Network::Good);
        asking.await.unwrap();
    }
    proxy.set(Network::Swallows);
    tokio::time::sleep(silence).await;
    proxy.set(Network::Good);
    assert!(tokio::time::timeout(silence, swallowed.ping()).await.is_err());
    let mut reset = sqlx::PgConnection::connect(&proxy.url).await.unwrap();
    let begun = Instant::now();
    proxy.set(Network::Delays(Duration::from_millis(50)));
    reset.ping().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(50));
    proxy.set(Network::Resets);
    assert!(reset.ping().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_packets_is_told_and_everything_goes_on_when_it_heals() {
    let (app, proxy, _direct) = behind_a_proxy().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    for round in 0..2 {
        for n in 0..5 {
            let sent = app.github("acme", &format!("before-{round}-{n}"), "{}").send().await.unwrap();
            assert_eq!(sent.status(), StatusCode::OK);
        }
        proxy.set(Network::Swallows);
        until!("the node is ready without a store", !is_ready(&app.url).await);
        // Requests during the outage are answered, with success or an error.
        let query = json!({ "query": "{ organizations(first: 1) { nodes { slug } } }" });
        let asked = app.client.post(format!("{}/graphql", app.url)).bearer_auth(&admin.token).json(&query).send();
        let (posted, asked) = tokio::join!(app.github("acme", "amid", "{}").once(), asked);
        assert_ne!(posted.unwrap().status(), StatusCode::OK);
        assert!(!asked.unwrap().text().await.unwrap().contains("INTERNAL"));
        let (status, told) = readiness(&app.url).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(told.contains("the database has not answered for"), "{told}");
        proxy.set(Network::Good);
        until!("the node is not ready again", is_ready(&app.url).await);
        until!("nothing is accepted", {
            let sent = app.github("acme", &format!("after-{round}"), "{}").send().await.unwrap();
            sent.status() == StatusCode::OK
        });
        let wanted = format!("after-{round}");
        admin
            .webhooks_until("acme", "providerEventId status", |all| {
                let ids: Vec<&str> = all.iter().filter_map(|webhook| webhook["providerEventId"].as_str()).collect();
                let here = |id: &str| ids.contains(&id);
                (0..5).all(|n| here(&format!("before-{round}-{n}"))) && here(&wanted)
            })
            .await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_stands_still_makes_a_node_unready_by_the_age_of_what_waits() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    until!("the node is not ready", is_ready(&app.url).await);
    // Another transaction locks the row of its checkpoint.
    let mut holder = sqlx::PgConnection::connect(&app.database.url).await.unwrap();
    holder.execute("begin; select from follower_checkpoints where name = 'webhook_logs' for update").await.unwrap();
    assert_eq!(app.github("acme", "waits", "{}").send().await.unwrap().status(), StatusCode::OK);
    // It was received 100 s ago, as if the test had waited that long.
    let mut superuser = sqlx::PgConnection::connect(&app.database.url).await.unwrap();
    superuser
        .execute(
            "set session_replication_role = replica;
             update commits set recorded_at = recorded_at - interval '100 s'",
        )
        .await
        .unwrap();
    let behind = async || {
        let (status, told) = readiness(&app.url).await;
        let reason = told.split('"').find_map(|reason| reason.strip_prefix("webhook_logs is "))?;
        let seconds = reason.split(" events and ").nth(1)?.strip_suffix(" s behind")?.parse::<u64>().ok()?;
        Some((status, seconds))
    };
    let begun = Instant::now();
    let (status, seconds) = loop {
        if let Some(told) = behind().await {
            break told;
        }
        assert!(begun.elapsed() < PATIENCE, "{:?}", readiness(&app.url).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!((100..100 + PATIENCE.as_secs()).contains(&seconds), "{seconds}");
    holder.execute("rollback").await.unwrap();
    until!("the node is not ready again", is_ready(&app.url).await);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_answered_after_every_connection_was_ended() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[]).await;
    let superuser = app.database.superuser().await;
    let query = "{ organizations(first: 5) { nodes { slug } } system { followers { name } } }";
    for _ in 0..10 {
        // Every pool has idle connections that can be ended.
        join_all((0..8).map(|_| admin.ask(query, json!({})))).await;
        superuser
            .execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity
                 where datname = current_database() and pid <> pg_backend_pid()",
            )
            .await
            .unwrap();
        for answer in join_all((0..8).map(|_| admin.ask(query, json!({})))).await {
            assert!(answer.get("errors").is_none(), "{answer:#}");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_while_the_store_is_away_is_unavailable_and_never_internal() {
    let (app, proxy, _direct) = behind_a_proxy().await;
    let admin = app.super_admin().await;
    let organization = app.organization(&admin, "acme", &[]).await;
    proxy.set(Network::Resets);
    let rename = "mutation($id: ID!) { updateOrganization(input: {id: $id, name: \"Other\"}) { organization { id } } }";
    for (query, variables) in [
        ("{ organizations(first: 5) { nodes { slug } } }", json!({})),
        ("{ system { database { version } } }", json!({})),
        (rename, json!({ "id": organization })),
    ] {
        let answer = admin.ask(query, variables).await;
        let codes: Vec<&Value> =
            answer["errors"].as_array().unwrap().iter().map(|error| &error["extensions"]["code"]).collect();
        assert!(codes.iter().all(|code| **code == "UNAVAILABLE"), "{answer:#}");
    }
    let verify = app.client.post(format!("{}/api/auth/verify-magic-link", app.url));
    let verified = verify.json(&json!({ "token": "A".repeat(43) })).send().await.unwrap();
    assert_eq!(verified.status(), StatusCode::SERVICE_UNAVAILABLE);
    proxy.set(Network::Good);
    until!("the node is not ready again", is_ready(&app.url).await);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_uses_no_more_connections_than_it_may() {
    for limit in ["27", "16"] {
        let app = TestApp::with(|settings| settings.store.database_connections = limit.parse().unwrap()).await;
        let admin = app.super_admin().await;
        app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
        let mut superuser = sqlx::PgConnection::connect(&app.database.url).await.unwrap();
        let mut most = 0;
        for round in 0..5 {
            let query = "{ organization(slug: \"acme\") { webhooks(first: 100) { nodes { id payload events { eventType } } } } }";
            let reads = (0..40).map(|_| admin.data(query, json!({})));
            let posts = (0..40).map(|n| app.github("acme", &format!("{round}-{n}"), "{}").send());
            let count = async {
                let mut most = 0;
                for _ in 0..10 {
                    let now: i64 = sqlx::query_scalar(
                        "select count(*) from pg_stat_activity
                         where datname = current_database() and application_name = 'hookledger'",
                    )
                    .fetch_one(&mut superuser)
                    .await
                    .unwrap();
                    most = most.max(now);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                most
            };
            let (_, _, counted) = tokio::join!(join_all(reads), join_all(posts), count);
            most = most.max(counted);
        }
        eprintln!("at most {most} connections of {limit}");
        assert!(most <= limit.parse().unwrap(), "{most}");
        app.stop().await;
    }
}

#[tokio::test]
async fn a_transaction_of_a_paused_node_gives_its_locks_back() {
    let database = Database::fresh().await;
    let pool = database.store().pool(Use::Follow).await.unwrap();
    let mut paused = pool.begin().await.unwrap();
    let take = "insert into followers (name, epoch, owner, lease_until)
                values ('paused', 1, gen_random_uuid(), now()) on conflict (name) do update set epoch = 2";
    paused.execute(take).await.unwrap();
    let mut successor = sqlx::PgConnection::connect(&database.url).await.unwrap();
    successor.execute("set statement_timeout = '60s'").await.unwrap();
    successor.execute(take).await.unwrap();
    let error = paused.execute("select 1").await.unwrap_err();
    assert!(is_unreachable(&error), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_for_a_lock_lets_others_go_first_and_tries_again() {
    let database = Database::fresh().await;
    let mut holder = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let mut observer = sqlx::PgConnection::connect(&database.url).await.unwrap();
    holder.execute("begin; lock table _sqlx_migrations in access exclusive mode").await.unwrap();
    let store = database.store();
    let migrating = store.migrate();
    let mut waits = async || -> bool {
        let waiting = "select exists (select from pg_locks where not granted and database =
                       (select oid from pg_database where datname = current_database()))";
        sqlx::query_scalar(waiting).fetch_one(&mut observer).await.unwrap()
    };
    let watching = async {
        until!("nobody waits for the lock", waits().await);
        until!("the migration blocks everybody behind it", !waits().await);
        holder.execute("commit").await.unwrap();
    };
    tokio::join!(async { migrating.await.unwrap() }, watching);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_postgres_is_started_again_when_it_was_killed() {
    let mut process = Process::new();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
    process.serve().await;
    let session = with_acme(&process, &client, GITHUB_SECRET).await;
    let postmaster = || {
        let file = std::fs::read_to_string(process.data().join("postgres/postmaster.pid")).ok()?;
        file.lines().next().map(str::to_owned)
    };
    for and_all_its_children in [false, true] {
        let pid = postmaster().unwrap();
        let children = Command::new("pgrep").args(["-P", &pid]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        let mut killed = vec![pid.clone()];
        if and_all_its_children {
            killed.extend(children.lines().map(str::to_owned));
        }
        assert!(Command::new("kill").arg("-9").args(&killed).status().unwrap().success());
        until!("it was not started again", postmaster().is_some_and(|now| now != pid));
        process.ready().await;
        let body = "{}";
        let id = format!("after-{pid}");
        let post = || {
            client
                .post(format!("{}/webhooks/acme/github", process.url()))
                .header("x-github-delivery", &id)
                .header(
                    "x-hub-signature-256",
                    format!("sha256={}", crate::app::hmac_hex(GITHUB_SECRET, body.as_bytes())),
                )
                .body(body)
        };
        until!(process.log(), post().send().await.is_ok_and(|sent| sent.status() == StatusCode::OK));
        let query = "{ organization(slug: \"acme\") { webhooks(first: 10) { nodes { providerEventId } } } }";
        until!(process.log(), {
            let data = crate::kill::ask(&process, &client, &session, query, json!({})).await;
            data.to_string().contains(&id)
        });
    }
    let last = postmaster().unwrap();
    process.terminate();
    assert!(!std::path::Path::new(&format!("/proc/{last}")).exists(), "PostgreSQL outlived its node");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stops_within_its_limit_while_the_database_hangs_or_is_down() {
    for network in [Network::Good, Network::Swallows, Network::Resets] {
        let direct = Database::fresh().await;
        let proxy = Proxy::before(&direct.url).await;
        let mut process = process_on(&proxy.url);
        process.serve().await;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        with_acme(&process, &client, GITHUB_SECRET).await;
        proxy.set(network);
        // Some requests are in flight and get no answer.
        let url = process.url();
        let posts = (0..4).map(|n| {
            client
                .post(format!("{url}/webhooks/acme/github"))
                .header("x-github-delivery", format!("late-{n}"))
                .header("x-hub-signature-256", format!("sha256={}", crate::app::hmac_hex(GITHUB_SECRET, b"{}")))
                .body("{}")
                .send()
        });
        let posts: Vec<_> = posts.map(tokio::spawn).collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        process.signal("TERM");
        let begun = Instant::now();
        until!(process.log(), process.ended().is_some());
        eprintln!("{network:?}: stopped after {:?}", begun.elapsed());
        assert!(process.ended().unwrap().success());
        assert!(begun.elapsed() < Duration::from_secs(25), "{}", process.log());
        join_all(posts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_loses_the_database_in_the_midst_of_its_start_waits_for_it() {
    let direct = Database::fresh().await;
    let proxy = Proxy::before(&direct.url).await;
    let mut process = process_on(&proxy.url);
    // The start is slow, so that each round cuts it somewhere else.
    for after in [300, 700, 1_200, 2_000] {
        proxy.set(Network::Delays(Duration::from_millis(20)));
        process.begin();
        tokio::time::sleep(Duration::from_millis(after)).await;
        proxy.set(Network::Resets);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert!(process.ended().is_none(), "{}", process.log());
        proxy.set(Network::Good);
        process.ready().await;
        process.terminate();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_waits_for_a_database_that_is_not_there_and_says_so() {
    let database = Database::fresh().await;
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let name = database.url.rsplit('/').next().unwrap();
    let mut process = process_on(&format!("postgres://postgres@{address}/{name}?sslmode=disable"));
    process.begin();
    until!("it says nothing", process.log().contains("could not reach the database; retrying"));
    assert!(process.ended().is_none(), "{}", process.log());
    // The database is up, but accepts no more connections; then it recovers.
    let proxy = Proxy::at(&address.to_string(), &database.url).await;
    proxy.set(Network::Resets);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(process.ended().is_none(), "{}", process.log());
    proxy.set(Network::Good);
    process.ready().await;
    process.terminate();
}
