//! Which requests are duplicates, and which of their bodies are kept.

use chrono::Utc;
use futures::StreamExt as _;
use hookledger_aggregates::user::Role;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Actor, GITHUB_SECRET, Post, TestApp, hmac_hex};
use crate::audit_verify::Audited;
use crate::conservation::checked_until;
use crate::paypal::post as post_paypal;
use crate::retention::{audited, holds, trail};
use crate::senders::{Authority, PAYPAL_WEBHOOK_ID, Sender};
use crate::signatures::app_with_certificates;

/// The status and JSON of an answer.
async fn answer(post: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = post.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// Sends a delivery that is accepted. Returns its webhook's ID, and whether it is a duplicate.
async fn accepted(post: reqwest::RequestBuilder) -> (String, bool) {
    let response = Post(post).send().await.unwrap();
    let (status, answer) = (response.status(), response.json::<Value>().await.unwrap());
    assert_eq!(status, StatusCode::OK, "{answer}");
    (answer["webhook_id"].as_str().unwrap().to_owned(), answer["duplicate"].as_bool().unwrap())
}

fn github(app: &TestApp, secret: &str, delivery: &str, body: &str) -> reqwest::RequestBuilder {
    app.client
        .post(app.webhooks("acme", "github"))
        .header("x-github-event", "push")
        .header("x-github-delivery", delivery.to_owned())
        .header("x-hub-signature-256", format!("sha256={}", hmac_hex(secret, body.as_bytes())))
        .body(body.to_owned())
}

async fn connect_anew(admin: &Actor<'_>, organization: &str, provider: &str, name: &str, secret: &str) {
    let delete = "mutation($id: ID!) { deleteProvider(input: {id: $id}) { provider { id } } }";
    admin.data(delete, json!({ "id": provider })).await;
    admin.connect(organization, name, secret).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_connected_anew_is_another_sender() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let organization = app.organization(&admin, "acme", &[]).await;
    let provider = admin.connect(&organization, "GITHUB", "one").await;
    let (first, duplicate) = accepted(github(&app, "one", "1", "{\"n\":1}")).await;
    assert!(!duplicate);
    // A rotated secret changes nothing.
    let rotate = "mutation($id: ID!) { rotateProviderSecret(input: {providerId: $id, secret: \"two\"}) \
                  { provider { id } } }";
    admin.data(rotate, json!({ "id": provider })).await;
    assert_eq!(accepted(github(&app, "two", "1", "{\"n\":1}")).await, (first.clone(), true));

    connect_anew(&admin, &organization, &provider, "GITHUB", "three").await;
    let (second, duplicate) = accepted(github(&app, "three", "1", "{\"n\":2}")).await;
    assert!(!duplicate && second != first, "{second}");
    assert_eq!(accepted(github(&app, "three", "1", "{\"n\":2}")).await, (second.clone(), true));
    // Also on a node that reads the whole log at its start.
    let other = app.second_node().await;
    assert_eq!(accepted(github(&other, "three", "1", "{\"n\":2}")).await, (second.clone(), true));
    let nodes = admin
        .webhooks_until("acme", "webhookId payload duplicateCount status", |nodes| {
            nodes.len() == 2 && nodes.iter().all(|node| node["status"] == "SUCCESS")
        })
        .await;
    let payload = |id: &str| nodes.iter().find(|node| node["webhookId"] == id).unwrap()["payload"].clone();
    assert_eq!((payload(&first), payload(&second)), (json!({ "n": 1 }), json!({ "n": 2 })));
    other.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transmission_is_bound_beyond_its_connection_and_is_no_obstacle_to_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let app = app_with_certificates(&Authority::new("test"), directory.path()).await;
    let admin = app.super_admin().await;
    let organization = app.organization(&admin, "acme", &[]).await;
    let provider = admin.connect(&organization, "PAYPAL", PAYPAL_WEBHOOK_ID).await;
    let body = "{\"id\":\"WH-1\",\"event_type\":\"PAYMENT.SALE.COMPLETED\"}";
    let headers = Sender::Paypal.genuine("t-1", Utc::now(), body.as_bytes());
    let (status, first) = post_paypal(&app, headers.clone(), body).await;
    assert_eq!((status, &first["duplicate"]), (200, &json!(false)), "{first}");
    connect_anew(&admin, &organization, &provider, "PAYPAL", PAYPAL_WEBHOOK_ID).await;
    let (status, second) = post_paypal(&app, headers.clone(), body).await;
    assert_eq!((status, &second["duplicate"]), (200, &json!(false)), "{second}");
    assert_ne!(first["webhook_id"], second["webhook_id"]);
    let (status, again) = post_paypal(&app, headers, body).await;
    assert_eq!((status, &again["duplicate"], &again["webhook_id"]), (200, &json!(true), &second["webhook_id"]));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hooks_that_share_an_id_are_two_webhooks() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let post = |hook: Option<&str>, body: &str| {
        let post = github(&app, GITHUB_SECRET, "72d3162e", body);
        hook.map_or(post.try_clone().unwrap(), |hook| post.header("x-github-hook-id", hook))
    };
    let (one, duplicate) = accepted(post(Some("1"), "{\"app\":1}")).await;
    assert!(!duplicate);
    let (two, duplicate) = accepted(post(Some("2"), "{\"app\":2}")).await;
    assert!(!duplicate && one != two);
    let (none, duplicate) = accepted(post(None, "{\"app\":0}")).await;
    assert!(!duplicate && none != one && none != two);
    // A redelivery repeats both ids.
    for (hook, body, id) in [(Some("1"), "{\"app\":1}", &one), (Some("2"), "{\"app\":2}", &two)] {
        assert_eq!(accepted(post(hook, body)).await, (id.clone(), true));
    }
    let nodes = admin
        .webhooks_until("acme", "webhookId providerEventId duplicateCount bodyDiffers", |nodes| {
            nodes.len() == 3 && nodes.iter().filter(|node| node["duplicateCount"] == 1).count() == 2
        })
        .await;
    assert!(nodes.iter().all(|node| node["providerEventId"] == "72d3162e" && node["bodyDiffers"] == false));
    app.stop().await;
}

const BODIES: &str = "query($id: UUID!) { organization(slug: \"acme\") { webhook(webhookId: $id) {
    id duplicateCount bodyDiffers payload duplicateOf { webhookId }
    duplicateBodies { receivedAt bodySha256 bodySize contentType headers { name value } rawBody rawBodyBase64
                      bodyRemoval { kind reason } deliveredAs { webhookId status } } } } }";

async fn bodies_of(actor: &Actor<'_>, webhook: &str) -> Value {
    actor.data(BODIES, json!({ "id": webhook })).await["organization"]["webhook"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_body_of_a_duplicate_is_kept_and_delivered_once_by_a_person() {
    let (app, directory) = audited(chrono::Duration::days(90)).await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let member = app.user("acme", "bob@example.org", Role::Member).await;
    let post = |body: &str| accepted(github(&app, GITHUB_SECRET, "d-1", body));
    let (first, _) = post("{\"n\":0}").await;
    // Each body is kept once, even if it is sent often and concurrently.
    let posts = (0..40).map(|n| post(if n % 2 == 0 { "{\"n\":1}" } else { "{\"n\":2}" }));
    for answer in futures::future::join_all(posts).await {
        assert_eq!(answer, (first.clone(), true));
    }
    let shown = |nodes: &[Value]| nodes.len() == 1 && nodes[0]["duplicateCount"] == 40;
    admin.webhooks_until("acme", "duplicateCount", shown).await;
    let webhook = bodies_of(&member, &first).await;
    assert_eq!((&webhook["bodyDiffers"], &webhook["duplicateOf"]), (&json!(true), &json!(null)));
    let bodies = webhook["duplicateBodies"].as_array().unwrap();
    let mut texts: Vec<_> = bodies.iter().map(|body| body["rawBody"].as_str().unwrap()).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["{\"n\":1}", "{\"n\":2}"]);
    let kept = &bodies[0];
    assert!(kept["headers"].as_array().unwrap().iter().any(|header| header["name"] == "x-hub-signature-256"));
    assert_eq!((&kept["deliveredAs"], &kept["bodyRemoval"]), (&json!(null), &json!(null)));

    let deliver = "mutation($input: DeliverDuplicateInput!) { deliverDuplicate(input: $input) { webhook {
                       webhookId payload signatureValid providerEventId duplicateOf { webhookId } } } }";
    let asked =
        |sha256: &Value| json!({ "input": { "webhookId": webhook["id"], "bodySha256": sha256, "reason": "right" } });
    let new = member.data(deliver, asked(&kept["bodySha256"])).await["deliverDuplicate"]["webhook"].take();
    assert_ne!(new["webhookId"], first.as_str());
    assert_eq!(new["payload"].to_string(), kept["rawBody"]);
    assert_eq!((&new["signatureValid"], &new["providerEventId"]), (&json!(true), &json!("d-1")));
    assert_eq!(new["duplicateOf"]["webhookId"], first.as_str());
    assert_eq!(member.code(deliver, asked(&kept["bodySha256"])).await, "CONFLICT");
    assert_eq!(member.code(deliver, asked(&json!("00"))).await, "BAD_USER_INPUT");
    let success = |nodes: &[Value]| nodes.len() == 2 && nodes.iter().all(|node| node["status"] == "SUCCESS");
    admin.webhooks_until("acme", "status", success).await;
    let again = bodies_of(&member, &first).await;
    assert_eq!(again["duplicateBodies"][0]["deliveredAs"]["webhookId"], new["webhookId"]);
    let entries = trail(&admin, "duplicate_delivered").await;
    assert_eq!((entries.len(), &entries[0]["resourceId"]), (1, &json!(first)));
    assert!(entries[0]["userId"].is_string());
    assert_eq!(entries[0]["changes"]["new"]["deliveredAs"], new["webhookId"]);
    assert_eq!(entries[0]["changes"]["new"]["reason"], "right");

    // The first 16 bodies are kept. All of them are recorded.
    for n in 3..24 {
        assert_eq!(post(&format!("{{\"n\":{n}}}")).await, (first.clone(), true));
    }
    let full = |nodes: &[Value]| nodes.iter().any(|node| node["duplicateCount"] == 61);
    admin.webhooks_until("acme", "duplicateCount", full).await;
    assert_eq!(bodies_of(&member, &first).await["duplicateBodies"].as_array().unwrap().len(), 16);
    checked_until(&admin, "acme", |told| told["difference"] == 0 && told["duplicates"] == 61).await;

    // Erasing a webhook erases its duplicates. The duplicate that was delivered is a webhook of its own, and stays.
    let erase =
        "mutation($id: ID!) { eraseWebhookBody(input: {webhookId: $id, reason: \"a name\"}) { webhook { id } } }";
    admin.data(erase, json!({ "id": webhook["id"] })).await;
    let erased = bodies_of(&member, &first).await;
    for body in erased["duplicateBodies"].as_array().unwrap() {
        assert_eq!((&body["rawBody"], &body["headers"]), (&json!(null), &json!([])));
        assert_eq!(body["bodyRemoval"], json!({ "kind": "ERASURE", "reason": "a name" }));
    }
    let other = erased["duplicateBodies"][1]["bodySha256"].clone();
    assert_eq!(member.code(deliver, asked(&other)).await, "CONFLICT");
    let pool = app.database.superuser().await;
    let kept: i64 = sqlx::query_scalar("select count(*) from webhook_bodies").fetch_one(&pool).await.unwrap();
    assert_eq!(kept, 1);
    pool.close().await;
    drop((admin, member));
    holds(&Audited::of(app, directory).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_holds_with_the_bodies_of_duplicates_and_a_changed_one_is_found() {
    let (app, directory) = audited(chrono::Duration::days(90)).await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    for body in ["{}", "[]", "[1]"] {
        accepted(github(&app, GITHUB_SECRET, "d-1", body)).await;
    }
    admin.webhooks_until("acme", "duplicateCount", |nodes| nodes.len() == 1 && nodes[0]["duplicateCount"] == 2).await;
    drop(admin);
    let pool = app.database.superuser().await;
    let audited = Audited::of(app, directory).await;
    holds(&audited);
    let changed = "update webhook_bodies set body = '{}'
                   where position = (select max(position) from webhook_bodies) returning position";
    let position: i64 = sqlx::query_scalar(changed).fetch_one(&pool).await.unwrap();
    let found = audited.audit(&audited.database.url, &["verify"]);
    let place = format!("position {}:{position}: the stored body was replaced", audited.partition);
    let told = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(!found.status.success() && told.contains(&place), "{told}");
    pool.close().await;
}

/// Posts of one webhook.
const FLOOD: usize = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_webhook_is_counted_and_hinders_nobody() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    for slug in ["acme", "other"] {
        app.organization(&admin, slug, &[("GITHUB", GITHUB_SECRET)]).await;
    }
    let (first, _) = accepted(github(&app, GITHUB_SECRET, "d-1", "{}")).await;
    // Some may be refused with 503 under load. All accepted ones are duplicates.
    let flood = futures::stream::iter(0..FLOOD).map(|_| async {
        let (status, answer) = answer(github(&app, GITHUB_SECRET, "d-1", "{}")).await;
        match status {
            StatusCode::OK => assert_eq!((&answer["webhook_id"], &answer["duplicate"]), (&json!(first), &json!(true))),
            status => assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}"),
        }
        usize::from(status == StatusCode::OK)
    });
    let beside = futures::stream::iter(0..200).then(|n| {
        let post = app.github("other", &format!("d-{n}"), format!("{{\"n\":{n}}}"));
        async move { assert_eq!(post.send().await.unwrap().status(), StatusCode::OK) }
    });
    let (accepted, _) = tokio::join!(flood.buffer_unordered(48).collect::<Vec<_>>(), beside.collect::<Vec<()>>());
    let accepted: usize = accepted.into_iter().sum();
    assert!(accepted > FLOOD / 2, "{accepted}");
    let counted = |nodes: &[Value]| nodes.len() == 1 && nodes[0]["duplicateCount"] == accepted;
    admin.webhooks_until("acme", "duplicateCount bodyDiffers", counted).await;
    admin.webhooks_until("other", "webhookId", |nodes| nodes.len() == 200).await;
    checked_until(&admin, "acme", |told| told["difference"] == 0 && told["duplicates"] == accepted).await;
    let pool = app.database.superuser().await;
    let sql = "select count(*) from events where aggregate_id = $1";
    let events: i64 = sqlx::query_scalar(sql).bind(&first).fetch_one(&pool).await.unwrap();
    assert!(events < 60, "{events} events for {accepted} duplicates");
    pool.close().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_that_is_remembered_asks_the_database_nothing() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let (first, _) = accepted(github(&app, GITHUB_SECRET, "d-1", "{}")).await;
    for _ in 0..20 {
        assert_eq!(accepted(github(&app, GITHUB_SECRET, "d-1", "{}")).await, (first.clone(), true));
    }
    let pool = app.database.superuser().await;
    let mut locked = pool.begin().await.unwrap();
    sqlx::query("lock table commits in access exclusive mode").execute(&mut *locked).await.unwrap();
    let posts = (0..100).map(|_| answer(github(&app, GITHUB_SECRET, "d-1", "{}")));
    let answers = futures::future::join_all(posts).await;
    locked.rollback().await.unwrap();
    // Every few seconds, one request reads the webhook's status, which takes too long here.
    let told = answers.iter().filter(|(status, answer)| *status == StatusCode::OK && answer["duplicate"] == true);
    assert!(told.count() > 50, "{answers:?}");
    let all = |nodes: &[Value]| nodes.len() == 1 && nodes[0]["duplicateCount"].as_i64() > Some(70);
    admin.webhooks_until("acme", "duplicateCount", all).await;
    pool.close().await;
    app.stop().await;
}
