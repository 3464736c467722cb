//! `TestApp`: a node in this process on a database of its own, and actors who use it over HTTP.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use hmac::{Hmac, Mac as _};
use hookledger::node::Core;
use hookledger::node::config::{BaseUrl, Delays, ServeSettings, Size, Span, StoreSettings};
use hookledger::platform::egress::AllowList;
use hookledger::platform::secrets::master::generate;
use hookledger::platform::store::{Store, schema};
use hookledger::receive::paypal::{Fetch, FetchError};
use hookledger_aggregates::signature::CertificateUrl;
use reqwest::StatusCode;
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::patience::PATIENCE;

pub const GITHUB_SECRET: &str = "It's a Secret to Everybody";
/// How long a webhook is sent again, and at which interval.
const RESENDING: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// A fresh database, migrated, and its URL.
pub struct Database {
    pub url: String,
}

impl Database {
    pub async fn fresh() -> Self {
        let server = server();
        let mut admin = PgConnection::connect(&server).await.unwrap();
        let template = template(&mut admin, &server).await;
        let name = format!("test_{}", Uuid::new_v4().simple());
        // Copying fails while another test copies the same template.
        admin.execute("select pg_advisory_lock(7306)").await.unwrap();
        admin.execute(format!("create database {name} template {template}").as_str()).await.unwrap();
        admin.close().await.unwrap();
        Self { url: of_database(&server, &name) }
    }

    pub fn store(&self) -> Store {
        Store::at_url(&SecretString::from(self.url.clone())).unwrap()
    }

    /// Connections of the superuser, who can see everything.
    pub async fn superuser(&self) -> PgPool {
        PgPool::connect(&self.url).await.unwrap()
    }
}

fn server() -> String {
    if let Ok(url) = std::env::var("HOOKLEDGER_TEST_POSTGRES") {
        return url;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/test-postgres");
    let output = Command::new(script).arg("start").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The same server's URL of another database.
fn of_database(server: &str, name: &str) -> String {
    format!("{}/{name}", server.strip_suffix("/postgres").unwrap())
}

/// A migrated database to copy, created once for each state of the migrations.
async fn template(admin: &mut PgConnection, server: &str) -> String {
    let name = format!("hookledger_template_{}", schema::digest());
    admin.execute("select pg_advisory_lock(7305)").await.unwrap();
    let exists: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1 and datistemplate)")
            .bind(&name)
            .fetch_one(&mut *admin)
            .await
            .unwrap();
    if !exists {
        admin.execute(format!("drop database if exists {name}").as_str()).await.unwrap();
        admin.execute(format!("create database {name}").as_str()).await.unwrap();
        let url = of_database(server, &name);
        let mut connection = PgConnection::connect(&url).await.unwrap();
        schema::apply(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        admin.execute(format!("alter database {name} is_template true").as_str()).await.unwrap();
    }
    admin.execute("select pg_advisory_unlock(7305)").await.unwrap();
    name
}

/// Settings of a node on that database.
pub fn settings(url: Option<&str>) -> ServeSettings {
    ServeSettings {
        store: StoreSettings {
            database_url: url.map(SecretString::from),
            database_connections: hookledger::platform::store::Connections::default(),
            data_dir: "unused".into(),
            master_keys: Some(SecretString::from(generate("k1").unwrap())),
            jwt_keys: Some(SecretString::from(generate("j1").unwrap())),
            super_admin_email: "admin@localhost".to_owned(),
            base_url: BaseUrl("http://localhost:8080".to_owned()),
            magic_link_ttl: Span(chrono::Duration::minutes(15)),
        },
        listen: "127.0.0.1:0".parse().unwrap(),
        operations_listen: None,
        max_body: Size(25 << 20),
        body_budget: Size(128 << 20),
        max_connections: 4_096,
        max_connections_per_client: 1_024,
        trusted_proxies: Vec::new(),
        paypal_cert_dir: None,
        paypal_trust_roots: None,
        paypal_max_age: Span(chrono::Duration::days(3)),
        retry_delays: Delays([1, 5, 15].map(chrono::Duration::minutes).to_vec()),
        pending_timeout: Span(chrono::Duration::minutes(10)),
        attempt_timeout: Span(chrono::Duration::seconds(30)),
        retention_bodies: Span(chrono::Duration::days(90)),
        egress_allow_cidrs: AllowList::default(),
        session_ttl: Span(chrono::Duration::hours(1)),
        smtp_url: None,
        mail_from: "hookledger@localhost".parse().unwrap(),
        mail_dir: None,
        eventstore_url: None,
        graphql_get: false,
        demo: true,
        checkpoint_interval: Span(chrono::Duration::seconds(1)),
        checkpoint_file: Some("none".into()),
        witness_url: None,
        threads: None,
    }
}

/// Tests connect to this machine only.
struct NoNetwork;

impl Fetch for NoNetwork {
    fn fetch<'a>(&'a self, _: &'a CertificateUrl) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        Box::pin(async { Err(FetchError::Failed("there is no network".to_owned())) })
    }
}

/// A running node.
pub struct TestApp {
    pub url: String,
    pub client: reqwest::Client,
    pub database: Database,
    pub settings: ServeSettings,
    node: Node,
}

/// The thread of a node, with its own runtime, as if it were a separate process. It ends before the test does,
/// also if the test fails.
struct Node {
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Node {
    /// Starts a node. Returns it with its address.
    async fn start(store: Store, settings: ServeSettings, fetch: Arc<dyn Fetch>) -> (Self, SocketAddr) {
        let stop = CancellationToken::new();
        let (tell, told) = tokio::sync::oneshot::channel();
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let ready = |address| tell.send(address).unwrap();
                hookledger::node::serve_fetching(&store, &settings, stopping, ready, fetch).await.unwrap();
            });
        });
        let address = told.await.expect("the node starts");
        (Self { stop, thread: Some(thread) }, address)
    }

    /// Waits until it has stopped, within a limit. If it failed, so does the test.
    fn join(&mut self) {
        self.stop.cancel();
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + PATIENCE;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let has_ended = thread.is_finished();
        let failure = if has_ended { thread.join().err() } else { None };
        if std::thread::panicking() {
            return;
        }
        assert!(has_ended, "a node did not stop");
        if let Some(failure) = failure {
            std::panic::resume_unwind(failure);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.join();
    }
}

impl TestApp {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ServeSettings)) -> Self {
        let database = Database::fresh().await;
        let mut settings = settings(Some(&database.url));
        change(&mut settings);
        Self::on(database, settings).await
    }

    /// A node that fetches certificates there, instead of from PayPal.
    pub async fn fetching(fetch: Arc<dyn Fetch>, change: impl FnOnce(&mut ServeSettings)) -> Self {
        let database = Database::fresh().await;
        let mut settings = settings(Some(&database.url));
        change(&mut settings);
        Self::run(database, settings, fetch).await
    }

    pub async fn on(database: Database, settings: ServeSettings) -> Self {
        Self::run(database, settings, Arc::new(NoNetwork)).await
    }

    async fn run(database: Database, settings: ServeSettings, fetch: Arc<dyn Fetch>) -> Self {
        let (node, address) =
            Node::start(database.store().with(settings.store.database_connections), settings.clone(), fetch).await;
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { url: format!("http://{address}"), client, database, settings, node }
    }

    /// Another node on the same database, as another machine would be.
    pub async fn second_node(&self) -> Self {
        Self::on(Database { url: self.database.url.clone() }, self.settings.clone()).await
    }

    pub async fn stop(mut self) {
        tokio::task::spawn_blocking(move || self.node.join()).await.unwrap();
    }

    /// Signs the super admin in over HTTP, as people do.
    pub async fn super_admin(&self) -> Actor<'_> {
        let core = Core::start(&self.database.store(), &self.settings.store).await.unwrap();
        let link = core.sign_in_link(&self.settings.store, "admin@localhost").await.unwrap();
        core.stop().await;
        self.sign_in(&link.url).await
    }

    /// A user of an organization, registered and signed in.
    pub async fn user(&self, slug: &str, email: &str, role: hookledger_aggregates::user::Role) -> Actor<'_> {
        let core = Core::start(&self.database.store(), &self.settings.store).await.unwrap();
        let organization = hookledger_aggregates::OrganizationId::from_slug(slug);
        let metadata = hookledger_aggregates::Metadata::default();
        let (_, place) = core.accounts.register(organization, email, role, &metadata).await.unwrap();
        assert!(core.checkpoints.wait_for(&["users"], place, PATIENCE).await.unwrap());
        let link = core.sign_in_link(&self.settings.store, email).await.unwrap();
        core.stop().await;
        self.sign_in(&link.url).await
    }

    /// Another session of a user.
    pub async fn sign_in_again(&self, email: &str) -> Actor<'_> {
        let core = Core::start(&self.database.store(), &self.settings.store).await.unwrap();
        let link = core.sign_in_link(&self.settings.store, email).await.unwrap();
        core.stop().await;
        self.sign_in(&link.url).await
    }

    pub async fn sign_in(&self, link: &str) -> Actor<'_> {
        let (_, token) = link.split_once("token=").unwrap();
        let response = self
            .client
            .post(format!("{}/api/auth/verify-magic-link", self.url))
            .json(&json!({ "token": token }))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body: Value = response.json().await.unwrap();
        Actor { app: self, token: body["token"].as_str().unwrap().to_owned() }
    }

    /// Creates an organization with connected providers; returns its node ID.
    pub async fn organization(&self, admin: &Actor<'_>, slug: &str, providers: &[(&str, &str)]) -> String {
        let created = admin
            .data(
                "mutation($slug: String!) { createOrganization(input: {name: $slug, slug: $slug, plan: PREMIUM}) \
                 { organization { id } } }",
                json!({ "slug": slug }),
            )
            .await;
        let id = created["createOrganization"]["organization"]["id"].as_str().unwrap().to_owned();
        for (name, secret) in providers {
            admin.connect(&id, name, secret).await;
        }
        id
    }

    pub fn webhooks(&self, slug: &str, provider: &str) -> String {
        format!("{}/webhooks/{slug}/{provider}", self.url)
    }

    /// A GitHub delivery, signed with [`GITHUB_SECRET`].
    pub fn github(&self, slug: &str, delivery: &str, body: impl Into<Vec<u8>>) -> Post {
        let body = body.into();
        let post = self
            .client
            .post(self.webhooks(slug, "github"))
            .header("content-type", "application/json")
            .header("x-github-event", "push")
            .header("x-github-delivery", delivery)
            .header("x-hub-signature-256", format!("sha256={}", hmac_hex(GITHUB_SECRET, &body)))
            .body(body);
        Post(post)
    }
}

/// A webhook that is about to be sent.
pub struct Post(pub reqwest::RequestBuilder);

impl Post {
    pub fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    pub fn build(self) -> reqwest::Result<reqwest::Request> {
        self.0.build()
    }

    /// Sends it as a provider does: again for some time if the node is too busy, which happens soon on a slow
    /// machine.
    pub async fn send(self) -> reqwest::Result<reqwest::Response> {
        let deadline = Instant::now() + RESENDING;
        while let Some(again) = self.0.try_clone()
            && Instant::now() < deadline
        {
            let response = again.send().await?;
            if response.status() != StatusCode::SERVICE_UNAVAILABLE {
                return Ok(response);
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.once().await
    }

    /// Sends it once.
    pub async fn once(self) -> reqwest::Result<reqwest::Response> {
        self.0.send().await
    }
}

pub fn hmac_hex(secret: &str, body: &[u8]) -> String {
    hex::encode(Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body).finalize().into_bytes())
}

/// A signed-in user.
pub struct Actor<'a> {
    pub app: &'a TestApp,
    pub token: String,
}

impl Actor<'_> {
    pub async fn ask(&self, query: &str, variables: Value) -> Value {
        let response = self
            .app
            .client
            .post(format!("{}/graphql", self.app.url))
            .bearer_auth(&self.token)
            .json(&json!({ "query": query, "variables": variables }))
            .send()
            .await
            .unwrap();
        response.json().await.unwrap()
    }

    /// The data of an answer without errors.
    pub async fn data(&self, query: &str, variables: Value) -> Value {
        let mut answer = self.ask(query, variables).await;
        assert!(answer.get("errors").is_none(), "{answer:#}");
        answer["data"].take()
    }

    /// The code of an answer's only error.
    pub async fn code(&self, query: &str, variables: Value) -> String {
        let answer = self.ask(query, variables).await;
        answer["errors"][0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("{answer:#}")).to_owned()
    }

    pub async fn connect(&self, organization: &str, provider: &str, secret: &str) -> String {
        let data = self
            .data(
                "mutation($input: ConnectProviderInput!) { connectProvider(input: $input) { provider { id } } }",
                json!({ "input": { "organizationId": organization, "providerName": provider, "secret": secret } }),
            )
            .await;
        data["connectProvider"]["provider"]["id"].as_str().unwrap().to_owned()
    }

    /// The webhooks of an organization, with these fields.
    pub async fn webhooks(&self, slug: &str, fields: &str) -> Vec<Value> {
        let query = format!(
            "query($slug: String!) {{ organization(slug: $slug) {{ webhooks(first: 1000) {{ nodes {{ {fields} }} }} }} }}"
        );
        let mut data = self.data(&query, json!({ "slug": slug })).await;
        match data["organization"]["webhooks"]["nodes"].take() {
            Value::Array(nodes) => nodes,
            other => panic!("{other}"),
        }
    }

    /// Waits until the webhooks of an organization meet the condition.
    pub async fn webhooks_until(&self, slug: &str, fields: &str, wished: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let nodes = self.webhooks(slug, fields).await;
            if wished(&nodes) {
                return nodes;
            }
            assert!(Instant::now() < deadline, "{nodes:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_fails_stops_its_node() {
    let app = TestApp::start().await;
    let url = app.url.clone();
    let failing = tokio::spawn(async move {
        let _app = app;
        panic!("as a test would");
    });
    assert!(failing.await.unwrap_err().is_panic());
    assert!(reqwest::get(format!("{url}/healthz")).await.unwrap_err().is_connect());
}
