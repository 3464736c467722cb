//! A clock that can be moved while a process runs: libfaketime, which reads the offset from a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::account::Account;

const LIBRARIES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
];

#[derive(Debug)]
pub struct MovableClock {
    library: &'static str,
    offset: PathBuf,
}

impl MovableClock {
    /// Whether libfaketime is installed.
    #[must_use]
    pub fn is_available() -> bool {
        library().is_some()
    }

    pub fn new(directory: &Path) -> Result<Self> {
        let library =
            library().ok_or_else(|| anyhow::anyhow!("libfaketime is missing: install the package faketime"))?;
        let offset = directory.join("clock");
        let clock = Self { library, offset };
        clock.set(0)?;
        Account::choose().own(&clock.offset)?;
        Ok(clock)
    }

    /// By then, every process has read its clock's offset.
    pub const TAKES_EFFECT: Duration = Duration::from_secs(1);

    /// Moves the clock to this many seconds from the true time.
    pub fn set(&self, seconds: i64) -> Result<()> {
        Ok(fs::write(&self.offset, format!("{seconds:+}\n"))?)
    }

    /// Runs a command under this clock. Its monotonic clock stays true.
    pub fn apply(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.library).env("FAKETIME_TIMESTAMP_FILE", &self.offset);
        command.env("FAKETIME_CACHE_DURATION", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_RESET", "1");
    }
}

fn library() -> Option<&'static str> {
    LIBRARIES.iter().copied().find(|path| Path::new(path).exists())
}
