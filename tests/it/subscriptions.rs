//! Subscriptions, driven by the client that browsers use.

use hookledger_aggregates::user::Role;
use serde_json::json;

use crate::app::{GITHUB_SECRET, TestApp};
use crate::vendors::script;

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_speak_graphql_transport_ws() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    let organization = app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    let user = app.user("acme", "ada@example.org", Role::Member).await;
    // Every node announces changes, wherever the projection runs and the webhook was received.
    let other = app.second_node().await;
    let environment = vec![
        ("GRAPHQL_URL", format!("{}/graphql", app.url)),
        ("OTHER_URL", format!("{}/graphql", other.url)),
        ("TOKEN", user.token.clone()),
        ("ADMIN_TOKEN", admin.token.clone()),
        ("ORGANIZATION_ID", organization),
        ("WEBHOOK_URL", app.webhooks("acme", "github")),
        ("SECRET", GITHUB_SECRET.to_owned()),
    ];
    let result = script("subscriptions.mjs", environment).await;
    assert_eq!(result["first"]["webhook"]["provider"]["providerName"], "GITHUB", "{result:#}");
    assert_eq!((&result["done"], &result["ticked"], &result["filtered"]), (&json!("SUCCESS"), &json!(true), &json!(0)));
    assert_eq!(result["sockets"], 2, "it came back after its connection was cut");
    assert_eq!(result["refused"], 4403);
    assert_eq!(
        result["answers"],
        json!({
            "acks": 1,
            "limited": result["answers"]["limited"],
            "pong": { "n": 7 },
            "query": ["next", { "viewer": { "isSuperAdmin": false } }],
            "bad": ["error", "GRAPHQL_VALIDATION_FAILED"],
            "bomb": ["error", "LIMIT_EXCEEDED"],
            "stranger": ["next", "NOT_FOUND"],
        })
    );
    assert_eq!(result["reusedId"], json!(["next", "complete"]));
    assert_eq!(
        result["codes"],
        json!({
            "notJson": 4400,
            "unknownType": 4400,
            "binary": 4400,
            "tooLarge": 1009,
            "beforeInit": 4401,
            "badToken": 4403,
            "noToken": 4403,
            "silence": 4408,
            "sameId": 4409,
            "secondInit": 4429,
            "noProtocol": 4406,
            "twoProtocols": 4401,
            "foreignOrigin": 403,
            "tooManySockets": { "code": 4429, "after": 20 },
        })
    );
    assert_eq!(result["ended"], json!(4401));
    other.stop().await;
    app.stop().await;
}
