//! Summaries of many webhooks: the histogram, groups, rankings, the health of providers.

use serde_json::{Value, json};
use sqlx::Executor as _;

use crate::app::{GITHUB_SECRET, TestApp};

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_many_webhooks_agree_with_their_list() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    for n in 0..12 {
        app.github("acme", &format!("d-{n}"), format!("{{\"n\":{n}}}")).send().await.unwrap();
    }
    for _ in 0..3 {
        app.client
            .post(app.webhooks("acme", "github"))
            .header("x-github-event", "issues")
            .body("forged")
            .send()
            .await
            .unwrap();
    }
    let done =
        |nodes: &[Value]| nodes.len() == 15 && nodes.iter().filter(|node| node["status"] == "SUCCESS").count() == 12;
    admin.webhooks_until("acme", "status", done).await;
    // Some failed, as if they had had a destination.
    let pool = app.database.superuser().await;
    pool.execute(
        "with chosen as (select webhook_id, row_number() over (order by position) as n from webhook_logs where signature_valid)
         update webhook_logs w set status = 'failed', processed_at = null,
             error_message = case when n <= 3 then 'the destination answered 500' else 'it is gone' end,
             dead_lettered_at = case when n <= 4 then now() end,
             next_retry_at = case when n = 5 then now() + interval '1 hour' end
         from chosen where chosen.webhook_id = w.webhook_id and n <= 5",
    )
    .await
    .unwrap();

    let query = "query($from: DateTime!, $to: DateTime!, $filter: WebhookFilter) { organization(slug: \"acme\") {
        histogram(from: $from, to: $to, buckets: 7, filter: $filter) { total truncated countedFrom
            buckets { start end pending processing success failed deadLettered rejected total } }
        deadLetterGroups { total truncated groups { count errorMessage oldest newest provider { id providerName } } }
        topEventTypes(from: $from, to: $to) { total truncated names { name count share } }
        topErrors(from: $from, to: $to, first: 2) { total names { name count } }
        eventTypes providers { health { received rejected succeeded failed successRate lastReceivedAt } } } }";
    let now = chrono::Utc::now();
    let (from, to) = (now - chrono::Duration::hours(1), now + chrono::Duration::minutes(1));
    let span = |filter: Value| json!({ "from": from, "to": to, "filter": filter });
    let data = admin.data(query, span(Value::Null)).await;
    let acme = &data["organization"];
    let sum = |name: &str, histogram: &Value| -> i64 {
        histogram["buckets"].as_array().unwrap().iter().map(|bucket| bucket[name].as_i64().unwrap()).sum()
    };
    let histogram = &acme["histogram"];
    let names = ["pending", "processing", "success", "failed", "deadLettered", "rejected", "total"];
    assert_eq!(names.map(|name| sum(name, histogram)), [0, 0, 7, 1, 4, 3, 15], "{histogram:#}");
    assert_eq!((&histogram["total"], &histogram["truncated"]), (&json!(15), &json!(false)));
    let buckets = histogram["buckets"].as_array().unwrap();
    assert_eq!(buckets.len(), 7);
    assert!(buckets.windows(2).all(|pair| pair[0]["end"] == pair[1]["start"]));

    for (filter, expected) in [
        (json!({ "status": ["FAILED"] }), 8),
        (json!({ "status": ["PENDING", "PROCESSING"] }), 0),
        (json!({ "deadLettered": true }), 4),
        (json!({ "signatureValid": false }), 3),
        (json!({ "eventTypes": ["push"] }), 12),
        (json!({ "eventTypes": ["push", "issues"], "signatureValid": false }), 3),
        (json!({ "errorMessage": "it is gone" }), 2),
        (json!({ "receivedTo": from }), 0),
    ] {
        let data = admin.data(query, span(filter.clone())).await;
        assert_eq!(data["organization"]["histogram"]["total"], expected, "{filter}");
    }

    let groups = &acme["deadLetterGroups"];
    assert_eq!(groups["total"], 4);
    assert_eq!(groups["groups"][0]["count"], 3);
    assert_eq!(groups["groups"][0]["errorMessage"], "the destination answered 500");
    // A filter selects the webhooks of a group.
    let filter = json!({ "deadLettered": true, "errorMessage": groups["groups"][0]["errorMessage"],
                         "providerIds": [groups["groups"][0]["provider"]["id"]] });
    let retryable =
        "query($filter: WebhookFilter) { organization(slug: \"acme\") { retryableCount(filter: $filter) } }";
    let data = admin.data(retryable, json!({ "filter": filter })).await;
    assert_eq!(data["organization"]["retryableCount"], 3);

    assert_eq!(acme["topEventTypes"]["names"][0], json!({ "name": "push", "count": 12, "share": 0.8 }));
    assert_eq!(acme["topErrors"]["names"].as_array().unwrap().len(), 2);
    assert_eq!(acme["topErrors"]["names"][0]["count"], 3);
    assert_eq!(acme["eventTypes"], json!(["push", "issues"]));
    let health = &acme["providers"][0]["health"];
    assert_eq!((&health["received"], &health["rejected"], &health["succeeded"]), (&json!(12), &json!(3), &json!(12)));
    assert_eq!(health["successRate"], 1.0);

    let previous = "{ organization(slug: \"acme\") { webhooks(first: 1, filter: {signatureValid: true}) { nodes {
        rawBody previousOfType { rawBody previousOfType { rawBody } } } } } }";
    let data = admin.data(previous, json!({})).await;
    let last = &data["organization"]["webhooks"]["nodes"][0];
    assert_eq!(last["previousOfType"]["rawBody"], "{\"n\":10}");
    assert_eq!(last["previousOfType"]["previousOfType"]["rawBody"], "{\"n\":9}");

    for (arguments, what) in [
        ("buckets: 0", "no bucket"),
        ("buckets: 201", "too many buckets"),
        ("buckets: 5, filter: {providerIds: [\"x\"]}", "no provider"),
    ] {
        let query = format!(
            "{{ organization(slug: \"acme\") {{ histogram(from: \"2026-01-01T00:00:00Z\", to: \"2026-01-02T00:00:00Z\", {arguments}) {{ total }} }} }}"
        );
        assert_eq!(admin.code(&query, json!({})).await, "BAD_USER_INPUT", "{what}");
    }
    drop(id);
    app.stop().await;
}

/// Beyond the rows that are read, an index counts exactly.
#[tokio::test(flavor = "multi_thread")]
async fn a_histogram_of_very_many_is_still_whole() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    app.github("acme", "d", "{}").send().await.unwrap();
    admin.webhooks_until("acme", "status", |nodes| nodes.iter().any(|node| node["status"] == "SUCCESS")).await;
    let pool = app.database.superuser().await;
    pool.execute(
        "insert into webhook_logs (organization_id, webhook_id, position, applied_position, provider_id, event_type,
             body_sha256, body_size, signature_valid, status, retry_count, received_at, updated_at, processed_at,
             dead_lettered_at, duplicate_count, body_differs)
         select organization_id, gen_random_uuid(), -n, 1, provider_id, event_type, body_sha256, body_size, true,
                case when n % 1000 = 0 then 'failed' else 'success' end, 0, received_at - n * interval '1 s', updated_at,
                processed_at, case when n % 1000 = 0 then now() end, 0, false
         from webhook_logs, generate_series(1, 120000) n",
    )
    .await
    .unwrap();
    pool.execute("vacuum analyze webhook_logs").await.unwrap();
    let query = "query($from: DateTime!, $to: DateTime!, $filter: WebhookFilter) { organization(slug: \"acme\") {
        histogram(from: $from, to: $to, buckets: 60, filter: $filter) { total truncated countedFrom
            buckets { success deadLettered } } } }";
    let now = chrono::Utc::now();
    let span = |days: i64, filter: Value| json!({ "from": now - chrono::Duration::days(days), "to": now + chrono::Duration::minutes(1), "filter": filter });
    let began = std::time::Instant::now();
    let data = admin.data(query, span(30, Value::Null)).await;
    eprintln!("a histogram of 120,001 webhooks: {:?}", began.elapsed());
    let histogram = &data["organization"]["histogram"];
    assert_eq!((&histogram["total"], &histogram["truncated"]), (&json!(120_001), &json!(false)));
    let dead: i64 = histogram["buckets"].as_array().unwrap().iter().map(|b| b["deadLettered"].as_i64().unwrap()).sum();
    assert_eq!(dead, 120);
    // Without an index, the count ends at a limit, and says so.
    let data = admin.data(query, span(30, json!({ "eventType": "push" }))).await;
    let histogram = &data["organization"]["histogram"];
    assert_eq!((&histogram["total"], &histogram["truncated"]), (&json!(100_000), &json!(true)));
    assert!(histogram["countedFrom"].is_string());
    app.stop().await;
}
