//! Processing: a webhook is delivered at least once, and on schedule, whatever its destination
//! does.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use hookledger::node::config::{Delays, ServeSettings, Span};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Actor, GITHUB_SECRET, TestApp};
use crate::patience::until;
use crate::senders::{STANDARD_SECRET, Sender};
use crate::sink::Sink;

const FIELDS: &str = "id webhookId status retryCount canRetry errorMessage nextRetryAt deadLetteredAt processedAt \
                      providerEventId attempts { attemptNumber succeeded statusCode durationMs errorDetails responseExcerpt }";

/// Destinations on this machine, and waits of seconds.
pub fn quick(settings: &mut ServeSettings) {
    settings.egress_allow_cidrs = "127.0.0.0/8".parse().unwrap();
    settings.retry_delays = Delays([1, 2, 3].map(chrono::Duration::seconds).to_vec());
}

/// Creates an organization whose GitHub webhooks go there. Returns its node ID and its outgoing signing secret.
pub async fn forwarding(admin: &Actor<'_>, slug: &str, url: &str) -> (String, String) {
    let id = admin.app.organization(admin, slug, &[]).await;
    let data = admin
        .data(
            "mutation($input: ConnectProviderInput!) { connectProvider(input: $input) { provider { id } signingSecret } }",
            json!({ "input": { "organizationId": id, "providerName": "GITHUB", "secret": GITHUB_SECRET,
                               "destinationUrl": url } }),
        )
        .await;
    let provider = data["connectProvider"]["provider"]["id"].as_str().unwrap().to_owned();
    (provider, data["connectProvider"]["signingSecret"].as_str().unwrap().to_owned())
}

pub async fn post(app: &TestApp, slug: &str, delivery: &str, body: impl Into<Vec<u8>>) -> Value {
    let response = app.github(slug, delivery, body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_destination_gets_four_attempts_on_schedule_and_a_person_one_more() {
    let app = TestApp::with(quick).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    forwarding(&admin, "acme", &sink.url("/switch")).await;
    let answer = post(&app, "acme", "d1", "{\"a\":1}").await;
    let dead = |nodes: &[Value]| nodes.iter().any(|node| !node["deadLetteredAt"].is_null());
    let node = admin.webhooks_until("acme", FIELDS, dead).await.remove(0);
    assert_eq!((&node["status"], &node["retryCount"], &node["canRetry"]), (&json!("FAILED"), &json!(3), &json!(false)));
    assert_eq!(node["errorMessage"], "The destination returned 500 Internal Server Error.");
    assert_eq!(node["attempts"].as_array().unwrap().len(), 4);
    assert_eq!(node["attempts"][0]["responseExcerpt"], "out of <b>order</b>");
    // No further attempt follows, because nothing is due.
    let superuser = app.database.superuser().await;
    until("nothing is due", async || {
        let due = sqlx::query_scalar::<_, i64>("select count(*) from delivery_due");
        due.fetch_one(&superuser).await.unwrap() == 0
    })
    .await;
    let came = sink.at("/switch");
    assert_eq!(
        came.iter().map(|delivery| delivery.header("hookledger-attempt")).collect::<Vec<_>>(),
        ["1", "2", "3", "4"]
    );
    for (gap, delay) in came.windows(2).map(|pair| pair[1].at - pair[0].at).zip([1, 2, 3]) {
        let delay = Duration::from_secs(delay);
        assert!(gap >= delay, "{gap:?} for {delay:?}");
    }
    sink.repaired.store(true, Ordering::SeqCst);
    let retry =
        "mutation($id: ID!) { retryWebhook(input: {webhookId: $id, reason: \"repaired\"}) { webhook { status } } }";
    admin.data(retry, json!({ "id": node["id"] })).await;
    let succeeded = |nodes: &[Value]| nodes[0]["status"] == "SUCCESS";
    let node = admin.webhooks_until("acme", FIELDS, succeeded).await.remove(0);
    assert!(node["deadLetteredAt"].is_null() && node["errorMessage"].is_null() && !node["processedAt"].is_null());
    let last = sink.at("/switch").pop().unwrap();
    assert_eq!(last.header("webhook-id"), answer["webhook_id"].as_str().unwrap());
    assert_eq!(last.header("hookledger-attempt"), "5");
    assert_eq!(admin.code(retry, json!({ "id": node["id"] })).await, "CONFLICT");

    let story = "{ organization(slug: \"acme\") { webhooks(first: 1) { nodes {
                     events { eventType actor payload recordedAt } } } } }";
    let story = admin.data(story, json!({})).await;
    let events = story["organization"]["webhooks"]["nodes"][0]["events"].as_array().unwrap();
    let mut told = vec!["webhook.received", "webhook.signature_verified", "webhook.routed"];
    for _ in 0..3 {
        told.extend(["delivery.attempt_started", "delivery.attempt_failed", "delivery.retry_scheduled"]);
    }
    told.extend(["delivery.attempt_started", "delivery.attempt_failed", "delivery.dead_lettered"]);
    told.extend(["delivery.retry_requested", "delivery.attempt_started", "delivery.attempt_succeeded"]);
    assert_eq!(events.iter().map(|event| event["eventType"].as_str().unwrap()).collect::<Vec<_>>(), told);
    // Each was due after its delay, and at most a tenth later.
    let time = |value: &Value| value.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    let retries = events.iter().filter(|event| event["eventType"] == "delivery.retry_scheduled");
    for (retry, delay) in retries.zip([1, 2, 3]) {
        let wait = time(&retry["payload"]["retryAt"]) - time(&retry["recordedAt"]);
        assert!(wait <= chrono::Duration::milliseconds(delay * 1_100 + 50), "{wait} for {delay} s");
    }
    let request = events.iter().find(|event| event["eventType"] == "delivery.retry_requested").unwrap();
    assert_eq!((&request["actor"], &request["payload"]["reason"]), (&json!("user"), &json!("repaired")));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_signed_and_carries_the_original_byte_for_byte() {
    let app = TestApp::with(quick).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    let (provider, secret) = forwarding(&admin, "acme", &sink.url("/ok")).await;
    let set = "mutation($input: SetProviderDestinationInput!) { setProviderDestination(input: $input) {
                   signingSecret provider { destination { url headerNames concurrency timeoutSeconds circuit secrets { version } } } } }";
    let with_headers = json!({ "input": { "providerId": provider, "url": sink.url("/ok?a=1"), "concurrency": 3, "timeoutSeconds": 7,
                                          "headers": [{ "name": "X-Api-Key", "value": "hush" }] } });
    let data = admin.data(set, with_headers).await;
    assert_eq!(
        data["setProviderDestination"],
        json!({ "signingSecret": null, "provider": { "destination": {
            "url": sink.url("/ok?a=1"), "headerNames": ["x-api-key"], "concurrency": 3, "timeoutSeconds": 7,
            "circuit": "CLOSED", "secrets": [{ "version": 1 }] } } })
    );
    let bodies: Vec<Vec<u8>> = vec![
        b"{\"a\":\"\\u0000 \\ud800\", \"a\":1e400}".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        Vec::new(),
        vec![b'x'; 25 << 20],
    ];
    for (n, body) in bodies.iter().enumerate() {
        let mut request = app.github("acme", &format!("d{n}"), body.clone()).build().unwrap();
        request.headers_mut().insert("content-type", "application/x-odd; q=1".parse().unwrap());
        assert_eq!(app.client.execute(request).await.unwrap().status(), StatusCode::OK);
    }
    let came = sink.until("/ok?a=1", bodies.len()).await;
    let key = hookledger_aggregates::outgoing::key(secret.as_bytes()).unwrap();
    for body in &bodies {
        let delivery = came.iter().find(|delivery| delivery.body == *body).expect("it comes byte for byte");
        let at = chrono::DateTime::from_timestamp(delivery.header("webhook-timestamp").parse().unwrap(), 0).unwrap();
        let id = delivery.header("webhook-id").parse().unwrap();
        let signature = hookledger_aggregates::outgoing::signature([key.as_slice()], id, at, body);
        assert_eq!(delivery.header("webhook-signature"), signature);
        assert_eq!(delivery.header("hookledger-provider"), "github");
        assert_eq!(delivery.header("hookledger-attempt"), "1");
        assert_eq!(delivery.header("x-api-key"), "hush");
        assert_eq!(delivery.header("content-type"), "application/x-odd; q=1", "{:?}", delivery.headers);
    }
    // The receiver's own library accepts it.
    let delivery = came.iter().find(|delivery| delivery.body == bodies[0]).unwrap();
    let environment = vec![
        ("SECRET", secret.clone()),
        ("HEADERS", serde_json::to_string(&delivery.headers).unwrap()),
        ("BODY", base64::engine::general_purpose::STANDARD.encode(&delivery.body)),
    ];
    assert_eq!(crate::vendors::script("verify.mjs", environment).await, json!({ "verified": true }));
    // During a rotation both secrets sign. The new one is returned once.
    let rotate =
        "mutation($id: ID!) { rotateDestinationSecret(input: {providerId: $id, graceSeconds: 60}) { signingSecret } }";
    let new = admin.data(rotate, json!({ "id": provider })).await;
    let new = new["rotateDestinationSecret"]["signingSecret"].as_str().unwrap().to_owned();
    post(&app, "acme", "rotated", "{}").await;
    let delivery = sink.until("/ok?a=1", bodies.len() + 1).await.pop().unwrap();
    assert_eq!(delivery.header("webhook-signature").split(' ').count(), 2);
    // Neither secrets nor header values are in the log.
    let database = app.database.superuser().await;
    for needle in [&secret, &new, &"hush".to_owned()] {
        let count: i64 = sqlx::query_scalar("select count(*) from events where payload::text like '%' || $1 || '%'")
            .bind(needle)
            .fetch_one(&database)
            .await
            .unwrap();
        assert_eq!(count, 0);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_carries_what_the_sender_says_of_the_event_and_no_credential() {
    let app = TestApp::with(quick).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    let (provider, _) = forwarding(&admin, "acme", &sink.url("/switch")).await;
    let set =
        "mutation($input: SetProviderDestinationInput!) { setProviderDestination(input: $input) { provider { id } } }";
    let headers = json!([{ "name": "X-GitHub-Hook-Id", "value": "ours" }]);
    let input = json!({ "providerId": provider, "url": sink.url("/switch"), "headers": headers });
    admin.data(set, json!({ "input": input })).await;
    let mut request = app.github("acme", "d1", "{}").build().unwrap();
    for (name, value) in [
        ("content-encoding", "identity"),
        ("x-github-hook-id", "theirs"),
        ("x-shopify-access-token", "hush"),
        ("authorization", "Bearer hush"),
        ("cookie", "a=hush"),
        ("hookledger-attempt", "9"),
        ("webhook-id", "theirs"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    assert_eq!(app.client.execute(request).await.unwrap().status(), StatusCode::OK);
    sink.until("/switch", 1).await;
    sink.repaired.store(true, std::sync::atomic::Ordering::SeqCst);
    // The first body comes from memory, the second from the database.
    let came = sink.until("/switch", 2).await;
    for (delivery, attempt) in came.iter().zip(["1", "2"]) {
        for (name, value) in [
            ("x-github-event", "push"),
            ("x-github-delivery", "d1"),
            ("hookledger-event-type", "push"),
            ("hookledger-provider", "github"),
            ("hookledger-attempt", attempt),
            ("hookledger-original-webhook-id", "theirs"),
            ("content-encoding", "identity"),
            // A header that a person set has precedence.
            ("x-github-hook-id", "ours"),
            ("x-hub-signature-256", ""),
        ] {
            assert_eq!(delivery.header(name), value, "{name} of attempt {attempt}");
        }
        assert!(!delivery.headers.values().any(|value| value.contains("hush")), "{:?}", delivery.headers);
        assert_ne!(delivery.header("webhook-id"), "theirs");
    }
    let nodes = admin
        .webhooks_until("acme", "status attempts { requestHeaderNames }", |nodes| {
            nodes.first().is_some_and(|node| node["status"] == "SUCCESS")
        })
        .await;
    let told: Vec<String> = serde_json::from_value(nodes[0]["attempts"][0]["requestHeaderNames"].clone()).unwrap();
    let ours_alone = ["host", "content-length"];
    let mut arrived: Vec<_> = came[0].headers.keys().filter(|name| !ours_alone.contains(&name.as_str())).collect();
    let mut told: Vec<_> = told.iter().collect();
    arrived.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, arrived);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_destinations_are_refused_with_a_reason() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[]).await;
    let provider = admin.connect(&id, "GITHUB", GITHUB_SECRET).await;
    let set =
        "mutation($input: SetProviderDestinationInput!) { setProviderDestination(input: $input) { provider { id } } }";
    for url in [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://0x7f.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://user:pass@example.com/",
        "ftp://example.com/",
        "not a url",
        "https://169.254.169.254/latest",
        "",
        "https://example.com:25/",
    ] {
        let input = json!({ "input": { "providerId": provider, "url": url } });
        assert_eq!(admin.code(set, input).await, "BAD_USER_INPUT", "{url}");
    }
    for (field, value) in [("timeoutSeconds", json!(0)), ("timeoutSeconds", json!(121)), ("concurrency", json!(257))] {
        let mut input = json!({ "input": { "providerId": provider, "url": "https://example.com/" } });
        input["input"][field] = value;
        assert_eq!(admin.code(set, input).await, "BAD_USER_INPUT", "{field}");
    }
    for name in ["webhook-id", "Host", "a b", "hookledger-x"] {
        let headers = json!([{ "name": name, "value": "x" }]);
        let input = json!({ "input": { "providerId": provider, "url": "https://example.com/", "headers": headers } });
        assert_eq!(admin.code(set, input).await, "BAD_USER_INPUT", "{name}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_leads_back_here_is_refused_or_ends_after_a_few_hops() {
    let app = TestApp::with(quick).await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[]).await;
    let provider = admin.connect(&id, "STANDARD", STANDARD_SECRET).await;
    let set = "mutation($id: ID!, $url: String!) { setProviderDestination(input: {providerId: $id, url: $url}) { signingSecret } }";
    let ours = json!({ "id": provider, "url": "http://LOCALHOST:8080/webhooks/acme/standard" });
    let refused = admin.ask(set, ours).await;
    assert!(refused["errors"][0]["message"].as_str().unwrap().contains("circle"), "{refused}");

    // Under another name than the base URL's, the loop is detected when the webhook comes back.
    let back = app.webhooks("acme", "standard");
    let data = admin.data(set, json!({ "id": provider, "url": back })).await;
    let add = "mutation($id: ID!, $secret: String!) { addProviderSecret(input: {providerId: $id, secret: $secret, label: \"Ours\"}) \
               { provider { id } } }";
    let secret = &data["setProviderDestination"]["signingSecret"];
    admin.data(add, json!({ "id": provider, "secret": secret })).await;
    let now = chrono::Utc::now();
    let mut post = app.client.post(&back).body("{}");
    for (name, value) in Sender::Standard.genuine("msg_1", now, b"{}") {
        post = post.header(name, value);
    }
    assert_eq!(post.send().await.unwrap().status(), StatusCode::OK);
    let fields = "status signatureValid rejection deadLetteredAt errorMessage";
    let nodes =
        admin.webhooks_until("acme", fields, |nodes| nodes.iter().any(|node| !node["deadLetteredAt"].is_null()));
    let nodes = nodes.await;
    let accepted: Vec<_> = nodes.iter().filter(|node| node["signatureValid"] == true).collect();
    assert_eq!(accepted.len(), 4, "{nodes:#?}");
    assert_eq!(accepted.iter().filter(|node| node["status"] == "SUCCESS").count(), 3, "{nodes:#?}");
    let dead = accepted.iter().find(|node| !node["deadLetteredAt"].is_null()).unwrap();
    assert!(dead["errorMessage"].as_str().unwrap().contains("508"), "{dead}");
    let refused = nodes.iter().filter(|node| node["signatureValid"] == false);
    assert!(
        refused.clone().count() > 0 && refused.clone().all(|node| node["rejection"] == "loop_detected"),
        "{nodes:#?}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_destination_does_is_recorded_and_delays_nobody_else() {
    let app = TestApp::with(|settings| {
        quick(settings);
        settings.retry_delays = Delays(vec![chrono::Duration::hours(1)]);
    })
    .await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    let cases = [
        ("hang", "FAILED", "Timed out"),
        ("gigabyte", "SUCCESS", ""),
        ("drip", "SUCCESS", ""),
        ("reset", "SUCCESS", ""),
        ("redirect", "FAILED", "302"),
        ("410", "FAILED", "410 Gone"),
    ];
    let set =
        "mutation($input: SetProviderDestinationInput!) { setProviderDestination(input: $input) { provider { id } } }";
    for (path, _, _) in cases {
        let (provider, _) = forwarding(&admin, path, &sink.url(&format!("/{path}"))).await;
        if path == "hang" {
            let soon = json!({ "providerId": provider, "url": sink.url("/hang"), "timeoutSeconds": 2 });
            admin.data(set, json!({ "input": soon })).await;
        }
    }
    forwarding(&admin, "refused", "http://127.0.0.1:9/").await;
    forwarding(&admin, "good", &sink.url("/ok")).await;
    let (stuck, _) = forwarding(&admin, "stuck", &sink.url("/hang")).await;
    let patient =
        json!({ "providerId": stuck, "url": sink.url("/hang?stuck"), "concurrency": 4, "timeoutSeconds": 120 });
    admin.data(set, json!({ "input": patient })).await;
    let before = memory();
    for n in 0..20 {
        for (path, _, _) in cases {
            post(&app, path, &format!("{path}-{n}"), "{}").await;
        }
        post(&app, "refused", &format!("refused-{n}"), "{}").await;
        post(&app, "stuck", &format!("stuck-{n}"), "{}").await;
    }
    sink.until("/hang?stuck", 4).await;
    for n in 0..40 {
        post(&app, "good", &format!("good-{n}"), "{}").await;
        sink.until("/ok", n + 1).await;
    }
    // All of them were sent while others still waited for their answers.
    let waiting = admin.webhooks("stuck", "status").await;
    assert_eq!(waiting.iter().filter(|node| node["status"] == "PROCESSING").count(), 4, "{waiting:#?}");
    // Only the row counts here: attempts are read a moment later.
    let is_over = |node: &Value| node["status"] == "SUCCESS" || node["status"] == "FAILED";
    let ended = |nodes: &[Value]| nodes.len() == 20 && nodes.iter().all(is_over);
    for (path, status, error) in cases.into_iter().chain([("refused", "FAILED", "Connection failed")]) {
        for node in admin.webhooks_until(path, FIELDS, ended).await {
            assert_eq!(node["status"], status, "{path}: {node:#}");
            let told = node["errorMessage"].as_str().unwrap_or_default();
            assert!(told.contains(error), "{path}: {told}");
        }
    }
    // 20 attempts in a row without an answer open the circuit, and the API shows it.
    let circuit =
        "query($slug: String!) { organization(slug: $slug) { providers { destination { circuit waiting } } } }";
    let hanging = admin.data(circuit, json!({ "slug": "hang" })).await;
    assert_eq!(hanging["organization"]["providers"][0]["destination"], json!({ "circuit": "OPEN", "waiting": 20 }));
    let grown = memory().saturating_sub(before);
    assert!(grown < 256 << 20, "{} MiB more", grown >> 20);
    app.stop().await;
}

/// Resident memory of this process, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_never_send_an_attempt_twice_and_many_are_retried_at_once() {
    let app = TestApp::with(|settings| {
        quick(settings);
        settings.retry_delays = Delays(vec![chrono::Duration::seconds(1)]);
    })
    .await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    forwarding(&admin, "acme", &sink.url("/switch")).await;
    let other = app.second_node().await;
    let count = 1_000;
    futures::future::join_all((0..count).map(|n| {
        let node = if n % 2 == 0 { &app } else { &other };
        async move { post(node, "acme", &format!("d{n}"), "{}").await }
    }))
    .await;
    let all_dead = |nodes: &[Value]| nodes.len() == count && nodes.iter().all(|node| !node["deadLetteredAt"].is_null());
    admin.webhooks_until("acme", "deadLetteredAt", all_dead).await;
    let counted = "{ organization(slug: \"acme\") { id retryableCount(filter: {deadLettered: true}) } }";
    let data = admin.data(counted, json!({})).await;
    assert_eq!(data["organization"]["retryableCount"], count);
    sink.repaired.store(true, Ordering::SeqCst);
    let retry =
        "mutation($id: ID!, $count: Int!) { retryWebhooks(input: {organizationId: $id, filter: {deadLettered: true},
                 expectedCount: $count, reason: \"repaired\"}) { retriedCount skippedCount } }";
    let id = &data["organization"]["id"];
    assert_eq!(admin.code(retry, json!({ "id": id, "count": count - 1 })).await, "CONFLICT");
    let data = admin.data(retry, json!({ "id": id, "count": count })).await;
    assert_eq!(data["retryWebhooks"], json!({ "retriedCount": count, "skippedCount": 0 }));
    let all_good = |nodes: &[Value]| nodes.iter().all(|node| node["status"] == "SUCCESS");
    admin.webhooks_until("acme", "status", all_good).await;
    let mut seen: HashMap<(String, String), usize> = HashMap::new();
    sink.received().iter().for_each(|delivery| *seen.entry(delivery.attempt()).or_default() += 1);
    assert_eq!(seen.len(), 3 * count);
    assert!(seen.values().all(|times| *times == 1));
    other.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_destination_is_given_at_most_twice_the_wait() {
    let app = TestApp::with(|settings| {
        quick(settings);
        settings.retry_delays = Delays(vec![chrono::Duration::seconds(100)]);
    })
    .await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    forwarding(&admin, "acme", &sink.url("/busy")).await;
    let before = chrono::Utc::now();
    post(&app, "acme", "d", "{}").await;
    let waits = |nodes: &[Value]| nodes.iter().any(|node| !node["nextRetryAt"].is_null());
    let node = admin.webhooks_until("acme", FIELDS, waits).await.remove(0);
    let at: chrono::DateTime<chrono::Utc> = node["nextRetryAt"].as_str().unwrap().parse().unwrap();
    let wait = (at - before).num_seconds();
    assert!((199..=215).contains(&wait), "{wait}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_webhook_goes_the_way_of_all_webhooks() {
    let app = TestApp::with(quick).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    let (github, _) = forwarding(&admin, "acme", &sink.url("/ok")).await;
    let id = admin.data("{ organization(slug: \"acme\") { id } }", json!({})).await;
    let stripe = admin.connect(id["organization"]["id"].as_str().unwrap(), "STRIPE", "whsec_x").await;
    let send = "mutation($id: ID!, $type: String) { sendTestWebhook(input: {providerId: $id, eventType: $type}) {
                    duplicate webhook { eventType signatureValid events { actor } } } }";
    for (provider, kind) in [(&github, "push"), (&stripe, "charge.succeeded")] {
        let data = admin.data(send, json!({ "id": provider, "type": kind })).await;
        let test = &data["sendTestWebhook"];
        assert_eq!((&test["duplicate"], &test["webhook"]["eventType"]), (&json!(false), &json!(kind)));
        assert_eq!(test["webhook"]["events"][0]["actor"], "user");
    }
    assert_eq!(admin.code(send, json!({ "id": github, "type": "a\r\nb: c" })).await, "BAD_USER_INPUT");
    sink.until("/ok", 1).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_in_the_queue_is_put_back() {
    let app = TestApp::with(|settings| {
        quick(settings);
        settings.pending_timeout = Span(chrono::Duration::seconds(1));
    })
    .await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    forwarding(&admin, "acme", &sink.url("/switch")).await;
    post(&app, "acme", "d1", "{}").await;
    let superuser = app.database.superuser().await;
    let delete = async || {
        let sql = "delete from delivery_due where holder is null";
        sqlx::query(sql).execute(&superuser).await.unwrap().rows_affected()
    };
    // It waits for its retry, and the queue forgets it.
    until("it waits for its retry", async || delete().await > 0).await;
    sink.repaired.store(true, Ordering::SeqCst);
    let succeeded = |nodes: &[Value]| nodes.iter().any(|node| node["status"] == "SUCCESS");
    admin.webhooks_until("acme", FIELDS, succeeded).await;
    assert_eq!(
        sink.at("/switch").iter().map(|delivery| delivery.header("hookledger-attempt")).collect::<Vec<_>>(),
        ["1", "2"]
    );
    app.stop().await;
}
