//! Limits of queries, and the errors beyond them.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{GITHUB_SECRET, TestApp};

/// Fragments that spread each other that often, on that many levels.
fn chain(spreads: usize, levels: usize) -> String {
    let fragments: String = (0..levels)
        .map(|n| format!("fragment F{n} on Query {{ {} }}", format!("...F{} ", n + 1).repeat(spreads)))
        .collect();
    format!("{{ ...F0 }} {fragments} fragment F{levels} on Query {{ __typename }}")
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_cost_no_more_than_what_is_allowed() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let aliases: String = (0..20_000).map(|n| format!("a{n}: __typename ")).collect();
    let default_of = |open: &str, close: &str| {
        format!("query($x: Int = {}1{}) {{ __typename }}", open.repeat(100_000), close.repeat(100_000))
    };
    let pages = "{ organizations(first: 1000) { nodes { webhooks(first: 1000) { nodes { id } } } } }";
    let by_variable = "query($n: Int) { organizations(first: $n) { nodes { webhooks(first: $n) { nodes { id } } } } }";
    let node = "query($id: ID!) { node(id: $id) { id } }";
    let empty = json!({});
    let bombs = [
        (chain(30, 5), empty.clone(), "LIMIT_EXCEEDED"),
        // Few spreads, doubled on each level: a billion fields in a kilobyte.
        (chain(2, 29), empty.clone(), "LIMIT_EXCEEDED"),
        (
            "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }".to_owned(),
            empty.clone(),
            "LIMIT_EXCEEDED",
        ),
        (format!("{{ {aliases} }}"), empty.clone(), "LIMIT_EXCEEDED"),
        ("{".repeat(300_000), empty.clone(), "LIMIT_EXCEEDED"),
        ("{".repeat(65), empty.clone(), "LIMIT_EXCEEDED"),
        ("{".repeat(60) + &"}".repeat(60), empty.clone(), "GRAPHQL_PARSE_FAILED"),
        ("{ viewer ".repeat(40) + &"}".repeat(40), empty.clone(), "LIMIT_EXCEEDED"),
        (default_of("[", "]"), empty.clone(), "LIMIT_EXCEEDED"),
        (default_of("{a:", "}"), empty.clone(), "LIMIT_EXCEEDED"),
        (format!("{{ node(id: \"\"\"{}", "{".repeat(300_000)), empty.clone(), "LIMIT_EXCEEDED"),
        (format!("{{ {} }}", "__typename ".repeat(5_900)), empty.clone(), "LIMIT_EXCEEDED"),
        (pages.to_owned(), empty.clone(), "LIMIT_EXCEEDED"),
        (by_variable.to_owned(), json!({ "n": 1_000 }), "LIMIT_EXCEEDED"),
        (by_variable.to_owned(), json!({ "n": 1_000_000 }), "LIMIT_EXCEEDED"),
        ("{ a ".repeat(20) + &"...{ b ".repeat(20), empty.clone(), "GRAPHQL_PARSE_FAILED"),
        // Brackets in a string or a comment are harmless.
        (format!("{{ node(id: \"{}\") {{ id }} }}", "{".repeat(30_000)), empty.clone(), ""),
        (format!("{{ node(id: \"\"\"{}\"\"\") {{ id }} }}", "...{a:".repeat(5_000)), empty.clone(), ""),
        (format!("#{}\n{{ __typename }}", "{...a:".repeat(5_000)), empty.clone(), ""),
        (node.to_owned(), json!({ "id": "{".repeat(300_000) }), ""),
        (node.to_owned(), json!({ "id": vec![0; 100_000] }), "GRAPHQL_VALIDATION_FAILED"),
    ];
    // The machine may be busy, so the best of a few tries counts.
    let best_of = async |query: &str, variables: &Value, expected: &str| {
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let started = Instant::now();
            let answer = admin.ask(query, variables.clone()).await;
            best = best.min(started.elapsed());
            let code = answer["errors"][0]["extensions"]["code"].as_str().unwrap_or_default();
            assert_eq!(code, expected, "{}: {answer}", query.chars().take(80).collect::<String>());
        }
        best
    };
    let allowed = format!("{{ {} }}", "__typename ".repeat(2_500));
    let usual = best_of(&allowed, &empty, "").await;
    for (query, variables, expected) in bombs {
        let best = best_of(&query, &variables, expected).await;
        let shown: String = query.chars().take(80).collect();
        assert!(best < usual * 20, "{shown}: {best:?}, where {usual:?} are usual");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_has_a_code_and_every_answer_a_request_id() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[]).await;
    let post = |body: String| {
        app.client
            .post(format!("{}/graphql", app.url))
            .bearer_auth(&admin.token)
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    let of = |query: &str| json!({ "query": query }).to_string();
    for (body, code) in [
        ("{".to_owned(), "BAD_USER_INPUT"),
        ("[]".to_owned(), "BAD_USER_INPUT"),
        // Neither a batch, nor a request as a JSON array.
        (json!([{ "query": "{ __typename }" }]).to_string(), "BAD_USER_INPUT"),
        (json!(["{ __typename }", null, null, null]).to_string(), "BAD_USER_INPUT"),
        (json!({ "query": 1 }).to_string(), "BAD_USER_INPUT"),
        (json!({ "query": "{ __typename }", "variables": [] }).to_string(), "BAD_USER_INPUT"),
        (of("{"), "GRAPHQL_PARSE_FAILED"),
        (of(""), "GRAPHQL_PARSE_FAILED"),
        (of("{ nonsense }"), "GRAPHQL_VALIDATION_FAILED"),
        (of("query A { __typename } query B { __typename }"), "GRAPHQL_VALIDATION_FAILED"),
        (of("query($id: ID!) { node(id: $id) { id } }"), "BAD_USER_INPUT"),
        (of("subscription { analyticsTick { buckets { start } } }"), "GRAPHQL_VALIDATION_FAILED"),
        (of("{ organizations(first: -1) { nodes { id } } }"), "BAD_USER_INPUT"),
        (of("{ organization(slug: \"acme\") { events(after: \"99:1\") { nodes { sequence } } } }"), "BAD_USER_INPUT"),
    ] {
        let response = post(body.clone()).await.unwrap();
        let id = response.headers()["x-request-id"].to_str().unwrap().parse::<uuid::Uuid>();
        assert!(id.is_ok(), "{body}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["errors"][0]["extensions"]["code"], code, "{body}: {answer}");
    }
    // An error of ours tells only its request ID.
    let database = app.database.superuser().await;
    sqlx::query("alter table webhook_logs rename to webhook_lost").execute(&database).await.unwrap();
    let query = "{ organization(slug: \"acme\") { webhooks { nodes { id } } } }";
    let response = post(of(query)).await.unwrap();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let answer: Value = response.json().await.unwrap();
    let error = &answer["errors"][0];
    assert_eq!(error["extensions"], json!({ "code": "INTERNAL", "requestId": id }));
    assert!(!error["message"].as_str().unwrap().contains("webhook_l"), "{error}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_answer_loads_so_many_bytes_of_bodies_and_no_more() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let body = format!("[{}1]", "1,".repeat(5 << 20));
    for n in 0..8 {
        let response = app.github("acme", &format!("d-{n}"), body.clone()).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    admin.webhooks_until("acme", "webhookId", |nodes| nodes.len() == 8).await;
    let query = |fields: &str| format!("{{ organization(slug: \"acme\") {{ webhooks {{ nodes {{ {fields} }} }} }} }}");
    let answer = admin.ask(&query("rawBody bodySize"), json!({})).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "LIMIT_EXCEEDED");
    let nodes = answer["data"]["organization"]["webhooks"]["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 8, "the other fields are not answered");
    assert!(nodes.iter().filter(|node| node["rawBody"].is_string()).count() <= 6);
    admin
        .data(&query("webhookId").replace("webhooks", "webhooks(first: 5)").replace("webhookId", "rawBody"), json!({}))
        .await;
    assert_eq!(admin.code(&query("payload"), json!({})).await, "LIMIT_EXCEEDED");
    app.stop().await;
}
