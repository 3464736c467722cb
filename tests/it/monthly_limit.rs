//! The monthly limit: exact under concurrency and on several nodes, and without cost for organizations without one.

use std::collections::HashMap;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Actor, GITHUB_SECRET, TestApp};
use crate::patience::PATIENCE;

async fn limit(admin: &Actor<'_>, id: &str, limit: Option<u32>) {
    let update = "mutation($input: UpdateOrganizationInput!) { updateOrganization(input: $input) \
                  { organization { webhookLimit } } }";
    admin.data(update, json!({ "input": { "id": id, "webhookLimit": limit } })).await;
}

/// Posts deliveries concurrently, to the nodes in turn, and counts the answers by status and code.
async fn post_all(nodes: &[&TestApp], slug: &str, deliveries: impl Iterator<Item = String>) -> HashMap<String, usize> {
    let posts = deliveries.enumerate().map(|(n, delivery)| async move {
        let node = nodes[n % nodes.len()];
        let response = node.github(slug, &delivery, format!("{{\"n\":\"{delivery}\"}}")).send().await.unwrap();
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        match status {
            StatusCode::OK if answer["duplicate"] == true => "duplicate".to_owned(),
            StatusCode::OK => "accepted".to_owned(),
            status => format!("{} {}", status.as_u16(), answer["code"].as_str().unwrap()),
        }
    });
    let mut counts = HashMap::new();
    for outcome in futures::future::join_all(posts).await {
        *counts.entry(outcome).or_insert(0) += 1;
    }
    counts
}

fn counts(expected: &[(&str, usize)]) -> HashMap<String, usize> {
    expected.iter().map(|(outcome, count)| ((*outcome).to_owned(), *count)).collect()
}

async fn warnings(admin: &Actor<'_>, slug: &str) -> Vec<(u64, u64)> {
    let query =
        "query($slug: String!) { organization(slug: $slug) { auditLog(first: 100) { nodes { action changes } } } }";
    let data = admin.data(query, json!({ "slug": slug })).await;
    let nodes = data["organization"]["auditLog"]["nodes"].as_array().unwrap().clone();
    let warned = nodes.iter().filter(|node| node["action"] == "limit_warned");
    warned
        .map(|node| {
            let new = &node["changes"]["new"];
            (new["percent"].as_u64().unwrap(), new["accepted"].as_u64().unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_and_twenty_at_once_on_two_nodes_exactly_fifty_are_accepted() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    app.organization(&admin, "free-of-limits", &[("GITHUB", GITHUB_SECRET)]).await;
    limit(&admin, &id, Some(50)).await;
    let other = app.second_node().await;

    let at_once = |prefix: &'static str| (0..120).map(move |n| format!("{prefix}-{n}"));
    let nodes = [&app, &other];
    let (limited, unlimited) =
        tokio::join!(post_all(&nodes, "acme", at_once("a")), post_all(&nodes, "free-of-limits", at_once("a")));
    assert_eq!(limited, counts(&[("accepted", 50), ("429 monthly_limit_reached", 70)]));
    assert_eq!(unlimited, counts(&[("accepted", 120)]));

    // Duplicates do not count, and are recognized beyond the limit, from memory or from the log.
    let again = post_all(&nodes, "acme", at_once("a")).await;
    assert_eq!(again, counts(&[("duplicate", 50), ("429 monthly_limit_reached", 70)]));
    let third = app.second_node().await;
    let again = post_all(&[&third], "acme", at_once("a")).await;
    assert_eq!(again, counts(&[("duplicate", 50), ("429 monthly_limit_reached", 70)]));

    let refused = app.github("acme", "one-more", "{}").send().await.unwrap();
    let answer: Value = refused.json().await.unwrap();
    assert_eq!(answer["limit"], 50);
    let resets_at: chrono::DateTime<chrono::Utc> = answer["resets_at"].as_str().unwrap().parse().unwrap();
    assert!(resets_at > chrono::Utc::now() && resets_at < chrono::Utc::now() + chrono::Duration::days(32));
    assert!(answer["resets_at"].as_str().unwrap().ends_with("-01T00:00:00Z"), "{answer}");

    // Refused webhooks are listed with their error, never processed, and not counted.
    let fields = "status signatureValid errorMessage";
    let nodes_seen = admin.webhooks_until("acme", fields, |nodes| {
        nodes.iter().filter(|node| node["status"] == "SUCCESS").count() == 50 && nodes.len() > 100
    });
    let refused = nodes_seen.await.into_iter().find(|node| node["status"] == "FAILED").unwrap();
    assert_eq!(refused["signatureValid"], false);
    assert!(refused["errorMessage"].as_str().unwrap().starts_with("monthly_limit_reached: "), "{refused}");
    let count = admin.data("{ organization(slug: \"acme\") { webhookCount } }", json!({})).await;
    assert_eq!(count["organization"]["webhookCount"], 50);

    // A higher limit is in force immediately, and the count continues.
    limit(&admin, &id, Some(60)).await;
    let more = post_all(&[&app], "acme", (0..20).map(|n| format!("more-{n}"))).await;
    assert_eq!(more, counts(&[("accepted", 10), ("429 monthly_limit_reached", 10)]));
    limit(&admin, &id, None).await;
    let free = post_all(&[&app], "acme", (0..20).map(|n| format!("free-{n}"))).await;
    assert_eq!(free, counts(&[("accepted", 20)]));

    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let warned: Vec<u64> = warnings(&admin, "acme").await.into_iter().map(|(percent, _)| percent).collect();
        if warned == [100, 80] || warned == [100] {
            // A batch is counted as a whole: the same one may reach 80 % and 100 %.
            break;
        }
        assert!(std::time::Instant::now() < deadline && warned.len() < 2, "{warned:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for node in [third, other, app] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_comes_in_the_midst_of_a_month_counts_what_was_accepted_before() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let before = post_all(&[&app], "acme", (0..30).map(|n| format!("before-{n}"))).await;
    assert_eq!(before, counts(&[("accepted", 30)]));
    limit(&admin, &id, Some(40)).await;
    for n in 0..8 {
        let one = post_all(&[&app], "acme", std::iter::once(format!("one-{n}"))).await;
        assert_eq!(one, counts(&[("accepted", 1)]));
    }
    let after = post_all(&[&app], "acme", (0..10).map(|n| format!("after-{n}"))).await;
    assert_eq!(after, counts(&[("accepted", 2), ("429 monthly_limit_reached", 8)]));

    // If the limit is removed and set again, webhooks in between count.
    limit(&admin, &id, None).await;
    let between = post_all(&[&app], "acme", (0..10).map(|n| format!("between-{n}"))).await;
    assert_eq!(between, counts(&[("accepted", 10)]));
    limit(&admin, &id, Some(55)).await;
    let after = post_all(&[&app], "acme", (0..10).map(|n| format!("again-{n}"))).await;
    assert_eq!(after, counts(&[("accepted", 5), ("429 monthly_limit_reached", 5)]));

    let deadline = std::time::Instant::now() + PATIENCE;
    while warnings(&admin, "acme").await != [(100, 40), (80, 32)] {
        let warned = warnings(&admin, "acme").await;
        assert!(std::time::Instant::now() < deadline, "{warned:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    app.stop().await;
}
