//! Received = pending + processing + succeeded + failed + dead-lettered, and the read models say the same.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::app::{Actor, GITHUB_SECRET, TestApp};
use crate::deliveries::quick;
use crate::patience::PATIENCE;
use crate::sink::Sink;

const QUERY: &str = "{ conservation { organization { slug } received pending processing succeeded failed deadLettered
    duplicates rejected difference differences webhookIds mismatchSince position checkedAt } }";

/// Waits until the check of an organization meets the condition.
pub async fn checked_until(admin: &Actor<'_>, slug: &str, wished: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let data = admin.data(QUERY, json!({})).await;
        let all = data["conservation"].as_array().unwrap();
        let ours = all.iter().find(|one| one["organization"]["slug"] == slug);
        if let Some(ours) = ours.filter(|ours| !ours["checkedAt"].is_null() && wished(ours)) {
            return ours.clone();
        }
        assert!(Instant::now() < deadline, "{all:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn warnings(app: &TestApp) -> Value {
    let answer = app.client.get(format!("{}/readyz", app.url)).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    answer.json::<Value>().await.unwrap()["warnings"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_where_the_log_says_is_reported_and_named() {
    let app = TestApp::with(quick).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let other = app.organization(&admin, "other", &[]).await;
    let connect = "mutation($input: ConnectProviderInput!) { connectProvider(input: $input) { provider { id } } }";
    let input = json!({ "organizationId": other, "providerName": "GITHUB", "secret": GITHUB_SECRET,
                        "destinationUrl": sink.url("/switch") });
    admin.data(connect, json!({ "input": input })).await;
    // Under traffic: new webhooks, duplicates, forgeries, and some that become dead letters.
    for wave in 0..4 {
        let posts = (0..50).map(|n| app.github("acme", &format!("{}", wave * 25 + n), "{}").send());
        futures::future::join_all(posts).await;
        app.client.post(app.webhooks("acme", "github")).body("{}").send().await.unwrap();
        app.github("other", &format!("o-{wave}"), "{}").send().await.unwrap();
        let data = admin.data(QUERY, json!({})).await;
        assert!(data["conservation"].as_array().unwrap().iter().all(|one| one["difference"] == 0), "{data:#}");
    }
    let counted = |one: &Value| {
        let of = |name: &str| one[name].as_i64().unwrap();
        ["received", "pending", "processing", "succeeded", "failed", "deadLettered", "duplicates", "rejected"].map(of)
    };
    let acme = checked_until(&admin, "acme", |one| counted(one) == [125, 0, 0, 125, 0, 0, 75, 4]).await;
    let dead = checked_until(&admin, "other", |one| counted(one) == [4, 0, 0, 0, 0, 4, 0, 0]).await;
    assert_eq!((&acme["difference"], &dead["difference"]), (&json!(0), &json!(0)));
    assert_eq!(warnings(&app).await, json!(null));

    let pool = app.database.superuser().await;
    let tamper = async |sql: &str| -> uuid::Uuid { sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap() };
    let changed = tamper(
        "update webhook_logs set status = 'failed' where provider_event_id = '7' and status = 'success' returning webhook_id",
    )
    .await;
    let told = checked_until(&admin, "acme", |one| one["difference"] == 1).await;
    assert_eq!(told["webhookIds"], json!([changed]));
    assert_eq!(
        told["differences"],
        json!(["succeeded: 125 in the log, 124 in the read model", "failed: 0 in the log, 1 in the read model"])
    );
    assert!(warnings(&app).await[0].as_str().unwrap().contains("1 organizations"));
    let gone = tamper("delete from webhook_logs where provider_event_id = '9' returning webhook_id").await;
    let told = checked_until(&admin, "acme", |one| one["difference"] == 2).await;
    let named: Vec<_> =
        told["webhookIds"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    assert!(named.len() == 2 && [changed, gone].iter().all(|id| named.contains(&id.to_string())), "{named:?}");
    checked_until(&admin, "other", |one| one["difference"] == 0).await;

    // A rebuild repairs it.
    let mut rebuild = hookledger::reads::rebuild::Rebuild::open(&app.database.store(), "webhook_logs").await.unwrap();
    rebuild.begin().await.unwrap();
    rebuild.catch_up(|_| {}).await.unwrap();
    let comparison = rebuild.compare(|_| {}).await.unwrap();
    assert!(comparison.tables.iter().any(|table| table.table == "webhook_balances" && table.different == 1));
    rebuild.switch(|_| {}).await.unwrap();
    let told = checked_until(&admin, "acme", |one| one["difference"] == 0).await;
    assert_eq!((&told["mismatchSince"], &told["webhookIds"]), (&json!(null), &json!([])));
    assert_eq!(warnings(&app).await, json!(null));
    app.stop().await;
}
