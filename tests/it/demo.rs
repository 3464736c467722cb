//! The public demo: visitors without a session can use it, and nothing else.

use std::time::{Duration, Instant};

use hookledger::node::Core;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::app::{GITHUB_SECRET, TestApp};
use crate::patience::PATIENCE;

const SEND: &str = "mutation($input: SendDemoWebhookInput!) { sendDemoWebhook(input: $input) {
    request { url headers { name value } body } answer { status body } webhookId duplicate eventId } }";
const LOOK: &str = "query($id: UUID!) { demoWebhook(webhookId: $id) { webhookId status signatureValid rejection
    eventType attempts { succeeded } events { eventType position sequence offsetMs payload } } }";

async fn post(app: &TestApp, query: &str, variables: Value) -> Response {
    let body = json!({ "query": query, "variables": variables });
    app.client.post(format!("{}/graphql", app.url)).json(&body).send().await.unwrap()
}

async fn ask(app: &TestApp, query: &str, variables: Value) -> Value {
    post(app, query, variables).await.json().await.unwrap()
}

async fn send(app: &TestApp, input: Value) -> Value {
    let mut answer = ask(app, SEND, json!({ "input": input })).await;
    assert!(answer.get("errors").is_none(), "{answer:#}");
    answer["data"]["sendDemoWebhook"].take()
}

/// Waits until the webhook meets the condition, and returns it.
async fn look_until(app: &TestApp, id: &Value, wished: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(app, LOOK, json!({ "id": id })).await;
        assert!(answer.get("errors").is_none(), "{answer:#}");
        let webhook = &answer["data"]["demoWebhook"];
        if !webhook.is_null() && wished(webhook) {
            return webhook.clone();
        }
        assert!(Instant::now() < deadline, "{webhook:#}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_sees_a_webhook_verified_appended_and_processed() {
    let app = TestApp::start().await;
    let shown = ask(
        &app,
        "{ demo { providers { providerName canSign } samples(providerName: STRIPE) { name body } } }",
        json!({}),
    )
    .await;
    assert_eq!(shown["data"]["demo"]["providers"].as_array().unwrap().len(), 5, "{shown:#}");

    for provider in ["GITHUB", "STRIPE", "SHOPIFY", "STANDARD"] {
        let samples = ask(
            &app,
            "query($of: ProviderName!) { demo { samples(providerName: $of) { name } } }",
            json!({ "of": provider }),
        )
        .await;
        let sample = &samples["data"]["demo"]["samples"][0]["name"];
        let sent = send(&app, json!({ "providerName": provider, "sample": sample })).await;
        assert_eq!(sent["answer"]["status"], 200, "{sent:#}");
        let webhook = look_until(&app, &sent["webhookId"], |webhook| webhook["status"] == "SUCCESS").await;
        let events: Vec<_> =
            webhook["events"].as_array().unwrap().iter().map(|event| event["eventType"].clone()).collect();
        let expected = ["webhook.received", "webhook.signature_verified", "webhook.routed"];
        assert_eq!(json!(events), json!(expected));
    }

    let forged = send(&app, json!({ "providerName": "GITHUB", "sample": "push", "breakSignature": true })).await;
    assert_eq!(forged["answer"]["status"], 401, "{forged:#}");
    let row = look_until(&app, &forged["webhookId"], |_| true).await;
    assert_eq!((&row["signatureValid"], &row["rejection"]), (&json!(false), &json!("signature_invalid")));

    let first = send(&app, json!({ "providerName": "GITHUB", "body": "{\"mine\":true}", "eventType": "push" })).await;
    let again = json!({ "providerName": "GITHUB", "body": "{\"mine\":true}", "eventId": first["eventId"] });
    assert_eq!(send(&app, again).await["duplicate"], true);

    for (input, code) in [
        (json!({ "providerName": "PAYPAL", "sample": "PAYMENT.CAPTURE.COMPLETED" }), "BAD_USER_INPUT"),
        (json!({ "providerName": "GITHUB", "sample": "nonsense" }), "BAD_USER_INPUT"),
        (json!({ "providerName": "GITHUB" }), "BAD_USER_INPUT"),
        (json!({ "providerName": "GITHUB", "body": "x".repeat((64 << 10) + 1) }), "BAD_USER_INPUT"),
        (json!({ "providerName": "GITHUB", "sample": "push", "staleTimestamp": true }), "BAD_USER_INPUT"),
    ] {
        let answer = ask(&app, SEND, json!({ "input": input })).await;
        assert_eq!(answer["errors"][0]["extensions"]["code"], code, "{answer:#}");
    }

    // Beyond the limit, the answer says when to try again.
    let limited = loop {
        let response = post(&app, SEND, json!({ "input": { "providerName": "GITHUB", "sample": "push" } })).await;
        if response.headers().contains_key("retry-after") {
            break response;
        }
    };
    let answer: Value = limited.json().await.unwrap();
    assert_eq!(answer["errors"][0]["extensions"]["code"], "RATE_LIMITED", "{answer:#}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_takes_only_what_its_own_door_sends() {
    let app = TestApp::start().await;
    let sent = send(&app, json!({ "providerName": "GITHUB", "sample": "push" })).await;
    assert_eq!(sent["answer"]["status"], 200, "{sent:#}");
    let mut request = app.client.post(app.webhooks("demo", "github")).body(sent["request"]["body"].to_string());
    for header in sent["request"]["headers"].as_array().unwrap() {
        let (name, value) = (header["name"].as_str().unwrap(), header["value"].as_str().unwrap());
        assert!(name != "x-hub-signature-256" || value == "(redacted)", "{header}");
        request = request.header(name, value);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.json::<Value>().await.unwrap()["code"], "unknown_endpoint");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_nothing_of_anybody_else() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let accepted: Value = app.github("acme", "d", "{}").send().await.unwrap().json().await.unwrap();
    admin.webhooks_until("acme", "status", |nodes| nodes.len() == 1).await;
    let answer = ask(&app, LOOK, json!({ "id": accepted["webhook_id"] })).await;
    assert_eq!(answer, json!({ "data": { "demoWebhook": null } }));

    for query in [
        "{ viewer { isSuperAdmin } }",
        "{ demo { __typename } organization(slug: \"acme\") { id } }",
        "{ ...F } fragment F on Query { demo { __typename } }",
        "{ __schema { types { name } } }",
        "query A { demo { __typename } } query B { viewer { isSuperAdmin } }",
        "mutation { createOrganization(input: {name: \"x\", slug: \"x\"}) { organization { id } } }",
        "not a query",
    ] {
        let response = post(&app, query, json!({})).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{query}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "{query}");
    }
    // An invalid token is an error; only requests without a token are guests.
    let request = app.client.post(format!("{}/graphql", app.url)).bearer_auth("x");
    let response = request.json(&json!({ "query": "{ demo { __typename } }" })).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_who_is_called_demo_is_not_the_sandbox() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "demo", &[("GITHUB", GITHUB_SECRET)]).await;
    let answer = ask(&app, SEND, json!({ "input": { "providerName": "GITHUB", "sample": "push" } })).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{answer:#}");
    let accepted: Value = app.github("demo", "d", "{}").send().await.unwrap().json().await.unwrap();
    admin.webhooks_until("demo", "status", |nodes| nodes.len() == 1).await;
    let answer = ask(&app, LOOK, json!({ "id": accepted["webhook_id"] })).await;
    assert_eq!(answer, json!({ "data": { "demoWebhook": null } }));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_may_have_no_demo() {
    let app = TestApp::with(|settings| settings.demo = false).await;
    let response = post(&app, "{ demo { __typename } }", json!({})).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let admin = app.super_admin().await;
    assert_eq!(admin.code("{ demo { __typename } }", json!({})).await, "NOT_FOUND");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_data_shows_something_of_everything() {
    let database = crate::app::Database::fresh().await;
    let settings = crate::app::settings(Some(&database.url));
    let core = Core::start(&database.store(), &settings.store).await.unwrap();
    let began = Instant::now();
    assert!(hookledger::cli::seed_demo::seed(&core, "http://localhost").await.unwrap().is_new);
    eprintln!("the sample data took {:?}", began.elapsed());
    assert!(!hookledger::cli::seed_demo::seed(&core, "http://localhost").await.unwrap().is_new);
    core.stop().await;

    let app = TestApp::on(database, settings).await;
    let admin = app.super_admin().await;
    let is_done = |nodes: &[Value]| !nodes.iter().any(|node| node["status"] == "PENDING");
    let fields = "status signatureValid deadLetteredAt nextRetryAt duplicateCount bodyDiffers retryCount rejection
                  provider { providerName }";
    let nodes = admin.webhooks_until("acme", fields, is_done).await;
    let count = |is: &dyn Fn(&Value) -> bool| nodes.iter().filter(|node| is(node)).count();
    assert!(nodes.len() >= 300, "{}", nodes.len());
    assert!(count(&|node| node["status"] == "SUCCESS") > 200);
    assert!(count(&|node| !node["deadLetteredAt"].is_null()) >= 8);
    assert!(count(&|node| !node["nextRetryAt"].is_null()) >= 4);
    assert!(count(&|node| node["status"] == "SUCCESS" && node["retryCount"].as_i64() > Some(0)) >= 5);
    assert!(count(&|node| node["duplicateCount"].as_i64() > Some(0)) >= 8);
    assert!(count(&|node| node["bodyDiffers"] == true) == 1);
    for rejection in ["signature_invalid", "signature_missing", "timestamp_out_of_tolerance"] {
        assert!(count(&|node| node["rejection"] == rejection) >= 2, "{rejection}");
    }
    let query = "{ organization(slug: \"acme\") { users { nodes { role isActive joinedAt } }
                  deadLetterGroups { groups { count } } providers { destination { url } } } }";
    let data = admin.data(query, json!({})).await;
    let acme = &data["organization"];
    assert_eq!(acme["users"]["nodes"].as_array().unwrap().len(), 5);
    assert!(acme["deadLetterGroups"]["groups"].as_array().unwrap().len() >= 4, "{acme:#}");
    app.stop().await;
}
