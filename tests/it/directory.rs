//! The directory: its position, and its behavior when its release is too old for the log.

use std::time::Duration;

use hookledger::directory::{Directory, DirectoryFollower};
use hookledger::log::LogPosition;
use hookledger::node::Core;
use hookledger_aggregates::{OrganizationId, ProviderId, ProviderName};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

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
    // It skips webhooks, but its position moves past them.
    core.heads.refresh(&core.pool).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(follower.run(stop.clone()));
    let deadline = std::time::Instant::now() + crate::patience::PATIENCE;
    while directory.looked_to(partition) < position().await {
        assert!(std::time::Instant::now() < deadline, "it stays at {}", directory.looked_to(partition));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // Waiting for a position ends with its event, even if this node's heads do not have it yet.
    app.github("acme", "d-2", "{}").send().await.unwrap();
    let place = LogPosition { partition, position: position().await };
    tokio::time::timeout(crate::patience::PATIENCE, directory.wait_for(place)).await.unwrap();
    assert!(directory.looked_to(partition) >= place.position);
    stop.cancel();
    running.await.unwrap();
    core.stop().await;
    app.stop().await;
}

async fn status(app: &TestApp, slug: &str, id: &str) -> u16 {
    app.github(slug, id, "{}").once().await.unwrap().status().as_u16()
}

/// Appends an event to a stream of acme's: its aggregate, type and version.
async fn append(pool: &PgPool, id: Uuid, sequence: i64, (kind, event, version): (&str, String, &str)) {
    let organization = OrganizationId::from_slug("acme");
    let mut appending = pool.begin().await.unwrap();
    sqlx::query("select lock_heads(array[$1])")
        .bind(organization.partition().number())
        .execute(&mut *appending)
        .await
        .unwrap();
    sqlx::query(
        "insert into commits (partition, position, events, aggregate_type, stream_id, first_sequence, organization_id,
                              recorded_at, metadata, data)
         select $1, position + 1, 1, $3, $4, $5, $2, now(), '{}', concat_ws(E'\\t', $6, $7, '{}')
         from log_heads where partition = $1",
    )
    .bind(organization.partition().number())
    .bind(organization.uuid())
    .bind(kind)
    .bind(id)
    .bind(sequence)
    .bind(event)
    .bind(version)
    .execute(&mut *appending)
    .await
    .unwrap();
    appending.commit().await.unwrap();
}

/// Posts until the answer is that status.
async fn until(app: &TestApp, slug: &str, wanted: u16) {
    let deadline = std::time::Instant::now() + crate::patience::PATIENCE;
    for n in 0.. {
        let status = status(app, slug, &format!("{wanted}-{n}")).await;
        if status == wanted {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{slug} answers {status} and not {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn readyz(app: &TestApp) -> String {
    app.client.get(format!("{}/readyz", app.url)).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_passes_over_what_does_not_concern_it_and_refuses_what_it_cannot_judge() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let pool = app.database.superuser().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    app.organization(&admin, "other", &[("GITHUB", GITHUB_SECRET)]).await;
    let organization = OrganizationId::from_slug("acme");
    let provider = ProviderId::derive(organization, ProviderName::Github);

    // The directory ignores events of users, and applies the events after them.
    let unknown = |kind: &'static str| (kind, format!("{kind}.from_the_future"), "7");
    append(&pool, Uuid::new_v4(), 1, unknown("user")).await;
    append(&pool, organization.uuid(), 2, ("organization", "organization.deactivated".to_owned(), "1")).await;
    until(&app, "acme", 403).await;
    assert!(!readyz(&app).await.contains("too old"));
    append(&pool, organization.uuid(), 3, ("organization", "organization.activated".to_owned(), "1")).await;
    until(&app, "acme", 200).await;

    // An unknown event of the provider could mean anything: the node accepts nothing for it, and says why.
    append(&pool, provider.uuid(), 1_000, unknown("provider")).await;
    until(&app, "acme", 503).await;
    assert_eq!(status(&app, "other", "d-1").await, 200);
    let ready = readyz(&app).await;
    assert!(ready.contains("too old for the log") && ready.contains("provider.from_the_future"), "{ready}");
    // It may be that a newer node knows this endpoint.
    assert_eq!(status(&app, "nobody", "d-1").await, 503);

    // A node that starts on such a log does the same.
    let second = app.second_node().await;
    assert_eq!(status(&second, "acme", "d-1").await, 503);
    assert_eq!(status(&second, "other", "d-2").await, 200);
    second.stop().await;
    app.stop().await;
}
