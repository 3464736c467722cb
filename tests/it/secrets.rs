//! Signing secrets: several active ones, refused ones, and the check for the form.

use chrono::Utc;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{GITHUB_SECRET, TestApp};
use crate::paypal::post;
use crate::senders::{Authority, PAYPAL_LEAF, PAYPAL_WEBHOOK_ID, Sender};
use crate::signatures::app_with_certificates;

const ADD: &str = "mutation($input: AddProviderSecretInput!) { addProviderSecret(input: $input)
    { provider { secrets { version label expiresAt lastUsedAt } } } }";

async fn stripe(app: &TestApp, secret: &str, id: &str) -> StatusCode {
    let body = format!("{{\"id\":\"{id}\",\"type\":\"charge.succeeded\"}}");
    let (sender, now) = (Sender::Stripe, Utc::now());
    let mut post = app.client.post(app.webhooks("acme", "stripe")).body(body.clone());
    for (name, value) in sender.headers(&sender.signature(secret, id, now, body.as_bytes()), id, now) {
        post = post.header(name, value);
    }
    post.send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_stay_verify_side_by_side_until_one_is_revoked() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[]).await;
    let provider = admin.connect(&id, "STRIPE", "whsec_account").await;
    let label = "mutation($id: ID!) { labelProviderSecret(input: {providerId: $id, version: 1, label: \"Account\"}) \
                 { provider { id } } }";
    admin.data(label, json!({ "id": provider })).await;
    let add = |secret: &str| json!({ "input": {"providerId": provider, "secret": secret, "label": "Connect"} });
    let added = admin.data(ADD, add("whsec_connect")).await;
    let secrets = added["addProviderSecret"]["provider"]["secrets"].as_array().unwrap().clone();
    let labels: Vec<_> = secrets.iter().map(|secret| (&secret["version"], &secret["label"])).collect();
    assert_eq!(labels, [(&json!(2), &json!("Connect")), (&json!(1), &json!("Account"))]);
    for (secret, event) in [("whsec_account", "evt_1"), ("whsec_connect", "evt_2")] {
        assert_eq!(stripe(&app, secret, event).await, StatusCode::OK, "{secret}");
    }
    // The log records which one verified.
    let fields = "providerEventId status events { eventType payload }";
    let nodes = admin.webhooks_until("acme", fields, |nodes| {
        nodes.len() == 2 && nodes.iter().all(|node| node["status"] == "SUCCESS")
    });
    for node in nodes.await {
        let events = node["events"].as_array().unwrap();
        let verified = events.iter().find(|event| event["eventType"] == "webhook.signature_verified").unwrap();
        let version = if node["providerEventId"] == "evt_1" { 1 } else { 2 };
        assert_eq!(verified["payload"]["secretVersion"], version, "{node:#}");
    }

    // A rotation names the secret that it replaces, and leaves the other unchanged.
    let rotate = "mutation($id: ID!, $of: Int) { rotateProviderSecret(input: {providerId: $id, secret: \"whsec_account2\", \
                  graceSeconds: 0, replacesVersion: $of}) { provider { secrets { version label } } } }";
    assert_eq!(admin.code(rotate, json!({ "id": provider })).await, "BAD_USER_INPUT");
    let rotated = admin.data(rotate, json!({ "id": provider, "of": 1 })).await;
    assert_eq!(rotated["rotateProviderSecret"]["provider"]["secrets"][0], json!({"version": 3, "label": "Account"}));
    assert_eq!(stripe(&app, "whsec_account", "evt_3").await, StatusCode::UNAUTHORIZED);
    for (secret, event) in [("whsec_account2", "evt_4"), ("whsec_connect", "evt_5")] {
        assert_eq!(stripe(&app, secret, event).await, StatusCode::OK, "{secret}");
    }

    let revoke = "mutation($id: ID!, $of: Int!) { revokeProviderSecret(input: {providerId: $id, version: $of}) \
                  { provider { secrets { version expiresAt } } } }";
    admin.data(revoke, json!({ "id": provider, "of": 2 })).await;
    assert_eq!(stripe(&app, "whsec_connect", "evt_6").await, StatusCode::UNAUTHORIZED);
    assert_eq!(stripe(&app, "whsec_account2", "evt_7").await, StatusCode::OK);
    assert_eq!(admin.code(revoke, json!({ "id": provider, "of": 3 })).await, "CONFLICT");

    let trail = "{ organization(slug: \"acme\") { auditLog(first: 20) { nodes { action changes } } } }";
    let trail = admin.data(trail, json!({})).await;
    let entries = trail["organization"]["auditLog"]["nodes"].as_array().unwrap().clone();
    for action in ["secret_added", "secret_labelled", "secret_revoked"] {
        assert!(entries.iter().any(|entry| entry["action"].as_str().unwrap().contains(action)), "{action}: {trail:#}");
    }
    assert!(!trail.to_string().contains("whsec_"));

    // The number of secrets is bounded.
    for n in 0..7 {
        admin.data(ADD, add(&format!("whsec_{n}"))).await;
    }
    assert_eq!(admin.code(ADD, add("whsec_one_too_many")).await, "CONFLICT");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_and_the_mutations_judge_a_secret_alike() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[]).await;
    let check = "mutation($of: ProviderName!, $secret: String!) { checkProviderSecret(input: {providerName: $of, secret: $secret}) \
                 { refused doubtful isSimulator } }";
    let connect = "mutation($id: ID!, $of: ProviderName!, $secret: String!) { connectProvider(input: \
                   {organizationId: $id, providerName: $of, secret: $secret}) { provider { id } } }";
    for (of, secret, refused, doubtful) in [
        ("STANDARD", "v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", true, false),
        ("STANDARD", "whsec_c2VjcmV0IGtleSBvZiBhIHZlbmRvcg", false, false),
        ("STRIPE", "sk_live_1", true, false),
        ("STRIPE", "another", false, true),
        ("PAYPAL", "WEBHOOK_ID", true, false),
        ("GITHUB", "https://a.example/", true, false),
        ("SHOPIFY", "hush", false, false),
    ] {
        let said = admin.data(check, json!({ "of": of, "secret": secret })).await;
        let said = &said["checkProviderSecret"];
        assert_eq!((said["refused"].is_string(), said["doubtful"].is_string()), (refused, doubtful), "{of} {secret}");
        assert_eq!(said["isSimulator"], secret == "WEBHOOK_ID");
        let answer = admin.ask(connect, json!({ "id": id, "of": of, "secret": secret })).await;
        assert_eq!(answer["errors"].is_array(), refused, "{of} {secret}: {answer:#}");
        if refused {
            assert_eq!(answer["errors"][0]["message"], said["refused"], "{of}");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paypals_simulator_is_let_in_only_where_a_person_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("test");
    let app = app_with_certificates(&authority, directory.path()).await;
    let leaf = authority.leaf(PAYPAL_LEAF, "messageverificationcerts.paypal.com", -1..30);
    std::fs::write(directory.path().join("CERT-1.pem"), leaf).unwrap();
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[]).await;
    let provider = admin.connect(&id, "PAYPAL", PAYPAL_WEBHOOK_ID).await;
    let simulated = async |id: &str| -> (u16, Value) {
        let body = format!("{{\"id\":\"{id}\",\"event_type\":\"PAYMENT.SALE.COMPLETED\"}}");
        let (sender, now) = (Sender::Paypal, Utc::now());
        let signature = sender.signature("WEBHOOK_ID", id, now, body.as_bytes());
        post(&app, sender.headers(&signature, id, now), body).await
    };
    let (status, answer) = simulated("WH-1").await;
    assert_eq!(status, 401);
    assert!(answer["error"].as_str().unwrap().contains("simulator"), "{answer}");
    let add = |accept: bool| json!({ "input": {"providerId": provider, "secret": "WEBHOOK_ID", "label": "Simulator", "acceptSimulator": accept} });
    assert_eq!(admin.code(ADD, add(false)).await, "BAD_USER_INPUT");
    admin.data(ADD, add(true)).await;
    assert_eq!(simulated("WH-2").await.0, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_shopifys_that_comes_again_under_another_id_is_flagged_and_stripes_is_not() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let providers =
        [("SHOPIFY", Sender::Shopify.secret()), ("STRIPE", Sender::Stripe.secret()), ("GITHUB", GITHUB_SECRET)];
    app.organization(&admin, "acme", &providers).await;
    let now = Utc::now();
    for (id, topic) in [("first", "orders/create"), ("replayed", "orders/paid")] {
        let body = "{\"id\":1}";
        let mut post = app.client.post(app.webhooks("acme", "shopify")).body(body);
        for (name, value) in Sender::Shopify.genuine(id, now, body.as_bytes()) {
            // Without `X-`, as Shopify also sends them.
            let value = if name == "x-shopify-topic" { topic.to_owned() } else { value };
            post = post.header(name.strip_prefix("x-").unwrap(), value);
        }
        assert_eq!(post.send().await.unwrap().status(), StatusCode::OK);
    }
    for event in ["evt_1", "evt_2"] {
        assert_eq!(stripe(&app, Sender::Stripe.secret(), event).await, StatusCode::OK);
    }
    let fields = "providerEventId eventType suspectedReplay status";
    let nodes = admin.webhooks_until("acme", fields, |nodes| {
        nodes.len() == 4 && nodes.iter().all(|node| node["status"] == "SUCCESS")
    });
    for node in nodes.await {
        assert_eq!(node["suspectedReplay"], node["providerEventId"] == "replayed", "{node}");
        if node["providerEventId"] == "replayed" {
            assert_eq!(node["eventType"], "orders/paid");
        }
    }
    app.stop().await;
}
