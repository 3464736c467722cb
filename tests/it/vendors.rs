//! Webhooks signed by the providers' own libraries are accepted, listed and kept byte for byte. GraphQL over HTTP passes
//! the audits of `graphql-http`. `make test` installs the npm packages.

use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::app::{Actor, GITHUB_SECRET, TestApp};
use crate::deliveries::quick;
use crate::patience::{PATIENCE, found};
use crate::senders::{Headers, Sender};

/// Runs a script of `tests/js` and reads the line of JSON that it ends with.
pub async fn script(name: &'static str, environment: Vec<(&'static str, String)>) -> Value {
    script_of("tests/js", name, environment).await
}

/// The same, for another directory.
pub async fn script_of(directory: &str, name: &'static str, environment: Vec<(&'static str, String)>) -> Value {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    assert!(directory.join("node_modules").exists(), "the npm packages are missing: run `make setup`");
    let output = tokio::task::spawn_blocking(move || {
        Command::new("node").arg(name).envs(environment).current_dir(directory).output().unwrap()
    })
    .await
    .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {out}\n{err}");
    serde_json::from_str(out.trim().lines().last().unwrap()).unwrap()
}

/// Every delivery of a script is in the list and identical to what it sent.
async fn sent_and_kept(admin: &Actor<'_>, slug: &str, provider: &str, secret: &str, name: &'static str) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("sent.json");
    let environment = vec![
        ("WEBHOOK_URL", admin.app.webhooks(slug, provider)),
        ("SECRET", secret.to_owned()),
        ("OUT", out.to_str().unwrap().to_owned()),
    ];
    let result = script(name, environment).await;
    let sent: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    assert!(!sent.is_empty());
    let accepted = |nodes: &[Value]| {
        nodes.iter().filter(|node| node["signatureValid"] == true && node["status"] == "SUCCESS").count()
    };
    let nodes = admin
        .webhooks_until(slug, "webhookId status eventType signatureValid rawBodyBase64 bodySha256 bodySize", |nodes| {
            accepted(nodes) == sent.len()
        })
        .await;
    for delivery in &sent {
        let node = nodes.iter().find(|node| node["webhookId"] == delivery["webhookId"]).unwrap();
        let decode = |text: &Value| base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap();
        assert!(decode(&node["rawBodyBase64"]) == decode(&delivery["body"]), "{}", delivery["webhookId"]);
        assert_eq!(node["bodySha256"], delivery["sha256"]);
        assert_eq!(node["bodySize"], delivery["size"]);
        assert_eq!(node["eventType"], delivery["eventType"]);
    }
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_vendors_libraries_sign_is_accepted_and_byte_identical() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let standard = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    for (slug, provider, name, secret) in [
        ("octokit", "GITHUB", "octokit.mjs", GITHUB_SECRET),
        ("stripe", "STRIPE", "stripe.mjs", "whsec_test_secret"),
        ("shopify", "SHOPIFY", "shopify.mjs", "hush"),
        ("standard", "STANDARD", "standard.mjs", standard),
    ] {
        app.organization(&admin, slug, &[(provider, secret)]).await;
        let result = sent_and_kept(&admin, slug, &provider.to_lowercase(), secret, name).await;
        eprintln!("{name}: {result}");
    }
    app.stop().await;
}

/// A real server with the senders' libraries, and its verdicts on the deliveries.
struct Destination {
    url: String,
    _process: tokio::process::Child,
}

impl Destination {
    async fn start(secrets: Value) -> Self {
        let mut process = tokio::process::Command::new("node")
            .arg("destination.mjs")
            .env("SECRETS", secrets.to_string())
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
        let told: Value = serde_json::from_str(&line.expect("the destination starts: run `make setup`")).unwrap();
        Self { url: format!("http://127.0.0.1:{}", told["port"]), _process: process }
    }

    async fn came(&self, app: &TestApp, path: &str) -> Value {
        found(path, async || {
            let all: Vec<Value> = app.client.get(&self.url).send().await.unwrap().json().await.unwrap();
            all.into_iter().find(|one| one["path"] == path)
        })
        .await
    }
}

async fn receive(app: &TestApp, slug: &str, provider: &str, headers: Headers, body: &str) {
    let mut post = app.client.post(app.webhooks(slug, provider)).body(body.to_owned());
    for (name, value) in headers {
        post = post.header(name, value);
    }
    let response = post.send().await.unwrap();
    assert_eq!(response.status(), reqwest::StatusCode::OK, "{provider}: {}", response.text().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_libraries_accept_what_is_delivered() {
    let app = TestApp::with(quick).await;
    let admin = app.super_admin().await;
    let destination = Destination::start(json!({
        "octokit": Sender::Github.secret(), "shopify": Sender::Shopify.secret(),
        "stripe": Sender::Stripe.secret(), "standard": Sender::Standard.secret(),
    }))
    .await;
    let body = r#"{"id":"evt_1","object":"event","type":"charge.succeeded","zen":"Keep it logically awesome."}"#;
    let connect =
        "mutation($input: ConnectProviderInput!) { connectProvider(input: $input) { provider { id } signingSecret } }";
    let set = "mutation($input: SetProviderDestinationInput!) { setProviderDestination(input: $input) {
                   provider { destination { originalSignature } } } }";
    let cases: [(Sender, &str, Headers, &str); 4] = [
        (Sender::Github, "/octokit", vec![("x-github-hook-id", "7".to_owned())], "push d-1 Keep it logically awesome."),
        (
            Sender::Shopify,
            "/shopify",
            vec![
                ("x-shopify-shop-domain", "acme.myshopify.com".to_owned()),
                ("x-shopify-api-version", "2026-04".to_owned()),
            ],
            "ORDERS_CREATE acme.myshopify.com d-1",
        ),
        (Sender::Stripe, "/stripe", vec![], "charge.succeeded evt_1"),
        (Sender::Standard, "/standard", vec![], "charge.succeeded d-1"),
    ];
    for (sender, path, more, expected) in cases {
        let slug = &path[1..];
        let id = app.organization(&admin, slug, &[]).await;
        let name = sender.name().to_uppercase();
        let input = json!({ "organizationId": id, "providerName": name, "secret": sender.secret() });
        let connected = admin.data(connect, json!({ "input": input })).await;
        let provider = &connected["connectProvider"]["provider"]["id"];
        let input =
            json!({ "providerId": provider, "url": format!("{}{path}", destination.url), "originalSignature": true });
        let data = admin.data(set, json!({ "input": input })).await;
        assert_eq!(data["setProviderDestination"]["provider"]["destination"]["originalSignature"], true);
        let mut headers = sender.genuine("d-1", chrono::Utc::now(), body.as_bytes());
        headers.push(("content-type", "application/json".to_owned()));
        headers.extend(more);
        receive(&app, slug, sender.name(), headers, body).await;
        let came = destination.came(&app, path).await;
        assert_eq!(came, json!({ "path": path, "ok": true, "what": expected }));
    }
    // Without that setting, a destination gets our signature only, and the headers that describe the event.
    let url = format!("{}/ours", destination.url);
    let (provider, secret) = crate::deliveries::forwarding(&admin, "ours", &url).await;
    app.client.post(format!("{}/secret", destination.url)).body(secret).send().await.unwrap();
    receive(&app, "ours", "github", Sender::Github.genuine("d-1", chrono::Utc::now(), body.as_bytes()), body).await;
    assert_eq!(destination.came(&app, "/ours").await["what"], "push push undefined");
    // A change that leaves the setting out keeps it. It is in the audit trail.
    for (input, stays) in [
        (json!({ "providerId": provider, "url": url, "originalSignature": true }), true),
        (json!({ "providerId": provider, "url": url, "timeoutSeconds": 9 }), true),
        (json!({ "providerId": provider, "url": url, "originalSignature": false }), false),
    ] {
        let data = admin.data(set, json!({ "input": input })).await;
        assert_eq!(data["setProviderDestination"]["provider"]["destination"]["originalSignature"], stays);
    }
    app.stop().await;
}

async fn audits(app: &TestApp) -> Value {
    let admin = app.super_admin().await;
    let environment =
        vec![("GRAPHQL_URL", format!("{}/graphql", app.url)), ("AUTHORIZATION", format!("Bearer {}", admin.token))];
    script("graphql-http.mjs", environment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn graphql_over_http_has_no_error_and_no_warning_as_shipped() {
    let app = TestApp::start().await;
    let result = audits(&app).await;
    assert_eq!((&result["error"], &result["warn"]), (&json!(0), &json!(0)), "{result:#}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graphql_over_http_passes_every_audit_with_get_switched_on() {
    let app = TestApp::with(|settings| settings.graphql_get = true).await;
    let result = audits(&app).await;
    assert_eq!((&result["ok"], &result["total"]), (&json!(61), &json!(61)), "{result:#}");
    app.stop().await;
}

/// Python's `schemathesis` generates valid and invalid queries from the schema, as a user who may
/// do everything. `tests/py/errors_have_codes.py` checks each answer.
#[tokio::test(flavor = "multi_thread")]
async fn queries_made_up_from_the_schema_neither_crash_nor_fail_without_a_code() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("target/schemathesis/bin/schemathesis");
    assert!(program.exists(), "schemathesis is missing: run `make setup`");
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command
        .args(["run", &format!("{}/graphql", app.url), "-H", &format!("Authorization: Bearer {}", admin.token)])
        .args(["--phases", "fuzzing", "--max-examples", "20", "--seed", "20261125", "--no-shrink"])
        .args(["--request-timeout", "30", "--warnings", "off", "--suppress-health-check", "all"])
        // They classify errors by their place in the answer, we by their codes.
        .args(["--exclude-checks", "not_a_server_error,negative_data_rejection,positive_data_acceptance"])
        .env("PYTHONPATH", root.join("tests/py"))
        .env("SCHEMATHESIS_HOOKS", "errors_have_codes")
        .env("NO_PROXY", "*")
        .current_dir(directory.path());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    let answer = app.client.get(format!("{}/healthz", app.url)).send().await.unwrap();
    assert_eq!(answer.status(), reqwest::StatusCode::OK);
    app.stop().await;
}
