//! The machine of the measurement.

use std::fs;
use std::thread::available_parallelism;

use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Machine {
    cores: usize,
    cpu: String,
}

impl Machine {
    pub fn here() -> Self {
        Self {
            cores: available_parallelism().map_or(1, usize::from),
            cpu: cpu().unwrap_or_else(|| "unknown CPU".to_owned()),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cores, {}", self.cores, self.cpu)
    }
}

fn cpu() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let (_, model) = info.lines().find(|line| line.starts_with("model name"))?.split_once(':')?;
    Some(model.trim().to_owned())
}
