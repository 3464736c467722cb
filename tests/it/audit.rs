//! The audit trail: changes, refusals and exports, with person and address; its filters and its export.

use std::time::{Duration, Instant};

use hookledger_aggregates::user::Role;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Actor, TestApp};
use crate::patience::PATIENCE;

const TRAIL: &str = "query($slug: String!, $filter: AuditFilter) { organization(slug: $slug) { \
    auditLog(first: 1000, filter: $filter) { nodes { \
    position at action resourceType resourceId userId user { email } client userAgent sessionId changes } } } }";

async fn trail(actor: &Actor<'_>, slug: &str, filter: Value) -> Vec<Value> {
    let mut data = actor.data(TRAIL, json!({ "slug": slug, "filter": filter })).await;
    serde_json::from_value(data["organization"]["auditLog"]["nodes"].take()).unwrap()
}

/// Waits until that many entries match.
async fn trail_until(actor: &Actor<'_>, slug: &str, filter: Value, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let entries = trail(actor, slug, filter.clone()).await;
        if entries.len() >= count {
            return entries;
        }
        assert!(Instant::now() < deadline, "{entries:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_do_and_try_is_told_with_who_and_from_where() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[]).await;
    app.organization(&admin, "other", &[]).await;
    let boss = app.user("acme", "boss@example.org", Role::Admin).await;
    let member = app.user("acme", "member@example.org", Role::Member).await;
    let them = member.data("{ viewer { user { id userId } } }", json!({})).await["viewer"]["user"].take();

    // Sign-ins, with the client's address.
    let entries = trail_until(&boss, "acme", json!({ "action": "signed_in" }), 2).await;
    assert_eq!((&entries[0]["client"], &entries[0]["userId"]), (&json!("127.0.0.1"), &them["userId"]));
    assert_eq!(entries[0]["user"]["email"], "member@example.org");
    assert_eq!(entries[0]["changes"]["new"]["sessionId"], entries[0]["sessionId"]);

    // A change, with old and new values, and with the user agent.
    let set_role = "mutation($id: ID!) { a: setUserRole(input: {id: $id, role: ADMIN}) { user { role } } }";
    let url = format!("{}/graphql", app.url);
    let request = app.client.post(&url).bearer_auth(&boss.token).header("user-agent", "Firefox/1 =1+1");
    let body = json!({ "query": set_role, "variables": { "id": them["id"] } });
    assert_eq!(request.json(&body).send().await.unwrap().status(), StatusCode::OK);
    let entries = trail(&boss, "acme", json!({ "action": "role_changed" })).await;
    assert_eq!(entries[0]["changes"], json!({ "old": { "role": "member" }, "new": { "role": "admin" } }));
    assert!(entries[0]["userAgent"].as_str().unwrap().starts_with("Firefox/"), "{entries:#?}");
    let set_role = set_role.replace("ADMIN", "MEMBER");
    boss.data(&set_role, json!({ "id": them["id"] })).await;

    // Refusals are recorded under the field's own name, whatever alias the query uses.
    assert_eq!(member.code(&set_role, json!({ "id": them["id"] })).await, "FORBIDDEN");
    let create = "mutation { a: createOrganization(input: {name: \"x\", slug: \"x\"}) { organization { id } } }";
    assert_eq!(boss.code(create, json!({})).await, "FORBIDDEN");
    let refused = trail_until(&boss, "acme", json!({ "action": "action_refused" }), 2).await;
    let what: Vec<_> = refused.iter().map(|entry| entry["changes"]["new"]["action"].as_str().unwrap()).collect();
    assert_eq!(what, ["createOrganization", "setUserRole"]);
    assert_eq!(refused[1]["userId"], them["userId"]);
    // A member's refused read is not recorded as an action.
    assert_eq!(member.code("{ organization(slug: \"acme\") { usage { used } } }", json!({})).await, "FORBIDDEN");

    // A deactivated user's sign-in.
    let off = "mutation($id: ID!) { setUserActive(input: {id: $id, isActive: false}) { user { id } } }";
    boss.data(off, json!({ "id": them["id"] })).await;
    let ask = app.client.post(format!("{}/api/auth/request-magic-link", app.url));
    ask.json(&json!({ "email": "member@example.org" })).send().await.unwrap();
    let refused = trail_until(&boss, "acme", json!({ "action": "sign_in_refused" }), 1).await;
    assert_eq!(refused[0]["changes"]["new"], json!({ "reason": "deactivated" }));
    assert_eq!((&refused[0]["userId"], &refused[0]["resourceId"]), (&Value::Null, &them["userId"]));

    // Filters.
    let all = trail(&boss, "acme", json!({})).await;
    for (filter, expected) in [
        (json!({ "userId": them["id"] }), all.iter().filter(|entry| entry["userId"] == them["userId"]).count()),
        (json!({ "userId": them["userId"] }), all.iter().filter(|entry| entry["userId"] == them["userId"]).count()),
        (json!({ "resourceId": them["userId"] }), all.iter().filter(|e| e["resourceId"] == them["userId"]).count()),
        (json!({ "resourceType": "organization" }), 1),
        (json!({ "resourceType": "organization", "action": "created" }), 1),
        (json!({ "to": "2020-01-01T00:00:00Z" }), 0),
        (json!({ "from": "2020-01-01T00:00:00Z" }), all.len()),
        (json!({ "action": "nothing" }), 0),
    ] {
        assert_eq!(trail(&boss, "acme", filter.clone()).await.len(), expected, "{filter}");
    }
    for bad in [json!({ "userId": "x" }), json!({ "action": "\u{0}" })] {
        assert_eq!(boss.code(TRAIL, json!({ "slug": "acme", "filter": bad })).await, "BAD_USER_INPUT");
    }
    let everything =
        admin.data("{ auditLog(first: 1000) { nodes { position organization { id } } } }", json!({})).await;
    let everything = everything["auditLog"]["nodes"].as_array().unwrap();
    let of_acme = everything.iter().filter(|entry| entry["organization"]["id"] == json!(id)).count();
    assert!(of_acme >= all.len() && everything.len() > of_acme, "{of_acme} of {}", everything.len());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_is_counted_and_does_not_fill_the_log() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[]).await;
    let boss = app.user("acme", "boss@example.org", Role::Admin).await;
    let member = app.user("acme", "member@example.org", Role::Member).await;
    let create = "mutation { createOrganization(input: {name: \"x\", slug: \"x\"}) { organization { id } } }";
    for _ in 0..10 {
        let asked = (0..20).map(|_| member.code(create, json!({})));
        assert!(futures::future::join_all(asked).await.iter().all(|code| code == "FORBIDDEN"));
    }
    trail_until(&boss, "acme", json!({ "action": "action_refused" }), 30).await;
    // The other refusals are recorded as a count, at the latest when the server stops.
    let database = app.database.superuser().await;
    app.stop().await;
    let of_type = |event_type: &'static str| {
        sqlx::query_scalar::<_, i64>("select count(*) from events where event_type = $1").bind(event_type)
    };
    let told = of_type("access.action_refused").fetch_one(&database).await.unwrap();
    let counted: i64 = sqlx::query_scalar(
        "select sum((payload ->> 'count')::bigint)::bigint from events where event_type = 'access.refusals_suppressed'",
    )
    .fetch_one(&database)
    .await
    .unwrap();
    assert!((30..40).contains(&told), "{told}");
    assert_eq!(told + counted, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_is_exported_to_those_who_may_see_it_and_that_is_in_the_trail() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[]).await;
    app.organization(&admin, "other", &[]).await;
    let boss = app.user("acme", "boss@example.org", Role::Admin).await;
    let member = app.user("acme", "member@example.org", Role::Member).await;
    let stranger = app.user("other", "stranger@example.org", Role::Admin).await;
    // More than a page, some of it hostile to spreadsheets and to JSON.
    let database = app.database.superuser().await;
    sqlx::query(
        "insert into audit_logs (organization_id, partition, position, client, agent, action, resource_type,
                                 resource_id, changes, at)
         select $1, 3, 1000000 + n, '=HYPERLINK(\"x\")', E'@a\"b\\\\,\\r\\nc', 'updated', 'organization', $1,
                jsonb_build_object('old', '{}'::jsonb, 'new', jsonb_build_object('name', '=1+1 \"é' || n)),
                now() - n * interval '1 second'
         from generate_series(1, 1234) n",
    )
    .bind(hookledger_aggregates::OrganizationId::from_slug("acme").uuid())
    .execute(&database)
    .await
    .unwrap();

    let get = |actor: &Actor<'_>, path: &str| {
        app.client.get(format!("{}/api/organizations/{path}", app.url)).bearer_auth(&actor.token).send()
    };
    let json_export = get(&boss, "acme/audit.json").await.unwrap();
    assert_eq!(json_export.status(), StatusCode::OK);
    assert_eq!(json_export.headers()["content-disposition"], "attachment; filename=\"audit-acme.json\"");
    let entries: Vec<Value> = json_export.json().await.unwrap();
    assert_eq!(entries[0]["action"], "exported");
    assert_eq!(entries[0]["changes"]["new"], json!({ "format": "json", "filter": "{}" }));
    assert_eq!(entries.iter().filter(|entry| entry["action"] == "updated").count(), 1234);
    let mut positions: Vec<_> = entries.iter().map(|entry| entry["position"].to_string()).collect();
    positions.sort();
    positions.dedup();
    assert_eq!(positions.len(), entries.len());

    let csv = get(&admin, "acme/audit.csv?action=updated&from=2020-01-01T00:00:00Z").await.unwrap();
    assert_eq!(csv.headers()["content-type"], "text/csv; charset=utf-8; header=present");
    let csv = csv.text().await.unwrap();
    let quote_starts: Vec<&str> = csv.split(",\"").collect();
    assert!(quote_starts.iter().all(|cell| !cell.starts_with(['=', '+', '-', '@'])), "a formula");
    assert_eq!(csv.matches("\"'=HYPERLINK(\"\"x\"\")\"").count(), 1234);
    assert!(csv.starts_with("\u{feff}position,at,user_id,user_email,"), "{}", &csv[..80]);
    let nothing: Vec<Value> =
        get(&boss, "acme/audit.json?to=2020-01-01T00:00:00Z").await.unwrap().json().await.unwrap();
    assert!(nothing.is_empty());

    assert_eq!(get(&member, "acme/audit.csv").await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(get(&stranger, "acme/audit.csv").await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(get(&stranger, "nobody/audit.csv").await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(get(&admin, "nobody/audit.csv").await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(get(&boss, "acme/audit.csv?from=x").await.unwrap().status(), StatusCode::BAD_REQUEST);
    let url = format!("{}/api/organizations/acme/audit.csv", app.url);
    assert_eq!(app.client.get(&url).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        app.client.post(&url).bearer_auth(&boss.token).send().await.unwrap().status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
    let refused = trail_until(&boss, "acme", json!({ "action": "action_refused" }), 1).await;
    assert_eq!(refused[0]["changes"]["new"]["action"], "exportAuditLog");
    app.stop().await;
}
