//! The real binary, with the embedded store.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::patience::PATIENCE;

pub const BINARY: &str = env!("CARGO_BIN_EXE_hookledger");

/// A server as a separate process, with its own directory.
pub struct Process {
    pub directory: tempfile::TempDir,
    pub port: u16,
    /// Additional settings.
    pub environment: Vec<(&'static str, String)>,
    server: Option<Child>,
}

impl Process {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { directory, port, environment: Vec::new(), server: None }
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A command with this server's settings and no others.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(self.directory.path()).env_clear();
        command.env("PATH", std::env::var("PATH").unwrap());
        command.env("HOOKLEDGER_DATA_DIR", self.data());
        command.env("HOOKLEDGER_BASE_URL", self.url());
        // On a slow machine, attempts may take longer.
        command.env("HOOKLEDGER_PENDING_TIMEOUT", "10m");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if arguments.first() == Some(&"serve") {
            command.env("HOOKLEDGER_LISTEN", format!("127.0.0.1:{}", self.port));
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    /// Resident memory of the server in bytes, without its PostgreSQL.
    pub fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    }

    pub async fn serve(&mut self) {
        self.begin();
        self.ready().await;
    }

    /// Starts the server without waiting for it.
    pub fn begin(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        self.server = Some(self.command(&["serve"]).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// The log of the server.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// The exit status of the server, if it has ended.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.server.as_mut().unwrap().try_wait().unwrap()
    }

    /// Waits until the server is ready.
    pub async fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        while !client.get(format!("{}/readyz", self.url())).send().await.is_ok_and(|ready| ready.status().is_success())
        {
            assert!(Instant::now() < deadline, "{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `kill -9`, of the server alone or with its PostgreSQL.
    pub fn kill(&mut self, postgres_too: bool) {
        if postgres_too {
            let pid = std::fs::read_to_string(self.data().join("postgres/postmaster.pid")).unwrap();
            let _ = Command::new("kill").arg("-9").arg(pid.lines().next().unwrap()).status();
        }
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Sends a signal to the server, by name.
    pub fn signal(&self, name: &str) {
        let pid = self.server.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").arg(format!("-{name}")).arg(pid).status().unwrap().success());
    }

    pub fn terminate(&mut self) {
        let mut server = self.server.take().unwrap();
        Command::new("kill").arg(server.id().to_string()).status().unwrap();
        assert!(server.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        // The embedded PostgreSQL ends with its parent. Its directory is removed afterwards.
        let pid_file = self.data().join("postgres/postmaster.pid");
        let deadline = Instant::now() + Duration::from_secs(60);
        while Path::new(&pid_file).exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
