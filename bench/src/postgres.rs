//! A private PostgreSQL cluster per contender, with the same settings for both.
//!
//! Durability is on: an acknowledgement that a power cut could take back is not worth measuring.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};

use crate::account::Account;
use crate::process::Process;

pub const SETTINGS: &[&str] = &[
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "shared_buffers=1GB",
    "max_wal_size=4GB",
    "min_wal_size=2GB",
    "checkpoint_timeout=15min",
    "wal_compression=lz4",
    "jit=off",
];

const START_LIMIT: Duration = Duration::from_secs(60);

/// As many of 16 MiB as `min_wal_size` keeps.
const WAL_SEGMENTS: usize = 128;

#[derive(Debug)]
pub struct Cluster {
    programs: PathBuf,
    account: Account,
    directory: PathBuf,
    /// Name of the one database, and of the role that owns it.
    owner: &'static str,
}

impl Cluster {
    /// Creates the cluster in a new directory under `parent`.
    pub fn create(parent: &Path, owner: &'static str) -> Result<Self> {
        let cluster =
            Self { programs: programs()?, account: Account::choose(), directory: parent.join(owner).join("pg"), owner };
        fs::create_dir_all(&cluster.directory)?;
        cluster.account.own(&cluster.directory)?;
        let mut initdb = Command::new(cluster.programs.join("initdb"));
        initdb.arg("-D").arg(&cluster.directory).args(["-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust"]);
        initdb.current_dir(&cluster.directory).stdin(Stdio::null());
        cluster.account.act(&mut initdb);
        let output = initdb.output().context("initdb")?;
        ensure!(output.status.success(), "initdb failed:\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(cluster)
    }

    /// Starts it and waits until its owner can connect.
    pub async fn start(&self) -> Result<Process> {
        let mut command = Command::new(self.programs.join("postgres"));
        command.arg("-D").arg(&self.directory);
        command.args(["-c", "listen_addresses=", "-c", "unix_socket_directories=.", "-c", "port=5432"]);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.current_dir(&self.directory);
        self.account.act(&mut command);
        let log = self.directory.with_extension("log");
        // SIGINT is the fast shutdown, with a checkpoint, so nothing is left to disturb the other's turn.
        let mut process = Process::spawn("PostgreSQL", &mut command, libc::SIGINT, &log)?;
        let mut connection = self.superuser(&mut process).await?;
        self.provision(&mut connection).await?;
        Ok(process)
    }

    /// The owner's URL, in the form that libpq and sqlx expect.
    pub fn url(&self) -> String {
        let socket: String = self.directory.to_string_lossy().bytes().map(percent_encoded).collect();
        format!("postgres://{0}@{socket}/{0}", self.owner)
    }

    async fn superuser(&self, process: &mut Process) -> Result<PgConnection> {
        let options = PgConnectOptions::new_without_pgpass().socket(&self.directory).port(5432);
        let options = options.username("postgres").database("postgres");
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match tokio::time::timeout(START_LIMIT, options.connect()).await? {
                Ok(connection) => return Ok(connection),
                Err(error) if Instant::now() > deadline => bail!("PostgreSQL does not answer: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            process.still_runs()?;
        }
    }

    /// A superuser's connection to the contender's own database.
    pub async fn superuser_of_store(&self) -> Result<PgConnection> {
        let options = PgConnectOptions::new_without_pgpass().socket(&self.directory).port(5432);
        Ok(options.username("postgres").database(self.owner).connect().await?)
    }

    /// Neither contender works as a superuser. The privilege to create roles lets a contender's migrations
    /// create one for its running server.
    async fn provision(&self, connection: &mut PgConnection) -> Result<()> {
        let owner = self.owner;
        let query = sqlx::query_scalar("select exists (select from pg_database where datname = $1)").bind(owner);
        let exists: bool = query.fetch_one(&mut *connection).await?;
        if !exists {
            sqlx::query(&format!("create role {owner} login createrole")).execute(&mut *connection).await?;
            sqlx::query(&format!("create database {owner} owner {owner}")).execute(&mut *connection).await?;
            recycle_wal(connection).await?;
        }
        Ok(())
    }
}

/// Brings a new cluster to the state after an hour: a commit finds a recycled segment of the write-ahead log,
/// instead of filling a new one with 16 MiB of zeros while clients wait.
async fn recycle_wal(connection: &mut PgConnection) -> Result<()> {
    for _ in 0..WAL_SEGMENTS {
        sqlx::query("select pg_logical_emit_message(false, 'bench', ''), pg_switch_wal()")
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("checkpoint").execute(&mut *connection).await?;
    Ok(())
}

fn percent_encoded(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

fn programs() -> Result<PathBuf> {
    let has_both = |path: &PathBuf| path.join("initdb").exists() && path.join("postgres").exists();
    let configured = Command::new("pg_config").arg("--bindir").output().ok();
    let configured = configured.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let mut packaged: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    packaged.sort_unstable_by(|a, b| b.cmp(a));
    configured.into_iter().chain(packaged).find(has_both).context(
        "no PostgreSQL programs found with pg_config or in /usr/lib/postgresql (Debian and Ubuntu: apt-get install postgresql)",
    )
}
