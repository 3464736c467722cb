//! The tester: the request, the answer, and the stored webhook.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Actor, GITHUB_SECRET, TestApp};

const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SEND: &str = "mutation($input: SendTestWebhookInput!) { sendTestWebhook(input: $input) {
    request { method url headers { name value } body } answer { status body retryAfter } duplicate
    webhook { webhookId signatureReceived signatureValid status rejection eventType providerEventId bodyDiffers } } }";

async fn send(actor: &Actor<'_>, provider: &str, more: Value) -> Value {
    let mut input = json!({ "providerId": provider });
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut data = actor.data(SEND, json!({ "input": input })).await;
    data["sendTestWebhook"].take()
}

fn answered(sent: &Value) -> (u64, Value) {
    let body = serde_json::from_str(sent["answer"]["body"].as_str().unwrap()).unwrap();
    (sent["answer"]["status"].as_u64().unwrap(), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_webhook_shows_what_was_sent_what_was_answered_and_its_row() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[]).await;
    let github = admin.connect(&id, "GITHUB", GITHUB_SECRET).await;
    let stripe = admin.connect(&id, "STRIPE", "whsec_verysecret").await;
    let standard = admin.connect(&id, "STANDARD", STANDARD_SECRET).await;
    let paypal = admin.connect(&id, "PAYPAL", "WH-1").await;

    for provider in [&github, &stripe, &standard] {
        let sent = send(&admin, provider, json!({ "eventType": "thing.made" })).await;
        let (status, body) = answered(&sent);
        assert_eq!((status, &body["duplicate"]), (200, &json!(false)), "{sent:#}");
        assert_eq!(body["webhook_id"], sent["webhook"]["webhookId"]);
        assert_eq!(sent["webhook"]["signatureValid"], true);

        let forged = send(&admin, provider, json!({ "fault": "BAD_SIGNATURE", "body": "{\"a\":1}" })).await;
        let (status, body) = answered(&forged);
        assert_eq!((status, &body["code"]), (401, &json!("signature_invalid")), "{forged:#}");
        assert_eq!(forged["webhook"]["signatureValid"], false);
        assert_eq!(forged["webhook"]["rejection"], "signature_invalid");

        // A forged webhook is not the last one: the duplicate is of the one before.
        let again = send(&admin, provider, json!({ "fault": "DUPLICATE_OF_LAST" })).await;
        assert_eq!(again["duplicate"], true, "{again:#}");
        assert_eq!(again["webhook"]["webhookId"], sent["webhook"]["webhookId"]);

        let text = format!("{sent}{forged}{again}");
        assert!(!text.contains("verysecret") && !text.contains(STANDARD_SECRET) && !text.contains(GITHUB_SECRET));
    }
    for provider in [&stripe, &standard] {
        let (status, body) = answered(&send(&admin, provider, json!({ "fault": "STALE_TIMESTAMP" })).await);
        assert_eq!((status, &body["code"]), (401, &json!("timestamp_out_of_tolerance")));
    }

    // Given headers replace ours; an empty value removes one.
    let bare =
        json!({ "headers": [{ "name": "X-Hub-Signature-256", "value": "" }, { "name": "x-more", "value": "1" }] });
    let (status, body) = answered(&send(&admin, &github, bare).await);
    assert_eq!((status, &body["code"]), (401, &json!("signature_missing")));

    // The same event ID with another body.
    let repeat = |body: &str| json!({ "eventId": "e-1", "body": body });
    send(&admin, &github, repeat("{\"a\":1}")).await;
    let again = send(&admin, &github, repeat("{\"a\":2}")).await;
    assert_eq!((&again["duplicate"], &again["webhook"]["bodyDiffers"]), (&json!(true), &json!(true)), "{again:#}");

    // The request is shown without its signature. The one in the row verifies nothing else.
    let sent = send(&admin, &github, json!({})).await;
    let url = sent["request"]["url"].as_str().unwrap().replace("http://localhost:8080", &app.url);
    let kept = sent["webhook"]["signatureReceived"].as_str().unwrap();
    assert!(!sent["request"].to_string().contains(kept));
    for signature in ["(redacted)", kept] {
        let mut request = app.client.post(&url).body(sent["request"]["body"].as_str().unwrap().to_owned());
        for header in sent["request"]["headers"].as_array().unwrap() {
            let (name, value) = (header["name"].as_str().unwrap(), header["value"].as_str().unwrap());
            request = request.header(name, if name == "x-hub-signature-256" { signature } else { value });
        }
        assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "{signature}");
    }

    for (provider, more) in [
        (&github, json!({ "fault": "STALE_TIMESTAMP" })),
        (&paypal, json!({})),
        (&github, json!({ "headers": [{ "name": "a b", "value": "1" }] })),
        (&github, json!({ "eventId": "a b" })),
        (&github, json!({ "body": "x".repeat((256 << 10) + 1) })),
    ] {
        let mut input = json!({ "providerId": provider });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(admin.code(SEND, json!({ "input": input })).await, "BAD_USER_INPUT", "{more}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_is_marked_everywhere_and_is_never_the_senders_event() {
    let app = TestApp::with(crate::deliveries::quick).await;
    let (admin, sink) = (app.super_admin().await, crate::sink::Sink::start().await);
    let (provider, _) = crate::deliveries::forwarding(&admin, "acme", &sink.url("/switch")).await;
    let test = json!({ "eventId": "e-1", "body": "{\"a\":1}" });
    let first = send(&admin, &provider, test.clone()).await;
    assert_eq!(first["duplicate"], false, "{first:#}");
    // A genuine event with that ID is another webhook, even with the same body.
    let genuine: Value = app.github("acme", "e-1", "{\"a\":1}").send().await.unwrap().json().await.unwrap();
    assert_eq!(genuine["duplicate"], false, "{genuine}");
    assert_eq!(send(&admin, &provider, test).await["duplicate"], true);
    let again: Value = app.github("acme", "e-1", "{\"a\":1}").send().await.unwrap().json().await.unwrap();
    assert_eq!((&again["duplicate"], &again["webhook_id"]), (&json!(true), &genuine["webhook_id"]));

    // The first attempt has the body in memory, and the second reads it: both have the header.
    let test_id = first["webhook"]["webhookId"].as_str().unwrap();
    crate::patience::until("both were tried twice", async || {
        [test_id, genuine["webhook_id"].as_str().unwrap()]
            .iter()
            .all(|id| sink.at("/switch").iter().filter(|came| came.header("webhook-id") == *id).count() >= 2)
    })
    .await;
    for came in sink.at("/switch") {
        let is_test = came.header("webhook-id") == test_id;
        assert_eq!(came.headers.get("hookledger-test").map(|value| value == "true"), is_test.then_some(true));
        assert_eq!(came.header("hookledger-hops"), "1");
    }
    for node in admin.webhooks("acme", "webhookId isTest suspectedReplay").await {
        assert_eq!(node["isTest"], node["webhookId"] == test_id, "{node}");
        assert_eq!(node["suspectedReplay"], false, "{node}");
    }
    let query = "query($test: Boolean) { organization(slug: \"acme\") { webhooks(filter: {isTest: $test}) { nodes { webhookId } } } }";
    for (test, id) in [(true, test_id), (false, genuine["webhook_id"].as_str().unwrap())] {
        let data = admin.data(query, json!({ "test": test })).await;
        assert_eq!(data["organization"]["webhooks"]["nodes"], json!([{ "webhookId": id }]));
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_that_can_be_signed_is_accepted() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[]).await;
    let query = "query($of: ProviderName!) { sampleWebhooks(providerName: $of)
                 { name title eventType body headers { name value } } }";
    for (name, secret) in [("GITHUB", "s"), ("STRIPE", "whsec_x"), ("SHOPIFY", "hush"), ("STANDARD", STANDARD_SECRET)] {
        let provider = admin.connect(&id, name, secret).await;
        let data = admin.data(query, json!({ "of": name })).await;
        let samples = data["sampleWebhooks"].as_array().unwrap();
        assert!(samples.len() >= 3, "{name}");
        for sample in samples {
            let more =
                json!({ "eventType": sample["eventType"], "body": sample["body"], "headers": sample["headers"] });
            let sent = send(&admin, &provider, more).await;
            assert_eq!(answered(&sent).0, 200, "{sent:#}");
            // Stripe and PayPal have the event type in the body, the others in a header.
            if name != "STANDARD" {
                assert_eq!(sent["webhook"]["eventType"], sample["eventType"], "{name}");
            }
        }
    }
    app.stop().await;
}
