//! Reading: text search, the log itself, and statistics.

use std::collections::BTreeSet;

use hookledger_aggregates::user::Role;
use hookledger_projections::order::Direction;
use hookledger_projections::organizations::{self, OrganizationField, OrganizationFilter};
use hookledger_projections::users::{self, UserField, UserFilter};
use hookledger_projections::webhook_providers::{self, ProviderField, ProviderFilter};
use hookledger_projections::{Order, Page, PageRequest, Place, Sorted};
use serde_json::{Value, json};

use crate::app::{Actor, GITHUB_SECRET, TestApp};

fn texts(nodes: &Value, field: &str) -> Vec<String> {
    nodes.as_array().unwrap().iter().map(|node| node[field].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_found_in_ids_and_bodies() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    app.organization(&admin, "other", &[("GITHUB", GITHUB_SECRET)]).await;
    app.github("other", "d", "{\"needle\":1}").send().await.unwrap();
    for n in 0..30 {
        let body = if n % 10 == 3 { "{\"a\":\"x-needle-é-y\"}" } else { "{\"a\":\"hay\"}" };
        app.github("acme", &format!("d-{n:02}"), body).send().await.unwrap();
    }
    let nodes = admin.webhooks_until("acme", "webhookId providerEventId", |nodes| nodes.len() == 30).await;
    let query = "query($text: String, $first: Int, $after: String, $last: Int) { organization(slug: \"acme\") { \
                 webhooks(filter: {text: $text}, first: $first, after: $after, last: $last) { \
                 searchedTo pageInfo { hasNextPage endCursor } nodes { providerEventId } } } }";
    let search = async |variables: Value| {
        let mut data = admin.data(query, variables).await;
        let page = data["organization"]["webhooks"].take();
        (texts(&page["nodes"], "providerEventId"), page)
    };
    assert_eq!(search(json!({ "text": "needle-é" })).await.0, ["d-23", "d-13", "d-03"]);
    assert_eq!(search(json!({ "text": "d-1" })).await.0.len(), 10);
    let named = search(json!({ "text": nodes[4]["webhookId"] })).await.0;
    assert_eq!(named, [nodes[4]["providerEventId"].as_str().unwrap()]);
    assert_eq!(search(json!({ "text": "d-07" })).await.0, ["d-07"]);
    assert!(search(json!({ "text": "not there" })).await.0.is_empty());
    let (first, page) = search(json!({ "text": "needle", "first": 2 })).await;
    assert_eq!((first, &page["pageInfo"]["hasNextPage"]), (vec!["d-23".to_owned(), "d-13".to_owned()], &json!(true)));
    let after = page["pageInfo"]["endCursor"].clone();
    let (rest, page) = search(json!({ "text": "needle", "first": 2, "after": after })).await;
    assert_eq!((rest, &page["pageInfo"]["hasNextPage"]), (vec!["d-03".to_owned()], &json!(false)));
    assert_eq!(page["searchedTo"], Value::Null);
    assert_eq!(search(json!({ "text": "needle", "last": 1 })).await.0, ["d-03"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_says_how_far_it_looked_and_goes_on_from_there() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    app.github("acme", "oldest", "{\"needle\":1}").send().await.unwrap();
    admin.webhooks_until("acme", "webhookId", |nodes| nodes.len() == 1).await;
    // As if 12,000 more had been received since.
    let database = app.database.superuser().await;
    sqlx::query(
        "insert into webhook_logs
             (organization_id, webhook_id, position, applied_position, provider_id, provider_event_id, event_type,
              body_sha256, body_size, content_type, signature_received, signature_valid, status, retry_count,
              error_message, received_at, updated_at, processed_at, next_retry_at, dead_lettered_at,
              duplicate_count, body_differs)
         select organization_id, gen_random_uuid(), position + n, applied_position, provider_id, 'd-' || n, event_type,
                body_sha256, body_size, content_type, signature_received, signature_valid, status, retry_count,
                error_message, received_at + n * interval '1 ms', updated_at, processed_at, next_retry_at,
                dead_lettered_at, duplicate_count, body_differs
         from webhook_logs, generate_series(1, 12000) n",
    )
    .execute(&database)
    .await
    .unwrap();
    let query = "query($after: String) { organization(slug: \"acme\") { webhooks(filter: {text: \"needle\"}, after: $after) { \
                 searchedTo pageInfo { hasNextPage } nodes { providerEventId } } } }";
    let first = admin.data(query, json!({})).await["organization"]["webhooks"].take();
    assert_eq!((&first["nodes"], &first["pageInfo"]["hasNextPage"]), (&json!([]), &json!(true)));
    let rest = admin.data(query, json!({ "after": first["searchedTo"] })).await["organization"]["webhooks"].take();
    assert_eq!(texts(&rest["nodes"], "providerEventId"), ["oldest"]);
    assert_eq!((&rest["searchedTo"], &rest["pageInfo"]["hasNextPage"]), (&Value::Null, &json!(false)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auditors_read_the_log_of_their_organization() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    for n in 0..5 {
        app.github("acme", &format!("d-{n}"), "{}").send().await.unwrap();
    }
    let nodes = admin
        .webhooks_until("acme", "webhookId status", |nodes| {
            nodes.len() == 5 && nodes.iter().all(|node| node["status"] == "SUCCESS")
        })
        .await;
    let query = "query($after: LogPosition, $id: UUID, $from: DateTime, $to: DateTime, $first: Int) { \
                 organization(slug: \"acme\") { \
                 events(after: $after, aggregateId: $id, from: $from, to: $to, first: $first) { \
                 pageInfo { hasNextPage endCursor } nodes { position sequence eventType aggregateId recordedAt } } } }";
    let read = async |variables: Value| {
        let mut data = admin.data(query, variables).await;
        data["organization"]["events"].take()
    };
    let events = |page: &Value| page["nodes"].as_array().unwrap().clone();
    let all = events(&read(json!({ "first": 1000 })).await);
    assert_eq!(all[0]["eventType"], "organization.created");
    assert!(all.len() >= 2 + 5 * 3);
    let (mut paged, mut after) = (Vec::new(), Value::Null);
    loop {
        let page = read(json!({ "first": 7, "after": after })).await;
        paged.extend(events(&page));
        after = page["pageInfo"]["endCursor"].clone();
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
    }
    assert_eq!(paged, all);
    let one = events(&read(json!({ "id": nodes[2]["webhookId"] })).await);
    assert_eq!(one.iter().map(|event| event["sequence"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    let middle = all[9]["recordedAt"].clone();
    let later = events(&read(json!({ "from": middle, "first": 1000 })).await);
    let earlier = events(&read(json!({ "to": middle, "first": 1000 })).await);
    assert_eq!([earlier, later].concat(), all);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn analytics_count_what_happened() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET), ("STRIPE", "x")]).await;
    app.organization(&admin, "other", &[("GITHUB", GITHUB_SECRET)]).await;
    let before = chrono::Utc::now();
    for n in 0..6 {
        app.github("acme", &format!("d-{n}"), "{}").send().await.unwrap();
    }
    app.github("acme", "d-0", "{}").send().await.unwrap();
    app.client.post(app.webhooks("acme", "github")).body("{}").send().await.unwrap();
    app.github("other", "d", "{}").send().await.unwrap();
    let done =
        |count: usize| move |nodes: &[Value]| nodes.iter().filter(|node| node["status"] == "SUCCESS").count() == count;
    let nodes = admin.webhooks_until("acme", "status provider { id }", done(6)).await;
    admin.webhooks_until("other", "status", done(1)).await;
    let (from, to) = (before - chrono::Duration::minutes(3), chrono::Utc::now() + chrono::Duration::minutes(1));
    let fields = "{ buckets { start counts { received } } totals { received duplicates rejected succeeded failed \
                  deadLettered latency { p50 p99 } } }";
    let query = format!(
        "query($from: DateTime!, $to: DateTime!, $grain: Grain!, $provider: ID) {{ \
         organization(slug: \"acme\") {{ analytics(from: $from, to: $to, grain: $grain, providerId: $provider) {fields} }} \
         analytics(from: $from, to: $to, grain: $grain) {{ totals {{ received }} }} }}"
    );
    for grain in ["MINUTE", "HOUR", "DAY"] {
        let variables = json!({ "from": from, "to": to, "grain": grain, "provider": nodes[0]["provider"]["id"] });
        let data = admin.data(&query, variables).await;
        let analytics = &data["organization"]["analytics"];
        let totals = &analytics["totals"];
        let names = ["received", "duplicates", "rejected", "succeeded", "failed", "deadLettered"];
        assert_eq!(names.map(|name| totals[name].as_i64().unwrap()), [6, 1, 1, 6, 0, 0], "{grain}");
        assert!(totals["latency"]["p50"].as_i64().unwrap() <= totals["latency"]["p99"].as_i64().unwrap());
        let buckets = analytics["buckets"].as_array().unwrap();
        assert_eq!(buckets.iter().map(|bucket| bucket["counts"]["received"].as_i64().unwrap()).sum::<i64>(), 6);
        assert!(grain != "MINUTE" || (4..=6).contains(&buckets.len()), "{buckets:?}");
        assert_eq!(data["analytics"]["totals"]["received"], 7);
    }
    let data = admin.data("{ organization(slug: \"acme\") { providers { id providerName } } }", json!({})).await;
    let providers = data["organization"]["providers"].as_array().unwrap();
    let stripe = providers.iter().find(|provider| provider["providerName"] == "STRIPE").unwrap();
    let variables = json!({ "from": from, "to": to, "grain": "DAY", "provider": stripe["id"] });
    let data = admin.data(&query, variables).await;
    assert_eq!(data["organization"]["analytics"]["totals"]["received"], 0);
    for (from, to) in
        [("2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z"), ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z")]
    {
        assert_eq!(admin.code(&query, json!({ "from": from, "to": to, "grain": "MINUTE" })).await, "BAD_USER_INPUT");
    }
    app.stop().await;
}

/// Lists of super admins: the type of the order, the fields that can be sorted by, and their paths in a row.
const ORDERS: [(&str, &str, &str, &str); 8] = [
    ("organizations", "OrganizationOrder", "CREATED_AT", "createdAt"),
    ("organizations", "OrganizationOrder", "NAME", "name"),
    ("users", "UserOrder", "CREATED_AT", "createdAt"),
    ("users", "UserOrder", "EMAIL", "email"),
    ("users", "UserOrder", "LAST_LOGIN_AT", "lastLoginAt"),
    ("providers", "ProviderOrder", "CREATED_AT", "createdAt"),
    ("providers", "ProviderOrder", "PROVIDER_NAME", "providerName"),
    ("providers", "ProviderOrder", "ORGANIZATION_NAME", "organization { name }"),
];

/// Creates organizations, two of the same name, with providers; and people, two erased and two who never signed in.
async fn a_crowd(app: &TestApp, admin: &Actor<'_>) {
    let providers = [("GITHUB", GITHUB_SECRET), ("STRIPE", "x")];
    for (slug, name) in [("a", "Zeta"), ("b", "acme"), ("c", "Acme"), ("d", "beta")] {
        let id = app.organization(admin, slug, &providers).await;
        let rename = "mutation($id: ID!, $name: String!) { updateOrganization(input: {id: $id, name: $name}) \
                      { organization { id } } }";
        admin.data(rename, json!({ "id": id, "name": name })).await;
    }
    for email in ["Bob@example.org", "ada@example.org", "gone-1@example.org", "gone-2@example.org"] {
        app.user("a", email, Role::Member).await;
    }
    // Invitations come last, because they wait until the read model has the sign-ins.
    for slug in ["d", "a"] {
        let invite = "mutation($id: ID!, $email: String!) { inviteUser(input: {organizationId: $id, email: $email, \
                      role: MEMBER}) { user { id } } }";
        let id =
            admin.data("query($slug: String!) { organization(slug: $slug) { id } }", json!({ "slug": slug })).await;
        let email = format!("Invited-{slug}@example.org");
        admin.data(invite, json!({ "id": id["organization"]["id"], "email": email })).await;
    }
    let erase = "delete from user_emails where email like 'gone-%'";
    sqlx::query(erase).execute(&app.database.superuser().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn super_admins_page_through_their_lists_in_every_order() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    a_crowd(&app, &admin).await;
    let mut ends = Vec::new();
    for (list, order_type, field, key) in ORDERS {
        let query = format!(
            "query($order: {order_type}, $first: Int!, $after: String) {{ {list}(first: $first, orderBy: $order, \
             after: $after) {{ pageInfo {{ hasNextPage endCursor }} nodes {{ id {key} }} }} }}"
        );
        let key_of = |node: &Value| {
            let key = node.as_object().unwrap().iter().find(|(name, _)| *name != "id").unwrap().1;
            key.get("name").unwrap_or(key).as_str().map(str::to_lowercase)
        };
        let mut newest_first = admin.data(&query, json!({ "first": 100 })).await;
        let all = newest_first[list]["nodes"].take().as_array().unwrap().clone();
        for direction in ["ASC", "DESC"] {
            let order = json!({ "field": field, "direction": direction });
            let (mut rows, mut after) = (Vec::new(), Value::Null);
            loop {
                let mut data = admin.data(&query, json!({ "order": order, "first": 2, "after": after })).await;
                let page = data[list].take();
                rows.extend(page["nodes"].as_array().unwrap().clone());
                if page["pageInfo"]["hasNextPage"] == false {
                    break;
                }
                after = page["pageInfo"]["endCursor"].clone();
            }
            let mut keys: Vec<_> = all.iter().filter_map(key_of).collect();
            keys.sort_unstable();
            if direction == "DESC" {
                keys.reverse();
            }
            let mut expected: Vec<_> = keys.into_iter().map(Some).collect();
            expected.resize(all.len(), None);
            assert_eq!(rows.iter().map(key_of).collect::<Vec<_>>(), expected, "{list} {field} {direction}");
            let ids = |rows: &[Value]| rows.iter().map(|row| row["id"].to_string()).collect::<BTreeSet<_>>();
            assert_eq!(ids(&rows), ids(&all));
            assert!(field != "CREATED_AT" || direction != "DESC" || rows == all, "{list} is newest first");
            ends.push((query.clone(), order, after));
        }
    }
    for (at, (query, order, _)) in ends.iter().enumerate() {
        for (from, (_, _, cursor)) in ends.iter().enumerate() {
            let variables = json!({ "order": order, "first": 2, "after": cursor });
            if at == from {
                admin.data(query, variables).await;
            } else {
                assert_eq!(admin.code(query, variables).await, "BAD_USER_INPUT", "{order} took the cursor of {from}");
            }
        }
    }
    let deactivate = "mutation($id: ID!) { setUserActive(input: {id: $id, isActive: false}) { user { id } } }";
    let users =
        "query($active: Boolean, $search: String) { users(isActive: $active, search: $search) { nodes { id } } }";
    let bob = admin.data(users, json!({ "search": "BOB@" })).await["users"]["nodes"].take();
    admin.data(deactivate, json!({ "id": bob[0]["id"] })).await;
    assert_eq!(admin.data(users, json!({ "active": false })).await["users"]["nodes"], bob);
    assert_eq!(admin.data(users, json!({ "active": true, "search": "bob@" })).await["users"]["nodes"], json!([]));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sorted_list_is_the_same_from_its_end() {
    let app = TestApp::start().await;
    let admin = app.super_admin().await;
    a_crowd(&app, &admin).await;
    let database = app.database.superuser().await;
    for direction in [Direction::Ascending, Direction::Descending] {
        for field in [OrganizationField::CreatedAt, OrganizationField::Name] {
            from_both_ends(async |page| {
                let filter = OrganizationFilter::default();
                let mut connection = database.acquire().await.unwrap();
                organizations::list(&mut connection, &filter, Order { field, direction }, page).await.unwrap()
            })
            .await;
        }
        for field in [UserField::CreatedAt, UserField::Email, UserField::LastLoginAt] {
            from_both_ends(async |page| {
                let filter = UserFilter::default();
                let mut connection = database.acquire().await.unwrap();
                users::list_everywhere(&mut connection, &filter, Order { field, direction }, page).await.unwrap()
            })
            .await;
        }
        for field in [ProviderField::CreatedAt, ProviderField::ProviderName, ProviderField::OrganizationName] {
            from_both_ends(async |page| {
                let filter = ProviderFilter::default();
                let mut connection = database.acquire().await.unwrap();
                let order = Order { field, direction };
                webhook_providers::list_everywhere(&mut connection, &filter, order, page).await.unwrap()
            })
            .await;
        }
    }
    app.stop().await;
}

/// Reads a list from its beginning and from its end, by pages of each size.
async fn from_both_ends<T>(read: impl AsyncFn(&PageRequest<Place>) -> Page<Sorted<T>>) {
    let whole = read(&PageRequest::first(100)).await.rows;
    let whole: Vec<_> = whole.into_iter().map(|row| row.place).collect();
    assert!(whole.len() >= 4, "{whole:?}");
    for (limit, backward) in [(1, false), (2, false), (3, true), (2, true), (1, true)] {
        let (mut places, mut from) = (Vec::new(), None);
        loop {
            let page = read(&PageRequest { from, limit, backward }).await;
            let mut seen: Vec<_> = page.rows.into_iter().map(|row| row.place).collect();
            if backward {
                seen.reverse();
            }
            places.append(&mut seen);
            from = places.last().cloned();
            if !page.has_more {
                break;
            }
        }
        if backward {
            places.reverse();
        }
        assert_eq!(places, whole, "{limit} rows at a time, backward: {backward}");
    }
}
