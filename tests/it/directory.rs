//! The directory: how far it has looked.

use std::time::Duration;

use hookledger::directory::{Directory, DirectoryFollower};
use hookledger::log::LogPosition;
use hookledger::node::Core;
use hookledger_aggregates::OrganizationId;
use tokio_util::sync::CancellationToken;

use crate::app::{GITHUB_SECRET, TestApp};

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_says_how_far_it_has_looked() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    app.github("acme", "d-1", "{}").send().await.unwrap();
    let core = Core::start(&app.database.store(), &app.settings.store).await.unwrap();
    let directory = Directory::default();
    let mut follower =
        DirectoryFollower::new(directory.clone(), core.reader.clone(), core.heads.clone(), core.vault.clone());
    follower.load().await.unwrap();
    let partition = OrganizationId::from_slug("acme").partition();
    let position = async || -> i64 {
        let pool = app.database.superuser().await;
        let head = sqlx::query_scalar("select position from log_heads where partition = $1").bind(partition.number());
        head.fetch_one(&pool).await.unwrap()
    };
    // Webhooks do not concern it, and it has looked through them all the same.
    core.heads.advance([LogPosition { partition, position: position().await }]);
    let stop = CancellationToken::new();
    let running = tokio::spawn(follower.run(stop.clone()));
    let deadline = std::time::Instant::now() + crate::patience::PATIENCE;
    while directory.looked_to(partition) < position().await {
        assert!(std::time::Instant::now() < deadline, "it stays at {}", directory.looked_to(partition));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // Who waits for a place need not wait until this node's heads know of it.
    app.github("acme", "d-2", "{}").send().await.unwrap();
    let place = LogPosition { partition, position: position().await };
    tokio::time::timeout(crate::patience::PATIENCE, directory.wait_for(place)).await.unwrap();
    assert!(directory.looked_to(partition) >= place.position);
    stop.cancel();
    running.await.unwrap();
    core.stop().await;
    app.stop().await;
}
