//! The contender "hookledger": the real binary, set up as by its operator, through its public interface.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::contender::{Contender, LedgerLag, ORGANIZATIONS, Running, SECRET, Settled, client, free_address};
use crate::postgres::Cluster;
use crate::process::Process;

const ADMIN: &str = "admin@localhost";
/// How long the read model may take to catch up.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);

pub struct Hookledger {
    cluster: Cluster,
    binary: PathBuf,
    data: PathBuf,
    master_keys: String,
    jwt_keys: String,
    http: reqwest::Client,
    /// The same at every start: its base URL is the issuer of its sessions.
    address: SocketAddr,
    /// A super admin's, from its first start.
    session: Option<String>,
}

impl Hookledger {
    pub fn prepare(directory: &Path, binary: Option<&Path>) -> Result<Self> {
        let binary = match binary {
            Some(path) => path.to_owned(),
            None => std::env::current_exe()?.with_file_name("hookledger"),
        };
        ensure!(
            binary.is_file(),
            "{} is missing: run `cargo build --release` first, or name the binary in HOOKLEDGER_BIN",
            binary.display()
        );
        let data = directory.join("hookledger").join("data");
        fs::create_dir_all(&data)?;
        let key = || format!("k1:{}", STANDARD.encode(rand::random::<[u8; 32]>()));
        Ok(Self {
            cluster: Cluster::create(directory, "hookledger")?,
            binary: fs::canonicalize(binary)?,
            data,
            master_keys: key(),
            jwt_keys: key(),
            http: client()?,
            address: free_address()?,
            session: None,
        })
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The binary with the benchmark's configuration and without the caller's environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with("HOOKLEDGER_") || name.starts_with("PG")
        }) {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(&self.data).envs([
            ("DATABASE_URL", self.cluster.url().as_str()),
            ("HOOKLEDGER_MASTER_KEYS", &self.master_keys),
            ("HOOKLEDGER_JWT_KEYS", &self.jwt_keys),
            ("HOOKLEDGER_LISTEN", &self.address.to_string()),
            ("HOOKLEDGER_BASE_URL", &self.origin()),
            ("HOOKLEDGER_EGRESS_ALLOW_CIDRS", "127.0.0.0/8"),
        ]);
        command.env("HOOKLEDGER_DATA_DIR", &self.data);
        command
    }

    async fn sign_in(&self) -> Result<String> {
        let output = self.command(&["sign-in-link", ADMIN]).output().context("hookledger sign-in-link")?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let (_, rest) = printed.split_once("token=").with_context(|| {
            format!(
                "sign-in-link printed no token ({}): {printed}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            )
        })?;
        let token = rest.split(|c: char| c.is_whitespace() || "&\"#".contains(c)).next().unwrap_or_default();
        let url = format!("{}/api/auth/verify-magic-link", self.origin());
        let response = self.http.post(url).json(&json!({ "token": token })).send().await?;
        let status = response.status();
        let body: Value = response.json().await.context("verify-magic-link")?;
        let session = body["token"].as_str().with_context(|| format!("verify-magic-link answered {status}: {body}"))?;
        Ok(session.to_owned())
    }

    /// Runs a statement with a number on the store, and updates the statistics.
    pub async fn fill(&self, statement: &str, number: i64) -> Result<()> {
        let mut store = self.cluster.superuser_of_store().await?;
        sqlx::query(statement).bind(number).execute(&mut store).await?;
        sqlx::query("vacuum (analyze) webhook_logs").execute(&mut store).await?;
        Ok(())
    }

    /// Accepted webhooks, counted in the log itself.
    pub async fn webhooks_in_log(&self) -> Result<i64> {
        let mut store = self.cluster.superuser_of_store().await?;
        let query = "select count(*) from commits where starts_with(data, E'webhook.received\\t')";
        Ok(sqlx::query_scalar(query).fetch_one(&mut store).await?)
    }

    /// The super admin's token.
    pub fn session(&self) -> Result<&str> {
        self.session.as_deref().context("not signed in")
    }

    pub async fn graphql(&self, query: &str, variables: Value) -> Result<Value> {
        let request = self.http.post(format!("{}/graphql", self.origin())).bearer_auth(self.session()?);
        let response = request.json(&json!({ "query": query, "variables": variables })).send().await?;
        let status = response.status();
        let mut body: Value = response.json().await.with_context(|| format!("GraphQL answered {status}"))?;
        ensure!(body.get("errors").is_none_or(Value::is_null), "GraphQL answered {status}: {body}");
        Ok(body["data"].take())
    }

    async fn connect(&self, number: usize) -> Result<()> {
        let create =
            "mutation($input: CreateOrganizationInput!) { createOrganization(input: $input) { organization { id } } }";
        let organization =
            json!({ "name": format!("Bench {number}"), "slug": format!("bench-{number}"), "plan": "PREMIUM" });
        let created = self.graphql(create, json!({ "input": organization })).await.context("createOrganization")?;
        let connect = "mutation($input: ConnectProviderInput!) { connectProvider(input: $input) { provider { id } } }";
        let id = &created["createOrganization"]["organization"]["id"];
        let provider = json!({ "organizationId": id, "providerName": "GITHUB", "secret": SECRET });
        self.graphql(connect, json!({ "input": provider })).await.context("connectProvider")?;
        Ok(())
    }

    /// Waits until every organization's count reaches the acknowledged number, and returns when that was;
    /// then until nothing is left to process, which would burden the next round.
    async fn come_to_rest(&self, accepted: &[u64], counts: &mut [u64]) -> Result<Instant> {
        self.catch_up(accepted, counts).await?;
        let caught_up = Instant::now();
        for number in 0..counts.len() {
            while self.is_processing(number).await? {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(caught_up)
    }

    /// Age of the oldest event that is in no tree of the ledger.
    async fn ledger_behind(store: &mut PgConnection) -> Result<Duration> {
        let seconds: Option<f64> = sqlx::query_scalar(
            "select extract(epoch from clock_timestamp() - min(e.recorded_at))::float8
             from follower_checkpoints c
             join commits e on e.partition = c.partition and e.position > c.position - 99
                           and e.position <= c.position + 1 and e.position + e.events - 1 > c.position
             where c.name = 'ledger'",
        )
        .fetch_one(store)
        .await?;
        Ok(Duration::from_secs_f64(seconds.unwrap_or_default().max(0.0)))
    }

    /// The ledger's lag now, and when it has caught up with the current events.
    async fn ledger_lag(&self) -> Result<LedgerLag> {
        let mut store = self.cluster.superuser_of_store().await?;
        let (started, behind) = (Instant::now(), Self::ledger_behind(&mut store).await?);
        // Older events were there at the end of the load.
        while Self::ledger_behind(&mut store).await? > started.elapsed() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(LedgerLag { behind, caught_up_after: started.elapsed() })
    }

    async fn is_processing(&self, number: usize) -> Result<bool> {
        let query = "query($slug: String!) { organization(slug: $slug) { \
                     webhooks(filter: {status: [PENDING, PROCESSING]}, first: 1) { nodes { webhookId } } } }";
        let answer = self.graphql(query, json!({ "slug": format!("bench-{number}") })).await?;
        let open = answer["organization"]["webhooks"]["nodes"].as_array();
        Ok(!open.with_context(|| format!("no webhooks in {answer}"))?.is_empty())
    }

    async fn catch_up(&self, accepted: &[u64], counts: &mut [u64]) -> Result<()> {
        loop {
            for (number, (count, expected)) in counts.iter_mut().zip(accepted).enumerate() {
                if *count < *expected {
                    *count = self.count(number).await?;
                }
            }
            if counts.iter().zip(accepted).all(|(count, expected)| count >= expected) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn count(&self, number: usize) -> Result<u64> {
        let query = "query($slug: String!) { organization(slug: $slug) { webhookCount } }";
        let answer = self.graphql(query, json!({ "slug": format!("bench-{number}") })).await?;
        answer["organization"]["webhookCount"].as_u64().with_context(|| format!("no webhookCount in {answer}"))
    }
}

impl Contender for Hookledger {
    const NAME: &'static str = "hookledger";

    async fn start(&mut self) -> Result<Running> {
        let cluster = self.cluster.start().await?;
        let log = self.data.with_extension("log");
        let server = Process::spawn("hookledger serve", &mut self.command(&["serve"]), libc::SIGTERM, &log)?;
        let running = Running::new(self.address, server, cluster).ready(&self.http).await?;
        if self.session.is_none() {
            self.session = Some(self.sign_in().await?);
            for number in 0..ORGANIZATIONS {
                self.connect(number).await?;
            }
            // A new provider is in force within a second.
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        Ok(running)
    }

    async fn settle(&mut self, accepted: &[u64]) -> Result<Settled> {
        let started = Instant::now();
        let mut counts = vec![0; accepted.len()];
        // The limit spans the queries too: 16 slow answers in a row must not exceed it.
        let ledger = self.ledger_lag();
        let ledger = tokio::time::timeout(CATCH_UP_LIMIT, ledger).await.context("the ledger does not catch up")??;
        let at_rest = tokio::time::timeout(CATCH_UP_LIMIT, self.come_to_rest(accepted, &mut counts)).await;
        let Ok(caught_up) = at_rest else {
            bail!("the read model holds {counts:?} of {accepted:?} acknowledged webhooks after {CATCH_UP_LIMIT:?}");
        };
        let caught_up_after = Some(caught_up?.duration_since(started));
        let exact = counts == accepted;
        Ok(Settled { caught_up_after, ledger: Some(ledger), counted: counts.iter().sum(), exact })
    }
}
