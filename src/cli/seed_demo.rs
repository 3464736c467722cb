//! `seed-demo`: an organization with providers, webhooks and people, as sample data. It uses the same
//! entrances as everything else: commands, and signed requests. Attempts at its fictitious destinations are
//! appended as a worker would append them; nothing is sent.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::StreamExt as _;
use hmac::{Hmac, Mac as _};
use hookledger_aggregates::delivery::{Delivery, DeliveryCommand, Outcome, RetryAt, RetryPolicy};
use hookledger_aggregates::organization::{Organization, OrganizationCommand, OrganizationError, Plan};
use hookledger_aggregates::user::{Role, UserCommand};
use hookledger_aggregates::{
    Actor, DeliveryId, Label, Metadata, OrganizationId, ProviderId, ProviderName, RouteId, WebhookId,
};
use secrecy::SecretString;
use sha2::Sha256;

use crate::demo::samples;
use crate::demo::tester::{Draft, Fault, make, send};
use crate::directory::{Directory, DirectoryFollower};
use crate::identity::Authority;
use crate::log::{CommandError, LogPosition};
use crate::node::{Core, NodeError};
use crate::providers::{Change, Wish};
use crate::receive::paypal::CertificateStore;
use crate::receive::{Admission, Limits, Parts, Receiver, Rejections};

/// The sample organization.
pub const SLUG: &str = "acme";
/// Its GitHub secret, which is public: the one in GitHub's documentation.
pub const GITHUB_SECRET: &str = "It's a Secret to Everybody";
/// How long the read models may take to show the samples.
const LIMIT: Duration = Duration::from_secs(30);
/// Webhooks per provider, and how many are created concurrently.
const EACH: usize = 75;
const AT_ONCE: usize = 32;

/// Its providers, with their secrets and optional destinations, in a domain that never exists.
const PROVIDERS: &[(ProviderName, &str, Option<&str>)] = &[
    (ProviderName::Standard, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None),
    (ProviderName::Shopify, "hush", Some("https://hooks.acme.example/shopify")),
    (ProviderName::Stripe, "whsec_test_secret", Some("https://hooks.acme.example/payments")),
    (ProviderName::Github, GITHUB_SECRET, None),
];

/// Its people.
const PEOPLE: &[(&str, Role)] = &[
    ("ada@acme.example", Role::Admin),
    ("grace@acme.example", Role::Member),
    ("edsger@acme.example", Role::Member),
    ("barbara@acme.example", Role::Member),
];
/// A person who has left, and one who has not accepted the invitation yet.
const GONE: &str = "edsger@acme.example";
const INVITED: &str = "radia@acme.example";

/// Errors of destinations.
const ERRORS: &[(Option<u16>, &str, u64)] = &[
    (Some(500), "The destination returned 500 Internal Server Error.", 212),
    (Some(503), "The destination returned 503 Service Unavailable.", 48),
    (None, "Timed out: the destination did not respond within 30 s.", 30_000),
    (None, "Connection failed. Check that the destination is running and reachable from the internet.", 9),
];

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("could not create the sample data: {0}")]
    Refused(String),
}

/// The sample data.
#[derive(Debug)]
pub struct Seeded {
    /// False if it existed already.
    pub is_new: bool,
    /// A curl command that sends a signed webhook.
    pub curl: String,
}

/// Creates the sample data, once.
pub async fn seed(core: &Core, base_url: &str) -> Result<Seeded, DemoError> {
    let organization = OrganizationId::from_slug(SLUG);
    let is_new = create(core, organization).await?;
    if is_new {
        for (provider, secret, destination) in PROVIDERS {
            connect(core, organization, *provider, secret, *destination).await?;
        }
        invite(core, organization).await?;
        let last = fill(core, organization).await?;
        caught_up(core, &["webhook_logs"], last).await?;
    }
    Ok(Seeded { is_new, curl: curl(base_url) })
}

fn refused(error: impl std::fmt::Display) -> DemoError {
    DemoError::Refused(error.to_string())
}

async fn create(core: &Core, id: OrganizationId) -> Result<bool, DemoError> {
    let command = OrganizationCommand::Create {
        name: "Acme Coffee".parse().map_err(refused)?,
        slug: SLUG.parse().map_err(refused)?,
        plan: Plan::Premium,
        webhook_limit: None,
    };
    match core.commands.execute::<Organization>(id, id.uuid(), command, &Metadata::default()).await {
        Ok(place) => caught_up(core, &["organizations"], place).await.map(|()| true),
        Err(CommandError::Refused(OrganizationError::AlreadyExists)) => Ok(false),
        Err(error) => Err(refused(error)),
    }
}

async fn connect(
    core: &Core,
    organization: OrganizationId,
    provider_name: ProviderName,
    secret: &str,
    destination: Option<&str>,
) -> Result<(), DemoError> {
    let id = ProviderId::derive(organization, provider_name);
    let by = Metadata::default();
    let (providers, change) = (core.providers(), Change { organization, provider: id, by: &by });
    let wish = destination.map(|url| Wish::to_checked_url(url.to_owned()));
    providers.connect(change, provider_name, SecretString::from(secret), wish).await.map_err(refused).map(drop)
}

async fn invite(core: &Core, organization: OrganizationId) -> Result<(), DemoError> {
    let by = Metadata::default();
    for (email, role) in PEOPLE {
        // An address of a user elsewhere stays theirs.
        let Ok((user, _)) = core.accounts.register(organization, email, *role, &by).await else { continue };
        if *email == GONE {
            let leave = UserCommand::SetActive(false);
            core.accounts.change(organization, user, leave, Authority::Platform, &by).await.map_err(refused)?;
        }
    }
    let invited = core.accounts.invite(organization, INVITED, Role::Member, &by).await.map_err(refused)?;
    caught_up(core, &["users"], invited.place).await
}

async fn caught_up(core: &Core, projections: &[&str], place: Option<LogPosition>) -> Result<(), DemoError> {
    let Some(place) = place else { return Ok(()) };
    match core.checkpoints.wait_for(projections, place, LIMIT).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(NodeError::Behind.into()),
        Err(error) => Err(refused(error)),
    }
}

/// Sends hundreds of webhooks, some of them duplicates or forgeries, and appends their attempts.
async fn fill(core: &Core, organization: OrganizationId) -> Result<Option<LogPosition>, DemoError> {
    let directory = Directory::default();
    let (reader, heads, vault) = (core.reader.clone(), core.heads.clone(), core.vault.clone());
    DirectoryFollower::new(directory.clone(), reader, heads, vault).load().await.map_err(refused)?;
    let receiver = Receiver::new(Parts {
        directory,
        log: core.log.clone(),
        reader: core.reader.clone(),
        rejections: Arc::new(Rejections::default()),
        // Each sample is sent at most twice, so every duplicate is logged.
        duplicates: Arc::default(),
        // The sample organization has no limit, and no certificate is needed.
        limits: Limits::new(core.commands.clone(), &core.heads).0,
        certificates: Arc::new(CertificateStore::new(None, None).map_err(refused)?),
        paypal_max_age: chrono::Duration::zero(),
        fresh: Arc::default(),
        admission: Admission::default(),
    });
    let all = PROVIDERS
        .iter()
        .flat_map(|(provider, _, destination)| (0..EACH).map(move |n| (*provider, destination.is_some(), n)));
    let work = futures::stream::iter(all).map(|(provider, forwards, n)| {
        let receiver = &receiver;
        async move {
            let webhook = deliver(receiver, provider, n).await?;
            match webhook.filter(|_| forwards) {
                Some(webhook) => {
                    let route = RouteId::of_provider(ProviderId::derive(organization, provider));
                    attempt(core, organization, DeliveryId::derive(webhook, route), n).await
                }
                None => Ok(None),
            }
        }
    });
    let places: Vec<Result<Option<LogPosition>, DemoError>> = work.buffer_unordered(AT_ONCE).collect().await;
    let places: Vec<Option<LogPosition>> = places.into_iter().collect::<Result<_, _>>()?;
    Ok(places.into_iter().flatten().max_by_key(|place| place.position))
}

/// Sends the n-th webhook of a provider; most are genuine, and some are duplicates.
async fn deliver(receiver: &Receiver, provider: ProviderName, n: usize) -> Result<Option<WebhookId>, DemoError> {
    let endpoint = receiver.endpoint(SLUG, provider.as_str()).ok_or_else(|| refused("a provider is missing"))?;
    let samples: Vec<_> = samples::of(provider).collect();
    let sample = samples[n % samples.len()];
    let signs_time = matches!(provider, ProviderName::Stripe | ProviderName::Standard);
    let fault = match n {
        20 | 51 => Fault::BadSignature,
        37 if signs_time => Fault::StaleTimestamp,
        _ => Fault::None,
    };
    let mut headers: Vec<(String, String)> =
        sample.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    if n == 44 {
        // A sender that does not know the secret yet.
        let unsigned = ["x-hub-signature-256", "stripe-signature", "x-shopify-hmac-sha256", "webhook-signature"];
        headers.extend(unsigned.map(|name| (name.to_owned(), String::new())));
    }
    // Each has another time, so that no two bodies are equal.
    let now = Utc::now();
    let told = now - chrono::Duration::minutes(i64::try_from(n).unwrap_or_default());
    let event_id = Draft::fresh_id();
    let draft = Draft {
        event_type: sample.event_type.to_owned(),
        body: sample.body(&event_id, told),
        event_id,
        fault,
        headers,
    };
    let made = make(&endpoint, &draft, now).map_err(refused)?;
    let by = Metadata { actor: Actor::Sender, client: Some("127.0.0.1".to_owned()), ..Metadata::default() };
    let sent = send(receiver, &endpoint, made.clone(), by.clone()).await;
    let accepted = sent.answer.status.is_success();
    if n % 25 == 12 {
        send(receiver, &endpoint, made, by).await;
    } else if n == 60 && provider == ProviderName::Github {
        // The same event with a different body, which is flagged.
        let again = Draft { body: draft.body.replace("acme", "acme-labs"), ..draft };
        send(receiver, &endpoint, make(&endpoint, &again, now).map_err(refused)?, by).await;
    }
    Ok(sent.webhook.filter(|_| accepted))
}

/// Appends the attempts at the delivery of the n-th webhook.
async fn attempt(
    core: &Core,
    organization: OrganizationId,
    delivery: DeliveryId,
    n: usize,
) -> Result<Option<LogPosition>, DemoError> {
    let policy = RetryPolicy::default();
    let most = u32::try_from(policy.delays.len()).unwrap_or(u32::MAX) + 1;
    // Most succeed at once, some after a retry, some are waiting for one, and some are dead letters.
    let (failures, then_succeeds) = match n % 20 {
        3 => (most, false),
        5 => (1, true),
        11 => (2, true),
        13 => (1, false),
        _ => (0, true),
    };
    let mut commands = Vec::new();
    for attempt in 1..=failures {
        // Each destination fails in its own way.
        let (status_code, error, duration_ms) = ERRORS[(n / 20) % ERRORS.len()];
        let outcome = Outcome { status_code, duration_ms, error: Some(Label::new(error)), ..Outcome::default() };
        let retry_at = RetryAt::after(&policy, attempt, Utc::now(), 50, None);
        commands.push(DeliveryCommand::StartAttempt { attempt });
        commands.push(DeliveryCommand::FailAttempt { attempt, outcome, retry_at });
    }
    if then_succeeds {
        let attempt = failures + 1;
        let duration_ms = 20 + u64::try_from(n * 37 % 180).unwrap_or_default();
        let outcome = Outcome { status_code: Some(200), duration_ms, ..Outcome::default() };
        commands.push(DeliveryCommand::StartAttempt { attempt });
        commands.push(DeliveryCommand::SucceedAttempt { attempt, outcome });
    }
    let mut last = None;
    for command in commands {
        let done =
            core.commands.execute::<Delivery>(organization, delivery.uuid(), command, &Metadata::default()).await;
        match done {
            Ok(place) => last = place.or(last),
            // A running server was faster.
            Err(CommandError::Refused(_) | CommandError::Busy) => break,
            Err(error) => return Err(refused(error)),
        }
    }
    Ok(last)
}

/// The command in the README: GitHub's own example of a signed body.
fn curl(base_url: &str) -> String {
    let body = r#"{"zen":"Keep it logically awesome."}"#;
    // HMAC takes keys of any length.
    let signature = Hmac::<Sha256>::new_from_slice(GITHUB_SECRET.as_bytes())
        .map_or_else(|_| String::new(), |mac| hex::encode(mac.chain_update(body).finalize().into_bytes()));
    format!(
        "curl -i {base_url}/webhooks/{SLUG}/github \\\n  -H 'content-type: application/json' -H 'x-github-event: ping' \\\n  \
         -H 'x-github-delivery: {}' \\\n  -H 'x-hub-signature-256: sha256={signature}' \\\n  -d '{body}'",
        Utc::now().format("try-%Y%m%d%H%M%S"),
    )
}
