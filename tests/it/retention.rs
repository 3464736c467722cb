//! Removal: of bodies that are too old, of a body or a person on request. The log records each removal, an auditor's
//! checks still pass, and nothing is removed without a record.

use hookledger::node::config::{Delays, Span};
use hookledger_aggregates::OrganizationId;
use hookledger_aggregates::user::Role;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};

use crate::app::{Actor, GITHUB_SECRET, TestApp};
use crate::audit_verify::{Audited, told as told_by};
use crate::deliveries::forwarding;
use crate::sink::Sink;

pub const KEPT: &str = "select count(*) from webhook_bodies";

/// A node with its own checkpoint file, which an auditor needs.
pub async fn audited(retention: chrono::Duration) -> (TestApp, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("checkpoints.jsonl");
    let app = TestApp::with(|settings| {
        settings.checkpoint_file = Some(file);
        settings.retention_bodies = Span(retention);
        settings.egress_allow_cidrs = "127.0.0.0/8".parse().unwrap();
        settings.retry_delays = Delays(vec![chrono::Duration::minutes(10)]);
    });
    (app.await, directory)
}

async fn post(app: &TestApp, delivery: &str) {
    let sent = app.github("acme", delivery, format!("{{\"n\":{delivery:?}}}")).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::OK);
}

pub async fn until(pool: &PgPool, sql: &str, wanted: i64) {
    crate::patience::until(sql, async || sqlx::query_scalar::<_, i64>(sql).fetch_one(pool).await.unwrap() == wanted)
        .await;
}

pub async fn trail(actor: &Actor<'_>, action: &str) -> Vec<Value> {
    let query = "query($action: String!) { organization(slug: \"acme\") { auditLog(filter: {action: $action}) {
                     nodes { resourceType resourceId userId changes } } } }";
    let mut data = actor.data(query, json!({ "action": action })).await;
    serde_json::from_value(data["organization"]["auditLog"]["nodes"].take()).unwrap()
}

/// An export made now, without a running node, is valid, and so is the store.
pub fn holds(audited: &Audited) {
    let verified = audited.audit(&audited.database.url, &["verify"]);
    assert!(verified.status.success(), "{}", told_by(&verified));
    let exported = audited.audit(&audited.database.url, &["export", "acme", "--out", "acme.jsonl"]);
    assert!(exported.status.success(), "{}", told_by(&exported));
    let alone = audited.audit("postgres://nobody@127.0.0.1:1/none", &["verify", "acme.jsonl"]);
    assert!(alone.status.success(), "{}", told_by(&alone));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_goes_in_batches_and_nothing_that_is_still_needed() {
    let (app, directory) = audited(chrono::Duration::seconds(2)).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    forwarding(&admin, "acme", &sink.url("/switch")).await;
    let pool = app.database.superuser().await;
    sink.repaired.store(true, std::sync::atomic::Ordering::SeqCst);
    for n in 0..30 {
        post(&app, &format!("old-{n}")).await;
    }
    let forged = app.github("acme", "forged", "{}").header("x-hub-signature-256", "sha256=00");
    assert_eq!(forged.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    admin
        .webhooks_until("acme", "status", |nodes| nodes.iter().filter(|node| node["status"] == "SUCCESS").count() == 30)
        .await;
    // A webhook that waits for its retry keeps its body, and so do all later ones.
    sink.repaired.store(false, std::sync::atomic::Ordering::SeqCst);
    post(&app, "waiting").await;
    admin.webhooks_until("acme", "status nextRetryAt", |nodes| !nodes[0]["nextRetryAt"].is_null()).await;
    post(&app, "young").await;
    until(&pool, KEPT, 2).await;
    let answers: i64 = sqlx::query_scalar("select count(*) from attempt_responses").fetch_one(&pool).await.unwrap();
    assert!(answers <= 2, "{answers} answers of destinations are kept");
    // Later bodies are removed, too, once they are too old.
    app.organization(&admin, "other", &[("GITHUB", GITHUB_SECRET)]).await;
    assert_eq!(app.github("other", "later", "{}").send().await.unwrap().status(), StatusCode::OK);
    until(&pool, KEPT, 2).await;
    let of_acme = format!("{KEPT} where organization_id = '{}'", OrganizationId::from_slug("acme"));
    until(&pool, &of_acme, 2).await;

    let fields = "id providerEventId payload rawBody bodySize bodySha256 headers { name } bodyRemoval { kind reason } \
                  signatureValid events { eventType }";
    let query = format!("{{ organization(slug: \"acme\") {{ webhooks(last: 3) {{ nodes {{ {fields} }} }} }} }}");
    let nodes = admin.data(&query, json!({})).await["organization"]["webhooks"]["nodes"].take();
    let oldest = nodes.as_array().unwrap().last().unwrap();
    assert_eq!(oldest["providerEventId"], "old-0");
    assert_eq!((&oldest["payload"], &oldest["rawBody"], &oldest["headers"]), (&json!(null), &json!(null), &json!([])));
    assert_eq!(oldest["bodyRemoval"], json!({ "kind": "RETENTION", "reason": null }));
    assert_eq!(oldest["bodySha256"].as_str().unwrap().len(), 64);
    assert!(oldest["bodySize"].as_i64().unwrap() > 0 && oldest["events"].as_array().unwrap().len() >= 4);
    let erase = "mutation($id: ID!) { eraseWebhookBody(input: {webhookId: $id}) { webhook { id } } }";
    assert_eq!(admin.code(erase, json!({ "id": oldest["id"] })).await, "CONFLICT");
    let removals = trail(&admin, "bodies_removed").await;
    let counted: u64 = removals.iter().map(|entry| entry["changes"]["new"]["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, 31, "{removals:#?}");
    drop(admin);

    let audited = Audited::of(app, directory).await;
    holds(&audited);
    // The server's role cannot remove anything else. If a superuser does, the check finds it.
    let mut worker = PgConnection::connect(&audited.database.url).await.unwrap();
    worker.execute("set role hookledger_worker").await.unwrap();
    assert_eq!(worker.execute("delete from webhook_bodies").await.unwrap().rows_affected(), 0);
    worker.close().await.unwrap();
    let position: i64 = sqlx::query_scalar(
        "delete from webhook_bodies where position = (select max(position) from webhook_bodies) returning position",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    let found = audited.audit(&audited.database.url, &["verify"]);
    assert!(!found.status.success());
    let place = format!("position {}:{position}: the request was removed", audited.partition);
    assert!(told_by(&found).contains(&place), "{}", told_by(&found));
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_and_a_person_are_erased_on_request_and_what_remains_is_told() {
    let (app, directory) = audited(chrono::Duration::days(90)).await;
    let (operator, sink) = (app.super_admin().await, Sink::start().await);
    forwarding(&operator, "acme", &sink.url("/ok")).await;
    let pool = app.database.superuser().await;
    let admin = app.user("acme", "ada@example.org", Role::Admin).await;
    let member = app.user("acme", "bob@example.org", Role::Member).await;
    for delivery in ["keep", "erase"] {
        post(&app, delivery).await;
    }
    let both = |nodes: &[Value]| nodes.len() == 2 && nodes.iter().all(|node| node["status"] == "SUCCESS");
    let nodes = admin.webhooks_until("acme", "id providerEventId status", both).await;
    let id = &nodes.iter().find(|node| node["providerEventId"] == "erase").unwrap()["id"];

    let erase = "mutation($id: ID!, $reason: String) { eraseWebhookBody(input: {webhookId: $id, reason: $reason}) {
                     remains webhook { rawBody headers { name } bodyRemoval { kind reason position }
                                       attempts { responseExcerpt } } } }";
    let asked = json!({ "id": id, "reason": "a card number" });
    assert_eq!(member.code(erase, asked.clone()).await, "FORBIDDEN");
    let erased = admin.data(erase, asked.clone()).await["eraseWebhookBody"].take();
    let webhook = &erased["webhook"];
    assert_eq!((&webhook["rawBody"], &webhook["headers"]), (&json!(null), &json!([])));
    assert_eq!(webhook["bodyRemoval"]["kind"], "ERASURE");
    assert_eq!(webhook["bodyRemoval"]["reason"], "a card number");
    assert_eq!(webhook["attempts"], json!([{ "responseExcerpt": null }]));
    assert!(erased["remains"].as_array().unwrap().iter().any(|what| what.as_str().unwrap().contains("SHA-256")));
    let retry = "mutation($id: ID!) { retryWebhook(input: {webhookId: $id}) { webhook { id } } }";
    assert_eq!(admin.code(retry, json!({ "id": id })).await, "CONFLICT");
    // Once more changes nothing.
    assert_eq!(admin.data(erase, asked).await["eraseWebhookBody"], erased);
    let entries = trail(&admin, "body_erased").await;
    assert_eq!((entries.len(), &entries[0]["changes"]["new"]["reason"]), (1, &json!("a card number")));
    assert!(entries[0]["userId"].is_string());
    until(&pool, KEPT, 1).await;

    let bob = member.data("{ viewer { user { id userId } } }", json!({})).await["viewer"]["user"].take();
    let erase =
        "mutation($id: ID!) { eraseUser(input: {id: $id}) { remains user { id email isActive sessions { id } } } }";
    let asked = json!({ "id": bob["id"] });
    assert_eq!(admin.code(erase, asked.clone()).await, "CONFLICT");
    let deactivate = "mutation($id: ID!) { setUserActive(input: {id: $id, isActive: false}) { user { id } } }";
    admin.data(deactivate, asked.clone()).await;
    let erased = admin.data(erase, asked.clone()).await["eraseUser"].take();
    assert_eq!(erased["user"], json!({ "id": bob["id"], "email": null, "isActive": false, "sessions": [] }));
    assert!(!erased["remains"].as_array().unwrap().is_empty());
    let reactivate = "mutation($id: ID!) { setUserActive(input: {id: $id, isActive: true}) { user { id } } }";
    assert_eq!(admin.code(reactivate, asked).await, "CONFLICT");
    let anywhere = format!(
        "select (select count(*) from user_emails where email ilike '%bob%')
              + (select count(*) from sessions where user_id = '{0}')
              + (select count(*) from magic_links where user_id = '{0}')
              + (select count(*) from users where id = '{0}' and email_claim_id is not null)
              + (select count(*) from events where payload::text ilike '%bob@%' or metadata::text ilike '%bob@%')",
        bob["userId"].as_str().unwrap()
    );
    until(&pool, &anywhere, 0).await;

    // The address is invited again elsewhere, in a partition that a rebuild reads earlier.
    let acme = OrganizationId::from_slug("acme");
    let slug = (0..).map(|n| format!("other-{n}"));
    let is_earlier = |slug: &String| OrganizationId::from_slug(slug).partition().number() < acme.partition().number();
    let slug = slug.into_iter().find(is_earlier).unwrap();
    app.organization(&operator, &slug, &[]).await;
    let again = app.user(&slug, "bob@example.org", Role::Member).await;
    let data = again.data("{ viewer { user { userId email } } }", json!({})).await;
    assert_eq!(data["viewer"]["user"]["email"], "bob@example.org");
    assert_ne!(data["viewer"]["user"]["userId"], bob["userId"]);
    // The other organization's data does not reveal that the address was used before.
    let told: Vec<(String, i64)> = sqlx::query_as(
        "select event_type, sequence from events where organization_id = $1 and aggregate_type = 'email_claim'",
    )
    .bind(OrganizationId::from_slug(&slug).uuid())
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(told, [("email_claim.taken".to_owned(), 1)]);
    pool.close().await;
    drop((operator, admin, member, again));
    let audited = Audited::of(app, directory).await;
    holds(&audited);
    let rebuilt = audited.run(&audited.database.url, &["projections", "rebuild", "users"]);
    assert!(rebuilt.status.success(), "{}", told_by(&rebuilt));
}
