//! A node: the real binary, run as by a service manager, which restarts it when it exits by itself.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use crate::clock::MovableClock;
use crate::process::{self, Process};

/// How long a service manager waits before a restart.
const RESTART_AFTER: Duration = Duration::from_secs(1);
const ALIVE_LIMIT: Duration = Duration::from_secs(60);
/// How long a node may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// Settings shared by all nodes of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    pub binary: PathBuf,
    pub environment: Vec<(&'static str, String)>,
}

#[derive(Debug)]
pub struct Node {
    pub number: usize,
    pub address: SocketAddr,
    pub data: PathBuf,
    settings: Settings,
    /// Its `DATABASE_URL`; `None` with an embedded store.
    database_url: Option<String>,
    pub clock: Option<MovableClock>,
    state: Mutex<State>,
    http: reqwest::Client,
}

#[derive(Debug, Default)]
struct State {
    process: Option<Process>,
    /// Whether it should run.
    wanted: bool,
    ended_by_itself: Vec<String>,
    peak_memory: u64,
}

impl Node {
    pub fn new(
        number: usize,
        directory: &Path,
        settings: Settings,
        database_url: Option<String>,
        clock: Option<MovableClock>,
    ) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let data = directory.join(format!("node-{number}"));
        std::fs::create_dir_all(&data)?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build()?;
        Ok(Self { number, address, data, settings, database_url, clock, state: Mutex::default(), http })
    }

    /// Has to be called before its first start.
    pub fn add_setting(&mut self, name: &'static str, value: String) {
        self.settings.environment.push((name, value));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// The binary with the run's configuration and without the caller's environment.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.settings.binary);
        command.args(arguments).current_dir(&self.data).env_clear();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("HOOKLEDGER_DATA_DIR", &self.data);
        command.envs(self.settings.environment.iter().map(|(name, value)| (name, value)));
        command.envs(self.database_url.iter().map(|url| ("DATABASE_URL", url)));
        if arguments.first() == Some(&"serve") {
            command.env("HOOKLEDGER_LISTEN", self.address.to_string());
        }
        command
    }

    /// Runs a command to its end; returns its status and output.
    pub async fn run(&self, arguments: &[&str], limit: Duration) -> Result<(ExitStatus, String)> {
        let mut command = tokio::process::Command::from(self.command(arguments));
        let output = tokio::time::timeout(limit, command.kill_on_drop(true).output()).await;
        let output = output.with_context(|| format!("{arguments:?} does not end within {limit:?}"))??;
        let printed = [output.stdout, output.stderr].concat();
        Ok((output.status, String::from_utf8_lossy(&printed).into_owned()))
    }

    /// Starts it without waiting.
    pub fn spawn(&self) -> Result<()> {
        let mut command = self.command(&["serve"]);
        if let Some(clock) = &self.clock {
            clock.apply(&mut command);
        }
        let process = Process::spawn(&mut command, &self.log())?;
        let mut state = self.state();
        state.process = Some(process);
        state.wanted = true;
        Ok(())
    }

    /// Starts it and waits until it answers at all.
    pub async fn start(&self) -> Result<()> {
        self.spawn()?;
        self.until_alive().await
    }

    pub async fn until_alive(&self) -> Result<()> {
        let deadline = Instant::now() + ALIVE_LIMIT;
        while self.http.get(format!("{}/healthz", self.origin())).send().await.is_err() {
            if Instant::now() > deadline {
                bail!("node {} does not come up:\n{}", self.number, process::tail(&self.log(), 15));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/readyz", self.origin())).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &self.state().process {
            process.signal(signal);
        }
    }

    /// Kills it with `kill -9`; it stays down.
    pub fn kill(&self) {
        let mut state = self.state();
        state.wanted = false;
        state.process = None;
    }

    /// Sends SIGTERM; it stays down. Returns how long it took, and whether it had to be killed or exited with
    /// an error.
    pub async fn terminate(&self) -> (Duration, Option<String>) {
        let process = {
            let mut state = self.state();
            state.wanted = false;
            state.process.take()
        };
        let started = Instant::now();
        let Some(mut process) = process else { return (Duration::ZERO, None) };
        process.signal(Signal::TERM);
        match process.wait(STOP_LIMIT).await {
            Some(status) if status.success() => (started.elapsed(), None),
            Some(status) => (started.elapsed(), Some(status.to_string())),
            None => (started.elapsed(), Some("it had to be killed".to_owned())),
        }
    }

    /// Its unexpected exits.
    #[must_use]
    pub fn ended_by_itself(&self) -> Vec<String> {
        self.state().ended_by_itself.clone()
    }

    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        self.state().peak_memory
    }

    /// Restarts it after an unexpected exit, and watches its memory.
    pub async fn supervise(self: Arc<Self>, stop: CancellationToken) {
        let mut interval = tokio::time::interval(Duration::from_millis(200));
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            let ended = {
                let mut state = self.state();
                let memory = state.process.as_ref().map_or(0, |process| process::memory(process.pid()));
                state.peak_memory = state.peak_memory.max(memory);
                let ended = state.process.as_mut().and_then(Process::ended).filter(|_| state.wanted);
                if let Some(status) = ended {
                    state.process = None;
                    state.ended_by_itself.push(status.to_string());
                }
                ended.is_some()
            };
            if ended {
                tokio::time::sleep(RESTART_AFTER).await;
                let again = self.state().wanted && self.state().process.is_none();
                if again && let Err(error) = self.spawn() {
                    self.state().ended_by_itself.push(format!("{error:#}"));
                }
            }
        }
    }
}
