//! One client without a session attacks every route over many connections. Nobody else notices.
//!
//! All requests come from one address, as behind a proxy that hides its clients, so limits by client do not help.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::app::{GITHUB_SECRET, hmac_hex};
use crate::kill::{ask, with_acme};
use crate::patience::until;
use crate::process::Process;

/// How long it lasts; longer for measurements.
fn duration() -> Duration {
    let seconds = std::env::var("HOOKLEDGER_TEST_SIEGE").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(12))
}

/// Connections that the server accepts. The attackers hold as many of each kind.
const PLACES: usize = 200;

/// Sends the beginning of a request again and again, and waits each time until the server disconnects.
async fn besiege(address: String, begun: Vec<u8>) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(&address).await
            && stream.write_all(&begun).await.is_ok()
        {
            let mut answer = [0; 4_096];
            while stream.read(&mut answer).await.is_ok_and(|count| count > 0) {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn post(path: &str, headers: &str, declared: usize, sent: usize) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\n{headers}content-length: {declared}\r\n\r\n");
    [head.into_bytes(), vec![b' '; sent]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_without_a_session_keeps_nobody_from_anything() {
    let mut process = Process::new();
    process.environment = vec![("HOOKLEDGER_MAX_CONNECTIONS", PLACES.to_string())];
    process.serve().await;
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
    let session = with_acme(&process, &client, GITHUB_SECRET).await;
    let create = "mutation { createOrganization(input: {name: \"Globex\", slug: \"globex\", plan: PREMIUM}) { organization { id } } }";
    let id =
        ask(&process, &client, &session, create, json!({})).await["createOrganization"]["organization"]["id"].clone();
    let connect = "mutation($id: ID!, $secret: String!) { connectProvider(input: {organizationId: $id, providerName: GITHUB, secret: $secret}) { provider { id } } }";
    ask(&process, &client, &session, connect, json!({ "id": id, "secret": GITHUB_SECRET })).await;

    let json = "content-type: application/json\r\n";
    let socket = "GET /graphql HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                  sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n";
    let kinds: Vec<(usize, Vec<u8>)> = vec![
        // Large bodies that stop in the middle: these alone could use up all room.
        (6, post("/webhooks/acme/github", "", 25 << 20, 21 << 20)),
        (PLACES, post("/webhooks/acme/github", "", 60 << 10, 50 << 10)),
        (PLACES, b"POST /webhooks/acme/github HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()),
        (PLACES, post("/graphql", json, 150 << 10, 140 << 10)),
        (PLACES, post("/api/auth/verify-magic-link", json, 4_000, 3_000)),
        (PLACES / 2, b"GET /readyz HTTP/1.1\r\nhost: a\r\nx: ".to_vec()),
        (PLACES / 2, socket.as_bytes().to_vec()),
        // Complete requests that are refused, as fast as possible.
        (10, post("/webhooks/acme/github", "connection: close\r\n", 2_000, 2_000)),
        (4, post("/webhooks/acme/github", "connection: close\r\n", 1 << 20, 1 << 20)),
        (4, b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec()),
    ];
    let address = format!("127.0.0.1:{}", process.port);
    let mut besiegers = JoinSet::new();
    for (count, begun) in &kinds {
        for _ in 0..*count {
            besiegers.spawn(besiege(address.clone(), begun.clone()));
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;

    let refused = |told: &str| told.contains("Too many large bodies") || told.contains("Too many connections");
    let (end, mut sent, mut slowest, mut most) = (Instant::now() + duration(), 0_u32, Duration::ZERO, 0);
    while Instant::now() < end || sent < 50 {
        sent += 1;
        let body = format!("{{\"n\":{sent}}}");
        let signature = hmac_hex(GITHUB_SECRET, body.as_bytes());
        // A busy machine may refuse for lack of time, but not for lack of room.
        until("a small webhook of another organization is taken", async || {
            let begun = Instant::now();
            let sending = client
                .post(format!("{}/webhooks/globex/github", process.url()))
                .header("x-github-delivery", format!("n-{sent}"))
                .header("x-hub-signature-256", format!("sha256={signature}"))
                .header("connection", if sent % 2 == 0 { "close" } else { "keep-alive" })
                .body(body.clone());
            let Ok(answer) = sending.send().await else { return false };
            let (status, told) = (answer.status(), answer.text().await.unwrap_or_default());
            assert!(!refused(&told), "{sent}: {told}");
            eprintln!("{sent}: {status} after {:?}", begun.elapsed());
            status == StatusCode::OK
        })
        .await;
        let begun = Instant::now();
        if sent % 10 == 0 {
            let list =
                json!({ "query": "{ organization(slug: \"globex\") { webhooks(first: 10) { nodes { id } } } }" });
            until("a list is shown", async || {
                let asking = client.post(format!("{}/graphql", process.url())).bearer_auth(&session).json(&list);
                let Ok(answer) = asking.send().await else { return false };
                let told = answer.text().await.unwrap_or_default();
                assert!(!refused(&told), "{sent}: {told}");
                told.contains("nodes")
            })
            .await;
            slowest = slowest.max(begun.elapsed());
        }
        if sent % 20 == 0 {
            until("somebody signs in", async || {
                let link = process.run(&["sign-in-link", "admin@localhost"]);
                let token = link.trim().split_once("token=").unwrap().1;
                let url = format!("{}/api/auth/verify-magic-link", process.url());
                let Ok(answer) = client.post(url).json(&json!({ "token": token })).send().await else { return false };
                let told = answer.text().await.unwrap_or_default();
                assert!(!refused(&told), "{sent}: {told}");
                serde_json::from_str::<Value>(&told).is_ok_and(|answer| answer["token"].is_string())
            })
            .await;
        }
        most = most.max(process.memory());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eprintln!("{sent} webhooks beside them; slowest list {slowest:?}; at most {} MiB", most >> 20);
    besiegers.shutdown().await;
    process.terminate();
}
