//! `seed-demo`: an organization with providers and webhooks, so that a first look shows something.
//! It goes through the same doors as everything else: commands, and signed requests.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use hmac::{Hmac, Mac as _};
use hookledger_aggregates::organization::{Organization, OrganizationCommand, OrganizationError, Plan};
use hookledger_aggregates::provider::{Provider, ProviderCommand, ProviderError};
use hookledger_aggregates::{Metadata, OrganizationId, ProviderId, ProviderName};
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::SecretString;
use sha2::Sha256;

use crate::directory::{Directory, DirectoryFollower};
use crate::log::{CommandError, LogPosition};
use crate::node::{Core, NodeError};
use crate::receive::paypal::CertificateStore;
use crate::receive::{HeldBody, Limits, Parts, Receiver, Rejections, Request};

/// The sample organization.
pub const SLUG: &str = "demo";
/// Its GitHub secret: the one in GitHub's documentation, and no secret at all.
pub const GITHUB_SECRET: &str = "It's a Secret to Everybody";
/// How long the read models may take to show the samples.
const LIMIT: Duration = Duration::from_secs(30);

const SAMPLES: &[(&str, &str)] = &[
    ("push", include_str!("demo/push.json")),
    ("issues", include_str!("demo/issues.json")),
    ("ping", include_str!("demo/ping.json")),
];

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("the sample data cannot be made: {0}")]
    Refused(String),
}

/// What is there now.
#[derive(Debug)]
pub struct Seeded {
    /// False where it was there already.
    pub is_new: bool,
    /// A curl command that sends a signed webhook.
    pub curl: String,
}

/// Makes the sample data, once.
///
/// # Errors
/// When store or log fail.
pub async fn seed(core: &Core, base_url: &str) -> Result<Seeded, DemoError> {
    let organization = OrganizationId::from_slug(SLUG);
    let is_new = create(core, organization).await?;
    if is_new {
        connect(core, organization, ProviderName::Github, GITHUB_SECRET).await?;
        connect(core, organization, ProviderName::Standard, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").await?;
        send(core).await?;
    }
    Ok(Seeded { is_new, curl: curl(base_url) })
}

fn refused(error: impl std::fmt::Display) -> DemoError {
    DemoError::Refused(error.to_string())
}

async fn create(core: &Core, id: OrganizationId) -> Result<bool, DemoError> {
    let command = OrganizationCommand::Create {
        name: "Demo Company".parse().map_err(refused)?,
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
) -> Result<(), DemoError> {
    let id = ProviderId::derive(organization, provider_name);
    let version = 1;
    let secret = core.vault.store(organization, id, version, &SecretString::from(secret)).await.map_err(refused)?;
    let command = ProviderCommand::Connect { provider_name, secret, version };
    match core.commands.execute::<Provider>(organization, id.uuid(), command, &Metadata::default()).await {
        Ok(place) => caught_up(core, &["webhook_providers"], place).await,
        Err(CommandError::Refused(ProviderError::AlreadyConnected)) => Ok(()),
        Err(error) => Err(refused(error)),
    }
}

async fn caught_up(core: &Core, projections: &[&str], place: Option<LogPosition>) -> Result<(), DemoError> {
    let Some(place) = place else { return Ok(()) };
    match core.checkpoints.wait_for(projections, place, LIMIT).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(NodeError::Behind.into()),
        Err(error) => Err(refused(error)),
    }
}

/// Every sample signed, and one forged.
async fn send(core: &Core) -> Result<(), DemoError> {
    let directory = Directory::default();
    let (reader, heads, vault) = (core.reader.clone(), core.heads.clone(), core.vault.clone());
    DirectoryFollower::new(directory.clone(), reader, heads, vault).load().await.map_err(refused)?;
    let receiver = Receiver::new(Parts {
        directory,
        log: core.log.clone(),
        reader: core.reader.clone(),
        rejections: Arc::new(Rejections::default()),
        // The sample organization has no limit, and none of its senders needs a certificate.
        limits: Limits::new(core.commands.clone()).0,
        certificates: Arc::new(CertificateStore::new(None, None).map_err(refused)?),
        paypal_max_age: chrono::Duration::zero(),
        fresh: Arc::default(),
    });
    let endpoint = receiver.endpoint(SLUG, "github").ok_or_else(|| refused("the sample provider is missing"))?;
    for (event, body) in SAMPLES {
        let request = request(event, body, &sign(body.as_bytes()))?;
        receiver.receive(&endpoint, request).await.map_err(refused)?;
    }
    // A forgery, to show what a refusal looks like; being refused is its success.
    let forged = request("push", r#"{"ref":"refs/heads/evil"}"#, &"0".repeat(64))?;
    drop(receiver.receive(&endpoint, forged).await);
    Ok(())
}

fn request(event: &str, body: &'static str, signature: &str) -> Result<Request, DemoError> {
    let mut headers = HeaderMap::new();
    let mut put = |name, value: &str| {
        HeaderValue::from_str(value)
            .map(|value| drop(headers.insert(HeaderName::from_static(name), value)))
            .map_err(refused)
    };
    put("content-type", "application/json")?;
    put("user-agent", "GitHub-Hookshot/sample")?;
    put("x-github-event", event)?;
    put("x-github-delivery", &format!("sample-{event}-{}", &signature[..8]))?;
    put("x-hub-signature-256", &format!("sha256={signature}"))?;
    Ok(Request { headers, body: HeldBody::unbounded(body.into()), by: Metadata::sender("127.0.0.1".to_owned()) })
}

fn sign(body: &[u8]) -> String {
    // HMAC takes keys of any length; an unsigned sample would be refused, and that be told.
    Hmac::<Sha256>::new_from_slice(GITHUB_SECRET.as_bytes())
        .map_or_else(|_| "0".repeat(64), |mac| hex::encode(mac.chain_update(body).finalize().into_bytes()))
}

/// The command that the README shows: GitHub's own example of a signed body.
fn curl(base_url: &str) -> String {
    let body = r#"{"zen":"Keep it logically awesome."}"#;
    format!(
        "curl -i {base_url}/webhooks/{SLUG}/github \\\n  -H 'content-type: application/json' -H 'x-github-event: ping' \\\n  \
         -H 'x-github-delivery: {}' \\\n  -H 'x-hub-signature-256: sha256={}' \\\n  -d '{body}'",
        Utc::now().format("try-%Y%m%d%H%M%S"),
        sign(body.as_bytes())
    )
}
