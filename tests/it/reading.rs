//! Looking into what was received: text, the log itself, and figures.

use serde_json::{Value, json};

use crate::app::{GITHUB_SECRET, TestApp};

fn texts(nodes: &Value, field: &str) -> Vec<String> {
    nodes.as_array().unwrap().iter().map(|node| node[field].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_found_in_ids_and_bodies() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    app.organization(&admin, "other", &[("GITHUB", GITHUB_SECRET)]).await;
    app.github("other", "d", "{\"needle\":1}").send().await.unwrap();
    for n in 0..30 {
        let body = if n % 10 == 3 { "{\"a\":\"x-needle-é-y\"}" } else { "{\"a\":\"hay\"}" };
        app.github("acme", &format!("d-{n:02}"), body).send().await.unwrap();
    }
    let nodes = admin.webhooks_until("acme", "webhookId providerEventId", |nodes| nodes.len() == 30).await;
    let query = "query($text: String, $first: Int, $after: String, $last: Int) { organization(slug: \"acme\") { \
                 webhooks(filter: {text: $text}, first: $first, after: $after, last: $last) { \
                 searchedTo pageInfo { hasNextPage endCursor } nodes { providerEventId } } } }";
    let search = async |variables: Value| {
        let mut data = admin.data(query, variables).await;
        let page = data["organization"]["webhooks"].take();
        (texts(&page["nodes"], "providerEventId"), page)
    };
    assert_eq!(search(json!({ "text": "needle-é" })).await.0, ["d-23", "d-13", "d-03"]);
    assert_eq!(search(json!({ "text": "d-1" })).await.0.len(), 10);
    let named = search(json!({ "text": nodes[4]["webhookId"] })).await.0;
    assert_eq!(named, [nodes[4]["providerEventId"].as_str().unwrap()]);
    assert_eq!(search(json!({ "text": "d-07" })).await.0, ["d-07"]);
    assert!(search(json!({ "text": "not there" })).await.0.is_empty());
    let (first, page) = search(json!({ "text": "needle", "first": 2 })).await;
    assert_eq!((first, &page["pageInfo"]["hasNextPage"]), (vec!["d-23".to_owned(), "d-13".to_owned()], &json!(true)));
    let after = page["pageInfo"]["endCursor"].clone();
    let (rest, page) = search(json!({ "text": "needle", "first": 2, "after": after })).await;
    assert_eq!((rest, &page["pageInfo"]["hasNextPage"]), (vec!["d-03".to_owned()], &json!(false)));
    assert_eq!(page["searchedTo"], Value::Null);
    assert_eq!(search(json!({ "text": "needle", "last": 1 })).await.0, ["d-03"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_says_how_far_it_looked_and_goes_on_from_there() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    app.github("acme", "oldest", "{\"needle\":1}").send().await.unwrap();
    admin.webhooks_until("acme", "webhookId", |nodes| nodes.len() == 1).await;
    // As if 12,000 more had come since.
    let database = app.database.superuser().await;
    sqlx::query(
        "insert into webhook_logs
         select organization_id, gen_random_uuid(), position + n, applied_position, provider_id, 'd-' || n, event_type,
                body_sha256, body_size, content_type, signature_received, signature_valid, status, retry_count,
                error_message, received_at + n * interval '1 ms', updated_at, processed_at, next_retry_at,
                dead_lettered_at, duplicate_count, body_differs
         from webhook_logs, generate_series(1, 12000) n",
    )
    .execute(&database)
    .await
    .unwrap();
    let query = "query($after: String) { organization(slug: \"acme\") { webhooks(filter: {text: \"needle\"}, after: $after) { \
                 searchedTo pageInfo { hasNextPage } nodes { providerEventId } } } }";
    let first = admin.data(query, json!({})).await["organization"]["webhooks"].take();
    assert_eq!((&first["nodes"], &first["pageInfo"]["hasNextPage"]), (&json!([]), &json!(true)));
    let rest = admin.data(query, json!({ "after": first["searchedTo"] })).await["organization"]["webhooks"].take();
    assert_eq!(texts(&rest["nodes"], "providerEventId"), ["oldest"]);
    assert_eq!((&rest["searchedTo"], &rest["pageInfo"]["hasNextPage"]), (&Value::Null, &json!(false)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auditors_read_the_log_of_their_organization() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    for n in 0..5 {
        app.github("acme", &format!("d-{n}"), "{}").send().await.unwrap();
    }
    let nodes = admin
        .webhooks_until("acme", "webhookId status", |nodes| {
            nodes.len() == 5 && nodes.iter().all(|node| node["status"] == "SUCCESS")
        })
        .await;
    let query = "query($after: LogPosition, $id: UUID, $from: DateTime, $to: DateTime, $first: Int) { \
                 organization(slug: \"acme\") { \
                 events(after: $after, aggregateId: $id, from: $from, to: $to, first: $first) { \
                 pageInfo { hasNextPage endCursor } nodes { position sequence eventType aggregateId recordedAt } } } }";
    let read = async |variables: Value| {
        let mut data = admin.data(query, variables).await;
        data["organization"]["events"].take()
    };
    let events = |page: &Value| page["nodes"].as_array().unwrap().clone();
    let all = events(&read(json!({ "first": 1000 })).await);
    assert_eq!(all[0]["eventType"], "organization.created");
    assert!(all.len() >= 2 + 5 * 4);
    let (mut paged, mut after) = (Vec::new(), Value::Null);
    loop {
        let page = read(json!({ "first": 7, "after": after })).await;
        paged.extend(events(&page));
        after = page["pageInfo"]["endCursor"].clone();
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
    }
    assert_eq!(paged, all);
    let one = events(&read(json!({ "id": nodes[2]["webhookId"] })).await);
    assert_eq!(one.iter().map(|event| event["sequence"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let middle = all[9]["recordedAt"].clone();
    let later = events(&read(json!({ "from": middle, "first": 1000 })).await);
    let earlier = events(&read(json!({ "to": middle, "first": 1000 })).await);
    assert_eq!([earlier, later].concat(), all);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn analytics_count_what_happened() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET), ("STRIPE", "x")]).await;
    app.organization(&admin, "other", &[("GITHUB", GITHUB_SECRET)]).await;
    let before = chrono::Utc::now();
    for n in 0..6 {
        app.github("acme", &format!("d-{n}"), "{}").send().await.unwrap();
    }
    app.github("acme", "d-0", "{}").send().await.unwrap();
    app.client.post(app.webhooks("acme", "github")).body("{}").send().await.unwrap();
    app.github("other", "d", "{}").send().await.unwrap();
    let done =
        |count: usize| move |nodes: &[Value]| nodes.iter().filter(|node| node["status"] == "SUCCESS").count() == count;
    let nodes = admin.webhooks_until("acme", "status provider { id }", done(6)).await;
    admin.webhooks_until("other", "status", done(1)).await;
    let (from, to) = (before - chrono::Duration::minutes(3), chrono::Utc::now() + chrono::Duration::minutes(1));
    let fields = "{ buckets { start counts { received } } totals { received duplicates rejected succeeded failed \
                  deadLettered latency { p50 p99 } } }";
    let query = format!(
        "query($from: DateTime!, $to: DateTime!, $grain: Grain!, $provider: ID) {{ \
         organization(slug: \"acme\") {{ analytics(from: $from, to: $to, grain: $grain, providerId: $provider) {fields} }} \
         analytics(from: $from, to: $to, grain: $grain) {{ totals {{ received }} }} }}"
    );
    for grain in ["MINUTE", "HOUR", "DAY"] {
        let variables = json!({ "from": from, "to": to, "grain": grain, "provider": nodes[0]["provider"]["id"] });
        let data = admin.data(&query, variables).await;
        let analytics = &data["organization"]["analytics"];
        let totals = &analytics["totals"];
        let names = ["received", "duplicates", "rejected", "succeeded", "failed", "deadLettered"];
        assert_eq!(names.map(|name| totals[name].as_i64().unwrap()), [6, 1, 1, 6, 0, 0], "{grain}");
        assert!(totals["latency"]["p50"].as_i64().unwrap() <= totals["latency"]["p99"].as_i64().unwrap());
        let buckets = analytics["buckets"].as_array().unwrap();
        assert_eq!(buckets.iter().map(|bucket| bucket["counts"]["received"].as_i64().unwrap()).sum::<i64>(), 6);
        assert!(grain != "MINUTE" || (4..=6).contains(&buckets.len()), "{buckets:?}");
        assert_eq!(data["analytics"]["totals"]["received"], 7);
    }
    let data = admin.data("{ organization(slug: \"acme\") { providers { id providerName } } }", json!({})).await;
    let providers = data["organization"]["providers"].as_array().unwrap();
    let stripe = providers.iter().find(|provider| provider["providerName"] == "STRIPE").unwrap();
    let variables = json!({ "from": from, "to": to, "grain": "DAY", "provider": stripe["id"] });
    let data = admin.data(&query, variables).await;
    assert_eq!(data["organization"]["analytics"]["totals"]["received"], 0);
    for (from, to) in
        [("2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z"), ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z")]
    {
        assert_eq!(admin.code(&query, json!({ "from": from, "to": to, "grain": "MINUTE" })).await, "BAD_USER_INPUT");
    }
    app.stop().await;
}
