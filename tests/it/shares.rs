//! The share of reads that one person, or a guest, can use up.

use std::time::Duration;

use hookledger_aggregates::user::Role;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::app::{Actor, GITHUB_SECRET, TestApp};
use crate::patience::PATIENCE;

const LIST: &str = "query($slug: String!) { organization(slug: $slug) { webhooks { nodes { webhookId } } } }";

async fn as_guest(app: &TestApp, query: &str, variables: Value) -> Value {
    let body = json!({ "query": query, "variables": variables });
    app.client.post(format!("{}/graphql", app.url)).json(&body).send().await.unwrap().json().await.unwrap()
}

/// Number of reads that the node has started for them.
async fn reads(app: &TestApp, by: &str) -> u64 {
    let text = app.client.get(format!("{}/metrics", app.url)).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("hookledger_reads_total{{by=\"{by}\"}}")));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

async fn sent_to_the_demo(app: &TestApp) -> Value {
    let send = "mutation { sendDemoWebhook(input: {providerName: GITHUB, sample: \"push\"}) { webhookId } }";
    let id = as_guest(app, send, json!({})).await["data"]["sendDemoWebhook"]["webhookId"].take();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let look = "query($id: UUID!) { demoWebhook(webhookId: $id) { status } }";
    while as_guest(app, look, json!({ "id": id })).await["data"]["demoWebhook"].is_null() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    id
}

fn code(answer: &Value) -> &str {
    answer["errors"][0]["extensions"]["code"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guests_repeated_fields_are_read_once_and_others_are_answered() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let member = app.user("acme", "member@acme.example", Role::Member).await;
    let id = sent_to_the_demo(&app).await;

    let before = reads(&app, "guest").await;
    let repeated = format!(
        "query($id: UUID!) {{ demoWebhook(webhookId: $id) {{ {} }} }}",
        "attempts { succeeded } ".repeat(1_300)
    );
    let (bomb, list) =
        tokio::join!(as_guest(&app, &repeated, json!({ "id": id })), member.ask(LIST, json!({ "slug": "acme" })));
    assert!(bomb["errors"].is_null(), "{bomb:#}");
    assert!(list["errors"].is_null(), "{list:#}");
    assert_eq!(reads(&app, "guest").await - before, 2);

    // Under aliases, it is read as often as a guest's limit allows.
    let aliases: String = (0..90).map(|n| format!("a{n}: attempts {{ succeeded }} ")).collect();
    let many = format!("query($id: UUID!) {{ demoWebhook(webhookId: $id) {{ {aliases} }} }}");
    let before = reads(&app, "guest").await;
    let refused = as_guest(&app, &many, json!({ "id": id })).await;
    assert_eq!(code(&refused), "LIMIT_EXCEEDED", "{refused:#}");
    assert!(reads(&app, "guest").await - before <= 12);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_reads_only_so_often() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let member = app.user("acme", "member@acme.example", Role::Member).await;
    let organizations: String =
        (0..90).map(|n| format!("a{n}: organization(slug: \"acme\") {{ eventTypes }} ")).collect();
    let before = reads(&app, "search").await;
    assert_eq!(member.code(&format!("{{ {organizations} }}"), json!({})).await, "LIMIT_EXCEEDED");
    assert!(reads(&app, "search").await - before <= 20);
    // Repetitions by fragments are counted before anything is read.
    let fragments: String = (0..6)
        .map(|n| {
            format!("fragment A{n} on Query {{ ...A{0} ...B{0} }} fragment B{n} on Query {{ ...A{0} ...B{0} }} ", n + 1)
        })
        .collect();
    let ends = "fragment A6 on Query { viewer { isSuperAdmin } } fragment B6 on Query { viewer { isSuperAdmin } }";
    assert_eq!(member.code(&format!("{{ ...A0 }} {fragments} {ends}"), json!({})).await, "LIMIT_EXCEEDED");
    app.stop().await;
}

/// Many copies of a request at once.
async fn flood(actors: &[Actor<'_>], query: &str, variables: &Value) -> Vec<Value> {
    let asked = actors.iter().flat_map(|actor| (0..12).map(move |_| actor.ask(query, variables.clone())));
    futures::future::join_all(asked).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_keeps_others_from_reading_and_who_finds_no_place_is_told_when_to_come_again() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    for slug in ["acme", "globex", "quiet"] {
        app.organization(&admin, slug, &[("GITHUB", GITHUB_SECRET)]).await;
    }
    let acme = [
        app.user("acme", "one@acme.example", Role::Admin).await,
        app.user("acme", "two@acme.example", Role::Admin).await,
    ];
    let globex = [app.user("globex", "one@globex.example", Role::Member).await];
    let quiet = app.user("quiet", "one@quiet.example", Role::Member).await;
    assert_eq!(app.github("globex", "g-1", "{\"a\":\"needle\"}").send().await.unwrap().status(), StatusCode::OK);
    globex[0].webhooks_until("globex", "webhookId", |rows| rows.len() == 1).await;

    // These tables are locked: every read of them keeps its connection.
    let mut holder = PgConnection::connect(&app.database.url).await.unwrap();
    holder.execute("begin; lock table audit_logs, webhook_bodies in access exclusive mode").await.unwrap();
    let trail = "query($slug: String!) { organization(slug: $slug) { auditLog { nodes { action } } } }";
    let search = "query($slug: String!) { organization(slug: $slug) { webhooks(filter: {text: \"needle\"}) { nodes { webhookId } } } }";
    let (trail_of, search_of) = (json!({ "slug": "acme" }), json!({ "slug": "globex" }));
    let floods = async { tokio::join!(flood(&acme, trail, &trail_of), flood(&globex, search, &search_of)) };
    let others = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let list = quiet.ask(LIST, json!({ "slug": "quiet" })).await;
            assert!(list["errors"].is_null(), "{list:#}");
        }
    };
    let ((trails, searches), ()) = tokio::join!(floods, others);
    holder.execute("rollback").await.unwrap();
    for answers in [trails, searches] {
        let busy: Vec<_> = answers.iter().filter(|answer| code(answer) == "UNAVAILABLE").collect();
        assert!(!busy.is_empty(), "{answers:#?}");
        assert!(busy.iter().all(|answer| answer["errors"][0]["extensions"]["retryAfter"] == 1), "{busy:#?}");
    }
    // Afterwards, everything can be read again.
    let again = acme[0].ask(trail, trail_of).await;
    assert!(again["errors"].is_null(), "{again:#}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_as_large_as_it_is_written() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let member = app.user("acme", "member@acme.example", Role::Member).await;
    // Six bytes each in JSON.
    for n in 0..4 {
        let sent = app.github("acme", &format!("d-{n}"), vec![1_u8; 6 << 20]).send().await.unwrap();
        assert_eq!(sent.status(), StatusCode::OK);
    }
    member.webhooks_until("acme", "webhookId", |rows| rows.len() == 4).await;
    let query = "query($n: Int!, $text: Boolean!) { organization(slug: \"acme\") { webhooks(first: $n) { nodes {
        rawBody @include(if: $text) rawBodyBase64 @skip(if: $text) } } } }";
    let two = member.data(query, json!({ "n": 2, "text": true })).await;
    assert_eq!(two["organization"]["webhooks"]["nodes"][1]["rawBody"].as_str().unwrap().len(), 6 << 20);
    // 24 MiB would be 168 MiB in JSON. The other fields are answered nevertheless.
    let all = member.ask(query, json!({ "n": 4, "text": true })).await;
    assert_eq!(code(&all), "LIMIT_EXCEEDED");
    let bodies = all["data"]["organization"]["webhooks"]["nodes"].as_array().unwrap();
    assert_eq!(bodies.iter().filter(|node| node["rawBody"].is_null()).count(), 1);
    let encoded = member.data(query, json!({ "n": 4, "text": false })).await;
    assert!(
        encoded["organization"]["webhooks"]["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|node| node["rawBodyBase64"].is_string())
    );
    app.stop().await;
}
