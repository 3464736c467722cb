//! The GraphQL contract: names, access, pages.

use hookledger_aggregates::user::Role;
use hookledger_aggregates::{OrganizationId, ProviderId, ProviderName};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{GITHUB_SECRET, TestApp};

#[test]
fn the_committed_schema_is_the_schema() {
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schema.graphql")).unwrap();
    assert!(committed == hookledger::api::graphql::sdl(), "schema.graphql has drifted; run `make schema`");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_asks_anything_without_a_session() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let post = || app.client.post(format!("{}/graphql", app.url)).json(&json!({ "query": "{ __typename }" }));
    let mut changed = admin.token.clone();
    changed.replace_range(changed.len() - 4.., "AAAA");
    for request in
        [post(), post().bearer_auth("nonsense"), post().bearer_auth(changed), post().basic_auth("a", Some("b"))]
    {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
    }
    assert_eq!(post().bearer_auth(&admin.token).send().await.unwrap().status(), StatusCode::OK);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_link_works_once() {
    let app = TestApp::start().await;
    let core = hookledger::node::Core::start(&app.database.store(), &app.settings.store).await.unwrap();
    let earlier = core.sign_in_link(&app.settings.store, "ADMIN@localhost").await.unwrap();
    let link = core.sign_in_link(&app.settings.store, "admin@localhost").await.unwrap();
    assert!(core.sign_in_link(&app.settings.store, "nobody@localhost").await.is_err());
    core.stop().await;
    let redeem = |url: &str| {
        let token = url.split_once("token=").unwrap().1.to_owned();
        app.client.post(format!("{}/api/auth/verify-magic-link", app.url)).json(&json!({ "token": token })).send()
    };
    let page = app.client.get(link.url.replace("http://localhost:8080", &app.url)).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let uses = futures::future::join_all((0..50).map(|_| redeem(&link.url))).await;
    let good = uses.iter().filter(|response| response.as_ref().unwrap().status() == StatusCode::OK).count();
    assert_eq!(good, 1);
    assert_eq!(redeem(&earlier.url).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_organizations_ids_answer_as_random_ones_do() {
    strangers_learn_nothing(TestApp::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resolvers_alone_leak_nothing() {
    let app = TestApp::start().await;
    crate::tenancy::switch_off(&app.database.superuser().await).await;
    strangers_learn_nothing(app).await;
}

async fn strangers_learn_nothing(app: TestApp) {
    let admin = app.super_admin().await;
    let ours = app.organization(&admin, "ours", &[("GITHUB", GITHUB_SECRET)]).await;
    let theirs = app.organization(&admin, "theirs", &[("GITHUB", GITHUB_SECRET)]).await;
    assert_eq!(app.github("theirs", "d", "{}").send().await.unwrap().status(), StatusCode::OK);
    let rows = admin.webhooks_until("theirs", "id provider { id }", |nodes| nodes.len() == 1).await;
    let (webhook, provider) = (rows[0]["id"].clone(), rows[0]["provider"]["id"].clone());
    let our_admin = app.user("ours", "ada@example.org", Role::Admin).await;
    let our_member = app.user("ours", "bob@example.org", Role::Member).await;
    for actor in [&our_admin, &our_member] {
        for id in [&json!(theirs), &webhook, &provider, &json!("bm9uc2Vuc2U")] {
            let data = actor.data("query($id: ID!) { node(id: $id) { id } }", json!({ "id": id })).await;
            assert_eq!(data["node"], Value::Null);
        }
        let data = actor
            .data("{ a: organization(slug: \"theirs\") { id } b: organization(slug: \"nobody\") { id } }", json!({}))
            .await;
        assert_eq!(data, json!({ "a": null, "b": null }));
        assert_eq!(actor.code("{ organizations { nodes { id } } }", json!({})).await, "FORBIDDEN");
        let create = "mutation { createOrganization(input: {name: \"x\", slug: \"x\"}) { organization { id } } }";
        assert_eq!(actor.code(create, json!({})).await, "FORBIDDEN");
    }
    let rotate =
        "mutation($id: ID!) { rotateProviderSecret(input: {providerId: $id, secret: \"x\"}) { provider { id } } }";
    let connect = "mutation($id: ID!) { connectProvider(input: {organizationId: $id, providerName: SHOPIFY, secret: \"x\"}) { provider { id } } }";
    assert_eq!(our_admin.code(rotate, json!({ "id": provider })).await, "NOT_FOUND");
    assert_eq!(our_admin.code(rotate, json!({ "id": "bm9uc2Vuc2U" })).await, "NOT_FOUND");
    assert_eq!(our_admin.code(connect, json!({ "id": theirs })).await, "NOT_FOUND");
    assert_eq!(our_member.code(connect, json!({ "id": ours })).await, "FORBIDDEN");
    our_admin.data(connect, json!({ "id": ours })).await;
    // Our organization's id put together with their provider's, which anybody can compute.
    let crafted = crafted_provider_id("ours", "theirs");
    let delete = "mutation($id: ID!) { deleteProvider(input: {id: $id}) { provider { id } } }";
    let switch = "mutation($id: ID!) { setProviderActive(input: {id: $id, isActive: false}) { provider { id } } }";
    for mutation in [delete, switch, rotate] {
        assert_eq!(our_admin.code(mutation, json!({ "id": crafted })).await, "NOT_FOUND");
    }
    assert_eq!(app.github("theirs", "d2", "{}").send().await.unwrap().status(), StatusCode::OK);
    let cursor =
        "query($after: String) { organization(slug: \"theirs\") { webhooks(after: $after) { nodes { id } } } }";
    let ours_cursor = "query { organization(slug: \"theirs\") { webhooks { edges { cursor } } } }";
    let edges = admin.data(ours_cursor, json!({})).await;
    let foreign = edges["organization"]["webhooks"]["edges"][0]["cursor"].clone();
    let other = cursor.replace("theirs", "ours");
    assert_eq!(our_admin.code(&other, json!({ "after": foreign })).await, "BAD_USER_INPUT");
    assert_eq!(
        our_member.code("{ organization(slug: \"ours\") { auditLog { nodes { action } } } }", json!({})).await,
        "FORBIDDEN"
    );
    app.stop().await;
}

fn crafted_provider_id(owner: &str, victim: &str) -> String {
    use base64::Engine as _;
    let (owner, victim) = (OrganizationId::from_slug(owner), OrganizationId::from_slug(victim));
    let mut bytes = vec![b'p'];
    bytes.extend_from_slice(owner.uuid().as_bytes());
    bytes.extend_from_slice(ProviderId::derive(victim, ProviderName::Github).uuid().as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deactivated_organizations_users_are_out_at_once() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[]).await;
    let user = app.user("acme", "ada@example.org", Role::Admin).await;
    user.data("{ viewer { user { email } } }", json!({})).await;
    let off = "mutation($id: ID!) { setOrganizationActive(input: {id: $id, isActive: false}) { organization { id } } }";
    admin.data(off, json!({ "id": id })).await;
    assert_eq!(user.code("{ viewer { user { email } } }", json!({})).await, "UNAUTHENTICATED");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_join_without_gaps_or_repeats_in_both_directions() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    futures::future::join_all((0..25).map(|n| app.github("acme", &format!("d-{n}"), "{}").send())).await;
    let all: Vec<Value> = admin
        .webhooks_until("acme", "webhookId status", |nodes| {
            nodes.len() == 25 && nodes.iter().all(|node| node["status"] == "SUCCESS")
        })
        .await
        .iter()
        .map(|node| node["webhookId"].clone())
        .collect();
    let query = "query($first: Int, $after: String, $last: Int, $before: String) { organization(slug: \"acme\") { \
        webhooks(first: $first, after: $after, last: $last, before: $before, filter: {status: [SUCCESS]}) { \
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor } nodes { webhookId } } } }";
    let (mut forward, mut after) = (Vec::new(), Value::Null);
    loop {
        let mut data = admin.data(query, json!({ "first": 7, "after": after })).await;
        let page = data["organization"]["webhooks"].take();
        forward.extend(page["nodes"].as_array().unwrap().iter().map(|node| node["webhookId"].clone()));
        after = page["pageInfo"]["endCursor"].clone();
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
    }
    assert_eq!(forward, all);
    let mut data = admin.data(query, json!({ "last": 30, "before": after })).await;
    let page = data["organization"]["webhooks"].take();
    let backward: Vec<_> = page["nodes"].as_array().unwrap().iter().map(|node| node["webhookId"].clone()).collect();
    assert_eq!(backward, all[..24]);
    assert_eq!(page["pageInfo"]["hasPreviousPage"], false);
    for bad in
        [json!({ "first": -1 }), json!({ "first": 1001 }), json!({ "first": 1, "last": 1 }), json!({ "after": "x" })]
    {
        assert_eq!(admin.code(query, bad).await, "BAD_USER_INPUT");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_find_what_they_say() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    app.github("acme", "findme-1", "{}").send().await.unwrap();
    app.client.post(app.webhooks("acme", "github")).body("{}").send().await.unwrap();
    let nodes = admin.webhooks_until("acme", "webhookId status receivedAt", |nodes| {
        nodes.len() == 2 && nodes.iter().any(|node| node["status"] == "SUCCESS")
    });
    let genuine = nodes.await.into_iter().find(|node| node["status"] == "SUCCESS").unwrap();
    let query = "query($filter: WebhookFilter) { organization(slug: \"acme\") { webhooks(filter: $filter) { nodes { status } } } }";
    for (filter, expected) in [
        (json!({ "status": ["SUCCESS"] }), 1),
        (json!({ "status": ["FAILED"] }), 1),
        (json!({ "status": ["SUCCESS", "FAILED"] }), 2),
        (json!({ "status": [] }), 0),
        (json!({ "signatureValid": false }), 1),
        (json!({ "eventType": "push" }), 1),
        (json!({ "text": "findme" }), 1),
        (json!({ "text": genuine["webhookId"] }), 1),
        (json!({ "text": "%" }), 0),
        (json!({ "deadLettered": true }), 0),
        (json!({ "deadLettered": false }), 2),
        (json!({ "receivedTo": "2020-01-01T00:00:00Z" }), 0),
        (json!({ "receivedFrom": "2020-01-01T00:00:00Z" }), 2),
    ] {
        let data = admin.data(query, json!({ "filter": filter })).await;
        assert_eq!(data["organization"]["webhooks"]["nodes"].as_array().unwrap().len(), expected, "{filter}");
    }
    for bad in [json!({ "providerId": "x" }), json!({ "text": "\u{0}" })] {
        assert_eq!(admin.code(query, json!({ "filter": bad })).await, "BAD_USER_INPUT");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_is_in_the_answer_and_in_the_audit_trail() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[]).await;
    let update = "mutation($id: ID!) { updateOrganization(input: {id: $id, name: \"Acme Ltd\", plan: STARTER}) \
                  { organization { name plan webhookLimit } } }";
    let data = admin.data(update, json!({ "id": id })).await;
    let expected = json!({ "name": "Acme Ltd", "plan": "STARTER", "webhookLimit": 50_000 });
    assert_eq!(data["updateOrganization"]["organization"], expected);
    let again = "mutation { createOrganization(input: {name: \"x\", slug: \"acme\"}) { organization { id } } }";
    assert_eq!(admin.code(again, json!({})).await, "CONFLICT");
    let bad = "mutation { createOrganization(input: {name: \"x\", slug: \"No Slug\"}) { organization { id } } }";
    assert_eq!(admin.code(bad, json!({})).await, "BAD_USER_INPUT");
    let provider = admin.connect(&id, "STRIPE", "whsec_never_shown").await;
    let delete = "mutation($id: ID!) { deleteProvider(input: {id: $id}) { provider { isActive hasSecret } } }";
    let data = admin.data(delete, json!({ "id": provider })).await;
    assert_eq!(data["deleteProvider"]["provider"], json!({ "isActive": false, "hasSecret": false }));
    assert_eq!(admin.code(delete, json!({ "id": provider })).await, "NOT_FOUND");
    admin.connect(&id, "STRIPE", "whsec_second").await;
    let data = admin
        .data(
            "{ organization(slug: \"acme\") { auditLog { nodes { action resourceType userId changes } } } }",
            json!({}),
        )
        .await;
    let entries = data["organization"]["auditLog"]["nodes"].as_array().unwrap().clone();
    let actions: Vec<_> = entries.iter().rev().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["created", "updated", "updated", "created", "deleted", "created"]);
    assert!(entries.iter().all(|entry| entry["userId"].is_string()));
    let renamed = &entries[4]["changes"];
    assert_eq!(renamed, &json!({ "old": { "name": "acme" }, "new": { "name": "Acme Ltd" } }));
    // The secret is neither in the log, nor in a read model, nor anywhere else unencrypted.
    let database = app.database.superuser().await;
    for table in ["events", "audit_logs", "provider_secrets", "webhook_providers", "audit_resources"] {
        let sql = format!("select count(*) from {table} t where t::text like '%never_shown%'");
        let found: i64 = sqlx::query_scalar(&sql).fetch_one(&database).await.unwrap();
        assert_eq!(found, 0, "{table}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_keeps_its_digits() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let body = "{\"id\": 12345678901234567890123, \"b\": 1.10, \"a\": 1.0e2}";
    assert_eq!(app.github("acme", "d-1", body).send().await.unwrap().status(), StatusCode::OK);
    admin.webhooks_until("acme", "webhookId", |rows| rows.len() == 1).await;
    let query = "{ organization(slug: \"acme\") { webhooks { nodes { payload } } } }";
    let post = app.client.post(format!("{}/graphql", app.url)).bearer_auth(&admin.token);
    let answer = post.json(&json!({ "query": query })).send().await.unwrap().text().await.unwrap();
    assert!(answer.contains(&format!("\"payload\":{body}")), "{answer}");
    app.stop().await;
}
