//! A short, fixed list of seeds, so that every test run disturbs real processes. `make torture` runs many.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use hookledger_torture::kind::Kind;
use hookledger_torture::run::{Limits, Options, run};
use hookledger_torture::schedule::Schedule;

/// The server next to this test: the tests of the workspace build it.
fn binary() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let directory = test.parent().and_then(|deps| deps.parent()).context("the test lies in no target directory")?;
    let binary = directory.join("hookledger");
    ensure!(binary.is_file(), "{} is missing: build the workspace first", binary.display());
    Ok(binary)
}

async fn nothing_is_found(kind: Kind, seed: u64) -> Result<()> {
    let options = Options { binary: binary()?, rate: 20, limits: Limits::GENEROUS, evidence: None, verbose: false };
    let report = run(&Schedule::of_kind(seed, 1, kind), &options).await?;
    ensure!(report.findings.is_empty(), "{report}");
    ensure!(report.acknowledged > 0, "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_and_postmaster_lose_nothing() -> Result<()> {
    nothing_is_found(Kind::KillBoth, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_terminated_again_and_again_lose_nothing() -> Result<()> {
    nothing_is_found(Kind::TerminateAll, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_cut_loses_and_doubles_nothing() -> Result<()> {
    nothing_is_found(Kind::CutCommit, 1).await
}
