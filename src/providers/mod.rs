//! Use cases for providers: changes to connections, secrets and destinations, by people and by the node
//! itself. A secret is stored before the command that refers to it; a command that loses a race is decided
//! again.

mod destination;

use chrono::{Duration, Utc};
use hookledger_aggregates::provider::{DEFAULT_GRACE, Provider, ProviderCommand, ProviderError, SecretRef};
use hookledger_aggregates::signature::check_secret;
use hookledger_aggregates::{Metadata, OrganizationId, ProviderId, ProviderName, SecretId, outgoing};
use secrecy::{ExposeSecret as _, SecretString};

use crate::log::{CommandError, Commands, LogPosition};
use crate::platform::secrets::master::{KeyError, random_bytes};
use crate::platform::secrets::vault::{Vault, VaultError};

pub use destination::{DestinationError, Headers, Wish};

/// How many times a secret is stored because another change took its version.
const VERSION_TRIES: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum ProvidersError {
    /// The service does not issue such secrets.
    #[error("{0}")]
    Secret(String),
    #[error(transparent)]
    Command(#[from] CommandError<ProviderError>),
    #[error("{0}")]
    Vault(#[from] VaultError),
    #[error("{0}")]
    Random(#[from] KeyError),
}

/// The provider to change, and who changes it.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub organization: OrganizationId,
    pub provider: ProviderId,
    pub by: &'a Metadata,
}

/// Result of setting a destination.
#[derive(Debug)]
pub struct Set {
    pub last: Option<LogPosition>,
    /// The signing secret if it was just created: it is shown once.
    pub signing_secret: Option<SecretString>,
}

/// When earlier secrets end after a new one is added.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replacement {
    /// 24 hours if omitted.
    pub grace_seconds: Option<i32>,
    /// Required if several secrets stay.
    pub version: Option<u32>,
}

impl Replacement {
    fn grace(self) -> Duration {
        self.grace_seconds.map_or(DEFAULT_GRACE, |seconds| Duration::seconds(seconds.into()))
    }
}

/// Changes providers.
#[derive(Clone, Debug)]
pub struct Providers {
    commands: Commands,
    vault: Vault,
}

impl Providers {
    #[must_use]
    pub fn new(commands: Commands, vault: Vault) -> Self {
        Self { commands, vault }
    }

    /// Connects a provider with its first secret.
    pub async fn connect(
        &self,
        change: Change<'_>,
        provider_name: ProviderName,
        secret: SecretString,
    ) -> Result<Option<LogPosition>, ProvidersError> {
        judge(provider_name, &secret, false)?;
        self.with_secrets(change, &[secret], |_, new| {
            let SecretRef { secret_id: secret, secret_version: version } = new[0];
            ProviderCommand::Connect { provider_name, secret, version }
        })
        .await
    }

    /// Replaces a secret; earlier ones verify until their grace period ends.
    pub async fn rotate_secret(
        &self,
        change: Change<'_>,
        provider_name: ProviderName,
        secret: SecretString,
        replacement: Replacement,
    ) -> Result<Option<LogPosition>, ProvidersError> {
        judge(provider_name, &secret, false)?;
        let (now, grace, replaces) = (Utc::now(), replacement.grace(), replacement.version);
        self.with_secrets(change, &[secret], |_, new| {
            let SecretRef { secret_id: secret, secret_version: version } = new[0];
            ProviderCommand::RotateSecret { secret, version, grace, replaces, now }
        })
        .await
    }

    /// Adds a secret that verifies besides the others until it is revoked.
    pub async fn add_secret(
        &self,
        change: Change<'_>,
        provider_name: ProviderName,
        secret: SecretString,
        label: &str,
        accept_simulator: bool,
    ) -> Result<Option<LogPosition>, ProvidersError> {
        judge(provider_name, &secret, accept_simulator)?;
        let now = Utc::now();
        self.with_secrets(change, &[secret], |_, new| {
            let SecretRef { secret_id: secret, secret_version: version } = new[0];
            ProviderCommand::AddSecret { secret, version, label: label.to_owned(), now }
        })
        .await
    }

    /// Runs a command that needs no secret.
    pub async fn change(
        &self,
        change: Change<'_>,
        command: ProviderCommand,
    ) -> Result<Option<LogPosition>, ProvidersError> {
        let Change { organization, provider, by } = change;
        Ok(self.commands.execute::<Provider>(organization, provider.uuid(), command, by).await?)
    }

    /// Sets a destination; the first one gets a signing secret.
    pub async fn set_destination(&self, change: Change<'_>, wish: Wish) -> Result<Set, ProvidersError> {
        let current: Provider = self.commands.load(change.organization, change.provider.uuid()).await?;
        let signing_secret = if current.outgoing().is_empty() { Some(new_signing_secret()?) } else { None };
        let mut secrets: Vec<SecretString> = signing_secret.iter().cloned().collect();
        secrets.extend(wish.secret_headers());
        let is_signed_anew = signing_secret.is_some();
        let last =
            self.with_secrets(change, &secrets, |current, new| wish.command(current, new, is_signed_anew)).await?;
        Ok(Set { last, signing_secret })
    }

    /// Creates a signing secret; earlier ones sign as well until their grace period ends.
    pub async fn rotate_signing_secret(
        &self,
        change: Change<'_>,
        replacement: Replacement,
    ) -> Result<(Option<LogPosition>, SecretString), ProvidersError> {
        let secret = new_signing_secret()?;
        let (now, grace) = (Utc::now(), replacement.grace());
        let last = self
            .with_secrets(change, std::slice::from_ref(&secret), |_, new| ProviderCommand::RotateOutgoingSecret {
                secret: new[0],
                grace,
                now,
            })
            .await?;
        Ok((last, secret))
    }

    /// Stores secrets under the next versions, then decides; repeats if another change came first.
    async fn with_secrets(
        &self,
        Change { organization, provider, by }: Change<'_>,
        secrets: &[SecretString],
        to_command: impl Fn(&Provider, &[SecretRef]) -> ProviderCommand,
    ) -> Result<Option<LogPosition>, ProvidersError> {
        let mut tries = 1;
        loop {
            let current: Provider = self.commands.load(organization, provider.uuid()).await?;
            let mut new: Vec<SecretRef> = (current.next_version()..)
                .zip(secrets)
                .map(|(secret_version, _)| SecretRef { secret_id: SecretId::default(), secret_version })
                .collect();
            // Fails early, before secrets are stored for a command that would be refused.
            current.decide(to_command(&current, &new)).map_err(CommandError::Refused)?;
            for (reference, secret) in new.iter_mut().zip(secrets) {
                reference.secret_id =
                    self.vault.store(organization, provider, reference.secret_version, secret).await?;
            }
            let command = to_command(&current, &new);
            match self.commands.execute::<Provider>(organization, provider.uuid(), command, by).await {
                Err(CommandError::Refused(ProviderError::VersionTaken)) if tries < VERSION_TRIES => tries += 1,
                result => return Ok(result?),
            }
        }
    }
}

/// A signing secret for deliveries, in the format of Standard Webhooks.
pub fn new_signing_secret() -> Result<SecretString, KeyError> {
    Ok(SecretString::from(outgoing::secret(&random_bytes()?)))
}

fn judge(provider: ProviderName, secret: &SecretString, accept_simulator: bool) -> Result<(), ProvidersError> {
    check_secret(provider, secret.expose_secret(), accept_simulator)
        .map_err(|error| ProvidersError::Secret(error.to_string()))
}
