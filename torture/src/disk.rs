//! A small file system that can be filled: a separate tmpfs, which only root may mount.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Room for a cluster with its write-ahead log.
const SIZE: &str = "size=900m,mode=0755";

#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Whether this machine allows mounting one.
    #[must_use]
    pub fn is_available() -> bool {
        tempfile::tempdir().is_ok_and(|directory| Self::mount(directory.path()).is_ok())
    }

    pub fn mount(path: &Path) -> Result<Self> {
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(path).output()?;
        ensure!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { path: path.to_owned() })
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Leaves not a single block free.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = fs::File::create(self.ballast()).context("ballast")?;
        for size in [1 << 20, 4 << 10] {
            let block = vec![0; size];
            while ballast.write_all(&block).is_ok() {}
        }
        Ok(())
    }

    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}
