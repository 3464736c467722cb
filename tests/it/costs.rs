//! The cost of a webhook in statements, rows and write-ahead log. No machine's speed changes the
//! bounds: they hold for the smallest batches too.

use futures::stream::{self, StreamExt as _};
use reqwest::StatusCode;
use serde_json::json;
use sqlx::{FromRow, PgPool};

use crate::app::{Actor, GITHUB_SECRET, TestApp};
use crate::projections::caught_up;
use crate::sink::Sink;

const WEBHOOKS: u32 = 512;
const CONNECTIONS: usize = 64;

/// A statement that wrote, with its totals.
#[derive(Debug, FromRow)]
struct Written {
    query: String,
    calls: i64,
    rows: i64,
    wal_records: i64,
    wal_bytes: i64,
}

/// Totals per webhook.
#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    statements: f64,
    wal_records: f64,
    wal_bytes: f64,
}

/// Statements of every node at intervals, whether webhooks come or not.
const PERIODIC: [&str; 4] = ["follower_leases", "delivery_nodes", "ledger_checkpoints", "pg_stat_statements"];

async fn forget(pool: &PgPool) {
    sqlx::query("select pg_stat_statements_reset(0, d.oid, 0) from pg_database d where d.datname = current_database()")
        .execute(pool)
        .await
        .unwrap();
}

async fn costs(pool: &PgPool) -> Costs {
    let written: Vec<Written> = sqlx::query_as(
        "select regexp_replace(s.query, '\\s+', ' ', 'g') as query, s.calls, s.rows, s.wal_records,
                s.wal_bytes::bigint as wal_bytes
         from pg_stat_statements s join pg_database d on d.oid = s.dbid
         where d.datname = current_database() and s.wal_records > 0 order by s.wal_bytes desc",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut costs = Costs::default();
    for statement in written {
        if PERIODIC.iter().any(|name| statement.query.contains(name)) {
            continue;
        }
        let Written { query, calls, rows, wal_records, wal_bytes } = &statement;
        let start: String = query.chars().take(100).collect();
        eprintln!("{calls:>5} calls {rows:>5} rows {wal_records:>6} records {wal_bytes:>8} bytes: {start}");
        costs.statements += per_webhook(*calls);
        costs.wal_records += per_webhook(*wal_records);
        costs.wal_bytes += per_webhook(*wal_bytes);
    }
    eprintln!("a webhook: {costs:?}");
    costs
}

fn per_webhook(total: i64) -> f64 {
    f64::from(i32::try_from(total).unwrap()) / f64::from(WEBHOOKS)
}

async fn send(app: &TestApp, round: &str) {
    let filler = "x".repeat(2_000);
    let posts =
        (0..WEBHOOKS).map(|n| app.github("acme", &format!("{round}-{n}"), format!("{{\"n\":{n},\"x\":\"{filler}\"}}")));
    let answers = stream::iter(posts).map(|post| async { post.send().await.unwrap().status() });
    let answers: Vec<_> = answers.buffer_unordered(CONNECTIONS).collect().await;
    assert!(answers.iter().all(|status| *status == StatusCode::OK), "{answers:?}");
}

async fn measured(app: &TestApp, pool: &PgPool) -> Costs {
    // Plans and connections first.
    send(app, "before").await;
    caught_up(pool).await;
    forget(pool).await;
    send(app, "measured").await;
    caught_up(pool).await;
    costs(pool).await
}

async fn started() -> (TestApp, PgPool) {
    let app = TestApp::with(|settings| {
        settings.egress_allow_cidrs = "127.0.0.0/8".parse().unwrap();
        settings.checkpoint_interval = hookledger::node::config::Span(chrono::Duration::hours(1));
    })
    .await;
    let pool = app.database.superuser().await;
    sqlx::query("create extension pg_stat_statements").execute(&pool).await.unwrap();
    (app, pool)
}

#[tokio::test(flavor = "multi_thread")]
async fn receiving_costs_the_database_no_more_than_it_must() {
    let (app, pool) = started().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let costs = measured(&app, &pool).await;
    assert!(costs.statements < 1.5 && costs.wal_records < 20.0 && costs.wal_bytes < 5_800.0, "{costs:?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_costs_the_database_no_more_than_it_must() {
    let (app, pool) = started().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[]).await;
    let sink = Sink::start().await;
    connect(&admin, &id, &sink.url("/ok")).await;
    let costs = measured(&app, &pool).await;
    assert!(costs.statements < 4.0 && costs.wal_records < 52.0 && costs.wal_bytes < 9_800.0, "{costs:?}");
    app.stop().await;
}

async fn connect(admin: &Actor<'_>, organization: &str, url: &str) {
    admin
        .data(
            "mutation($input: ConnectProviderInput!) { connectProvider(input: $input) { provider { id } } }",
            json!({ "input": { "organizationId": organization, "providerName": "GITHUB", "secret": GITHUB_SECRET,
                               "destinationUrl": url } }),
        )
        .await;
}
