//! People: sign-in links that reveal nothing to strangers, invitations, roles, and the last admin.

use std::process::Command;

use hookledger_aggregates::user::Role;
use reqwest::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sqlx::Executor as _;

use crate::app::{Actor, GITHUB_SECRET, TestApp};
use crate::mailbox::{Mailbox, link_in};

const INVITE: &str = "mutation($id: ID!, $email: String!, $role: Role!) { \
    inviteUser(input: {organizationId: $id, email: $email, role: $role}) { \
    user { id userId email role isActive joinedAt lastLoginAt organization { slug } } } }";
const SET_ROLE: &str =
    "mutation($id: ID!, $role: Role!) { setUserRole(input: {id: $id, role: $role}) { user { role } } }";
const SET_ACTIVE: &str =
    "mutation($id: ID!, $on: Boolean!) { setUserActive(input: {id: $id, isActive: $on}) { user { isActive } } }";
const USERS: &str = "query($slug: String!, $search: String) { organization(slug: $slug) { \
    users(search: $search) { nodes { id email role isActive joinedAt lastLoginAt } } } }";

async fn with_mail() -> (TestApp, Mailbox) {
    let mailbox = Mailbox::new();
    let path = mailbox.path();
    (TestApp::with(|settings| settings.mail_dir = Some(path)).await, mailbox)
}

async fn ask_for_link(app: &TestApp, email: &str) -> (StatusCode, String) {
    let url = format!("{}/api/auth/request-magic-link", app.url);
    let response = app.client.post(url).json(&json!({ "email": email })).send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

async fn redeem(app: &TestApp, link: &str) -> (StatusCode, Value) {
    let token = link.split_once("token=").unwrap().1;
    let url = format!("{}/api/auth/verify-magic-link", app.url);
    let response = app.client.post(url).json(&json!({ "token": token })).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn my_id(actor: &Actor<'_>) -> Value {
    actor.data("{ viewer { user { id } } }", json!({})).await["viewer"]["user"]["id"].take()
}

async fn users(actor: &Actor<'_>, slug: &str) -> Vec<Value> {
    let mut data = actor.data(USERS, json!({ "slug": slug })).await;
    serde_json::from_value(data["organization"]["users"]["nodes"].take()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_a_link_tells_nobody_who_is_a_user() {
    let (app, mailbox) = with_mail().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[]).await;
    let ada = app.user("acme", "ada@example.org", Role::Member).await;
    let gone = app.user("acme", "gone@example.org", Role::Member).await;
    admin.data(SET_ACTIVE, json!({ "id": my_id(&gone).await, "on": false })).await;

    // The time reveals nothing either: the answer is sent before users are read.
    let mut holder = app.database.superuser().await.begin().await.unwrap();
    holder.execute("lock table users in access exclusive mode").await.unwrap();
    let mut answers = Vec::new();
    for email in ["ada@example.org", "nobody@example.org", "gone@example.org", " ADA@Example.org "] {
        answers.push(ask_for_link(&app, email).await);
    }
    holder.rollback().await.unwrap();
    assert_eq!(answers[0].0, StatusCode::ACCEPTED);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    // Both requests sent a link to the stored address, and only the newer link works.
    let mails = mailbox.to("ada@example.org", 2).await;
    assert_eq!(mailbox.all().len(), 2);
    assert_eq!(redeem(&app, &link_in(&mails[0])).await.0, StatusCode::UNAUTHORIZED);
    let (status, body) = redeem(&app, &link_in(&mails[1])).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&body["user"]["email"], &body["organization"]["slug"]), (&json!("ada@example.org"), &json!("acme")));
    ada.data("{ viewer { user { lastLoginAt } } }", json!({})).await;

    // The limit holds for every address, and one address does not affect another.
    let refused = |email: &'static str| {
        let app = &app;
        async move {
            let mut answers = Vec::new();
            for _ in 0..6 {
                answers.push(ask_for_link(app, email).await);
            }
            answers.pop().unwrap()
        }
    };
    let known = refused("ada@example.org").await;
    assert_eq!(known.0, StatusCode::TOO_MANY_REQUESTS);
    for email in ["someone@example.org", "gone@example.org"] {
        assert_eq!(refused(email).await, known);
    }
    assert_eq!(ask_for_link(&app, "another@example.org").await.0, StatusCode::ACCEPTED);

    for bad in ["", "ada", "a@b.c\r\nBcc: x@y.z", "ada@example.org, eve@example.org", "<ada@example.org>"] {
        assert_eq!(ask_for_link(&app, bad).await.0, StatusCode::BAD_REQUEST, "{bad:?}");
    }
    for body in ["", "{", "[]", "{\"email\":7}", "{\"email\":null}"] {
        let url = format!("{}/api/auth/request-magic-link", app.url);
        let request = app.client.post(url).header("content-type", "application/json").body(body);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::BAD_REQUEST, "{body}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_invited_joins_by_the_link_in_the_mail() {
    let (app, mailbox) = with_mail().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[]).await;
    let invited = admin.data(INVITE, json!({ "id": id, "email": "Boss@Example.org", "role": "ADMIN" })).await;
    let invited = &invited["inviteUser"]["user"];
    assert_eq!((&invited["email"], &invited["role"]), (&json!("Boss@Example.org"), &json!("ADMIN")));
    assert_eq!((&invited["joinedAt"], &invited["isActive"]), (&Value::Null, &json!(true)));
    assert_eq!(invited["organization"]["slug"], "acme");
    let first = mailbox.link("Boss@Example.org", 1).await;
    // Another invitation or request sends a new link, and the earlier one stops working.
    admin.data(INVITE, json!({ "id": id, "email": "boss@example.org", "role": "ADMIN" })).await;
    let second = mailbox.link("Boss@Example.org", 2).await;
    assert_eq!(ask_for_link(&app, "boss@example.org").await.0, StatusCode::ACCEPTED);
    let third = mailbox.link("Boss@Example.org", 3).await;
    assert_eq!(users(&admin, "acme").await.len(), 1);
    for old in [&first, &second] {
        assert_eq!(redeem(&app, old).await.0, StatusCode::UNAUTHORIZED);
    }
    let boss = app.sign_in(&third).await;
    let data = boss.data("{ viewer { user { joinedAt role lastLoginAt } organization { slug } } }", json!({})).await;
    assert_eq!(data["viewer"]["organization"]["slug"], "acme");
    assert_eq!(redeem(&app, &third).await.0, StatusCode::UNAUTHORIZED);
    // Neither a user who has joined nor an invalid address can be invited.
    assert_eq!(boss.code(INVITE, json!({ "id": id, "email": "BOSS@example.org", "role": "MEMBER" })).await, "CONFLICT");
    for bad in ["nonsense", "a@b.c\nBcc: d@e.f", "a@b.c, d@e.f", ""] {
        assert_eq!(boss.code(INVITE, json!({ "id": id, "email": bad, "role": "MEMBER" })).await, "BAD_USER_INPUT");
    }
    // Invitations of one address are limited.
    let again = || boss.ask(INVITE, json!({ "id": id, "email": "often@example.org", "role": "MEMBER" }));
    for _ in 0..5 {
        assert!(again().await.get("errors").is_none());
    }
    assert_eq!(again().await["errors"][0]["extensions"]["code"], "RATE_LIMITED");
    // An invited user who was deactivated cannot join.
    boss.data(INVITE, json!({ "id": id, "email": "late@example.org", "role": "MEMBER" })).await;
    let late = mailbox.link("late@example.org", 1).await;
    let found = boss.data(USERS, json!({ "slug": "acme", "search": "LATE" })).await;
    let nodes = found["organization"]["users"]["nodes"].as_array().unwrap().clone();
    assert_eq!(nodes.len(), 1);
    boss.data(SET_ACTIVE, json!({ "id": nodes[0]["id"], "on": false })).await;
    assert_eq!(redeem(&app, &late).await.0, StatusCode::UNAUTHORIZED);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_belongs_elsewhere_is_invited_like_any_other() {
    let (app, mailbox) = with_mail().await;
    let admin = app.super_admin().await;
    for slug in ["ours", "theirs"] {
        app.organization(&admin, slug, &[]).await;
    }
    app.user("theirs", "eve@example.org", Role::Member).await;
    let boss = app.user("ours", "boss@example.org", Role::Admin).await;
    let ours = boss.data("{ viewer { organization { id } } }", json!({})).await["viewer"]["organization"]["id"].take();

    let mut answers = Vec::new();
    for email in ["eve@example.org", "new@example.org", "admin@localhost"] {
        let mut answer = boss.ask(INVITE, json!({ "id": ours, "email": email, "role": "MEMBER" })).await;
        let user = &mut answer["data"]["inviteUser"]["user"];
        assert_eq!(user["email"].take(), json!(email));
        (user["id"], user["userId"]) = (Value::Null, Value::Null);
        answers.push(answer);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    // The list and the audit trail say the same about all of them.
    let listed = users(&boss, "ours").await;
    let seen = |email: &str| {
        let mut user = listed.iter().find(|user| user["email"] == email).unwrap().clone();
        (user["id"], user["email"]) = (Value::Null, Value::Null);
        user
    };
    assert_eq!(seen("eve@example.org"), seen("new@example.org"));
    assert_eq!(seen("admin@localhost"), seen("new@example.org"));
    // Only the email tells the owner, and it has no link.
    let told = mailbox.to("eve@example.org", 1).await.pop().unwrap();
    assert!(told.contains("another organization") && !told.contains("token="), "{told}");
    assert!(mailbox.to("admin@localhost", 1).await[0].contains("another organization"));
    let link = mailbox.link("new@example.org", 1).await;

    // Two organizations invite the same address. It joins one, and the other does not learn that.
    let id = users(&admin, "theirs").await.len();
    assert_eq!(id, 1);
    let theirs = admin.data("{ organization(slug: \"theirs\") { id } }", json!({})).await;
    let invited = json!({ "id": theirs["organization"]["id"], "email": "new@example.org", "role": "ADMIN" });
    admin.data(INVITE, invited).await;
    let other = mailbox.link("new@example.org", 2).await;
    assert_eq!(redeem(&app, &other).await.0, StatusCode::OK);
    let (status, body) = redeem(&app, &link).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("address_elsewhere")));
    assert_eq!(redeem(&app, &link).await.0, StatusCode::UNAUTHORIZED);
    let again = users(&boss, "ours").await;
    let new = again.iter().find(|user| user["email"] == "new@example.org").unwrap();
    assert_eq!((&new["joinedAt"], &new["lastLoginAt"]), (&Value::Null, &Value::Null));
    let trail = boss.data("{ organization(slug: \"ours\") { auditLog { nodes { action } } } }", json!({})).await;
    let trail = trail.to_string();
    assert!(!trail.contains("refused") && !trail.contains("joined"), "{trail}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_managed_by_admins_of_their_organization_and_nobody_else() {
    let (app, _mailbox) = with_mail().await;
    let admin = app.super_admin().await;
    let ours = app.organization(&admin, "ours", &[]).await;
    app.organization(&admin, "theirs", &[]).await;
    let boss = app.user("ours", "boss@example.org", Role::Admin).await;
    let member = app.user("ours", "member@example.org", Role::Member).await;
    let stranger = app.user("theirs", "stranger@example.org", Role::Admin).await;
    let (user, root) = (my_id(&member).await, my_id(&admin).await);
    let mutations = [
        (INVITE, json!({ "id": ours, "email": "x@example.org", "role": "MEMBER" })),
        (SET_ROLE, json!({ "id": user, "role": "ADMIN" })),
        (SET_ACTIVE, json!({ "id": user, "on": false })),
    ];
    for (mutation, variables) in &mutations {
        assert_eq!(member.code(mutation, variables.clone()).await, "FORBIDDEN", "{mutation}");
        assert_eq!(stranger.code(mutation, variables.clone()).await, "NOT_FOUND", "{mutation}");
        let mut random = variables.clone();
        random["id"] = json!("bm9uc2Vuc2U");
        assert_eq!(stranger.code(mutation, random).await, "NOT_FOUND");
    }
    for (mutation, variables) in
        [(SET_ROLE, json!({ "id": root, "role": "MEMBER" })), (SET_ACTIVE, json!({ "id": root, "on": false }))]
    {
        assert_eq!(boss.code(mutation, variables.clone()).await, "NOT_FOUND");
        // The last super admin cannot be removed, not even by themselves.
        assert_ne!(admin.code(mutation, variables).await, "INTERNAL");
    }
    assert_eq!(my_id(&admin).await, root);
    for query in [
        "{ organization(slug: \"ours\") { users { nodes { id } } } }",
        "{ organization(slug: \"ours\") { usage { used } } }",
        "{ organization(slug: \"ours\") { plan } }",
        "{ organization(slug: \"ours\") { webhookLimit } }",
        "{ organization(slug: \"ours\") { auditLog { nodes { at } } } }",
        "{ users { nodes { id } } }",
        "{ auditLog { nodes { at } } }",
    ] {
        assert_eq!(member.code(query, json!({})).await, "FORBIDDEN", "{query}");
        let root_only = query.starts_with("{ users") || query.starts_with("{ auditLog");
        if root_only {
            assert_eq!(boss.code(query, json!({})).await, "FORBIDDEN", "{query}");
        } else {
            boss.data(query, json!({})).await;
        }
        admin.data(query, json!({})).await;
    }
    let node = "query($id: ID!) { node(id: $id) { ... on User { email organization { slug } } } }";
    for (actor, sees) in [(&admin, true), (&boss, true), (&member, true), (&stranger, false)] {
        let found = actor.data(node, json!({ "id": user })).await;
        let expected = json!({ "email": "member@example.org", "organization": { "slug": "ours" } });
        assert_eq!(found["node"], if sees { expected } else { Value::Null });
    }
    assert_eq!(member.data(node, json!({ "id": my_id(&boss).await })).await["node"], Value::Null);

    // A new role is in force immediately.
    boss.data(SET_ROLE, json!({ "id": user, "role": "ADMIN" })).await;
    member.data("{ organization(slug: \"ours\") { usage { used } } }", json!({})).await;
    boss.data(SET_ROLE, json!({ "id": user, "role": "MEMBER" })).await;
    assert_eq!(member.code("{ organization(slug: \"ours\") { usage { used } } }", json!({})).await, "FORBIDDEN");
    boss.data(SET_ACTIVE, json!({ "id": user, "on": false })).await;
    assert_eq!(member.code("{ viewer { user { id } } }", json!({})).await, "UNAUTHENTICATED");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_keeps_an_admin_even_when_two_go_at_once() {
    let app = TestApp::start().await;
    let other = app.second_node().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[]).await;
    let first = app.user("acme", "first@example.org", Role::Admin).await;
    let only = my_id(&first).await;
    for (mutation, variables) in
        [(SET_ROLE, json!({ "id": only, "role": "MEMBER" })), (SET_ACTIVE, json!({ "id": only, "on": false }))]
    {
        assert_eq!(first.code(mutation, variables).await, "CONFLICT");
    }
    let mut second = app.user("acme", "second@example.org", Role::Admin).await;
    second.app = &other;
    let both = [only.clone(), my_id(&second).await];
    // Two admins demote each other concurrently on two nodes, repeatedly.
    for _ in 0..10 {
        let demote = |id: &Value| json!({ "id": id, "role": "MEMBER" });
        let (a, b) = tokio::join!(first.ask(SET_ROLE, demote(&both[1])), second.ask(SET_ROLE, demote(&both[0])));
        let errors = [&a, &b].into_iter().filter(|answer| answer["errors"].is_array()).count();
        assert_eq!(errors, 1, "{a:#} {b:#}");
        let admins = users(&admin, "acme").await.iter().filter(|user| user["role"] == "ADMIN").count();
        assert_eq!(admins, 1);
        for id in &both {
            admin.data(SET_ROLE, json!({ "id": id, "role": "ADMIN" })).await;
        }
    }
    // An invited person is not an admin yet. A super admin can remove the last one.
    for id in &both {
        admin.data(SET_ACTIVE, json!({ "id": id, "on": false })).await;
    }
    assert!(users(&admin, "acme").await.iter().all(|user| user["isActive"] == false));
    app.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_sessions_page_and_search() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[]).await;
    for n in 0..7 {
        admin.data(INVITE, json!({ "id": id, "email": format!("u{n}@example.org"), "role": "MEMBER" })).await;
    }
    let query = "query($after: String) { organization(slug: \"acme\") { users(first: 3, after: $after) { \
                 pageInfo { hasNextPage endCursor } nodes { email } } } }";
    let (mut found, mut after) = (Vec::new(), Value::Null);
    loop {
        let mut data = admin.data(query, json!({ "after": after })).await;
        let page = data["organization"]["users"].take();
        found.extend(page["nodes"].as_array().unwrap().iter().map(|user| user["email"].clone()));
        after = page["pageInfo"]["endCursor"].clone();
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
    }
    let expected: Vec<Value> = (0..7).rev().map(|n| json!(format!("u{n}@example.org"))).collect();
    assert_eq!(found, expected);
    let everywhere = admin.data("{ users { nodes { email organization { slug } } } }", json!({})).await;
    assert_eq!(everywhere["users"]["nodes"].as_array().unwrap().len(), 8);
    for (search, count) in [("u3@", 1), ("EXAMPLE", 7), ("%", 0), ("_", 0), ("nobody", 0)] {
        let data = admin.data(USERS, json!({ "slug": "acme", "search": search })).await;
        assert_eq!(data["organization"]["users"]["nodes"].as_array().unwrap().len(), count, "{search}");
    }
    assert_eq!(admin.code(USERS, json!({ "slug": "acme", "search": "\u{0}" })).await, "BAD_USER_INPUT");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_counts_what_was_accepted_this_month() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let id = app.organization(&admin, "acme", &[("GITHUB", crate::app::GITHUB_SECRET)]).await;
    let limit = "mutation($id: ID!) { updateOrganization(input: {id: $id, webhookLimit: 5}) { organization { id } } }";
    admin.data(limit, json!({ "id": id })).await;
    let boss = app.user("acme", "boss@example.org", Role::Admin).await;
    let query = "{ organization(slug: \"acme\") { usage { plan webhookLimit month used remaining percentUsed warning \
                 resetsAt pastMonths { month used } } } }";
    let usage = async || boss.data(query, json!({})).await["organization"]["usage"].take();
    assert_eq!((usage().await["used"].clone(), usage().await["warning"].clone()), (json!(0), json!("NONE")));
    for n in 0..4 {
        assert_eq!(app.github("acme", &format!("d-{n}"), "{}").send().await.unwrap().status(), StatusCode::OK);
        app.github("acme", &format!("d-{n}"), "{}").send().await.unwrap();
    }
    // Usage is exact at once, even if the read models are behind.
    let now = usage().await;
    assert_eq!((&now["used"], &now["remaining"], &now["warning"]), (&json!(4), &json!(1), &json!("APPROACHING")));
    assert_eq!(now["percentUsed"], json!(80.0));
    assert!(now["resetsAt"].as_str().unwrap().contains("-01T00:00:00"), "{now}");
    admin.webhooks_until("acme", "status", |nodes| nodes.len() == 4).await;
    let database = app.database.superuser().await;
    sqlx::query("insert into webhook_counts select organization_id, month - interval '1 month', 7 from webhook_counts")
        .execute(&database)
        .await
        .unwrap();
    assert_eq!(usage().await["pastMonths"][0]["used"], 7);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_invitation_is_made_and_one_organization_is_joined() {
    let (app, mailbox) = with_mail().await;
    let other = app.second_node().await;
    let admin = app.super_admin().await;
    let ours = app.organization(&admin, "ours", &[]).await;
    let theirs = app.organization(&admin, "theirs", &[]).await;
    let elsewhere = Actor { app: &other, token: admin.token.clone() };
    // The same address, concurrently on two nodes, becomes one user.
    let invite = |actor: &'static str| {
        let (actor, ours) = (if actor == "here" { &admin } else { &elsewhere }, ours.clone());
        actor.ask(INVITE, json!({ "id": ours, "email": "ada@example.org", "role": "ADMIN" }))
    };
    let answers = futures::future::join_all(["here", "there", "here", "there"].map(invite)).await;
    let ids: Vec<&Value> = answers.iter().map(|answer| &answer["data"]["inviteUser"]["user"]["id"]).collect();
    assert!(ids.iter().all(|id| id.is_string() && *id == ids[0]), "{answers:#?}");
    assert_eq!(users(&admin, "ours").await.len(), 1);
    let first = mailbox.link("ada@example.org", 4).await;
    admin.data(INVITE, json!({ "id": theirs, "email": "ADA@example.org", "role": "ADMIN" })).await;
    let second = mailbox.link("ADA@example.org", 1).await;
    // Both links are used concurrently: the address belongs to one user, in one organization.
    let (a, b) = tokio::join!(redeem(&app, &first), redeem(&other, &second));
    let mut statuses = [a.0.as_u16(), b.0.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{} {}", a.1, b.1);
    let database = app.database.superuser().await;
    let joined: i64 = sqlx::query_scalar("select count(*) from events where event_type = 'user.joined'")
        .fetch_one(&database)
        .await
        .unwrap();
    assert_eq!(joined, 1);
    app.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_without_mail_lets_in_who_was_invited() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    for slug in ["acme", "other"] {
        let id = app.organization(&admin, slug, &[]).await;
        for email in ["ada@example.org", "gone@example.org"] {
            admin.data(INVITE, json!({ "id": id, "email": email, "role": "MEMBER" })).await;
        }
    }
    let print = |arguments: &[&str]| {
        let mut command = Command::new(crate::process::BINARY);
        let store = &app.settings.store;
        command.arg("sign-in-link").args(arguments).env("DATABASE_URL", &app.database.url);
        command.env("HOOKLEDGER_MASTER_KEYS", store.master_keys.as_ref().unwrap().expose_secret());
        let output = command.output().unwrap();
        let printed = String::from_utf8(if output.status.success() { output.stdout } else { output.stderr }).unwrap();
        (output.status.success(), printed)
    };
    let (done, refusal) = print(&["ada@example.org"]);
    assert!(!done && refusal.contains("acme") && refusal.contains("other"), "{refusal}");
    assert!(!print(&["ada@example.org", "--organization", "nobody"]).0);
    let (done, link) = print(&["Ada@Example.org", "--organization", "acme"]);
    assert!(done, "{link}");
    app.sign_in(link.trim()).await;
    let joined_at = async |slug: &str, email: &str| {
        let all = users(&admin, slug).await;
        all.into_iter().find(|user| user["email"] == email).unwrap()["joinedAt"].take()
    };
    // Somebody else's sign-in is seen a moment later.
    crate::patience::until("joined", async || joined_at("acme", "ada@example.org").await.is_string()).await;
    // From then on it is an ordinary sign-in link, and the other invitation does not work.
    let (done, link) = print(&["ada@example.org", "--organization", "other"]);
    assert!(done, "{link}");
    app.sign_in(link.trim()).await;
    assert_eq!(joined_at("other", "ada@example.org").await, Value::Null);

    // A deactivated user cannot use an invitation from elsewhere.
    let (done, link) = print(&["gone@example.org", "--organization", "acme"]);
    assert!(done, "{link}");
    let gone = app.sign_in(link.trim()).await;
    admin.data(SET_ACTIVE, json!({ "id": my_id(&gone).await, "on": false })).await;
    let (done, refusal) = print(&["gone@example.org"]);
    assert!(!done && refusal.contains("No active user"), "{refusal}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_do_not_see_where_an_admin_sits() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let boss = app.user("acme", "boss@acme.example", Role::Admin).await;
    let member = app.user("acme", "member@acme.example", Role::Member).await;
    let provider = boss.data("{ organization(slug: \"acme\") { providers { id } } }", json!({})).await;
    let send = "mutation($id: ID!) { sendTestWebhook(input: {providerId: $id}) { webhook { id } } }";
    let id = |data: Value| data["sendTestWebhook"]["webhook"]["id"].clone();
    let provider = json!({ "id": provider["organization"]["providers"][0]["id"] });
    let (by_boss, by_member) = (id(boss.data(send, provider.clone()).await), id(member.data(send, provider).await));
    let events = "query($id: ID!) { node(id: $id) { ... on Webhook { events { actor userId client } } } }";
    let first =
        async |actor: &Actor<'_>, id: &Value| actor.data(events, json!({ "id": id })).await["node"]["events"][0].take();
    let seen = first(&boss, &by_boss).await;
    assert!(seen["userId"].is_string() && seen["client"].is_string(), "{seen}");
    assert_eq!(first(&member, &by_boss).await, json!({ "actor": "user", "userId": null, "client": null }));
    assert!(first(&member, &by_member).await["userId"].is_string());
    assert_eq!(first(&boss, &by_member).await["client"], seen["client"]);
    app.stop().await;
}
