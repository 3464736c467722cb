//! Sessions: foreign tokens are rejected, and a session that was ended is over on every node.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use hookledger::identity::Authority;
use hookledger::node::Core;
use hookledger_aggregates::user::{Role, UserCommand};
use hookledger_aggregates::{OrganizationId, SessionId, UserId};
use reqwest::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::app::TestApp;

const VIEWER: &str = "{ viewer { user { email } sessions { id isCurrent client userAgent endedAt } } }";

/// The status of a request with that token, on that node.
async fn status(app: &TestApp, token: &str) -> StatusCode {
    let request = app.client.post(format!("{}/graphql", app.url)).bearer_auth(token);
    request.json(&json!({ "query": VIEWER })).send().await.unwrap().status()
}

async fn logout(app: &TestApp, token: &str) -> StatusCode {
    app.client.post(format!("{}/api/auth/logout", app.url)).bearer_auth(token).send().await.unwrap().status()
}

/// A token, signed with any key.
fn token(header: &Value, claims: &Value, key: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let mac = Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_tokens_are_refused_and_never_an_error_of_ours() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let keys = app.settings.store.jwt_keys.as_ref().unwrap().expose_secret().to_owned();
    let key = STANDARD.decode(keys.split_once(':').unwrap().1).unwrap();
    let genuine: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(admin.token.split('.').nth(1).unwrap()).unwrap()).unwrap();
    let header = json!({ "alg": "HS256", "typ": "JWT", "kid": "j1" });
    let now = chrono::Utc::now().timestamp();
    // The genuine token is accepted, so each row of the table below fails for its own reason.
    assert_eq!(status(&app, &token(&header, &genuine, &key)).await, StatusCode::OK);

    let mut forged: Vec<(String, String)> = Vec::new();
    let mut with = |name: &str, token: String| forged.push((name.to_owned(), token));
    with("another key", token(&header, &genuine, &[7; 32]));
    with("an empty key", token(&header, &genuine, b""));
    for alg in ["none", "None", "RS256", "HS384", "HS512", "ES256", "EdDSA", "PS256", ""] {
        let header = json!({ "alg": alg, "typ": "JWT", "kid": "j1" });
        with(&format!("alg {alg}"), token(&header, &genuine, &key));
        let unsigned = token(&header, &genuine, &key);
        with(&format!("alg {alg} unsigned"), format!("{}.", unsigned.rsplit_once('.').unwrap().0));
    }
    for kid in [
        json!("j2"),
        json!(""),
        json!("../../../../dev/null"),
        json!("/proc/sys/kernel/randomize_va_space"),
        json!("j1' or '1'='1"),
        json!("j1\u{0}"),
        json!("x".repeat(10_000)),
        json!(7),
        json!(["j1"]),
        json!({ "id": "j1" }),
        Value::Null,
    ] {
        with(&format!("kid {kid:.40}"), token(&json!({ "alg": "HS256", "kid": kid }), &genuine, &key));
    }
    with("no kid", token(&json!({ "alg": "HS256" }), &genuine, &key));
    with("crit", token(&json!({ "alg": "HS256", "crit": ["x"], "kid": "j9" }), &genuine, &key));
    for claim in ["iss", "aud", "exp", "nbf", "sub", "sid", "org"] {
        let mut claims = genuine.clone();
        claims.as_object_mut().unwrap().remove(claim);
        with(&format!("no {claim}"), token(&header, &claims, &key));
        for wrong in [json!("nonsense"), json!(null), json!({}), json!([]), json!(-1), json!(1e300), json!("")] {
            if (claim, &wrong) == ("nbf", &json!(-1)) {
                continue; // It is good since 1969.
            }
            let mut claims = genuine.clone();
            claims[claim] = wrong.clone();
            with(&format!("{claim} {wrong}"), token(&header, &claims, &key));
        }
    }
    for (claim, value) in [
        ("exp", json!(now - 30)),
        ("exp", json!(now - 6)),
        ("nbf", json!(now + 30)),
        ("iss", json!("http://elsewhere")),
        ("aud", json!("another")),
        ("aud", json!(["another"])),
        ("sub", json!(uuid::Uuid::nil())),
        ("sub", json!(uuid::Uuid::new_v4())),
        ("sid", json!(uuid::Uuid::nil())),
        ("sid", json!(uuid::Uuid::new_v4())),
        ("org", json!(OrganizationId::from_slug("acme"))),
    ] {
        let mut claims = genuine.clone();
        claims[claim] = value.clone();
        with(&format!("{claim} is {value}"), token(&header, &claims, &key));
    }
    for text in ["", ".", "..", "a.b.c", "e30.e30.e30", "\u{fffd}", &"x".repeat(20_000), &"a.".repeat(500)] {
        with(&format!("text {text:.20}"), text.to_owned());
    }
    for (name, token) in forged {
        let Ok(value) = reqwest::header::HeaderValue::from_str(&format!("Bearer {token}")) else { continue };
        let post = |url: String| app.client.post(url).header("authorization", value.clone());
        let response = post(format!("{}/graphql", app.url)).json(&json!({ "query": VIEWER })).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{name}");
        let response = post(format!("{}/api/auth/logout", app.url)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{name}");
    }
    // Clocks differ by a little.
    let mut early = genuine.clone();
    early["nbf"] = json!(now + 3);
    assert_eq!(status(&app, &token(&header, &early, &key)).await, StatusCode::OK);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_signs_and_the_one_before_is_still_taken() {
    let app = TestApp::start().await;
    let old = app.super_admin().await.token.clone();
    let mut settings = app.settings.clone();
    let keys = settings.store.jwt_keys.as_ref().unwrap().expose_secret().to_owned();
    let fresh = hookledger::platform::secrets::master::generate("j2").unwrap();
    settings.store.jwt_keys = Some(format!("{fresh},{keys}").into());
    let rotated = TestApp::on(crate::app::Database { url: app.database.url.clone() }, settings.clone()).await;
    assert_eq!(status(&rotated, &old).await, StatusCode::OK);
    let new = rotated.super_admin().await.token.clone();
    assert_eq!(status(&app, &new).await, StatusCode::UNAUTHORIZED);
    rotated.stop().await;
    settings.store.jwt_keys = Some(fresh.into());
    let without = TestApp::on(crate::app::Database { url: app.database.url.clone() }, settings).await;
    assert_eq!(status(&without, &old).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&without, &new).await, StatusCode::OK);
    without.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_is_over_on_every_node() {
    let app = TestApp::start().await;
    let other = app.second_node().await;
    let (first, second) = (app.super_admin().await, app.super_admin().await);
    assert_eq!(status(&other, &first.token).await, StatusCode::OK);
    assert_eq!(logout(&app, &first.token).await, StatusCode::NO_CONTENT);
    assert_eq!(status(&other, &first.token).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&app, &first.token).await, StatusCode::UNAUTHORIZED);
    assert_eq!(logout(&app, &first.token).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&other, &second.token).await, StatusCode::OK);

    // Open sessions are listed, and can be ended one by one.
    let third = app.super_admin().await;
    let data = third.data(VIEWER, json!({})).await;
    let sessions = data["viewer"]["sessions"].as_array().unwrap().clone();
    assert_eq!(sessions.len(), 2, "{sessions:#?}");
    assert_eq!((&sessions[0]["isCurrent"], &sessions[1]["isCurrent"]), (&json!(true), &json!(false)));
    assert_eq!(sessions[0]["client"], "127.0.0.1");
    let end = "mutation($id: ID!) { endSession(input: {id: $id}) { session { id endedAt } } }";
    let ended = third.data(end, json!({ "id": sessions[1]["id"] })).await;
    assert!(ended["endSession"]["session"]["endedAt"].is_string(), "{ended}");
    assert_eq!(status(&other, &second.token).await, StatusCode::UNAUTHORIZED);
    // A second time is harmless.
    third.data(end, json!({ "id": sessions[1]["id"] })).await;
    for unknown in ["bm9uc2Vuc2U", sessions[0]["id"].as_str().unwrap().get(..20).unwrap()] {
        assert_eq!(third.code(end, json!({ "id": unknown })).await, "NOT_FOUND");
    }
    app.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_from_before_a_deactivation_never_come_back() {
    let app = TestApp::start().await;
    let other = app.second_node().await;
    let admin = app.super_admin().await;
    let organization = app.organization(&admin, "acme", &[]).await;
    let user = app.user("acme", "ada@example.org", Role::Admin).await;
    let me = user.data("{ viewer { user { id } } }", json!({})).await["viewer"]["user"]["id"].clone();
    let set_user =
        "mutation($id: ID!, $on: Boolean!) { setUserActive(input: {id: $id, isActive: $on}) { user { isActive } } }";
    let set_organization = "mutation($id: ID!, $on: Boolean!) { setOrganizationActive(input: {id: $id, isActive: $on}) { organization { isActive } } }";
    for (mutation, id) in [(set_user, me), (set_organization, json!(organization))] {
        let fresh = app.sign_in_again("ada@example.org").await;
        assert_eq!(status(&other, &fresh.token).await, StatusCode::OK);
        admin.data(mutation, json!({ "id": id, "on": false })).await;
        for node in [&app, &other] {
            assert_eq!(status(node, &fresh.token).await, StatusCode::UNAUTHORIZED);
        }
        admin.data(mutation, json!({ "id": id, "on": true })).await;
        for node in [&app, &other] {
            assert_eq!(status(node, &fresh.token).await, StatusCode::UNAUTHORIZED);
        }
        let again = app.sign_in_again("ada@example.org").await;
        assert_eq!(status(&other, &again.token).await, StatusCode::OK);
    }
    app.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_ended_by_their_user_and_by_admins_and_by_nobody_else() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    for slug in ["ours", "theirs"] {
        app.organization(&admin, slug, &[]).await;
    }
    let boss = app.user("ours", "boss@example.org", Role::Admin).await;
    let member = app.user("ours", "member@example.org", Role::Member).await;
    let colleague = app.user("ours", "colleague@example.org", Role::Member).await;
    let stranger = app.user("theirs", "stranger@example.org", Role::Admin).await;
    let mine = "{ viewer { user { id sessions { id } } } }";
    let data = member.data(mine, json!({})).await["viewer"]["user"].take();
    let (user, session) = (data["id"].clone(), data["sessions"][0]["id"].clone());
    let end = "mutation($id: ID!) { endSession(input: {id: $id}) { session { id } } }";
    let end_all = "mutation($id: ID!) { endUserSessions(input: {userId: $id}) { user { id sessions { id } } } }";
    let theirs = "query($id: ID!) { node(id: $id) { id } }";
    for actor in [&colleague, &stranger] {
        assert_eq!(actor.code(end, json!({ "id": session })).await, "NOT_FOUND");
        assert_eq!(actor.data(theirs, json!({ "id": user })).await["node"], Value::Null);
        assert_eq!(actor.data(theirs, json!({ "id": session })).await["node"], Value::Null);
    }
    assert_eq!(colleague.code(end_all, json!({ "id": user })).await, "FORBIDDEN");
    assert_eq!(stranger.code(end_all, json!({ "id": user })).await, "NOT_FOUND");
    assert_eq!(status(&app, &member.token).await, StatusCode::OK);
    boss.data(end, json!({ "id": session })).await;
    assert_eq!(status(&app, &member.token).await, StatusCode::UNAUTHORIZED);

    let (again, more) = (app.sign_in_again("member@example.org").await, app.sign_in_again("member@example.org").await);
    let ended = boss.data(end_all, json!({ "id": user })).await;
    assert_eq!(ended["endUserSessions"]["user"]["sessions"], json!([]));
    for actor in [&again, &more] {
        assert_eq!(status(&app, &actor.token).await, StatusCode::UNAUTHORIZED);
    }
    let last = app.sign_in_again("member@example.org").await;
    last.data(&end_all.replace("sessions { id }", "email"), json!({ "id": user })).await;
    assert_eq!(status(&app, &last.token).await, StatusCode::UNAUTHORIZED);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_uses_of_a_link_at_once_make_one_session() {
    let app = TestApp::start().await;
    let core = Core::start(&app.database.store(), &app.settings.store).await.unwrap();
    let link = core.sign_in_link(&app.settings.store, "admin@localhost").await.unwrap();
    core.stop().await;
    let page = link.url.replace("http://localhost:8080", &app.url);
    // Mail scanners open links. That does not use them up.
    for _ in 0..3 {
        assert_eq!(app.client.get(&page).send().await.unwrap().status(), StatusCode::OK);
        assert_eq!(app.client.head(&page).send().await.unwrap().status(), StatusCode::OK);
        let api = app.client.get(format!("{}/api/auth/verify-magic-link", app.url));
        let api = api.json(&json!({ "token": link.url.split_once("token=").unwrap().1 }));
        assert_eq!(api.send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    }
    let token = link.url.split_once("token=").unwrap().1;
    let uses = (0..50).map(|_| {
        app.client.post(format!("{}/api/auth/verify-magic-link", app.url)).json(&json!({ "token": token })).send()
    });
    let answers = futures::future::join_all(uses).await;
    let count = |status| answers.iter().filter(|answer| answer.as_ref().unwrap().status() == status).count();
    assert_eq!((count(StatusCode::OK), count(StatusCode::UNAUTHORIZED)), (1, 49));
    let database = app.database.superuser().await;
    let sessions: i64 = sqlx::query_scalar("select count(*) from sessions").fetch_one(&database).await.unwrap();
    let events: i64 = sqlx::query_scalar("select count(*) from events where event_type = 'user.signed_in'")
        .fetch_one(&database)
        .await
        .unwrap();
    assert_eq!((sessions, events), (1, 1));
    // The database contains neither links nor tokens.
    for table in ["magic_links", "sessions", "events", "audit_logs"] {
        let sql = format!("select count(*) from {table} t where t::text like '%' || $1 || '%'");
        let found: i64 = sqlx::query_scalar(&sql).bind(token).fetch_one(&database).await.unwrap();
        assert_eq!(found, 0, "{table}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_only_the_log_knows_of_comes_into_force() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let core = Core::start(&app.database.store(), &app.settings.store).await.unwrap();
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(admin.token.split('.').nth(1).unwrap()).unwrap()).unwrap();
    // As when a node is killed between the append and the row.
    let id = |name: &str| claims[name].as_str().unwrap().parse().unwrap();
    let end = UserCommand::EndSession { session: SessionId::new(id("sid")) };
    let metadata = hookledger_aggregates::Metadata::default();
    let user = UserId::new(id("sub"));
    let changed = core.accounts.change(OrganizationId::PLATFORM, user, end, Authority::Organization, &metadata).await;
    let place = changed.unwrap().unwrap();
    assert!(core.checkpoints.wait_for(&["sessions"], place, crate::patience::PATIENCE).await.unwrap());
    assert_eq!(status(&app, &admin.token).await, StatusCode::UNAUTHORIZED);
    core.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_links_that_are_made_at_once_one_works_and_none_waits_for_another() {
    let app = TestApp::start().await;
    let core = Core::start(&app.database.store(), &app.settings.store).await.unwrap();
    let made = (0..8).map(|_| core.sign_in_link(&app.settings.store, "admin@localhost"));
    let links: Vec<String> = futures::future::join_all(made).await.into_iter().map(|link| link.unwrap().url).collect();
    core.stop().await;
    let mut worked = 0;
    for link in links {
        let (_, token) = link.split_once("token=").unwrap();
        let verify = app.client.post(format!("{}/api/auth/verify-magic-link", app.url));
        let status = verify.json(&serde_json::json!({ "token": token })).send().await.unwrap().status();
        worked += usize::from(status == StatusCode::OK);
    }
    assert_eq!(worked, 1);
    app.stop().await;
}
