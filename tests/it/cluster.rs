//! A PostgreSQL for one test, which can be killed and started again. It has fsync on.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub struct Cluster {
    /// `DATABASE_URL` of its superuser.
    pub url: String,
    directory: tempfile::TempDir,
    programs: PathBuf,
}

impl Cluster {
    /// Starts one.
    pub fn start() -> Self {
        let cluster = Self::empty();
        cluster.run("initdb", &["-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "-N"]);
        cluster.restart();
        cluster
    }

    fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        if is_root() {
            assert!(Command::new("chown").arg("postgres").arg(directory.path()).status().unwrap().success());
        }
        let host = directory.path().to_str().unwrap().replace('/', "%2F");
        let url = format!("postgres://postgres@{host}/postgres");
        Self { url, directory, programs: programs() }
    }

    /// Starts a replica that follows it.
    pub fn replica(&self) -> Self {
        let replica = Self::empty();
        let host = self.directory.path().to_str().unwrap();
        replica.run("pg_basebackup", &["-h", host, "-U", "postgres", "-R", "-c", "fast"]);
        replica.restart();
        replica
    }

    /// Promotes a replica.
    pub fn promote(&self) {
        self.run("pg_ctl", &["-w", "promote"]);
    }

    /// Starts it again, and waits until it has recovered.
    pub fn restart(&self) {
        let at = self.directory.path().to_str().unwrap();
        let options = format!("-c listen_addresses= -k {at} -c max_connections=200 -c jit=off");
        self.run("pg_ctl", &["-l", &format!("{at}/log"), "-w", "-o", &options, "start"]);
    }

    /// Ends it like a crash, without a shutdown.
    pub fn crash(&self) {
        self.run("pg_ctl", &["-m", "immediate", "-w", "stop"]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.arg("-D").arg(self.directory.path().join("cluster")).args(arguments).current_dir(self.directory.path());
        // The server that it starts would keep the pipes of this process open.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "{command:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.directory.path().join("cluster/postmaster.pid").exists() {
            self.crash();
        }
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

fn programs() -> PathBuf {
    let told = Command::new("pg_config").arg("--bindir").output();
    let told = told.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let candidates = std::iter::once(PathBuf::from(told.trim())).chain(installed.map(|entry| entry.path().join("bin")));
    let has_programs = |path: &PathBuf| Path::new(&path.join("initdb")).exists();
    candidates.into_iter().find(has_programs).expect("PostgreSQL's programs are installed")
}
