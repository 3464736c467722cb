//! The `hookledger` binary.

use std::process::ExitCode;

/// Requests and their events are many small, short-lived allocations, which mimalloc is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "an error of a command is for its user")]
fn main() -> ExitCode {
    hookledger::cli::run().unwrap_or_else(|error| {
        eprintln!("Error: {}", sentence(&error));
        ExitCode::FAILURE
    })
}

/// The error with its causes. A backtrace would bury it, and most errors here are a wrong setting.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |told, cause| match cause.to_string() {
        cause if told.is_empty() => cause,
        // Some errors include their cause in their own text.
        cause if told.contains(&cause) => told,
        cause => format!("{told}: {cause}"),
    })
}
