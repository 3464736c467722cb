//! A short, fixed list of seeds, so that every run of the tests disturbs real processes. `make torture` runs many.

use std::path::PathBuf;

use hookledger_torture::kind::Kind;
use hookledger_torture::report::Report;
use hookledger_torture::run::{Limits, Options, run};
use hookledger_torture::schedule::Schedule;

/// The server beside this test: cargo builds the workspace's binaries before its tests run.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let binary = test.parent().and_then(|deps| deps.parent()).unwrap().join("hookledger");
    assert!(binary.is_file(), "{} is missing: build the workspace first", binary.display());
    binary
}

async fn nothing_is_found(kind: Kind, seed: u64) {
    let options =
        Options { binary: binary(), rate: 20, limits: Limits::GENEROUS, evidence: None, verbose: false };
    let report: Report = run(&Schedule::of_kind(seed, 1, kind), &options).await.unwrap();
    assert!(report.findings.is_empty(), "{report}");
    assert!(report.acknowledged > 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_and_postmaster_lose_nothing() {
    nothing_is_found(Kind::KillBoth, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_terminated_again_and_again_lose_nothing() {
    nothing_is_found(Kind::TerminateAll, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_cut_loses_and_doubles_nothing() {
    nothing_is_found(Kind::CutCommit, 1).await;
}
