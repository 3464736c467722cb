//! Receiving over HTTP, from providers and from strangers.

use base64::Engine as _;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{GITHUB_SECRET, TestApp, hmac_hex};

const FIELDS: &str = "webhookId status eventType providerEventId signatureValid duplicateCount bodyDiffers errorMessage \
                      rawBodyBase64 bodySha256 payload headers { name value }";

async fn json_of(response: reqwest::Response) -> (StatusCode, Value) {
    let status = response.status();
    (status, response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genuine_webhook_is_in_the_answer_and_ends_with_success() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let body = r#"{"ref":"refs/heads/main","note":"caf\u00e9"}"#;
    let (status, answer) = json_of(app.github("acme", "d-1", body).header("cookie", "s=1").send().await.unwrap()).await;
    assert_eq!((status, &answer["status"], &answer["duplicate"]), (StatusCode::OK, &json!("success"), &json!(false)));
    let nodes = admin
        .webhooks_until("acme", FIELDS, |nodes| nodes.first().is_some_and(|node| node["status"] == "SUCCESS"))
        .await;
    let node = &nodes[0];
    assert_eq!(node["webhookId"], answer["webhook_id"]);
    assert_eq!((&node["eventType"], &node["providerEventId"]), (&json!("push"), &json!("d-1")));
    assert_eq!(node["payload"], json!({ "ref": "refs/heads/main", "note": "café" }));
    let names: Vec<_> =
        node["headers"].as_array().unwrap().iter().map(|header| header["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"x-hub-signature-256") && !names.contains(&"cookie"), "{names:?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_parallel_posts_of_one_event_make_one_webhook() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    // The forged request comes first, with the ID of the genuine one.
    let forged =
        app.github("acme", "d-1", "{}").header("x-forged", "1").body("{\"forged\":true}").send().await.unwrap();
    assert_eq!(json_of(forged).await.1["code"], "signature_invalid");
    let posts = (0..100).map(|n| {
        let body = if n == 50 { "{\"other\":1}" } else { "{}" };
        app.github("acme", "d-1", body).send()
    });
    let mut answers = Vec::new();
    for response in futures::future::join_all(posts).await {
        let (status, answer) = json_of(response.unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        answers.push(answer);
    }
    let first: Vec<_> = answers.iter().filter(|answer| answer["duplicate"] == false).collect();
    assert_eq!(first.len(), 1);
    assert!(answers.iter().all(|answer| answer["webhook_id"] == first[0]["webhook_id"]));
    let nodes = admin
        .webhooks_until("acme", FIELDS, |nodes| {
            nodes.len() == 2 && nodes.iter().any(|node| node["duplicateCount"] == 99 && node["status"] == "SUCCESS")
        })
        .await;
    let genuine = nodes.iter().find(|node| node["signatureValid"] == true).unwrap();
    assert_eq!(genuine["webhookId"], first[0]["webhook_id"]);
    assert_eq!(genuine["bodyDiffers"], true);
    let forged = nodes.iter().find(|node| node["signatureValid"] == false).unwrap();
    assert_eq!((&forged["status"], &forged["duplicateCount"]), (&json!("FAILED"), &json!(0)));
    let count = admin.data("{ organization(slug: \"acme\") { webhookCount } }", json!({})).await;
    assert_eq!(count["organization"]["webhookCount"], 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_status_and_code() {
    let app = TestApp::with(|settings| settings.max_body.0 = 1 << 20).await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET), ("STRIPE", "whsec_test_secret")]).await;
    let stripe = |t: i64, secret: &str, body: &'static str| {
        let signature = hmac_hex(secret, format!("{t}.{body}").as_bytes());
        let post = app.client.post(app.webhooks("acme", "stripe"));
        post.header("stripe-signature", format!("t={t},v1={signature}")).body(body)
    };
    let now = chrono::Utc::now().timestamp();
    let body = r#"{"id":"evt_1","type":"charge.succeeded"}"#;
    let big = vec![b'a'; (1 << 20) + 1];
    let chunked = reqwest::Body::wrap_stream(futures::stream::iter(
        big.chunks(50_000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>(),
    ));
    let cases: Vec<(&str, reqwest::RequestBuilder, u16, &str)> = vec![
        ("genuine", stripe(now, "whsec_test_secret", body), 200, ""),
        ("wrong secret", stripe(now, "whsec_other", body), 401, "signature_invalid"),
        ("stale", stripe(now - 400, "whsec_test_secret", body), 401, "timestamp_out_of_tolerance"),
        ("future", stripe(now + 400, "whsec_test_secret", body), 401, "timestamp_out_of_tolerance"),
        ("missing", app.client.post(app.webhooks("acme", "github")).body("{}"), 401, "signature_missing"),
        ("no provider", app.client.post(app.webhooks("acme", "shopify")).body("{}"), 404, "unknown_endpoint"),
        ("no such kind", app.client.post(app.webhooks("acme", "nonsense")).body("{}"), 404, "unknown_endpoint"),
        ("no organization", app.client.post(app.webhooks("nobody", "github")).body("{}"), 404, "unknown_endpoint"),
        ("too large", app.github("acme", "big", big.clone()).0, 413, "body_too_large"),
        ("too large in chunks", app.github("acme", "big", "").body(chunked).0, 413, "body_too_large"),
        ("not a post", app.client.get(app.webhooks("acme", "github")), 405, "method_not_allowed"),
        ("nowhere", app.client.post(format!("{}/webhooks/acme", app.url)), 404, "not_found"),
    ];
    for (name, request, status, code) in cases {
        let (got, answer) = json_of(request.send().await.unwrap()).await;
        assert_eq!(got.as_u16(), status, "{name}: {answer}");
        if !code.is_empty() {
            assert_eq!(answer["code"], code, "{name}: {answer}");
            assert!(answer["error"].as_str().is_some_and(|sentence| !sentence.is_empty()));
        }
    }
    let deactivate =
        "mutation($id: ID!) { setProviderActive(input: {id: $id, isActive: false}) { provider { isActive } } }";
    let providers = admin.data("{ organization(slug: \"acme\") { providers { id providerName } } }", json!({})).await;
    let providers = providers["organization"]["providers"].as_array().unwrap().clone();
    let github = providers.iter().find(|provider| provider["providerName"] == "GITHUB").unwrap();
    admin.data(deactivate, json!({ "id": github["id"] })).await;
    let (status, answer) = json_of(app.github("acme", "d", "{}").send().await.unwrap()).await;
    assert_eq!((status, &answer["error"]), (StatusCode::FORBIDDEN, &json!("Provider disabled")));
    let off =
        "mutation($id: ID!) { setOrganizationActive(input: {id: $id, isActive: false}) { organization { isActive } } }";
    admin.data(off, json!({ "id": id })).await;
    let (status, answer) = json_of(stripe(now, "whsec_test_secret", body).send().await.unwrap()).await;
    assert_eq!((status, &answer["error"]), (StatusCode::FORBIDDEN, &json!("Organization disabled")));
    // 4 rejected signatures and 2 webhooks for disabled endpoints. The log does not record the other refusals.
    let refused = |nodes: &[Value]| nodes.iter().filter(|node| node["signatureValid"] == false).count();
    admin.webhooks_until("acme", FIELDS, |nodes| nodes.len() == 7 && refused(nodes) == 6).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_write_is_kept_byte_for_byte_and_stops_nothing() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET), ("STRIPE", "whsec_x")]).await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies: Vec<Vec<u8>> = vec![
        b"{\"a\":\"\\u0000\",\"id\":\"\\u0000\"}".to_vec(),
        b"{\"a\":\"\\ud800\"}".to_vec(),
        b"{\"a\":1,\"a\":2}".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        deep.into_bytes(),
        b"[1e400]".to_vec(),
        Vec::new(),
        b"payload=%7B%7D".to_vec(),
        vec![b'x'; 25 << 20],
    ];
    for (n, body) in bodies.iter().enumerate() {
        let answer = app.github("acme", &format!("hostile-{n}"), body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{n}");
    }
    // An ID and a type with characters that PostgreSQL's JSON functions refuse.
    let t = chrono::Utc::now().timestamp();
    let body = "{\"id\":\"evt\\u0000\",\"type\":\"a\\u0000b\"}";
    let signature = hmac_hex("whsec_x", format!("{t}.{body}").as_bytes());
    let post =
        app.client.post(app.webhooks("acme", "stripe")).header("stripe-signature", format!("t={t},v1={signature}"));
    assert_eq!(post.body(body).send().await.unwrap().status(), StatusCode::OK);
    let light = "webhookId providerEventId bodySha256 status";
    let nodes = admin.webhooks_until("acme", light, |nodes| {
        nodes.len() == bodies.len() + 1 && nodes.iter().all(|node| node["status"] == "SUCCESS")
    });
    for node in nodes.await {
        let Some(n) = node["providerEventId"].as_str().and_then(|id| id.strip_prefix("hostile-")) else { continue };
        let body = &bodies[n.parse::<usize>().unwrap()];
        let query = "query($id: UUID!) { organization(slug: \"acme\") { webhook(webhookId: $id) { rawBodyBase64 PARSED events { eventType } } } }"
            .replace("PARSED", if body.len() < 1 << 20 { "payload" } else { "" });
        let detail = admin.data(&query, json!({ "id": node["webhookId"] })).await;
        let stored = detail["organization"]["webhook"]["rawBodyBase64"].as_str().unwrap();
        assert!(base64::engine::general_purpose::STANDARD.decode(stored).unwrap() == *body, "body {n} differs");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_verifies_until_its_grace_ends_on_every_node() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[]).await;
    let provider = admin.connect(&id, "GITHUB", "old").await;
    let other = app.second_node().await;
    let post = |node: &TestApp, secret: &str, delivery: &str| {
        let signature = format!("sha256={}", hmac_hex(secret, b"{}"));
        let post = node.client.post(node.webhooks("acme", "github"));
        post.header("x-github-delivery", delivery.to_owned()).header("x-hub-signature-256", signature).body("{}").send()
    };
    let rotate = "mutation($id: ID!, $grace: Int) { rotateProviderSecret(input: {providerId: $id, secret: \"new\", graceSeconds: $grace}) \
                  { provider { hasSecret secrets { version expiresAt } } } }";
    let data = admin.data(rotate, json!({ "id": provider, "grace": 3600 })).await;
    let secrets = data["rotateProviderSecret"]["provider"]["secrets"].as_array().unwrap().clone();
    assert_eq!(secrets.iter().map(|secret| secret["version"].clone()).collect::<Vec<_>>(), [json!(2), json!(1)]);
    for (secret, delivery) in [("old", "a"), ("new", "b")] {
        assert_eq!(post(&app, secret, delivery).await.unwrap().status(), StatusCode::OK);
    }
    crate::patience::until("the other node knows the new secret", async || {
        post(&other, "new", "c").await.unwrap().status() == StatusCode::OK
    })
    .await;
    admin.data(rotate, json!({ "id": provider, "grace": 0 })).await;
    assert_eq!(post(&app, "old", "d").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    crate::patience::until("the other node forgets the old secret", async || {
        post(&other, "old", "e").await.unwrap().status() == StatusCode::UNAUTHORIZED
    })
    .await;
    other.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_rejections_is_counted_and_lets_the_genuine_through() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let mut limited = 0;
    for _ in 0..200 {
        let response = app.client.post(app.webhooks("acme", "github")).body("{}").send().await.unwrap();
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            assert!(response.headers().contains_key("retry-after"));
            limited += 1;
        }
    }
    assert!(limited > 50, "{limited}");
    assert_eq!(app.github("acme", "genuine", "{}").send().await.unwrap().status(), StatusCode::OK);
    let database = app.database.superuser().await;
    app.stop().await;
    let (rejected, counted): (i64, i64) = sqlx::query_as(
        "select count(*) filter (where event_type = 'webhook.rejected'),
                coalesce(sum((payload->>'count')::bigint) filter (where event_type = 'provider.rejections_suppressed'), 0)::bigint
         from events",
    )
    .fetch_one(&database)
    .await
    .unwrap();
    assert_eq!((rejected + counted, counted), (200, limited));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_again_under_another_id_is_flagged() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    app.organization(&admin, "other", &[("GITHUB", GITHUB_SECRET)]).await;
    // A forged request must not cause the genuine one to be flagged.
    let forged = app.github("acme", "forged", "{}").body("{\"a\":1}").send().await.unwrap();
    assert_eq!(forged.status(), StatusCode::UNAUTHORIZED);
    for (slug, delivery, body) in [
        ("acme", "first", "{\"a\":1}"),
        ("acme", "replayed", "{\"a\":1}"),
        ("acme", "unlike", "{\"a\":2}"),
        ("acme", "first", "{\"a\":1}"),
        ("acme", "unlike", "{\"a\":3}"),
        ("other", "elsewhere", "{\"a\":1}"),
    ] {
        assert_eq!(app.github(slug, delivery, body).send().await.unwrap().status(), StatusCode::OK);
    }
    let fields = "providerEventId suspectedReplay bodyDiffers flagged status";
    let nodes = admin.webhooks_until("acme", fields, |nodes| {
        nodes.len() == 4
            && nodes.iter().filter(|node| node["status"] == "SUCCESS").count() == 3
            && nodes.iter().any(|node| node["bodyDiffers"] == true)
    });
    for node in nodes.await {
        let (replayed, unlike) = (node["providerEventId"] == "replayed", node["providerEventId"] == "unlike");
        assert_eq!((&node["suspectedReplay"], &node["bodyDiffers"]), (&json!(replayed), &json!(unlike)), "{node}");
        assert_eq!(node["flagged"], replayed || unlike, "{node}");
    }
    assert_eq!(admin.webhooks_until("other", fields, |nodes| nodes.len() == 1).await[0]["suspectedReplay"], false);
    for (filter, expected) in [
        ("suspectedReplay: true", vec!["replayed"]),
        ("bodyDiffers: true", vec!["unlike"]),
        ("flagged: true", vec!["unlike", "replayed"]),
        ("flagged: false", vec!["first", "forged"]),
        ("suspectedReplay: false, signatureValid: true", vec!["unlike", "first"]),
    ] {
        let query = format!(
            "{{ organization(slug: \"acme\") {{ webhooks(filter: {{{filter}}}) {{ nodes {{ providerEventId }} }} }} }}"
        );
        let data = admin.data(&query, json!({})).await;
        let nodes = data["organization"]["webhooks"]["nodes"].as_array().unwrap().clone();
        let ids: Vec<_> = nodes.iter().map(|node| node["providerEventId"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{filter}");
    }
    app.stop().await;
}
