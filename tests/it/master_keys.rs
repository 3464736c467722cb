//! Master keys that are wrong or missing, and secrets that cannot be opened.

use std::time::Instant;

use hookledger::node::{Core, NodeError};
use hookledger::platform::secrets::master::{KeyError, generate};
use hookledger::platform::secrets::vault::VaultError;
use hookledger_aggregates::{OrganizationId, ProviderId, ProviderName};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use sqlx::Executor as _;

use crate::app::{Database, GITHUB_SECRET, TestApp};
use crate::deliveries::{forwarding, quick};
use crate::patience::{PATIENCE, until};
use crate::sink::Sink;

async fn answer(app: &TestApp, slug: &str, id: &str) -> u16 {
    app.github(slug, id, "{}").once().await.unwrap().status().as_u16()
}

async fn readyz(app: &TestApp) -> (u16, String) {
    let answer = app.client.get(format!("{}/readyz", app.url)).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_secret_that_cannot_be_opened_disables_its_provider_alone() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "other", &[("GITHUB", GITHUB_SECRET)]).await;
    let acme = app.organization(&admin, "acme", &[]).await;
    let id = admin.connect(&acme, "GITHUB", GITHUB_SECRET).await;
    let provider = ProviderId::derive(OrganizationId::from_slug("acme"), ProviderName::Github);
    let pool = app.database.superuser().await;
    let damages = [
        "update provider_secrets set ciphertext = '\\x00' where owner_id = $1",
        "update provider_secrets set key_id = 'gone' where owner_id = $1",
        "delete from provider_secrets where owner_id = $1",
    ];
    for (n, damage) in damages.into_iter().enumerate() {
        let mut tampering = pool.acquire().await.unwrap();
        tampering.execute("set session_replication_role = replica").await.unwrap();
        sqlx::query(damage).bind(provider.uuid()).execute(&mut *tampering).await.unwrap();
        drop(tampering);

        let node = app.second_node().await;
        assert_eq!(answer(&node, "acme", &format!("a-{n}")).await, 503, "{damage}");
        assert_eq!(answer(&node, "other", &format!("o-{n}")).await, 200, "{damage}");
        let (status, told) = readyz(&node).await;
        assert!(status == 200 && told.contains(&provider.to_string()) && told.contains("cannot be opened"), "{told}");
        node.stop().await;
    }

    // New secrets repair it, immediately and on every node.
    let node = app.second_node().await;
    let rotate = "mutation($id: ID!, $secret: String!) { rotateProviderSecret(input: \
                  {providerId: $id, secret: $secret, graceSeconds: 0}) { provider { id } } }";
    admin.data(rotate, json!({ "id": id, "secret": GITHUB_SECRET })).await;
    let deadline = Instant::now() + PATIENCE;
    while answer(&node, "acme", &uuid::Uuid::new_v4().to_string()).await != 200 {
        assert!(Instant::now() < deadline, "{}", readyz(&node).await.1);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(!readyz(&node).await.1.contains("cannot be opened"));
    node.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_wrong_or_missing_master_key_does_not_start() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let right = app.settings.store.master_keys.as_ref().unwrap().expose_secret().to_owned();
    let pool = app.database.superuser().await;
    let refusal = async |keys: String| {
        let mut settings = app.settings.clone();
        settings.store.master_keys = Some(SecretString::from(keys));
        match Core::start(&app.database.store(), &settings.store).await {
            Ok(core) => {
                core.stop().await;
                None
            }
            Err(error) => Some(error),
        }
    };
    for is_known in [true, false] {
        if !is_known {
            // Like a store of an earlier release, which proves its keys by the sealed secrets.
            pool.execute("delete from master_key_checks").await.unwrap();
        }
        let wrong = refusal(generate("k1").unwrap()).await;
        assert!(matches!(wrong, Some(NodeError::Vault(VaultError::Key(KeyError::Wrong(_))))), "{wrong:?}");
        let missing = refusal(generate("k2").unwrap()).await;
        assert!(matches!(missing, Some(NodeError::Vault(VaultError::Key(KeyError::Missing(_))))), "{missing:?}");
    }
    // A refused key is not remembered, so its ID is free.
    let known = "select key_id from master_key_checks order by 1";
    let keys: Vec<String> = sqlx::query_scalar(known).fetch_all(&pool).await.unwrap();
    assert_eq!(keys, Vec::<String>::new());
    let both = refusal(format!("{right},{}", generate("k1b").unwrap())).await;
    assert!(both.is_none(), "{both:?}");
    let keys: Vec<String> = sqlx::query_scalar(known).fetch_all(&pool).await.unwrap();
    assert_eq!(keys, ["k1", "k1b"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_key_of_a_providers_secret_does_not_start() {
    let app = TestApp::start().await;
    let right = app.settings.store.master_keys.as_ref().unwrap().expose_secret().to_owned();
    let mut settings = app.settings.clone();
    settings.store.master_keys = Some(SecretString::from(format!("{},{right}", generate("k2").unwrap())));
    let rotated = TestApp::on(Database { url: app.database.url.clone() }, settings).await;
    let admin = rotated.super_admin().await;
    rotated.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    rotated.stop().await;

    let core = Core::start(&app.database.store(), &app.settings.store).await.unwrap();
    let (reader, heads, vault) = (core.reader.clone(), core.heads.clone(), core.vault.clone());
    let directory = hookledger::directory::Directory::default();
    let loaded = hookledger::directory::DirectoryFollower::new(directory, reader, heads, vault).load().await;
    assert!(loaded.is_err_and(|error| error.to_string().contains("k2")));
    core.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_held_while_their_secret_cannot_be_opened() {
    let app = TestApp::with(quick).await;
    let (admin, sink) = (app.super_admin().await, Sink::start().await);
    let (provider, _) = forwarding(&admin, "acme", &sink.url("/ok")).await;
    let pool = app.database.superuser().await;
    let mut tampering = pool.acquire().await.unwrap();
    let mut flip = async || {
        for sql in [
            "set session_replication_role = replica",
            // The outgoing secret, not the one that verifies.
            "update provider_secrets s set ciphertext = set_byte(ciphertext, 0, 255 - get_byte(ciphertext, 0))
             where created_at = (select max(created_at) from provider_secrets)",
        ] {
            tampering.execute(sql).await.unwrap();
        }
    };
    flip().await;
    // Secrets are read again when their provider changes.
    let switch =
        "mutation($id: ID!, $on: Boolean!) { setProviderActive(input: {id: $id, isActive: $on}) { provider { id } } }";
    for on in [false, true] {
        admin.data(switch, json!({ "id": provider, "on": on })).await;
    }
    until("/readyz names the secret", async || readyz(&app).await.1.contains("cannot be opened")).await;
    assert_eq!(answer(&app, "acme", "d-1").await, 200);
    let fields = "status waitsFor attempts { attemptNumber succeeded }";
    admin.webhooks_until("acme", fields, |nodes| nodes.len() == 1 && nodes[0]["waitsFor"] == "SECRET_UNREADABLE").await;
    assert!(sink.at("/ok").is_empty());
    flip().await;
    let nodes = admin.webhooks_until("acme", fields, |nodes| nodes[0]["status"] == "SUCCESS").await;
    assert_eq!(nodes[0]["attempts"], json!([{ "attemptNumber": 1, "succeeded": true }]));
    app.stop().await;
}
