//! A PostgreSQL cluster of the harness, with fsync on, and a superuser's connection to it or to an embedded
//! one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection};

use crate::account::Account;
use crate::clock::MovableClock;
use crate::process::{self, Process};

const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "unix_socket_directories=.",
    "port=5432",
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "shared_buffers=64MB",
    "max_wal_size=256MB",
    "jit=off",
    "log_min_messages=warning",
];
/// Includes recovery.
const START_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Location of the product's database, for a superuser.
#[derive(Clone, Debug)]
pub struct Database {
    /// The directory of the cluster, and of its socket.
    pub directory: PathBuf,
}

impl Database {
    /// A superuser's connection to the product's database.
    pub async fn connect(&self) -> Result<PgConnection> {
        self.connect_to("hookledger").await
    }

    async fn connect_to(&self, database: &str) -> Result<PgConnection> {
        let options = PgConnectOptions::new_without_pgpass().socket(&self.directory).port(5432);
        let options = options.username("postgres").database(database).application_name("torture");
        Ok(tokio::time::timeout(CONNECT_LIMIT, options.connect()).await.context("PostgreSQL does not answer")??)
    }

    /// Connects as soon as PostgreSQL accepts connections.
    pub async fn connect_patiently(&self) -> Result<PgConnection> {
        self.patiently("hookledger").await
    }

    async fn patiently(&self, database: &str) -> Result<PgConnection> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match self.connect_to(database).await {
                Ok(connection) => return Ok(connection),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(30)).await,
            }
        }
    }

    #[must_use]
    pub fn postmaster(&self) -> Option<i32> {
        let file = fs::read_to_string(self.directory.join("postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// The product's backends, those that append first.
    pub async fn backends(&self) -> Result<Vec<i32>> {
        let query = "select pid from pg_stat_activity where datname = 'hookledger' and application_name <> 'torture' \
                     and backend_type = 'client backend' order by query not ilike '%append%', pid";
        self.pids(query).await
    }

    pub async fn walwriter(&self) -> Result<Vec<i32>> {
        self.pids("select pid from pg_stat_activity where backend_type = 'walwriter'").await
    }

    pub async fn terminate_all(&self) -> Result<u64> {
        let query = "select pg_terminate_backend(pid)::int from pg_stat_activity \
                     where datname = 'hookledger' and application_name <> 'torture'";
        let mut connection = self.connect().await?;
        let ended = sqlx::query(query).fetch_all(&mut connection).await?;
        Ok(ended.len() as u64)
    }

    async fn pids(&self, query: &str) -> Result<Vec<i32>> {
        let mut connection = self.connect().await?;
        let pids = sqlx::query_scalar(query).fetch_all(&mut connection).await?;
        connection.close().await?;
        Ok(pids)
    }
}

/// A cluster that the harness starts and stops.
#[derive(Debug)]
pub struct Cluster {
    programs: PathBuf,
    account: Account,
    pub database: Database,
    clock: Option<MovableClock>,
    server: Option<Process>,
}

impl Cluster {
    /// Creates it in a new directory.
    pub fn create(directory: &Path, clock: Option<MovableClock>) -> Result<Self> {
        let cluster = Self::at(directory, clock)?;
        fs::create_dir(directory)?;
        cluster.account.own(directory)?;
        let mut initdb = Command::new(cluster.programs.join("initdb"));
        initdb.arg("-D").arg(directory).args(["-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "-N"]);
        initdb.current_dir(directory).stdin(Stdio::null());
        cluster.account.act(&mut initdb);
        let output = initdb.output().context("initdb")?;
        ensure!(output.status.success(), "initdb failed:\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(cluster)
    }

    fn at(directory: &Path, clock: Option<MovableClock>) -> Result<Self> {
        let database = Database { directory: directory.to_owned() };
        Ok(Self { programs: programs()?, account: Account::choose(), database, clock, server: None })
    }

    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.database.directory.with_extension("log")
    }

    pub fn clock(&self) -> Result<&MovableClock> {
        self.clock.as_ref().context("the database's clock cannot be moved in this setting")
    }

    /// The postmaster's process ID; that of the harness's own child is known before its file exists.
    #[must_use]
    pub fn postmaster(&self) -> Option<i32> {
        self.server.as_ref().map(Process::pid)
    }

    /// Starts it if it is down, and waits until it accepts a superuser. A killed postmaster leaves backends
    /// that have to end first.
    pub async fn start(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if self.server.as_mut().is_none_or(|server| server.ended().is_some()) {
                self.server = Some(Process::spawn(&mut self.command(), &self.log())?);
            }
            match self.database.connect_to("postgres").await {
                Ok(_) if self.server.as_mut().is_some_and(|server| server.ended().is_none()) => return Ok(()),
                _ if Instant::now() > deadline => {
                    bail!("PostgreSQL does not start:\n{}", process::tail(&self.log(), 15));
                }
                _ => tokio::time::sleep(Duration::from_millis(30)).await,
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.programs.join("postgres"));
        command.arg("-D").arg(&self.database.directory);
        for setting in SETTINGS {
            command.arg("-c").arg(setting);
        }
        command.current_dir(&self.database.directory);
        if let Some(clock) = &self.clock {
            clock.apply(&mut command);
        }
        self.account.act(&mut command);
        command
    }

    /// Creates the product's role and database.
    pub async fn provision(&self) -> Result<()> {
        let mut superuser = self.database.patiently("postgres").await?;
        superuser.execute("create role hookledger login createrole").await?;
        superuser.execute("create database hookledger owner hookledger").await?;
        Ok(())
    }

    /// Stops it: SIGINT is the fast mode, SIGQUIT the immediate one.
    pub async fn stop(&mut self, signal: Signal) {
        if let Some(mut server) = self.server.take() {
            server.signal(signal);
            // A fast shutdown waits for suspended backends.
            if server.wait(START_LIMIT).await.is_none() {
                server.kill();
            }
        }
    }

    /// Kills only the postmaster with `kill -9`; its backends notice.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
    }

    /// A replica as of now, which receives nothing more.
    pub fn replica(&self, directory: &Path) -> Result<Self> {
        let mut command = Command::new(self.programs.join("pg_basebackup"));
        command.arg("-D").arg(directory).arg("-h").arg(&self.database.directory);
        command.args(["-U", "postgres", "-p", "5432", "-X", "stream", "--checkpoint=fast", "--no-sync"]);
        let output = command.output().context("pg_basebackup")?;
        ensure!(output.status.success(), "pg_basebackup failed: {}", String::from_utf8_lossy(&output.stderr));
        let replica = Self::at(directory, None)?;
        fs::write(directory.join("standby.signal"), "")?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        let mut chown = Command::new("chown");
        chown.arg("-R").arg("--reference").arg(&self.database.directory).arg(directory);
        ensure!(chown.status()?.success(), "the replica's files cannot be given to its account");
        Ok(replica)
    }

    /// Promotes a running replica: it is the primary from now on, on another timeline.
    pub async fn promote(&self) -> Result<()> {
        let mut superuser = self.database.patiently("postgres").await?;
        let promoted: bool = sqlx::query_scalar("select pg_promote(true, 60)").fetch_one(&mut superuser).await?;
        ensure!(promoted, "the replica is not promoted in time");
        Ok(())
    }
}

impl Drop for Cluster {
    /// An immediate shutdown; suspended backends are killed with their postmaster's group.
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            server.signal(Signal::QUIT);
            let deadline = Instant::now() + Duration::from_secs(7);
            while server.ended().is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn programs() -> Result<PathBuf> {
    let configured = Command::new("pg_config").arg("--bindir").output().ok();
    let configured = configured.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    let others = ["/opt/homebrew/bin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from);
    configured
        .into_iter()
        .chain(versions.into_iter().map(|(_, path)| path))
        .chain(others)
        .find(|path| path.join("initdb").exists() && path.join("postgres").exists())
        .context("no PostgreSQL programs were found; `make setup` installs them")
}
