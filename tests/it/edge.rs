//! The edge of HTTP, towards clients that are slow, hostile, or too many.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::app::{GITHUB_SECRET, TestApp, hmac_hex};
use crate::process::Process;

fn signed(client: &reqwest::Client, url: &str, delivery: &str, body: String) -> reqwest::RequestBuilder {
    client
        .post(url)
        .header("x-github-event", "push")
        .header("x-github-delivery", delivery)
        .header("x-hub-signature-256", format!("sha256={}", hmac_hex(GITHUB_SECRET, body.as_bytes())))
        .body(body)
}

/// Writes, and answers everything that comes back before the other side closes.
async fn raw(app: &TestApp, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(app.url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("it closes").unwrap();
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
    // Somebody holds most of the room; who comes in while that one's body does may get it first.
    let head = "POST /webhooks/acme/github HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n";
    let deadline = Instant::now() + Duration::from_secs(20);
    let holding = loop {
        let mut holding = TcpStream::connect(app.url.strip_prefix("http://").unwrap()).await.unwrap();
        holding.write_all(head.as_bytes()).await.unwrap();
        holding.write_all(&vec![b'a'; 900_000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let response = app.github("acme", "large", vec![b'a'; 400_000]).send().await.unwrap();
        if response.status() == 503 {
            assert!(response.headers().contains_key("retry-after"));
            assert_eq!(response.json::<Value>().await.unwrap()["code"], "unavailable");
            break holding;
        }
        assert!(Instant::now() < deadline, "{}", response.status());
    };
    assert_eq!(app.github("acme", "small", "{}").send().await.unwrap().status(), 200);
    drop(holding);
    let deadline = Instant::now() + Duration::from_secs(10);
    while app.github("acme", "room-again", vec![b'a'; 400_000]).send().await.unwrap().status() != 200 {
        assert!(Instant::now() < deadline);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_finds_no_place_is_told_so() {
    let app = TestApp::with(|settings| settings.max_connections = 3).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(TcpStream::connect(app.url.strip_prefix("http://").unwrap()).await.unwrap());
    }
    let answer = raw(&app, b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after"), "{answer}");
    drop(idle);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !app.client.get(format!("{}/healthz", app.url)).send().await.is_ok_and(|answer| answer.status() == 200) {
        assert!(Instant::now() < deadline);
    }
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
    // Somebody holds the heads of the log, as a disk that hangs would.
    let mut holder = app.database.superuser().await.begin().await.unwrap();
    sqlx::query("select from log_heads for update").execute(&mut *holder).await.unwrap();
    let waiting = tokio::spawn(shopify("waiting"));
    let since = Instant::now();
    let mut shopify_refused_after = None;
    loop {
        if shopify_refused_after.is_none() {
            // Whoever joins in time waits with the others.
            let late = tokio::time::timeout(Duration::from_millis(250), shopify("late")).await;
            if late.is_ok_and(|response| response.unwrap().status() == 503) {
                shopify_refused_after = Some(since.elapsed());
            }
        } else {
            let late = tokio::time::timeout(Duration::from_millis(250), app.github("acme", "late", "{}").send()).await;
            if let Ok(Ok(response)) = late
                && response.status() == 503
            {
                assert!(response.headers().contains_key("retry-after"));
                break;
            }
        }
        assert!(since.elapsed() < Duration::from_secs(3), "{shopify_refused_after:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(since.elapsed() > shopify_refused_after.unwrap());
    holder.rollback().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    let deadline = Instant::now() + Duration::from_secs(10);
    while app.github("acme", "after", "{}").send().await.unwrap().status() != 200 {
        assert!(Instant::now() < deadline);
    }
    app.stop().await;
}

/// Sends its head, or its body, a byte a second; answers how long the server bore it.
async fn slow(address: String, in_body: bool) -> Duration {
    let started = Instant::now();
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
        () = gone => started.elapsed(),
        _ = trickle => unreachable!(),
        () = tokio::time::sleep(Duration::from_secs(60)) => Duration::MAX,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_slow_and_endless_clients_hold_up_nobody() {
    let mut process = Process::new();
    process.serve().await;
    process.run(&["seed-demo"]);
    let url = format!("{}/webhooks/acme/github", process.url());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let good = async |n: usize| {
        let started = Instant::now();
        let response = signed(&client, &url, &format!("good-{n}"), "{}".to_owned()).send().await.unwrap();
        assert_eq!(response.status(), 200);
        started.elapsed()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while signed(&client, &url, "first", "{}".to_owned()).send().await.unwrap().status() != 200 {
        assert!(Instant::now() < deadline);
    }
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
    let (mut longest, mut most) = (Duration::ZERO, 0);
    for n in 0..60 {
        longest = longest.max(good(n).await);
        most = most.max(process.memory());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(longest < Duration::from_secs(1), "a good client waited {longest:?}");
    let grown = most.saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {} MiB", grown >> 20);
    if let Ok(answer) = endless.await.unwrap() {
        assert_eq!(answer.status(), 413);
    }
    let mut borne = Vec::new();
    for slow in slow {
        borne.push(slow.await.unwrap());
    }
    borne.sort_unstable();
    eprintln!(
        "good clients at most {longest:?}, memory {} MiB more, slow ones {:?}",
        grown >> 20,
        (borne[0], borne[199])
    );
    assert!(borne[199] < Duration::from_secs(30), "a slow client was borne for {:?}", borne[199]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_numbers_are_refused_early_and_nothing_answered_is_lost() {
    const SENDERS: usize = 900;
    let mut process = Process::new();
    process.serve().await;
    process.run(&["seed-demo"]);
    let url = format!("{}/webhooks/acme/github", process.url());
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(SENDERS).build().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while signed(&client, &url, "first", "{}".to_owned()).send().await.unwrap().status() != 200 {
        assert!(Instant::now() < deadline);
    }
    let until = Instant::now() + Duration::from_secs(4);
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (client, url) = (client.clone(), url.clone());
            tokio::spawn(async move {
                let (mut answered, mut refused, mut others) = (Vec::new(), 0, Vec::new());
                for n in 0.. {
                    if Instant::now() > until {
                        break;
                    }
                    let (delivery, started) = (format!("{sender}-{n}"), Instant::now());
                    match signed(&client, &url, &delivery, format!("{{\"n\":\"{delivery}\"}}")).send().await {
                        Ok(response) if response.status() == 200 => answered.push((delivery, started.elapsed())),
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
    let mut times: Vec<_> = answered.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    eprintln!("{} answered, {refused} refused, p99 {p99:?}", answered.len());
    assert!(p99 < Duration::from_secs(1), "{p99:?}");

    let found = deliveries(&process, &client, answered.len()).await;
    let lost: Vec<_> = answered.iter().filter(|(delivery, _)| !found.contains(delivery)).collect();
    assert!(lost.is_empty(), "{} were answered and lost", lost.len());
}

/// The delivery ids in the read model, once it has that many.
async fn deliveries(process: &Process, client: &reqwest::Client, at_least: usize) -> std::collections::HashSet<String> {
    let link = process.run(&["sign-in-link", "admin@localhost"]);
    let token = link.trim().split_once("token=").unwrap().1.to_owned();
    let verify = client.post(format!("{}/api/auth/verify-magic-link", process.url())).json(&json!({ "token": token }));
    let signed_in: Value = verify.send().await.unwrap().json().await.unwrap();
    let session = signed_in["token"].as_str().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
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
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
