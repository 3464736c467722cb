//! Rights, checked against the schema itself: every field, mutation, subscription, kind of node ID and list's cursor is
//! asked for in every role.
//!
//! **You added a field, and this test fails?** Put it into one of the tables below: [`FIELDS`] for a field of
//! a type, [`MUTATIONS`], or [`SUBSCRIPTIONS`]. `$names` are those of [`Ids`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::{SinkExt as _, StreamExt as _};
use hookledger_aggregates::user::Role;
use hookledger_aggregates::{OrganizationId, ProviderId, ProviderName};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use uuid::Uuid;

use crate::app::{Actor, GITHUB_SECRET, TestApp};
use crate::patience::PATIENCE;
use Allowed::{Admins, Anybody, Guests, Members, SuperAdmins};

/// The roles that may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    /// Everybody, also without a session: the public demo.
    Guests,
    /// Everybody who is signed in, about themselves.
    Anybody,
    /// The organization's users, and super admins.
    Members,
    /// The organization's admins, and super admins.
    Admins,
    SuperAdmins,
}

/// The paths to types from the root of queries. All other types are reached through these.
const PATHS: &[(&str, &str)] = &[
    ("Query", "@"),
    ("Organization", "organization(slug: $slug) { @ }"),
    ("WebhookProvider", "node(id: $provider) { ... on WebhookProvider { @ } }"),
    ("Webhook", "node(id: $webhook) { ... on Webhook { @ } }"),
    ("Viewer", "viewer { @ }"),
    ("Ledger", "organization(slug: $slug) { ledger { @ } }"),
    ("User", "node(id: $user) { ... on User { @ } }"),
];

/// Fields by type, with arguments where they need some.
const FIELDS: &[(&str, Allowed, &str)] = &[
    ("Query", Anybody, "viewer sampleWebhooks(providerName: GITHUB)"),
    ("Query", Guests, "demo"),
    ("Query", Members, "node(id: $webhook) organization(slug: $slug)"),
    (
        "Query",
        SuperAdmins,
        "organizations(first: 5) users(first: 5) providers(first: 5) system conservation auditLog(first: 5) \
         analytics(from: $from, to: $to, grain: HOUR) platformLedgers",
    ),
    ("Viewer", Anybody, "user isSuperAdmin organization sessions"),
    (
        "Organization",
        Members,
        "id createdAt updatedAt name slug isActive webhookCount providers webhooks(first: 5)
         deadLetters(first: 5) retryableCount webhook(webhookId: $webhookId) analytics(from: $from, to: $to, grain: HOUR)
         histogram(from: $from, to: $to, buckets: 10) deadLetterGroups topEventTypes(from: $from, to: $to)
         topErrors(from: $from, to: $to) eventTypes",
    ),
    ("Organization", Admins, "plan webhookLimit usage users(first: 5) auditLog(first: 5) events(first: 5) ledger"),
    (
        "Ledger",
        Admins,
        "ledgerId origin publicKey publicKeys checkpoint inclusionProof(position: $position) consistencyProof(from: 0)",
    ),
    ("Organization", Admins, "asOf(time: \"2100-01-01T00:00:00Z\")"),
    // The user here is the member: others of the organization do not see them, but admins do.
    (
        "User",
        Members,
        "id userId createdAt updatedAt email role isActive joinedAt lastLoginAt organization sessions",
    ),
    (
        "WebhookProvider",
        Members,
        "id createdAt updatedAt organization providerName isActive deletedAt hasSecret secrets webhookUrl
         destination health",
    ),
    (
        "Webhook",
        Members,
        "id webhookId createdAt updatedAt provider providerEventId eventType payload rawBody rawBodyBase64 bodySha256
         bodySize contentType headers bodyRemoval signatureReceived signatureValid status retryCount canRetry errorMessage waitsFor receivedAt
         processedAt nextRetryAt deadLetteredAt duplicateCount bodyDiffers suspectedReplay isTest flagged rejection attempts retries events
         previousOfType stateAt(sequence: 1) duplicateBodies duplicateOf",
    ),
];

/// Types that are only parts of the above. Whoever sees the whole sees them.
const PARTS: &[(&str, &str)] = &[
    // Webhooks outside the sandbox are null for everybody; `demo` tests that.
    ("Query", "demoWebhook"),
    ("Analytics", "buckets totals"),
    ("AnalyticsBucket", "start counts"),
    ("AnalyticsCounts", "received duplicates rejected succeeded failed deadLettered retries successRate latency"),
    ("AnalyticsTick", "buckets"),
    (
        "Attempt",
        "deliveryId attemptNumber attemptedAt endedAt succeeded statusCode durationMs errorDetails responseExcerpt requestUrl
         requestHeaderNames",
    ),
    (
        "AuditEntry",
        "position at userId user sessionId client userAgent action resourceType resourceId changes organization",
    ),
    ("AuditEntryConnection", "edges nodes pageInfo"),
    ("AuditEntryEdge", "cursor node"),
    ("Demo", "providers samples"),
    (
        "DemoProvider",
        "providerName webhookUrl canSign signatureHeader signedContent algorithm toleranceSeconds eventIdPlace",
    ),
    (
        "DemoWebhook",
        "webhookId eventType providerEventId status signatureValid rejection errorMessage receivedAt processedAt
         bodySha256 bodySize duplicateCount bodyDiffers attempts events",
    ),
    ("DemoAttempt", "attemptNumber attemptedAt endedAt succeeded durationMs errorDetails"),
    ("DemoEvent", "position sequence eventType payload recordedAt offsetMs"),
    ("SendDemoWebhookPayload", "request answer webhookId duplicate eventId"),
    ("Sample", "name title eventType body headers"),
    ("TestRequest", "method url headers body"),
    ("TestAnswer", "status body retryAfter"),
    ("DeadLetterGroup", "provider errorMessage count oldest newest"),
    ("DeadLetterGroups", "groups total truncated"),
    ("BodyRemoval", "at kind reason position"),
    ("DuplicateBody", "receivedAt bodySha256 bodySize contentType headers rawBody rawBodyBase64 bodyRemoval deliveredAs"),
    ("DeliverDuplicatePayload", "webhook"),
    ("Header", "name value"),
    ("Histogram", "buckets total truncated countedFrom"),
    ("HistogramBucket", "start end pending processing success failed deadLettered rejected total"),
    ("InclusionProof", "checkpoint leafIndex leaf leafHash hashes"),
    ("ConsistencyProof", "from checkpoint hashes"),
    ("LedgerCheckpoint", "size rootHash signedAt lastPosition note"),
    ("Latency", "p50 p95 p99"),
    (
        "Conservation",
        "organization received outcomes pending processing succeeded failed deadLettered cancelled duplicates rejected difference differences
         webhookIds mismatchSince position checkedAt",
    ),
    ("OrganizationState", "time name slug plan webhookLimit isActive users providers"),
    ("UserState", "userId role isActive hasJoined user"),
    ("ProviderState", "providerId providerName isActive destinationUrl secretVersions"),
    ("SecretVersionState", "version setAt expiresAt"),
    (
        "WebhookState",
        "sequence at signatureValid status retryCount errorMessage processedAt nextRetryAt deadLetteredAt duplicateCount
         bodyDiffers",
    ),
    ("OrganizationConnection", "edges nodes pageInfo"),
    ("OrganizationEdge", "cursor node"),
    ("PageInfo", "endCursor hasNextPage hasPreviousPage startCursor"),
    ("ProviderHealth", "received rejected succeeded failed deadLettered successRate lastReceivedAt"),
    ("RankedName", "name count share"),
    ("Ranking", "names total truncated"),
    ("RecordedEvent", "position aggregateType aggregateId sequence eventType payload actor userId client recordedAt"),
    ("RecordedEventConnection", "edges nodes pageInfo"),
    ("RecordedEventEdge", "cursor node"),
    ("SecretInfo", "version label setAt expiresAt lastUsedAt safeToRetire"),
    ("MonthlyUsage", "month used"),
    ("Session", "id startedAt expiresAt endedAt client userAgent isCurrent"),
    ("Usage", "plan webhookLimit month used remaining percentUsed warning resetsAt pastMonths"),
    ("UserConnection", "edges nodes pageInfo"),
    ("UserEdge", "cursor node"),
    ("WebhookProviderConnection", "edges nodes pageInfo"),
    ("WebhookProviderEdge", "cursor node"),
    ("System", "followers deliveries openCircuits database node settings"),
    ("Follower", "name lag stoppedBy partitions"),
    ("FollowerPartition", "partition position head stoppedBy"),
    ("Deliveries", "waiting running overdueSince nodes"),
    ("OpenCircuit", "circuit provider"),
    ("Database", "version size connections maxConnections events"),
    ("RunningNode", "version startedAt appendWaitMs clockDifferenceMs"),
    ("PlatformSetting", "name help value default isSecret isSet"),
    ("WebhookChange", "kind webhook"),
    ("WebhookConnection", "edges nodes pageInfo searchedTo"),
    ("WebhookEdge", "cursor node"),
    ("WebhookRetry", "deliveryId attemptNumber attemptedAt errorDetails"),
    ("CreateOrganizationPayload", "organization"),
    ("UpdateOrganizationPayload", "organization"),
    ("SetOrganizationActivePayload", "organization"),
    ("ConnectProviderPayload", "provider signingSecret"),
    ("SetProviderDestinationPayload", "provider signingSecret"),
    ("RotateDestinationSecretPayload", "provider signingSecret"),
    ("Destination", "url timeoutSeconds concurrency headerNames originalSignature setAt secrets circuit circuits waiting"),
    ("Circuit", "node state failures openedAt probeAt changedAt"),
    ("RetryWebhookPayload", "webhook"),
    ("RetryWebhooksPayload", "retriedCount skippedCount"),
    ("SendTestWebhookPayload", "request answer webhook duplicate"),
    ("RotateProviderSecretPayload", "provider"),
    ("AddProviderSecretPayload", "provider"),
    ("LabelProviderSecretPayload", "provider"),
    ("RevokeProviderSecretPayload", "provider"),
    ("CheckProviderSecretPayload", "refused doubtful isSimulator"),
    ("SetProviderActivePayload", "provider"),
    ("DeleteProviderPayload", "provider"),
    ("InviteUserPayload", "user"),
    ("SetUserRolePayload", "user"),
    ("SetUserActivePayload", "user"),
    ("EndSessionPayload", "session"),
    ("EndUserSessionsPayload", "user"),
    ("EraseWebhookBodyPayload", "webhook remains"),
    ("EraseUserPayload", "user remains"),
];

/// Every mutation. `$provider` and the like differ for each role that may.
const MUTATIONS: &[(Allowed, &str)] = &[
    (SuperAdmins, "createOrganization(input: {name: \"x\", slug: $fresh}) { organization { id } }"),
    (SuperAdmins, "updateOrganization(input: {id: $organization, name: \"x\"}) { organization { id } }"),
    (SuperAdmins, "setOrganizationActive(input: {id: $organization, isActive: true}) { organization { id } }"),
    (Admins, "rotateProviderSecret(input: {providerId: $provider, secret: \"x\"}) { provider { id } }"),
    (Admins, "addProviderSecret(input: {providerId: $provider, secret: \"y\", label: \"y\"}) { provider { id } }"),
    (Admins, "labelProviderSecret(input: {providerId: $provider, version: 1, label: \"x\"}) { provider { id } }"),
    (Admins, "revokeProviderSecret(input: {providerId: $provider, version: 1}) { provider { id } }"),
    (Anybody, "checkProviderSecret(input: {providerName: STRIPE, secret: \"x\"}) { refused }"),
    (Admins, "setProviderActive(input: {id: $provider, isActive: true}) { provider { id } }"),
    (Guests, "sendDemoWebhook(input: {providerName: GITHUB, sample: \"push\"}) { answer { status } }"),
    (Members, "sendTestWebhook(input: {providerId: $provider}) { webhook { id } }"),
    (
        Admins,
        "setProviderDestination(input: {providerId: $provider, url: \"https://example.com/\"}) { provider { id } }",
    ),
    (Admins, "rotateDestinationSecret(input: {providerId: $provider}) { provider { id } }"),
    (Members, "retryWebhook(input: {webhookId: $webhook}) { webhook { id } }"),
    (
        Members,
        "retryWebhooks(input: {organizationId: $organization, filter: {text: \"none\"}, expectedCount: 0}) \
         { retriedCount }",
    ),
    (Members, "deliverDuplicate(input: {webhookId: $webhook, bodySha256: \"00\"}) { webhook { id } }"),
    (Admins, "deleteProvider(input: {id: $provider}) { provider { id } }"),
    (
        Admins,
        "connectProvider(input: {organizationId: $organization, providerName: $connectable, secret: \"x\"}) \
         { provider { id } }",
    ),
    (
        Admins,
        "inviteUser(input: {organizationId: $organization, email: \"x@example.org\", role: MEMBER}) { user { id } }",
    ),
    (Admins, "setUserRole(input: {id: $user, role: MEMBER}) { user { id } }"),
    (Admins, "setUserActive(input: {id: $user, isActive: true}) { user { id } }"),
    (Admins, "eraseUser(input: {id: $user}) { user { id } }"),
    (Admins, "eraseWebhookBody(input: {webhookId: $webhook}) { webhook { id } }"),
    (Members, "endSession(input: {id: $session}) { session { id } }"),
    // The member's own session: it comes last, because nobody can ask as the member afterwards.
    (Members, "endUserSessions(input: {userId: $user}) { user { id } }"),
];

/// Every subscription.
const SUBSCRIPTIONS: &[(Allowed, &str)] = &[
    (Members, "webhookChanged(organizationId: $organization) { kind }"),
    (Members, "analyticsTick(organizationId: $organization) { buckets { start } }"),
];

/// Lists with cursors, reached from an organization, and who may see them.
const LISTS: &[(Allowed, &str)] =
    &[(Members, "webhooks"), (Members, "deadLetters"), (Admins, "auditLog"), (Admins, "users")];

/// The values of the tables' `$names`.
#[derive(Clone, Debug)]
struct Ids {
    organization: String,
    slug: String,
    provider: String,
    webhook: String,
    webhook_id: String,
    /// The member, and a session of theirs.
    user: String,
    session: String,
    /// The position of one of the organization's events in a signed tree.
    position: String,
    /// A slug that nobody has, and a provider that is not connected.
    fresh: String,
    connectable: &'static str,
}

impl Ids {
    /// The IDs of an organization with a GitHub webhook; `provider` is the provider to change.
    fn of(slug: &str, webhook: Uuid, provider: ProviderName, connectable: &'static str) -> Self {
        let organization = OrganizationId::from_slug(slug);
        let node = |kind: u8, id: Uuid| {
            URL_SAFE_NO_PAD.encode([&[kind][..], organization.uuid().as_bytes(), id.as_bytes()].concat())
        };
        Self {
            organization: node(b'o', organization.uuid()),
            slug: slug.to_owned(),
            provider: node(b'p', ProviderId::derive(organization, provider).uuid()),
            webhook: node(b'w', webhook),
            webhook_id: webhook.to_string(),
            user: node(b'u', Uuid::new_v4()),
            session: node(b's', Uuid::new_v4()),
            position: format!("{}:1", organization.partition()),
            fresh: format!("fresh-{}", Uuid::new_v4()),
            connectable,
        }
    }

    /// IDs that do not exist.
    fn random() -> Self {
        Self::of(&format!("nobody-{}", Uuid::new_v4()), Uuid::new_v4(), ProviderName::Github, "SHOPIFY")
    }

    fn fill(&self, text: &str) -> String {
        let quoted = |value: &str| format!("{value:?}");
        let names = [
            ("$organization", quoted(&self.organization)),
            ("$slug", quoted(&self.slug)),
            ("$provider", quoted(&self.provider)),
            ("$webhookId", quoted(&self.webhook_id)),
            ("$webhook", quoted(&self.webhook)),
            ("$position", quoted(&self.position)),
            ("$user", quoted(&self.user)),
            ("$session", quoted(&self.session)),
            ("$fresh", quoted(&self.fresh)),
            ("$connectable", self.connectable.to_owned()),
            ("$from", quoted("2020-01-01T00:00:00Z")),
            ("$to", quoted("2020-01-02T00:00:00Z")),
        ];
        names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

/// A field of the schema.
struct Field {
    type_: String,
    needs_arguments: bool,
}

/// The types of the schema that have fields, by name, and its interfaces' members.
struct Schema {
    types: BTreeMap<String, BTreeMap<String, Field>>,
    nodes: Vec<String>,
}

impl Schema {
    async fn introspect(actor: &Actor<'_>) -> Self {
        let query = "{ __schema { types { name kind possibleTypes { name } fields { name args { type { kind } defaultValue } \
                     type { name ofType { name ofType { name ofType { name } } } } } } } }";
        let data = actor.data(query, json!({})).await;
        let (mut types, mut nodes) = (BTreeMap::new(), Vec::new());
        for type_ in data["__schema"]["types"].as_array().unwrap() {
            let name = type_["name"].as_str().unwrap();
            if name == "Node" {
                nodes.extend(type_["possibleTypes"].as_array().unwrap().iter().map(|node| text(&node["name"])));
            }
            if type_["kind"] != "OBJECT" || name.starts_with("__") {
                continue;
            }
            let fields = type_["fields"].as_array().unwrap().iter().map(|field| {
                let needs =
                    |argument: &Value| argument["type"]["kind"] == "NON_NULL" && argument["defaultValue"].is_null();
                let needs_arguments = field["args"].as_array().unwrap().iter().any(needs);
                (text(&field["name"]), Field { type_: named(&field["type"]), needs_arguments })
            });
            types.insert(name.to_owned(), fields.collect());
        }
        Self { types, nodes }
    }

    /// A selection of all fields of a type, a few levels deep; of types with their own path, only the ID.
    fn selection(&self, type_: &str, depth: usize) -> String {
        if self.nodes.iter().any(|node| node == type_) {
            return "{ id }".to_owned();
        }
        if type_ == "Node" {
            return "{ __typename }".to_owned();
        }
        let Some(fields) = self.types.get(type_) else { return String::new() };
        let selected = fields.iter().filter(|(_, field)| !field.needs_arguments).filter_map(|(name, field)| {
            let within = self.selection(&field.type_, depth.saturating_sub(1));
            (within.is_empty() || depth > 0).then(|| format!("{name} {within}"))
        });
        format!("{{ {} }}", selected.collect::<Vec<_>>().join(" "))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The name within lists and non-nulls.
fn named(type_: &Value) -> String {
    type_["name"].as_str().map_or_else(|| named(&type_["ofType"]), str::to_owned)
}

/// `a b(c: 1) d` as its parts.
fn split(fields: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in fields.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if c.is_whitespace() && depth == 0 { parts.push(String::new()) } else { parts.last_mut().unwrap().push(c) }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn name_of(part: &str) -> &str {
    part.split(['(', ' ']).next().unwrap()
}

/// The code of an answer's only error; `None` without an error.
fn code(answer: &Value) -> Option<&str> {
    let errors = answer.get("errors")?.as_array()?;
    for error in errors {
        assert!(error["extensions"]["code"].is_string(), "an error without a code: {answer:#}");
    }
    errors[0]["extensions"]["code"].as_str()
}

/// An answer without the locations of errors, for comparison.
fn comparable(mut answer: Value) -> Value {
    for error in answer.get_mut("errors").and_then(Value::as_array_mut).into_iter().flatten() {
        error.as_object_mut().unwrap().remove("locations");
    }
    answer
}

/// The position of an event that is in an organization's signed tree, as soon as there is one.
async fn signed_position(admin: &Actor<'_>, slug: &str) -> String {
    let query = "query($slug: String!) { organization(slug: $slug) { ledger { checkpoint { lastPosition } } } }";
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let data = admin.data(query, json!({ "slug": slug })).await;
        if let Some(position) = data["organization"]["ledger"]["checkpoint"]["lastPosition"].as_str() {
            return position.to_owned();
        }
        assert!(std::time::Instant::now() < deadline, "nothing is signed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct World<'a> {
    app: &'a TestApp,
    schema: Schema,
    /// Each role: the actor, and the IDs that the actor names.
    super_admin: (Actor<'a>, Ids),
    admin: (Actor<'a>, Ids),
    member: (Actor<'a>, Ids),
    /// An admin of another organization.
    foreign: Actor<'a>,
}

impl<'a> World<'a> {
    async fn make(app: &'a TestApp) -> Self {
        let super_admin = app.super_admin().await;
        let providers = [("GITHUB", GITHUB_SECRET), ("STRIPE", "x"), ("SHOPIFY", "x")];
        for slug in ["ours", "theirs"] {
            app.organization(&super_admin, slug, &providers[..if slug == "ours" { 3 } else { 1 }]).await;
            assert_eq!(app.github(slug, "d", "{\"a\":1}").send().await.unwrap().status(), StatusCode::OK);
            app.client.post(app.webhooks(slug, "github")).body("forged").send().await.unwrap();
        }
        let nodes = super_admin
            .webhooks_until("ours", "webhookId status", |nodes| {
                nodes.len() == 2 && nodes.iter().any(|node| node["status"] == "SUCCESS")
            })
            .await;
        super_admin.webhooks_until("theirs", "status", |nodes| nodes.len() == 2).await;
        let genuine = nodes.iter().find(|node| node["status"] == "SUCCESS").unwrap();
        let webhook: Uuid = genuine["webhookId"].as_str().unwrap().parse().unwrap();
        let admin = app.user("ours", "ada@example.org", Role::Admin).await;
        let elsewhere = app.user("ours", "bob@example.org", Role::Member).await;
        let member = app.sign_in_again("bob@example.org").await;
        let data = elsewhere.data("{ viewer { user { id } sessions { id isCurrent } } }", json!({})).await;
        let sessions = data["viewer"]["sessions"].as_array().unwrap();
        let session = sessions.iter().find(|session| session["isCurrent"] == true).unwrap();
        let (user, session) = (text(&data["viewer"]["user"]["id"]), text(&session["id"]));
        let position = signed_position(&super_admin, "ours").await;
        let ids = |provider, connectable| Ids {
            user: user.clone(),
            session: session.clone(),
            position: position.clone(),
            ..Ids::of("ours", webhook, provider, connectable)
        };
        let foreign = app.user("theirs", "eve@example.org", Role::Admin).await;
        Self {
            app,
            schema: Schema::introspect(&super_admin).await,
            super_admin: (super_admin, ids(ProviderName::Stripe, "STRIPE")),
            admin: (admin, ids(ProviderName::Shopify, "SHOPIFY")),
            member: (member, ids(ProviderName::Github, "STANDARD")),
            foreign,
        }
    }

    /// The actors of our organization, and whether each of them may.
    fn insiders(&self, allowed: Allowed) -> [(&'static str, &Actor<'a>, &Ids, bool); 3] {
        [
            ("member", &self.member.0, &self.member.1, matches!(allowed, Guests | Anybody | Members)),
            ("admin", &self.admin.0, &self.admin.1, matches!(allowed, Guests | Anybody | Members | Admins)),
            ("super admin", &self.super_admin.0, &self.super_admin.1, true),
        ]
    }

    /// Asks the same as every actor.
    async fn ask_as_everybody(&self, allowed: Allowed, template: &str) {
        let query = |ids: &Ids| ids.fill(template);
        let ours = &self.member.1;
        let stranger = self.app.client.post(format!("{}/graphql", self.app.url)).json(&json!({ "query": query(ours) }));
        let stranger = stranger.send().await.unwrap();
        if allowed == Guests {
            assert_eq!(stranger.status(), StatusCode::OK, "{template}");
            assert_eq!(code(&stranger.json().await.unwrap()), None, "{template}");
        } else {
            assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED, "{template}");
            assert_eq!(code(&stranger.json().await.unwrap()), Some("UNAUTHENTICATED"), "{template}");
        }

        // To users of another organization, our IDs look like IDs that do not exist.
        let about_ours = self.foreign.ask(&query(ours), json!({})).await;
        if matches!(allowed, Guests | Anybody) {
            assert_eq!(code(&about_ours), None, "{template}: {about_ours:#}");
        } else {
            let random = Ids { connectable: ours.connectable, fresh: ours.fresh.clone(), ..Ids::random() };
            let about_nobody = self.foreign.ask(&query(&random), json!({})).await;
            assert_eq!(comparable(about_ours.clone()), comparable(about_nobody), "{template}");
            let nothing = about_ours["data"].as_object().is_none_or(|data| data.values().all(Value::is_null));
            assert!(nothing, "{template} tells another organization's admin {about_ours:#}");
        }
        for (name, actor, ids, may) in self.insiders(allowed) {
            let answer = actor.ask(&query(ids), json!({})).await;
            // Those who may get a conflict: the webhook has no status that can be retried, and the user is still active.
            if may && (template.contains("retryWebhook(") || template.contains("eraseUser(")) {
                assert_eq!(code(&answer), Some("CONFLICT"), "{name}: {answer:#}");
            } else if may && template.contains("deliverDuplicate(") {
                // None of its duplicates has that body.
                assert_eq!(code(&answer), Some("BAD_USER_INPUT"), "{name}: {answer:#}");
            } else if may {
                assert_eq!(code(&answer), None, "{name}: {template}: {answer:#}");
                assert!(answer["data"].as_object().unwrap().values().all(|value| !value.is_null()), "{answer:#}");
            } else {
                assert_eq!(code(&answer), Some("FORBIDDEN"), "{name}: {template}: {answer:#}");
            }
        }
    }

    fn every_field_has_a_case(&self) {
        let mut cases: BTreeSet<(String, String)> = BTreeSet::new();
        let mut add = |type_: &str, part: &str| {
            assert!(cases.insert((type_.to_owned(), name_of(part).to_owned())), "{type_}.{part} is there twice");
        };
        FIELDS.iter().for_each(|(type_, _, fields)| split(fields).iter().for_each(|field| add(type_, field)));
        PARTS.iter().for_each(|(type_, fields)| split(fields).iter().for_each(|field| add(type_, field)));
        MUTATIONS.iter().for_each(|(_, mutation)| add("Mutation", mutation));
        SUBSCRIPTIONS.iter().for_each(|(_, subscription)| add("Subscription", subscription));
        let there: BTreeSet<(String, String)> = self
            .schema
            .types
            .iter()
            .flat_map(|(type_, fields)| fields.keys().map(|field| (type_.clone(), field.clone())))
            .collect();
        let untested: Vec<_> = there.difference(&cases).collect();
        assert!(untested.is_empty(), "give these fields a case in tests/it/contract.rs: {untested:?}");
        let gone: Vec<_> = cases.difference(&there).collect();
        assert!(gone.is_empty(), "these fields are not there any more: {gone:?}");
        for node in &self.schema.nodes {
            let path = PATHS.iter().find(|(type_, _)| type_ == node);
            assert!(path.is_some(), "give {node} a path in tests/it/contract.rs");
        }
        let lists = self.schema.types["Organization"].iter().filter(|(_, field)| field.type_.ends_with("Connection"));
        for (list, _) in lists {
            let by_position = list == "events";
            assert!(by_position || LISTS.iter().any(|(_, name)| name == list), "give the list {list} a case");
        }
    }

    async fn fields(&self) {
        for (type_, allowed, fields) in FIELDS {
            let (_, path) = PATHS.iter().find(|(name, _)| name == type_).unwrap();
            for part in split(fields) {
                let field = &self.schema.types[*type_][name_of(&part)];
                let selected = format!("{part} {}", self.schema.selection(&field.type_, 3));
                if *type_ == "Query" || *type_ == "Viewer" {
                    // Root fields have rules of their own.
                    self.ask_root(*allowed, &path.replace('@', &selected), &part).await;
                } else {
                    self.ask_as_everybody(*allowed, &format!("{{ {} }}", path.replace('@', &selected))).await;
                }
            }
        }
    }

    async fn ask_root(&self, allowed: Allowed, selected: &str, part: &str) {
        // A super admin has no organization of their own: that field may be null.
        if part == "organization" {
            let answer = self.super_admin.0.ask(&format!("{{ {selected} }}"), json!({})).await;
            assert_eq!(answer["data"]["viewer"]["organization"], Value::Null);
        }
        self.ask_as_everybody(allowed, &format!("{{ {selected} }}")).await;
    }

    /// Every kind of node ID: existing, unknown, and malformed.
    async fn nodes(&self) {
        let query = "query($id: ID!) { node(id: $id) { __typename id } }";
        let (ours, random) = (&self.member.1, Ids::random());
        for (own, nobodys) in [
            (&ours.organization, &random.organization),
            (&ours.provider, &random.provider),
            (&ours.webhook, &random.webhook),
            (&ours.user, &random.user),
        ] {
            let nothing = json!({ "data": { "node": null } });
            for id in [own, nobodys, &format!("{own}A"), &own[1..].to_owned()] {
                assert_eq!(self.foreign.ask(query, json!({ "id": id })).await, nothing);
            }
            for (_, actor, _, _) in self.insiders(Members) {
                assert_eq!(actor.ask(query, json!({ "id": own })).await["data"]["node"]["id"], json!(own));
                assert_eq!(actor.ask(query, json!({ "id": nobodys })).await, nothing);
            }
        }
    }

    /// A cursor works only in its own list of its own organization.
    async fn cursors(&self) {
        let list = |slug: &str, name: &str, arguments: &str| {
            format!("{{ organization(slug: {slug:?}) {{ {name}{arguments} {{ edges {{ cursor }} }} }} }}")
        };
        let mut known = Vec::new();
        for (_, name) in LISTS {
            for slug in ["ours", "theirs"] {
                let data = self.super_admin.0.data(&list(slug, name, ""), json!({})).await;
                if let Some(cursor) = data["organization"][name]["edges"][0]["cursor"].as_str() {
                    known.push((slug, *name, cursor.to_owned()));
                }
            }
        }
        let is_of_webhooks = |name: &str| name == "webhooks" || name == "deadLetters";
        let same_list = |a: &str, b: &str| a == b || (is_of_webhooks(a) && is_of_webhooks(b));
        for (_, name) in LISTS {
            let refused = self.admin.0.ask(&list("ours", name, "(after: \"nonsense\")"), json!({})).await;
            assert_eq!(code(&refused), Some("BAD_USER_INPUT"));
            for (slug, of, cursor) in &known {
                let answer = self.admin.0.ask(&list("ours", name, &format!("(after: {cursor:?})")), json!({})).await;
                if *slug == "ours" && same_list(of, name) {
                    assert_eq!(code(&answer), None, "{of} in {name}");
                } else {
                    assert_eq!(comparable(answer), comparable(refused.clone()), "{slug} {of} in {name}");
                }
            }
        }
    }

    async fn subscriptions(&self) {
        for (allowed, template) in SUBSCRIPTIONS {
            let query = |ids: &Ids| ids.fill(&format!("subscription {{ {template} }}"));
            assert_eq!(self.subscribe(None, &query(&self.member.1)).await, json!("closed"), "{template}");
            let about_ours = self.subscribe(Some(&self.foreign.token), &query(&self.member.1)).await;
            let about_nobody = self.subscribe(Some(&self.foreign.token), &query(&Ids::random())).await;
            assert_eq!(code(&about_ours), Some("NOT_FOUND"), "{template}: {about_ours:#}");
            assert_eq!(comparable(about_ours), comparable(about_nobody), "{template}");
            for (name, actor, ids, may) in self.insiders(*allowed) {
                let answer = self.subscribe(Some(&actor.token), &query(ids)).await;
                assert_eq!(code(&answer), (!may).then_some("FORBIDDEN"), "{name}: {template}: {answer:#}");
            }
        }
        // All organizations together are for super admins.
        let everything = "subscription { analyticsTick { buckets { start } } }";
        assert_eq!(code(&self.subscribe(Some(&self.admin.0.token), everything).await), Some("FORBIDDEN"));
        assert_eq!(code(&self.subscribe(Some(&self.super_admin.0.token), everything).await), None);
    }

    /// The first answer of a subscription, or that the socket was closed.
    async fn subscribe(&self, token: Option<&String>, query: &str) -> Value {
        let mut request = format!("{}/graphql", self.app.url.replace("http", "ws")).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        for message in [
            json!({ "type": "connection_init", "payload": { "token": token } }),
            json!({ "type": "subscribe", "id": "1", "payload": { "query": query } }),
        ] {
            let _ = socket.send(Message::text(message.to_string())).await;
        }
        let answer = async {
            loop {
                let Some(Ok(message)) = socket.next().await else { return json!("closed") };
                if message.is_close() {
                    return json!("closed");
                }
                let message: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
                match message["type"].as_str().unwrap() {
                    "next" => return message["payload"].clone(),
                    "error" => return json!({ "errors": message["payload"] }),
                    _ => {}
                }
            }
        };
        // An allowed subscription runs, and announces each webhook.
        let sending = async {
            loop {
                self.app.github("ours", &Uuid::new_v4().to_string(), "{}").send().await.unwrap();
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        let answered = async {
            tokio::select! {
                answer = answer => answer,
                () = sending => unreachable!(),
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.expect("a subscription answers")
    }
}

async fn everybody_sees_what_they_may(app: TestApp) {
    let world = World::make(&app).await;
    world.every_field_has_a_case();
    world.fields().await;
    world.nodes().await;
    world.cursors().await;
    world.subscriptions().await;
    for (allowed, mutation) in MUTATIONS {
        world.ask_as_everybody(*allowed, &format!("mutation {{ {mutation} }}")).await;
    }
    drop(world);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_is_for_whom_it_should_be() {
    everybody_sees_what_they_may(TestApp::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_is_for_whom_it_should_be_by_the_resolvers_alone() {
    let app = TestApp::start().await;
    crate::tenancy::switch_off(&app.database.superuser().await).await;
    everybody_sees_what_they_may(app).await;
}
