//! The edge of HTTP, towards clients that are slow, hostile, or too many.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::app::{GITHUB_SECRET, TestApp, hmac_hex};
use crate::patience::{PATIENCE, found, until};
use crate::process::Process;

fn signed(client: &reqwest::Client, url: &str, delivery: &str, body: String) -> reqwest::RequestBuilder {
    client
        .post(url)
        .header("x-github-event", "push")
        .header("x-github-delivery", delivery)
        .header("x-hub-signature-256", format!("sha256={}", hmac_hex(GITHUB_SECRET, body.as_bytes())))
        .body(body)
}

/// Writes, and returns everything that the other side sends before it closes.
async fn raw(app: &TestApp, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(app.url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    tokio::time::timeout(PATIENCE, reading).await.expect("it closes").unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_says_its_length_once() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let body = "{\"a\":1}";
    let signature = hmac_hex(GITHUB_SECRET, body.as_bytes());
    let head = format!(
        "POST /webhooks/acme/github HTTP/1.1\r\nhost: a\r\nx-github-delivery: d\r\nx-github-event: push\r\n\
         x-hub-signature-256: sha256={signature}\r\n"
    );
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for both in
        ["content-length: 5\r\ntransfer-encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"]
    {
        let answer = raw(&app, format!("{head}{both}\r\n{chunked}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("ambiguous_length"), "{answer}");
    }
    for refused in
        ["content-length: 5\r\ncontent-length: 6\r\n", "content-length: +7\r\n", "transfer-encoding: gzip\r\n"]
    {
        let answer = raw(&app, format!("{head}{refused}\r\n{chunked}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let answer = raw(&app, format!("{head}transfer-encoding: chunked\r\n\r\n{chunked}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let large = format!("{head}x-large: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(300 << 10));
    let answer = raw(&app, large.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_fit_together_are_refused_for_a_moment() {
    let app = TestApp::with(|settings| {
        settings.max_body.0 = 1 << 20;
        settings.body_budget.0 = 1 << 20;
    })
    .await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    // One request holds most of the room. Others that arrive meanwhile may get the rest first.
    let head = "POST /webhooks/acme/github HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n";
    let (holding, refused) = found("a body that finds no room", async || {
        let mut holding = TcpStream::connect(app.url.strip_prefix("http://").unwrap()).await.unwrap();
        holding.write_all(head.as_bytes()).await.unwrap();
        holding.write_all(&vec![b'a'; 900_000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let response = app.github("acme", "large", vec![b'a'; 400_000]).once().await.unwrap();
        (response.status() == 503).then_some((holding, response))
    })
    .await;
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "unavailable");
    assert_eq!(app.github("acme", "small", "{}").send().await.unwrap().status(), 200);
    drop(holding);
    let again = app.github("acme", "room-again", vec![b'a'; 400_000]).send().await.unwrap();
    assert_eq!(again.status(), 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_finds_no_place_is_told_so_and_who_is_still_gives_way() {
    let app = TestApp::with(|settings| settings.max_connections = 3).await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[]).await;
    let healthz = b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    // Connections whose answer is slow on our side keep their places: their lists are locked.
    let mut holder = app.database.superuser().await.begin().await.unwrap();
    sqlx::query("lock table webhook_logs in access exclusive mode").execute(&mut *holder).await.unwrap();
    let answer = found("a connection is refused", async || {
        let asked: Vec<_> = (0..3)
            .map(|_| {
                let asking = app.client.post(format!("{}/graphql", app.url)).bearer_auth(&admin.token);
                let query = "{ organization(slug: \"acme\") { webhooks(first: 1) { nodes { id } } } }";
                tokio::spawn(asking.json(&json!({ "query": query })).send())
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let answer = raw(&app, healthz).await;
        asked.iter().for_each(JoinHandle::abort);
        answer.starts_with("HTTP/1.1 503").then_some(answer)
    })
    .await;
    assert!(answer.contains("retry-after") && answer.contains("Too many connections"), "{answer}");
    holder.rollback().await.unwrap();
    // Silent connections do not.
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(TcpStream::connect(app.url.strip_prefix("http://").unwrap()).await.unwrap());
    }
    until("an idle connection gives way", async || raw(&app, healthz).await.starts_with("HTTP/1.1 200")).await;
    drop(idle);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_100_hears_at_once_what_is_known_from_the_head() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    for (path, length, status) in [
        ("POST /webhooks/acme/stripe", 5, "404"),
        ("POST /webhooks/nobody/github", 5, "404"),
        ("POST /webhooks/acme/github", 26 << 20, "413"),
        ("PUT /webhooks/acme/github", 5, "405"),
        ("POST /graphql", 5, "401"),
    ] {
        let head = format!("{path} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n");
        let answer = raw(&app, head.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    let signature = hmac_hex(GITHUB_SECRET, b"{}");
    let head = format!(
        "POST /webhooks/acme/github HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\nx-github-delivery: d\r\n\
         x-hub-signature-256: sha256={signature}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n"
    );
    let mut stream = TcpStream::connect(app.url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut asked = vec![0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut asked)).await.expect("it is asked for").unwrap();
    assert!(asked.starts_with(b"HTTP/1.1 100"));
    stream.write_all(b"{}").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_names_one_host_and_no_earlier_one_hides_its_length() {
    let app = TestApp::start().await;
    let answer = raw(&app, b"GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("ambiguous_host"), "{answer}");
    let two =
        "POST /webhooks/a/b HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    for earlier in [
        "GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n".to_owned(),
        format!("POST /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: {}2\r\n\r\nab", " ".repeat(60)),
    ] {
        let answer = raw(&app, format!("{earlier}{two}").as_bytes()).await;
        assert!(answer.contains("ambiguous_length"), "{answer}");
    }
    // If the beginning of the next request is unknown, the connection is closed.
    let padded = format!("POST /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: {}2\r\n\r\nab{two}", " ".repeat(400));
    let answer = raw(&app, padded.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_see_no_metrics_and_browsers_keep_to_tls() {
    let operators = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let app = TestApp::with(|settings| {
        settings.store.base_url = "https://hooks.example.com".parse().unwrap();
        settings.operations_listen = Some(operators);
    })
    .await;
    let get = async |url: String| app.client.get(url).send().await.unwrap();
    let metrics = get(format!("{}/metrics", app.url)).await;
    assert_eq!(metrics.status(), 404);
    assert_eq!(metrics.headers()["strict-transport-security"], "max-age=31536000");
    assert_eq!(get(format!("http://{operators}/metrics")).await.status(), 200);
    assert_eq!(get(format!("http://{operators}/webhooks/acme/github")).await.status(), 404);
    until("it is ready", async || get(format!("{}/readyz", app.url)).await.status() == 200).await;
    // A follower is behind: operators learn which one, the public only that the node is not ready.
    let superuser = app.database.superuser().await;
    sqlx::query("update follower_checkpoints set stopped_by = 'a test' where name = 'users'")
        .execute(&superuser)
        .await
        .unwrap();
    until("it is not ready", async || get(format!("{}/readyz", app.url)).await.status() == 503).await;
    assert_eq!(get(format!("{}/readyz", app.url)).await.text().await.unwrap(), "{\"status\":\"unavailable\"}");
    let told = get(format!("http://{operators}/readyz")).await.text().await.unwrap();
    assert!(told.contains("users stopped at an event"), "{told}");
    app.stop().await;

    let app = TestApp::start().await;
    let answer = app.client.get(format!("{}/metrics", app.url)).send().await.unwrap();
    assert_eq!(answer.status(), 200, "on this machine alone there is nobody to hide it from");
    assert!(!answer.headers().contains_key("strict-transport-security"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_finds_no_room_may_come_again() {
    let app = TestApp::with(|settings| settings.body_budget.0 = 1 << 20).await;
    let admin = app.super_admin().await;
    let ask = |length: usize| {
        let query = format!("{{ viewer {{ isSuperAdmin }} }}{}", " ".repeat(length));
        app.client
            .post(format!("{}/graphql", app.url))
            .bearer_auth(&admin.token)
            .json(&json!({ "query": query }))
            .send()
    };
    let refused = ask(200 << 10).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "1");
    let told: Value = refused.json().await.unwrap();
    assert_eq!(told["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{told}");
    assert_eq!(ask(2 << 20).await.unwrap().status(), 413);
    assert_eq!(ask(0).await.unwrap().status(), 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_would_wait_too_long_is_refused_at_once_and_github_last() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET), ("SHOPIFY", "hush")]).await;
    let (client, url) = (app.client.clone(), app.webhooks("acme", "shopify"));
    let shopify = |id: &'static str| {
        let headers = crate::senders::Sender::Shopify.genuine(id, chrono::Utc::now(), b"{}");
        let post = client.post(&url).body("{}");
        headers.into_iter().fold(post, |post, (name, value)| post.header(name, value)).send()
    };
    assert_eq!(shopify("before").await.unwrap().status(), 200);
    // A lock on the heads of the log blocks appends, like a hanging disk.
    let mut holder = app.database.superuser().await.begin().await.unwrap();
    sqlx::query("select lock_heads(array(select generate_series(0, 15)))").execute(&mut *holder).await.unwrap();
    let waiting = tokio::spawn(shopify("waiting"));
    // Requests that arrive in time wait, too, each while the next one is sent.
    let is_refused = async |late: JoinHandle<reqwest::Result<reqwest::Response>>| {
        let response = tokio::time::timeout(Duration::from_millis(250), late).await.ok()?.unwrap().unwrap();
        (response.status() == 503).then_some(response)
    };
    found("Shopify's is refused", async || is_refused(tokio::spawn(shopify("late"))).await).await;
    let github = || tokio::spawn(app.github("acme", "late", "{}").once());
    let refused = found("GitHub's is refused", async || is_refused(github()).await).await;
    assert!(refused.headers().contains_key("retry-after"));
    holder.rollback().await.unwrap();
    // On a slow machine, the append may have taken too long.
    let first = waiting.await.unwrap().unwrap().status();
    assert!(first == 200 || first == 503, "{first}");
    assert_eq!(app.github("acme", "after", "{}").send().await.unwrap().status(), 200);
    app.stop().await;
}

/// Sends its head, or its body, a byte a second, until the server disconnects.
async fn slow(address: String, in_body: bool) {
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = "POST /webhooks/acme/github HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    if in_body {
        stream.write_all(b"\r\n").await.unwrap();
    }
    let (mut reader, mut writer) = stream.into_split();
    let gone = async {
        let mut buffer = [0; 1_024];
        while reader.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    };
    let trickle = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if writer.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = gone => {}
        () = trickle => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_slow_and_endless_clients_hold_up_nobody() {
    let mut process = Process::new();
    process.serve().await;
    process.run(&["seed-demo"]);
    let url = format!("{}/webhooks/acme/github", process.url());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let is_taken =
        async |delivery: &str| signed(&client, &url, delivery, "{}".to_owned()).send().await.unwrap().status() == 200;
    until("the sample data is known", async || is_taken("first").await).await;
    let before = process.memory();

    let address = format!("127.0.0.1:{}", process.port);
    let slow: Vec<_> = (0..200).map(|n| tokio::spawn(slow(address.clone(), n % 2 == 0))).collect();
    let endless = {
        let (client, url) = (client.clone(), url.clone());
        tokio::spawn(async move {
            let chunks = futures::stream::iter((0..300).map(|_| Ok::<_, std::io::Error>(vec![b'a'; 1 << 20])));
            client.post(url).body(reqwest::Body::wrap_stream(chunks)).send().await
        })
    };
    let (mut beside, mut most) = (0, 0);
    for n in 0..60 {
        until("a good client's webhook is accepted", async || is_taken(&format!("good-{n}")).await).await;
        beside += usize::from(slow.iter().all(|slow| !slow.is_finished()));
        most = most.max(process.memory());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(beside > 0, "no good client was served before the slow ones were gone");
    let grown = most.saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {} MiB", grown >> 20);
    if let Ok(answer) = endless.await.unwrap() {
        assert_eq!(answer.status(), 413);
    }
    eprintln!("{beside} good clients beside the slow ones, memory {} MiB more", grown >> 20);
    let ended = tokio::time::timeout(PATIENCE, futures::future::try_join_all(slow)).await;
    ended.expect("no slow client is borne for ever").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_numbers_are_refused_early_and_nothing_answered_is_lost() {
    const SENDERS: usize = 900;
    let mut process = Process::new();
    process.serve().await;
    process.run(&["seed-demo"]);
    let url = format!("{}/webhooks/acme/github", process.url());
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(SENDERS).build().unwrap();
    until("the sample data is known", async || {
        signed(&client, &url, "first", "{}".to_owned()).send().await.unwrap().status() == 200
    })
    .await;
    let end = Instant::now() + Duration::from_secs(4);
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (client, url) = (client.clone(), url.clone());
            tokio::spawn(async move {
                let (mut answered, mut refused, mut others) = (Vec::new(), 0, Vec::new());
                for n in 0.. {
                    if Instant::now() > end {
                        break;
                    }
                    let delivery = format!("{sender}-{n}");
                    match signed(&client, &url, &delivery, format!("{{\"n\":\"{delivery}\"}}")).send().await {
                        Ok(response) if response.status() == 200 => answered.push(delivery),
                        Ok(response) if response.status() == 503 => {
                            assert!(response.headers().contains_key("retry-after"));
                            refused += 1;
                        }
                        Ok(response) => others.push(response.status().to_string()),
                        Err(error) => others.push(format!("{error:?}")),
                    }
                }
                (answered, refused, others)
            })
        })
        .collect();
    let (mut answered, mut refused) = (Vec::new(), 0);
    for sender in senders {
        let (of_one, refused_one, others) = sender.await.unwrap();
        assert!(others.is_empty(), "{others:?}");
        answered.extend(of_one);
        refused += refused_one;
    }
    eprintln!("{} answered, {refused} refused", answered.len());

    let found = deliveries(&process, &client, answered.len()).await;
    let lost: Vec<_> = answered.iter().filter(|delivery| !found.contains(*delivery)).collect();
    assert!(lost.is_empty(), "{} were answered and lost", lost.len());
}

/// The delivery ids in the read model, once it has that many.
async fn deliveries(process: &Process, client: &reqwest::Client, at_least: usize) -> std::collections::HashSet<String> {
    let link = process.run(&["sign-in-link", "admin@localhost"]);
    let token = link.trim().split_once("token=").unwrap().1.to_owned();
    let verify = client.post(format!("{}/api/auth/verify-magic-link", process.url())).json(&json!({ "token": token }));
    let signed_in: Value = verify.send().await.unwrap().json().await.unwrap();
    let session = signed_in["token"].as_str().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (mut found, mut after) = (std::collections::HashSet::new(), Value::Null);
        loop {
            let query = "query($after: String) { organization(slug: \"acme\") { webhooks(first: 1000, after: $after) { \
                         pageInfo { hasNextPage endCursor } nodes { providerEventId } } } }";
            let ask = client.post(format!("{}/graphql", process.url())).bearer_auth(session);
            let ask = ask.json(&json!({ "query": query, "variables": { "after": after } }));
            let mut answer: Value = ask.send().await.unwrap().json().await.unwrap();
            let page = answer["data"]["organization"]["webhooks"].take();
            let nodes = page["nodes"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
            // The sample data's ids have no hyphen.
            let ids = nodes.iter().filter_map(|node| node["providerEventId"].as_str()).filter(|id| id.contains('-'));
            found.extend(ids.map(str::to_owned));
            if page["pageInfo"]["hasNextPage"] != true {
                break;
            }
            after = page["pageInfo"]["endCursor"].clone();
        }
        if found.len() >= at_least || Instant::now() > deadline {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
