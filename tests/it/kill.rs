//! `kill -9` under load: every answered 200 is in the log and in the read model, exactly once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hookledger::platform::secrets::master::generate;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::{Database, hmac_hex};
use crate::patience::{PATIENCE, until};
use crate::process::Process;
use crate::sink::Sink;

const SECRET: &str = "It's a Secret to Everybody";
const PAUSE: Duration = Duration::from_millis(50);

pub async fn token(process: &Process, client: &reqwest::Client) -> String {
    let link = process.run(&["sign-in-link", "admin@localhost"]);
    let token = link.trim().split_once("token=").unwrap().1.to_owned();
    let url = format!("{}/api/auth/verify-magic-link", process.url());
    let body: Value = client.post(url).json(&json!({ "token": token })).send().await.unwrap().json().await.unwrap();
    body["token"].as_str().unwrap().to_owned()
}

pub async fn ask(process: &Process, client: &reqwest::Client, token: &str, query: &str, variables: Value) -> Value {
    let url = format!("{}/graphql", process.url());
    let body = json!({ "query": query, "variables": variables });
    let mut answer: Value = client.post(url).bearer_auth(token).json(&body).send().await.unwrap().json().await.unwrap();
    assert!(answer.get("errors").is_none(), "{answer}");
    answer["data"].take()
}

/// Sends as fast as answers arrive, and records every 200.
pub async fn send(
    url: String,
    round: usize,
    sender: usize,
    answered: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
) {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
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
            // The server is busy: this webhook is dropped, and another one is sent.
            Ok(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE => tokio::time::sleep(PAUSE).await,
            _ => return,
        }
    }
}

/// Waits for that many more answers.
async fn answered_more(answered: &Mutex<BTreeSet<String>>, count: usize) {
    let enough = answered.lock().unwrap().len() + count;
    until("senders get answers", async || answered.lock().unwrap().len() >= enough).await;
}

/// Signs in the super admin, and creates the organization `acme` with GitHub connected.
pub async fn with_acme(process: &Process, client: &reqwest::Client, secret: &str) -> String {
    let session = token(process, client).await;
    let create = "mutation { createOrganization(input: {name: \"Acme\", slug: \"acme\", plan: PREMIUM}) { organization { id } } }";
    let data = ask(process, client, &session, create, json!({})).await;
    let connect = "mutation($id: ID!, $secret: String!) { connectProvider(input: {organizationId: $id, providerName: GITHUB, secret: $secret}) { provider { id } } }";
    let id = data["createOrganization"]["organization"]["id"].clone();
    ask(process, client, &session, connect, json!({ "id": id, "secret": secret })).await;
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answered_webhook_survives_ten_kills() {
    let mut process = Process::new();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    process.serve().await;
    let session = with_acme(&process, &client, SECRET).await;

    let answered = Arc::new(Mutex::new(BTreeSet::new()));
    for round in 0..10 {
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..16)
            .map(|sender| tokio::spawn(send(process.url(), round, sender, Arc::clone(&answered), Arc::clone(&stop))))
            .collect();
        answered_more(&answered, 60).await;
        tokio::time::sleep(Duration::from_millis(37 * round as u64)).await;
        // Every other time PostgreSQL is killed as well, and has to recover.
        process.kill(round % 2 == 1);
        stop.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.await.unwrap();
        }
        process.serve().await;
    }

    let answered = answered.lock().unwrap().clone();
    let mut found = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
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

#[tokio::test(flavor = "multi_thread")]
async fn every_delivery_survives_twenty_kills() {
    let sink = Sink::start().await;
    let mut process = Process::new();
    process.environment = vec![
        ("HOOKLEDGER_EGRESS_ALLOW_CIDRS", "127.0.0.0/8".to_owned()),
        ("HOOKLEDGER_RETRY_DELAYS", "1s,1s,1s,1s,1s,1s,1s,1s,1s,1s".to_owned()),
        ("HOOKLEDGER_ATTEMPT_TIMEOUT", "5s".to_owned()),
    ];
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    process.serve().await;
    let session = token(&process, &client).await;
    let create = "mutation { createOrganization(input: {name: \"Acme\", slug: \"acme\", plan: PREMIUM}) { organization { id } } }";
    let data = ask(&process, &client, &session, create, json!({})).await;
    let connect = "mutation($input: ConnectProviderInput!) { connectProvider(input: $input) { provider { id } } }";
    let input = json!({ "organizationId": data["createOrganization"]["organization"]["id"], "providerName": "GITHUB",
                        "secret": SECRET, "destinationUrl": sink.url("/slow") });
    ask(&process, &client, &session, connect, json!({ "input": input })).await;

    let answered = Arc::new(Mutex::new(BTreeSet::new()));
    for round in 0..20 {
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..4)
            .map(|sender| tokio::spawn(send(process.url(), round, sender, Arc::clone(&answered), Arc::clone(&stop))))
            .collect();
        answered_more(&answered, 10).await;
        tokio::time::sleep(Duration::from_millis(13 * round as u64)).await;
        process.kill(round % 4 == 3);
        stop.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.await.unwrap();
        }
        process.serve().await;
    }
    let answered = answered.lock().unwrap().clone();
    let mut found = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        found = everything(&process, &client, &session).await;
        if found.iter().all(|(_, status)| status == "SUCCESS") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let open: Vec<_> = found.iter().filter(|(_, status)| status != "SUCCESS").collect();
    assert!(open.is_empty(), "{open:?}");
    let ids: BTreeSet<_> = found.iter().map(|(id, _)| id.clone()).collect();
    assert!(answered.is_subset(&ids), "answered and lost");
    // Every webhook was delivered at least once. Each attempt that arrived is recorded, under its own number.
    let came: Vec<(String, String)> = sink.received().iter().map(crate::sink::Delivery::attempt).collect();
    let distinct: BTreeSet<_> = came.iter().cloned().collect();
    assert_eq!(distinct.len(), came.len(), "an attempt was sent twice");
    let query = "query($after: String) { organization(slug: \"acme\") { webhooks(first: 500, after: $after) { \
                 pageInfo { hasNextPage endCursor } nodes { webhookId attempts { attemptNumber } } } } }";
    let (mut recorded, mut after) = (BTreeSet::new(), Value::Null);
    loop {
        let data = ask(&process, &client, &session, query, json!({ "after": after })).await;
        let page = &data["organization"]["webhooks"];
        for node in page["nodes"].as_array().unwrap() {
            let id = node["webhookId"].as_str().unwrap();
            assert!(came.iter().any(|(came, _)| came == id), "{id} never came");
            for attempt in node["attempts"].as_array().unwrap() {
                recorded.insert((id.to_owned(), attempt["attemptNumber"].to_string()));
            }
        }
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
    let missing: Vec<_> = distinct.difference(&recorded).collect();
    assert!(missing.is_empty(), "attempts that came and are not recorded: {missing:?}");
    eprintln!("{} answered, {} webhooks, {} attempts came", answered.len(), found.len(), came.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_stopped_past_its_lease_changes_nothing() {
    let (sink, database) = (Sink::start().await, Database::fresh().await);
    let mut stopped = Process::new();
    stopped.environment = vec![
        ("DATABASE_URL", database.url.clone()),
        ("HOOKLEDGER_MASTER_KEYS", generate("k1").unwrap()),
        ("HOOKLEDGER_JWT_KEYS", generate("j1").unwrap()),
        ("HOOKLEDGER_EGRESS_ALLOW_CIDRS", "127.0.0.0/8".to_owned()),
        ("HOOKLEDGER_RETRY_DELAYS", "1s".to_owned()),
        ("HOOKLEDGER_ATTEMPT_TIMEOUT", "20s".to_owned()),
    ];
    let mut other = Process::new();
    other.environment.clone_from(&stopped.environment);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    stopped.serve().await;
    let session = token(&stopped, &client).await;
    let create = "mutation { createOrganization(input: {name: \"Acme\", slug: \"acme\", plan: PREMIUM}) { organization { id } } }";
    let data = ask(&stopped, &client, &session, create, json!({})).await;
    let connect = "mutation($input: ConnectProviderInput!) { connectProvider(input: $input) { provider { id } } }";
    let input = json!({ "organizationId": data["createOrganization"]["organization"]["id"], "providerName": "GITHUB",
                        "secret": SECRET, "destinationUrl": sink.url("/late") });
    ask(&stopped, &client, &session, connect, json!({ "input": input })).await;
    let body = "{}";
    let post = client
        .post(format!("{}/webhooks/acme/github", stopped.url()))
        .header("x-github-delivery", "d")
        .header("x-hub-signature-256", format!("sha256={}", hmac_hex(SECRET, body.as_bytes())))
        .body(body);
    assert_eq!(post.send().await.unwrap().status(), reqwest::StatusCode::OK);
    sink.until("/late", 1).await;
    stopped.signal("STOP");
    other.serve().await;
    let session = token(&other, &client).await;
    sink.until("/late", 2).await;
    let query = "{ organization(slug: \"acme\") { webhooks(first: 1) { nodes { status events { eventType } } } } }";
    let told = [
        "webhook.received",
        "webhook.signature_verified",
        "webhook.routed",
        "delivery.attempt_started",
        "delivery.attempt_abandoned",
        "delivery.retry_scheduled",
        "delivery.attempt_started",
        "delivery.attempt_succeeded",
    ];
    let mut wakes = false;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let data = ask(&other, &client, &session, query, json!({})).await;
        let node = &data["organization"]["webhooks"]["nodes"][0];
        let events: Vec<_> =
            node["events"].as_array().unwrap().iter().map(|event| event["eventType"].as_str().unwrap()).collect();
        if node["status"] == "SUCCESS" && events.len() >= told.len() {
            assert_eq!(events, told);
            if wakes {
                break;
            }
            // Now the first node wakes up, with a late answer.
            wakes = true;
            stopped.signal("CONT");
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(wakes);
    assert_eq!(sink.at("/late").len(), 2);
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
