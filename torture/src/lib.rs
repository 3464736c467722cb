//! A harness that injects faults into real nodes and databases, keeps its own record of every answer and
//! every delivery, and then checks that no webhook was lost, duplicated, stuck or misremembered.
//!
//! It uses none of the product's crates: it drives the binary as operators and senders do.

pub mod account;
pub mod checker;
pub mod clock;
pub mod disk;
pub mod draw;
pub mod faults;
pub mod kind;
pub mod level;
pub mod log;
pub mod node;
pub mod organizations;
pub mod postgres;
pub mod process;
pub mod product;
pub mod proxy;
pub mod readiness;
pub mod record;
pub mod report;
pub mod run;
pub mod schedule;
pub mod sign;
pub mod sink;
pub mod traffic;
pub mod world;

use kind::Kind;

/// The kinds that this machine allows, and why it does not allow the others.
#[must_use]
pub fn allowed_kinds() -> (Vec<Kind>, Vec<String>) {
    let disk = disk::SmallDisk::is_available();
    let clock = clock::MovableClock::is_available();
    let allowed = |kind: &Kind| (disk || !kind.needs().small_disk) && (clock || kind.needs().clock.is_none());
    let mut missing = Vec::new();
    if !disk {
        missing.push("full disks: a tmpfs cannot be mounted, which takes root".to_owned());
    }
    if !clock {
        missing.push("clocks: libfaketime is missing (package faketime)".to_owned());
    }
    (Kind::ALL.iter().copied().filter(allowed).collect(), missing)
}
