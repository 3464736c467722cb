//! Mail over SMTP, to a real server: npm's `smtp-server`, read with `mailparser`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hookledger_aggregates::user::Role;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::app::TestApp;

/// A mail server as a separate process.
struct MailServer {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    port: u16,
}

impl MailServer {
    fn start(fail_first: usize) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
        assert!(directory.join("node_modules").exists(), "the npm packages are missing: run `make setup`");
        let mut process = Command::new("node")
            .arg("smtp.mjs")
            .env("FAIL_FIRST", fail_first.to_string())
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        Self { process, output, port: line.trim().parse().unwrap() }
    }

    fn url(&self) -> SecretString {
        format!("smtp://hook%20ledger:p%40ss%3Aword%2F%25@127.0.0.1:{}", self.port).into()
    }

    fn next_mail(mut self) -> (Value, Self) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        (serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")), self)
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reading blocks, and the node runs on this runtime.
async fn next_mail(server: MailServer) -> (Value, MailServer) {
    tokio::task::spawn_blocking(move || server.next_mail()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn links_come_by_smtp_and_are_sent_again_when_the_server_is_busy() {
    let server = MailServer::start(2);
    let url = server.url();
    let app = TestApp::with(|settings| {
        settings.smtp_url = Some(url);
        settings.mail_from = "Hookledger <no-reply@hooks.example.org>".parse().unwrap();
    })
    .await;
    let admin = app.super_admin().await;
    let create =
        "mutation($name: String!) { createOrganization(input: {name: $name, slug: \"acme\"}) { organization { id } } }";
    // A name in a mail is text, never a header or a tag.
    let name = "Ümläut <script>alert(1)</script> Bcc: eve@example.org";
    let created = admin.data(create, json!({ "name": name })).await;
    app.user("acme", "ada@example.org", Role::Member).await;

    let ask = app.client.post(format!("{}/api/auth/request-magic-link", app.url));
    ask.json(&json!({ "email": "ada@example.org" })).send().await.unwrap();
    let (mail, server) = next_mail(server).await;
    assert_eq!((&mail["from"], &mail["to"]), (&json!("no-reply@hooks.example.org"), &json!(["ada@example.org"])));
    assert_eq!(mail["subject"], "Sign in to Hookledger");
    assert_eq!((&mail["type"], &mail["html"]), (&json!("text/plain"), &json!(false)));
    let link = mail["text"].as_str().unwrap().lines().find(|line| line.contains("/auth/verify?token=")).unwrap();
    let ada = app.sign_in(link).await;
    ada.data("{ viewer { user { email } } }", json!({})).await;

    let invite = "mutation($id: ID!, $email: String!) { inviteUser(input: {organizationId: $id, email: $email, role: ADMIN}) { user { id } } }";
    let id = &created["createOrganization"]["organization"]["id"];
    admin.data(invite, json!({ "id": id, "email": "new@example.org" })).await;
    let (mail, server) = next_mail(server).await;
    assert_eq!(mail["to"], json!(["new@example.org"]));
    assert_eq!(mail["subject"], format!("You've been invited to join {name} on Hookledger"));
    assert!(mail["text"].as_str().unwrap().contains(name), "{mail:#}");
    let headers: Vec<&str> = mail["headers"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(!headers.contains(&"bcc"), "{headers:?}");
    let link = mail["text"].as_str().unwrap().lines().find(|line| line.contains("/auth/verify?token=")).unwrap();
    let new = app.sign_in(link.trim()).await;
    new.data("{ organization(slug: \"acme\") { users { nodes { email } } } }", json!({})).await;
    drop(server);
    app.stop().await;
}
