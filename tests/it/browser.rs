//! The web application in a real browser, against the real binary, driven by `tests/web/`. Screenshots
//! are kept in `target/screenshots`.

use std::path::Path;

use serde_json::Value;

use crate::process::Process;
use crate::vendors::script_of;

/// A server with the sample data. Its mails are files, and its destinations may be on this machine.
async fn server() -> Process {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/dist/index.html");
    assert!(page.exists(), "the web application is not built: run `make web`");
    let mut process = Process::new();
    let mails = process.directory.path().join("mails");
    std::fs::create_dir(&mails).unwrap();
    process.environment = vec![
        ("HOOKLEDGER_MAIL_DIR", mails.to_str().unwrap().to_owned()),
        ("HOOKLEDGER_EGRESS_ALLOW_CIDRS", "127.0.0.0/8".to_owned()),
        ("HOOKLEDGER_RETRY_DELAYS", "1s,1s,1s".to_owned()),
    ];
    process.run(&["seed-demo"]);
    process.serve().await;
    process
}

async fn walk(name: &'static str) -> Value {
    let process = server().await;
    let shots = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
    let environment = vec![
        ("BASE_URL", process.url()),
        ("MAIL_DIR", process.directory.path().join("mails").to_str().unwrap().to_owned()),
        ("SHOTS", shots.to_str().unwrap().to_owned()),
    ];
    let result = script_of("tests/web", name, environment).await;
    eprintln!("{name}: {result}");
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_shows_itself_to_each_role_and_nothing_is_wrong_on_it() {
    let result = walk("pages.mjs").await;
    assert_eq!(result["problems"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_goes_from_the_first_sign_in_to_a_dead_letter_that_arrives() {
    let result = walk("journey.mjs").await;
    assert_eq!(result["problems"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_now_and_then_works_in_the_pages() {
    let result = walk("upkeep.mjs").await;
    assert_eq!(result["problems"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_scrolls_smoothly() {
    let result = walk("scroll.mjs").await;
    assert_eq!(result["problems"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_computes_in_the_browser_is_right() {
    let result = script_of("tests/web", "pure.mjs", Vec::new()).await;
    eprintln!("pure.mjs: {result}");
    assert_eq!(result["problems"], 0);
}
