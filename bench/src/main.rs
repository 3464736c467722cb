//! The benchmark: how many webhooks per second Hookledger acknowledges, compared with the documented setup of
//! cqrs-es, postgres-es and warp ("stock"), in the same run, on the same machine, with the same PostgreSQL
//! settings.
//!
//! It shares no code with the product, which it drives as a binary through its public interface.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures on the terminal are what this program is for")]

mod account;
mod contender;
mod deliver;
mod exchange;
mod hookledger;
mod list;
mod load;
mod machine;
mod offer;
mod options;
mod overload;
mod postgres;
mod process;
mod report;
mod request;
mod rounds;
mod stock;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::options::{OfferArguments, Options, Role};

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.role {
        Some(Role::Stock(arguments)) => stock::server::run(arguments).map(|()| true),
        Some(Role::Offer(arguments)) => offer(arguments).map(|()| true),
        None => measure(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hookledger-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reports the outcome of its requests to the benchmark that started it.
fn offer(arguments: &OfferArguments) -> Result<()> {
    println!("{}", serde_json::to_string(&offer::run(arguments)?)?);
    Ok(())
}

/// Runs on this single thread: the load generator shares the cores with what it measures, and the children's
/// parent-death signal is tied to the thread that spawned them.
fn measure(options: &Options) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        tokio::select! {
            report = rounds::run(options) => report,
            () = interrupted() => bail!("interrupted"),
        }
    })?;
    report.print();
    if let Some(path) = &options.json {
        let file = std::fs::File::create(path).with_context(|| format!("{}", path.display()))?;
        serde_json::to_writer_pretty(file, &report)?;
    }
    let complaints = report.complaints(options);
    for complaint in &complaints {
        eprintln!("FAILED: {complaint}");
    }
    Ok(complaints.is_empty())
}

/// Dropping the rounds stops every server that they started, so a signal only has to end the wait.
async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
