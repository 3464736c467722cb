//! The `hookledger` binary.

use std::process::ExitCode;

/// Requests and their events are many small, short-lived allocations, which mimalloc is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    hookledger::cli::run()
}
