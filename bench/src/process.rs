//! A child that never outlives the benchmark: stopped when dropped, signaled when the benchmark is killed.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long a stopping child may take before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    stop: i32,
    log: PathBuf,
}

impl Process {
    /// Spawns the command, whose output goes to `log`; `stop` is the signal that asks it to stop.
    pub fn spawn(name: &'static str, command: &mut Command, stop: i32, log: &Path) -> Result<Self> {
        let output = fs::File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Its own process group: Ctrl-C reaches the benchmark, which stops its children in order.
        command.process_group(0);
        end_with_parent(command, stop);
        let child = command.spawn().with_context(|| format!("{name} ({})", command.get_program().display()))?;
        Ok(Self { name, child, stop, log: log.to_owned() })
    }

    /// Fails with the end of its log if the child has ended.
    pub fn still_runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}); the end of its log:\n{}", self.name, tail(&self.log));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        signal(&self.child, self.stop);
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        eprintln!("{} did not stop within {STOP_LIMIT:?} and is killed", self.name);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(unsafe_code, reason = "kill has no safe form in std")]
fn signal(child: &Child, signal: i32) {
    // SAFETY: the child was not waited for yet, so its id is still its own.
    unsafe {
        libc::kill(child.id().cast_signed(), signal);
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "what a child does between fork and exec is unsafe by nature")]
fn end_with_parent(command: &mut Command, signal: i32) {
    let signal = signal.unsigned_abs();
    // SAFETY: one system call without pointers. It comes after the change of credentials, which
    // would clear it.
    unsafe {
        command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::c_ulong::from(signal)) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn end_with_parent(_command: &mut Command, _signal: i32) {}

fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
