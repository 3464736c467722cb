//! The sandbox: an organization for the public demo that anybody may send webhooks to. It is created on first
//! use, has secrets that nobody knows, and its own limits.

use std::time::Duration;

use hookledger_aggregates::organization::{
    Organization, OrganizationCommand, OrganizationError, OrganizationEvent, Plan,
};
use hookledger_aggregates::provider::{Provider, ProviderError};
use hookledger_aggregates::{Actor, Event, Metadata, OrganizationId, ProviderId, ProviderName};
use tokio::sync::OnceCell;

use crate::directory::{Directory, Endpoint};
use crate::log::{CommandError, Commands, LogPosition, Reader};
use crate::platform::rate::{Buckets, Rate, TooOften, network};
use crate::providers::{Change, Providers, ProvidersError, new_signing_secret};

/// The sandbox's slug, which also identifies it as ours.
pub const SLUG: &str = "demo";
const NAME: &str = "Public demo";
/// Providers that can be signed for.
const PROVIDERS: [ProviderName; 4] =
    [ProviderName::Github, ProviderName::Stripe, ProviderName::Shopify, ProviderName::Standard];
/// Webhooks per month, on all nodes.
const MONTHLY_LIMIT: u32 = 60_000;
/// Webhooks per client at once, and the rate after that.
const PER_CLIENT: Rate = Rate::new(10, Duration::from_secs(6));
/// Webhooks of all clients at once, and the rate after that: about 2,000 per day and node.
const TOGETHER: Rate = Rate::new(150, Duration::from_secs(45));
/// Requests per client at once, and the rate after that; and of all clients.
const READS_PER_CLIENT: Rate = Rate::new(60, Duration::from_millis(100));
const READS_TOGETHER: Rate = Rate::new(1_000, Duration::from_millis(5));
/// How long the directory may take to know it.
const READY_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A customer's organization has the slug.
    #[error("The demo isn't available: an organization already uses its slug.")]
    SlugTaken,
    #[error("could not create the demo: {0}")]
    Failed(String),
}

fn failed(error: impl std::fmt::Display) -> SandboxError {
    SandboxError::Failed(error.to_string())
}

/// The sandbox on this node.
pub struct Sandbox {
    commands: Commands,
    reader: Reader,
    providers: Providers,
    directory: Directory,
    made: OnceCell<()>,
    /// Whether the slug is the sandbox's, known once an organization has it, because that never changes.
    owns_slug: OnceCell<bool>,
    clients: Buckets,
    together: Buckets,
    readers: Buckets,
    reads: Buckets,
}

impl Sandbox {
    #[must_use]
    pub fn new(commands: Commands, reader: Reader, providers: Providers, directory: Directory) -> Self {
        Self {
            commands,
            reader,
            providers,
            directory,
            made: OnceCell::new(),
            owns_slug: OnceCell::new(),
            clients: Buckets::new(PER_CLIENT),
            together: Buckets::new(TOGETHER),
            readers: Buckets::new(READS_PER_CLIENT),
            reads: Buckets::new(READS_TOGETHER),
        }
    }

    #[must_use]
    pub fn organization() -> OrganizationId {
        OrganizationId::from_slug(SLUG)
    }

    /// Whether webhooks of a provider can be signed here.
    #[must_use]
    pub fn signs_for(provider: ProviderName) -> bool {
        PROVIDERS.contains(&provider)
    }

    /// Counts a request without a session.
    pub fn admit_request(&self, client: &str) -> Result<(), TooOften> {
        self.readers.check(&network(client))?;
        self.reads.check(&())
    }

    /// Counts a webhook.
    pub fn admit_webhook(&self, client: &str) -> Result<(), TooOften> {
        self.clients.check(&network(client))?;
        self.together.check(&())
    }

    /// The sandbox's endpoint for a provider.
    ///
    /// # Errors
    /// Fails if it cannot be created, or a customer's organization has its slug.
    pub async fn endpoint(&self, provider: ProviderName) -> Result<Endpoint, SandboxError> {
        self.made.get_or_try_init(|| self.make()).await?;
        self.directory.endpoint(SLUG, provider).ok_or_else(|| failed("the provider is not connected"))
    }

    /// Whether the organization with that slug is the sandbox, the only one that guests may see.
    pub async fn is_there(&self) -> Result<bool, SandboxError> {
        if self.made.initialized() { Ok(true) } else { self.is_ours(Self::organization()).await }
    }

    /// Whether a request to that slug is for the sandbox, which has no public endpoint: it accepts webhooks
    /// only through `sendDemoWebhook`, at its rate. Checked only if an organization has the slug.
    pub async fn is_closed(&self, slug: &str) -> Result<bool, SandboxError> {
        if slug != SLUG {
            return Ok(false);
        }
        self.owns_slug.get_or_try_init(|| self.is_ours(Self::organization())).await.copied()
    }

    async fn make(&self) -> Result<(), SandboxError> {
        let organization = Self::organization();
        let command = OrganizationCommand::Create {
            name: NAME.parse().map_err(failed)?,
            slug: SLUG.parse().map_err(failed)?,
            plan: Plan::Starter,
            webhook_limit: Some(MONTHLY_LIMIT),
        };
        let by = Metadata::default();
        let created = self.commands.execute::<Organization>(organization, organization.uuid(), command, &by).await;
        let mut last = match created {
            Ok(place) => place,
            Err(CommandError::Refused(OrganizationError::AlreadyExists)) => None,
            Err(error) => return Err(failed(error)),
        };
        // An organization that a person created is theirs, whatever its name.
        if !self.is_ours(organization).await? {
            return Err(SandboxError::SlugTaken);
        }
        for provider in PROVIDERS {
            last = self.connect(organization, provider).await?.or(last);
        }
        if let Some(place) = last {
            let known = tokio::time::timeout(READY_LIMIT, self.directory.wait_for(place)).await;
            known.map_err(|_| failed("the directory is behind"))?;
        }
        Ok(())
    }

    async fn is_ours(&self, organization: OrganizationId) -> Result<bool, SandboxError> {
        let stream = self.reader.stream(organization, "organization", organization.uuid(), 1).await.map_err(failed)?;
        Ok(stream.first().is_some_and(|first| {
            let named = matches!(&first.event, Event::Organization(OrganizationEvent::Created { name, .. }) if name.as_str() == NAME);
            named && first.metadata.actor == Actor::System
        }))
    }

    async fn connect(
        &self,
        organization: OrganizationId,
        provider_name: ProviderName,
    ) -> Result<Option<LogPosition>, SandboxError> {
        let id = ProviderId::derive(organization, provider_name);
        let state: Provider = self.commands.load(organization, id.uuid()).await.map_err(failed)?;
        if state.is_connected() {
            return Ok(None);
        }
        // In the format of Standard Webhooks, which suits the other providers as well.
        let secret = new_signing_secret().map_err(failed)?;
        let by = Metadata::default();
        match self.providers.connect(Change { organization, provider: id, by: &by }, provider_name, secret, None).await
        {
            Ok(set) => Ok(set.last),
            // Another node was faster.
            Err(ProvidersError::Command(CommandError::Refused(
                ProviderError::AlreadyConnected | ProviderError::VersionTaken,
            ))) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}
