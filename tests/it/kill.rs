//! `kill -9` under load: every answered 200 is in the log and in the read model, exactly once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::app::hmac_hex;
use crate::process::Process;

const SECRET: &str = "It's a Secret to Everybody";

async fn token(process: &Process, client: &reqwest::Client) -> String {
    let link = process.run(&["sign-in-link", "admin@localhost"]);
    let token = link.trim().split_once("token=").unwrap().1.to_owned();
    let url = format!("{}/api/auth/verify-magic-link", process.url());
    let body: Value = client.post(url).json(&json!({ "token": token })).send().await.unwrap().json().await.unwrap();
    body["token"].as_str().unwrap().to_owned()
}

async fn ask(process: &Process, client: &reqwest::Client, token: &str, query: &str, variables: Value) -> Value {
    let url = format!("{}/graphql", process.url());
    let body = json!({ "query": query, "variables": variables });
    let mut answer: Value = client.post(url).bearer_auth(token).json(&body).send().await.unwrap().json().await.unwrap();
    assert!(answer.get("errors").is_none(), "{answer}");
    answer["data"].take()
}

/// Sends as fast as answers come, and notes what was answered with 200.
async fn send(url: String, round: usize, sender: usize, answered: Arc<Mutex<BTreeSet<String>>>, stop: Arc<AtomicBool>) {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let delivery = format!("k-{round}-{sender}-{n}");
        let body = format!("{{\"n\":\"{delivery}\"}}");
        let post = client
            .post(format!("{url}/webhooks/acme/github"))
            .header("x-github-delivery", &delivery)
            .header("x-github-event", "push")
            .header("x-hub-signature-256", format!("sha256={}", hmac_hex(SECRET, body.as_bytes())))
            .body(body);
        match post.send().await {
            Ok(response) if response.status().is_success() => drop(answered.lock().unwrap().insert(delivery)),
            _ => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answered_webhook_survives_ten_kills() {
    let mut process = Process::new();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    process.serve().await;
    let session = token(&process, &client).await;
    let create = "mutation { createOrganization(input: {name: \"Acme\", slug: \"acme\", plan: PREMIUM}) { organization { id } } }";
    let data = ask(&process, &client, &session, create, json!({})).await;
    let connect = "mutation($id: ID!, $secret: String!) { connectProvider(input: {organizationId: $id, providerName: GITHUB, secret: $secret}) { provider { id } } }";
    let id = data["createOrganization"]["organization"]["id"].clone();
    ask(&process, &client, &session, connect, json!({ "id": id, "secret": SECRET })).await;

    let answered = Arc::new(Mutex::new(BTreeSet::new()));
    for round in 0..10 {
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..16)
            .map(|sender| tokio::spawn(send(process.url(), round, sender, Arc::clone(&answered), Arc::clone(&stop))))
            .collect();
        tokio::time::sleep(Duration::from_millis(300 + 37 * round as u64)).await;
        // Every other time PostgreSQL is killed as well, and has to recover.
        process.kill(round % 2 == 1);
        stop.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.await.unwrap();
        }
        process.serve().await;
    }

    let answered = answered.lock().unwrap().clone();
    assert!(answered.len() > 500, "only {} were answered", answered.len());
    let mut found = Vec::new();
    for _ in 0..200 {
        found = everything(&process, &client, &session).await;
        let done = found.iter().all(|(_, status)| status == "SUCCESS");
        if done && answered.iter().all(|id| found.iter().any(|(found, _)| found == id)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ids: BTreeSet<_> = found.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(ids.len(), found.len(), "a webhook is there twice");
    let lost: Vec<_> = answered.difference(&ids).collect();
    assert!(lost.is_empty(), "answered and lost: {lost:?}");
    assert!(found.iter().all(|(_, status)| status == "SUCCESS"));
    eprintln!("{} answered, {} in the log", answered.len(), found.len());
}

/// Delivery id and status of every webhook.
async fn everything(process: &Process, client: &reqwest::Client, session: &str) -> Vec<(String, String)> {
    let query = "query($after: String) { organization(slug: \"acme\") { webhooks(first: 1000, after: $after) { \
                 pageInfo { hasNextPage endCursor } nodes { providerEventId status } } } }";
    let (mut found, mut after) = (Vec::new(), Value::Null);
    loop {
        let data = ask(process, client, session, query, json!({ "after": after })).await;
        let page = &data["organization"]["webhooks"];
        found.extend(page["nodes"].as_array().unwrap().iter().map(|node| {
            (node["providerEventId"].as_str().unwrap().to_owned(), node["status"].as_str().unwrap().to_owned())
        }));
        if page["pageInfo"]["hasNextPage"] == false {
            return found;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
}
