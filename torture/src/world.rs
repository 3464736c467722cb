//! All components of a run: database, networks, nodes, destinations, senders.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sqlx::PgConnection;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock::MovableClock;
use crate::disk::SmallDisk;
use crate::kind::{Clock, Setting};
use crate::node::{self, Node};
use crate::postgres::{Cluster, Database};
use crate::product::Product;
use crate::proxy::Proxy;
use crate::record::Record;
use crate::sink;
use crate::traffic::Traffic;

/// How long everything may take to serve before the first fault.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The processes and connections that a fault holds until it is healed.
#[derive(Default)]
pub struct Held {
    /// Suspended processes.
    pub paused: Vec<i32>,
    pub connections: Vec<PgConnection>,
    pub repeats: Option<JoinHandle<()>>,
    pub replica: Option<Cluster>,
}

pub struct World {
    pub setting: Setting,
    /// Nodes come first, because they are dropped first.
    pub nodes: Vec<Arc<Node>>,
    pub proxies: Vec<Arc<Proxy>>,
    pub cluster: Option<Cluster>,
    /// The primary before a replica was promoted.
    pub former: Option<Cluster>,
    pub database: Database,
    pub disk: Option<SmallDisk>,
    pub product: Product,
    pub record: Arc<Record>,
    pub traffic: Arc<Traffic>,
    pub held: Held,
    /// Duration of each stop, and its problem if there was one.
    pub stops: Vec<(Duration, Option<String>)>,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    pub directory: TempDir,
}

impl World {
    /// Starts everything, and returns when every node accepts webhooks.
    pub async fn start(binary: &Path, setting: Setting, seed: u64) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("torture-").tempdir()?;
        // PostgreSQL's account needs access to the directories below.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let root = directory.path().join("run");
        std::fs::create_dir(&root)?;
        let disk = setting.small_disk.then(|| SmallDisk::mount(&root)).transpose()?;

        let mut cluster = None;
        if !setting.embedded {
            let clock = (setting.clock == Some(Clock::Database)).then(|| MovableClock::new(directory.path()));
            let mut made = Cluster::create(&root.join("database"), clock.transpose()?)?;
            made.start().await?;
            made.provision().await?;
            cluster = Some(made);
        }
        let settings = node::Settings { binary: binary.to_owned(), environment: environment() };
        let (mut nodes, mut proxies) = (Vec::new(), Vec::new());
        for number in 0..setting.nodes {
            let url = match &cluster {
                Some(cluster) => {
                    let proxy = Proxy::start(socket(&cluster.database), seed ^ number as u64).await?;
                    let url = format!("postgres://hookledger@{}/hookledger?sslmode=disable", proxy.address);
                    proxies.push(Arc::new(proxy));
                    Some(url)
                }
                None => None,
            };
            let moves = setting.clock == Some(Clock::Node) && number == 0;
            let clock = moves.then(|| MovableClock::new(directory.path())).transpose()?;
            nodes.push(Node::new(number, &root, settings.clone(), url, clock)?);
        }
        // Sessions are valid on every node if all have the same base URL.
        let base_url = nodes[0].origin();
        for node in &mut nodes {
            node.add_setting("HOOKLEDGER_BASE_URL", base_url.clone());
        }
        let nodes: Vec<_> = nodes.into_iter().map(Arc::new).collect();
        let database = match &cluster {
            Some(cluster) => cluster.database.clone(),
            None => Database { directory: nodes[0].data.join("postgres") },
        };
        for node in &nodes {
            node.start().await?;
        }
        let record = Arc::new(Record::default());
        let sink = sink::start(Arc::clone(&record)).await?;
        let product = Product::sign_in(Arc::clone(&nodes[0])).await?;
        product.set_up(sink).await?;
        let origins = nodes.iter().map(|node| node.origin()).collect();
        let traffic = Traffic::new(origins, Arc::clone(&record), seed)?;
        let world = Self {
            setting,
            nodes,
            proxies,
            cluster,
            former: None,
            database,
            disk,
            product,
            record,
            traffic,
            held: Held::default(),
            stops: Vec::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            directory,
        };
        world.until_all_accept().await?;
        Ok(world)
    }

    async fn until_all_accept(&self) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        for node in &self.nodes {
            while !(node.is_ready().await && self.traffic.probe(node.number).await) {
                if Instant::now() > deadline {
                    let log = crate::process::tail(&node.log(), 15);
                    bail!("node {} accepts no webhook before any fault:\n{log}", node.number);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    pub fn cluster(&mut self) -> Result<&mut Cluster> {
        self.cluster.as_mut().context("this setting has no cluster of the harness")
    }

    pub fn proxy(&self, node: usize) -> Result<&Arc<Proxy>> {
        self.proxies.get(node).context("this setting has no proxy")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(repeats) = self.held.repeats.take() {
            repeats.abort();
        }
        for pid in self.held.paused.drain(..) {
            crate::process::send(pid, rustix::process::Signal::CONT);
        }
        for node in &self.nodes {
            node.kill();
        }
        // An embedded PostgreSQL ends with its node; its directory is removed afterwards.
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.cluster.is_none()
            && self.database.postmaster().is_some_and(crate::process::runs)
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The socket of a database of the harness.
#[must_use]
pub fn socket(database: &Database) -> PathBuf {
    database.directory.join(".s.PGSQL.5432")
}

fn environment() -> Vec<(&'static str, String)> {
    let key = || {
        let bytes = [*Uuid::new_v4().as_bytes(), *Uuid::new_v4().as_bytes()].concat();
        format!("k1:{}", STANDARD.encode(bytes))
    };
    vec![
        ("HOOKLEDGER_MASTER_KEYS", key()),
        ("HOOKLEDGER_JWT_KEYS", key()),
        ("HOOKLEDGER_EGRESS_ALLOW_CIDRS", "127.0.0.0/8".to_owned()),
        // Short, so that every webhook ends within the run.
        ("HOOKLEDGER_RETRY_DELAYS", "1s,1s,1s,1s".to_owned()),
        ("HOOKLEDGER_ATTEMPT_TIMEOUT", "2s".to_owned()),
        ("HOOKLEDGER_CHECKPOINT_INTERVAL", "1s".to_owned()),
        ("HOOKLEDGER_DEMO", "false".to_owned()),
        ("RUST_LOG", "info".to_owned()),
        ("RUST_BACKTRACE", "1".to_owned()),
    ]
}
