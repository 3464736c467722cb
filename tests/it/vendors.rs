//! What the providers' own libraries sign is accepted, listed and kept byte for byte; and GraphQL
//! over HTTP as the audits of `graphql-http` want it. `make test` installs the npm packages.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::app::{Actor, GITHUB_SECRET, TestApp};

/// Runs a script of `tests/js` and reads the line of JSON that it ends with.
async fn script(name: &'static str, environment: Vec<(&'static str, String)>) -> Value {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
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
