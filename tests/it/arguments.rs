//! Arguments that PostgreSQL cannot store, or that make no sense.

use serde_json::{Value, json};

use crate::app::{GITHUB_SECRET, TestApp};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_cannot_hold_is_the_askers_mistake() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let org = |field: &str| format!("{{ organization(slug: \"acme\") {{ {field} }} }}");
    let times = [
        "-4712-01-01T00:00:00Z",
        "0000-12-31T23:59:59Z",
        "+10000-01-01T00:00:00Z",
        "+262142-12-31T00:00:00Z",
        "-262143-01-01T00:00:00Z",
    ];
    let good = "2026-01-31T00:00:00Z";
    for time in times {
        for query in [
            org(&format!("webhooks(filter: {{receivedFrom: \"{time}\"}}) {{ nodes {{ id }} }}")),
            org(&format!("webhooks(filter: {{receivedTo: \"{time}\", text: \"a\"}}) {{ nodes {{ id }} }}")),
            org(&format!("deadLetters(filter: {{receivedTo: \"{time}\"}}) {{ nodes {{ id }} }}")),
            org(&format!("retryableCount(filter: {{receivedFrom: \"{time}\"}})")),
            org(&format!("histogram(from: \"{time}\", to: \"{good}\", buckets: 10) {{ total }}")),
            org(&format!("histogram(from: \"{good}\", to: \"{time}\", buckets: 10) {{ total }}")),
            org(&format!("analytics(from: \"{time}\", to: \"{good}\", grain: DAY) {{ totals {{ received }} }}")),
            org(&format!("topEventTypes(from: \"{time}\", to: \"{good}\") {{ total }}")),
            org(&format!("topErrors(from: \"{good}\", to: \"{time}\") {{ total }}")),
            org(&format!("events(from: \"{time}\") {{ nodes {{ position }} }}")),
            org(&format!("events(to: \"{time}\") {{ nodes {{ position }} }}")),
            org(&format!("auditLog(filter: {{from: \"{time}\"}}) {{ nodes {{ action }} }}")),
            org(&format!("asOf(time: \"{time}\") {{ name }}")),
            format!("{{ analytics(from: \"{time}\", to: \"{good}\", grain: DAY) {{ totals {{ received }} }} }}"),
            format!("{{ auditLog(filter: {{to: \"{time}\"}}) {{ nodes {{ action }} }} }}"),
        ] {
            let answer = admin.ask(&query, json!({})).await;
            let error = &answer["errors"][0];
            assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{query}: {answer:#}");
            let told = error["message"].as_str().unwrap();
            assert!(told.contains("a time must be "), "{query}: {answer:#}");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_argument_makes_an_error_of_ours() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let org = |field: &str| {
        format!(
            "query($n: Int, $t: String, $p: LogPosition) {{ organization(slug: \"acme\") {{ {field} }} nothing: node(id: \"$\") {{ id }} }}"
        )
    };
    let mut asked: Vec<(String, Value)> = Vec::new();
    for n in [i64::MIN, i64::from(i32::MIN), -1, 0, i64::from(i32::MAX), i64::MAX] {
        for field in [
            format!("webhooks(first: {n}) {{ nodes {{ id }} }}"),
            format!("users(first: {n}) {{ nodes {{ id }} }}"),
            format!(
                "histogram(from: \"2026-01-01T00:00:00Z\", to: \"2026-01-31T00:00:00Z\", buckets: {n}) {{ total }}"
            ),
            format!("topErrors(from: \"2026-01-01T00:00:00Z\", to: \"2026-01-31T00:00:00Z\", first: {n}) {{ total }}"),
            format!("ledger {{ checkpoint(size: {n}) {{ size }} }}"),
            format!("ledger {{ consistencyProof(from: {n}, to: {n}) {{ from }} }}"),
            format!("ledger {{ inclusionProof(position: \"1:{n}\", size: {n}) {{ leafIndex }} }}"),
        ] {
            asked.push((format!("{{ organization(slug: \"acme\") {{ {field} }} }}"), json!({})));
        }
        for partition in [n, 0, 7, 15] {
            let position = json!({ "p": format!("{partition}:{n}") });
            asked
                .push((org("events(after: $p) { nodes { position } }").replace("$n: Int, $t: String, ", ""), position));
        }
    }
    for text in ["\0", "a\0b", "\u{fffd}", "%_\\"] {
        for query in [
            "query($t: String) { organizations(search: $t) { nodes { id } } }",
            "query($t: String) { users(search: $t) { nodes { id } } }",
            "query($t: String) { providers(search: $t) { nodes { id } } }",
            "query($t: String!) { organization(slug: $t) { id } }",
            "query($t: String) { organization(slug: \"acme\") { webhooks(filter: {text: $t}) { nodes { id } } } }",
            "query($t: String) { organization(slug: \"acme\") { webhooks(after: $t) { nodes { id } } } }",
            "query($t: String) { auditLog(filter: {action: $t}) { nodes { action } } }",
            "mutation($t: String!) { createOrganization(input: {name: $t, slug: \"new\"}) { organization { id } } }",
        ] {
            asked.push((query.to_owned(), json!({ "t": text })));
        }
        let literal = format!("{{ organizations(search: {}) {{ nodes {{ id }} }} }}", json!(text));
        asked.push((literal, json!({})));
    }
    for (query, variables) in asked {
        let answer = admin.ask(&query, variables.clone()).await;
        for error in answer["errors"].as_array().unwrap_or(&Vec::new()) {
            let code = error["extensions"]["code"].as_str().unwrap_or_default();
            assert!(!matches!(code, "" | "INTERNAL" | "UNAVAILABLE"), "{query} {variables}: {answer:#}");
        }
        if variables["t"].as_str().is_some_and(|text| text.contains('\0')) {
            assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT", "{query}: {answer:#}");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_operation_name_is_none() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    for name in [json!(""), json!(null), json!("A")] {
        let body = json!({ "query": "query A { viewer { isSuperAdmin } }", "operationName": name });
        let post = app.client.post(format!("{}/graphql", app.url)).bearer_auth(&admin.token).json(&body);
        let answer: Value = post.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["data"]["viewer"]["isSuperAdmin"], true, "{name}: {answer:#}");
    }
    app.stop().await;
}
