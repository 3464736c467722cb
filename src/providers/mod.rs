//! Use cases for providers: changes to connections, secrets and destinations, by people and by the node
//! itself. A secret is stored before the command that refers to it; a command that loses a race is decided
//! again.

mod destination;

use chrono::{Duration, Utc};
use hookledger_aggregates::destination::{Destination, DestinationCommand, DestinationError};
use hookledger_aggregates::provider::{DEFAULT_GRACE, Provider, ProviderCommand, ProviderError, SecretRef};
use hookledger_aggregates::route::{Route, RouteCommand, RouteError, RouteSettings};
use hookledger_aggregates::signature::check_secret;
use hookledger_aggregates::{
    DestinationId, Label, Metadata, OrganizationId, ProviderId, ProviderName, RouteId, SecretId, outgoing,
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::log::{AppendError, CommandError, Commands, LogPosition, Together};
use crate::platform::secrets::master::{KeyError, random_bytes};
use crate::platform::secrets::vault::{SecretOwner, Vault, VaultError};

pub use destination::{Headers, Wish, WishError};

/// How many times a change is decided because another one came first.
const TRIES: usize = 3;
/// Name of the route to a provider's own destination.
const ROUTE_NAME: &str = "All webhooks";

#[derive(Debug, thiserror::Error)]
pub enum ProvidersError {
    /// The service does not issue such secrets.
    #[error("{0}")]
    Secret(String),
    #[error(transparent)]
    Command(#[from] CommandError<ProviderError>),
    #[error(transparent)]
    Destination(#[from] CommandError<DestinationError>),
    #[error(transparent)]
    Route(#[from] CommandError<RouteError>),
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

    /// Connects a provider with its first secret and, if wanted, its own destination: all of it or nothing.
    pub async fn connect(
        &self,
        change: Change<'_>,
        provider_name: ProviderName,
        secret: SecretString,
        wish: Option<Wish>,
    ) -> Result<Set, ProvidersError> {
        judge(provider_name, &secret, false)?;
        let (organization, provider) = (change.organization, change.provider);
        let connect = |current: &Provider, new: SecretRef| {
            let SecretRef { secret_id: secret, secret_version: version } = new;
            current.decide(ProviderCommand::Connect { provider_name, secret, version })
        };
        for _ in 0..TRIES {
            let mut together = self.commands.together(organization, change.by);
            let current: Provider = self.commands.load(organization, provider.uuid()).await?;
            let version = current.next_version();
            let unstored = SecretRef { secret_id: SecretId::default(), secret_version: version };
            // Fails early, before secrets are stored for a command that would be refused.
            connect(&current, unstored).map_err(CommandError::Refused)?;
            let secret_id = self.vault.store(organization, SecretOwner::Provider(provider), version, &secret).await?;
            let stored = SecretRef { secret_id, ..unstored };
            together.add::<Provider>(provider.uuid(), |current| connect(current, stored)).await?;
            let signing_secret = match &wish {
                Some(wish) => self.set_in(&mut together, change, wish).await?,
                None => None,
            };
            match together.append().await {
                Ok(last) => return Ok(Set { last, signing_secret }),
                Err(AppendError::Conflict) => {}
                Err(error) => return Err(not_appended(error)),
            }
        }
        Err(CommandError::<ProviderError>::Busy.into())
    }

    /// Deletes a provider, and its own destination with it. Its routes end with it.
    pub async fn delete(&self, change: Change<'_>) -> Result<Option<LogPosition>, ProvidersError> {
        let (organization, own) = (change.organization, DestinationId::of_provider(change.provider).uuid());
        for _ in 0..TRIES {
            let mut together = self.commands.together(organization, change.by);
            let delete = |provider: &Provider| provider.decide(ProviderCommand::Delete);
            together.add::<Provider>(change.provider.uuid(), delete).await?;
            let delete = |own: &Destination| match own.decide(DestinationCommand::Delete { secrets_end: true }) {
                Err(DestinationError::NotFound) => Ok(Vec::new()),
                decided => decided,
            };
            together.add::<Destination>(own, delete).await?;
            match together.append().await {
                Err(AppendError::Conflict) => {}
                result => return result.map_err(not_appended),
            }
        }
        Err(CommandError::<ProviderError>::Busy.into())
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

    /// Sets a provider's own destination and the route to it; the first one gets a signing secret.
    pub async fn set_destination(&self, change: Change<'_>, wish: Wish) -> Result<Set, ProvidersError> {
        for _ in 0..TRIES {
            self.must_be_connected(change).await?;
            let mut together = self.commands.together(change.organization, change.by);
            let signing_secret = self.set_in(&mut together, change, &wish).await?;
            match together.append().await {
                Ok(last) => return Ok(Set { last, signing_secret }),
                Err(AppendError::Conflict) => {}
                Err(error) => return Err(not_appended(error)),
            }
        }
        Err(CommandError::<DestinationError>::Busy.into())
    }

    /// Removes a provider's own destination and the route to it; nothing happens if there is none. Its secrets stay
    /// for what is still owed to it.
    pub async fn remove_destination(&self, change: Change<'_>) -> Result<Option<LogPosition>, ProvidersError> {
        let (destination, route) = own(change.provider);
        for _ in 0..TRIES {
            self.must_be_connected(change).await?;
            let mut together = self.commands.together(change.organization, change.by);
            let remove = |route: &Route| match route.decide(RouteCommand::Delete) {
                Err(RouteError::NotFound) => Ok(Vec::new()),
                decided => decided,
            };
            together.add::<Route>(route.uuid(), remove).await?;
            let remove = |own: &Destination| match own.decide(DestinationCommand::Delete { secrets_end: false }) {
                Err(DestinationError::NotFound) => Ok(Vec::new()),
                decided => decided,
            };
            together.add::<Destination>(destination.uuid(), remove).await?;
            match together.append().await {
                Err(AppendError::Conflict) => {}
                result => return result.map_err(not_appended),
            }
        }
        Err(CommandError::<DestinationError>::Busy.into())
    }

    /// Creates a signing secret of a provider's own destination; earlier ones sign as well until their grace period
    /// ends.
    pub async fn rotate_signing_secret(
        &self,
        change: Change<'_>,
        replacement: Replacement,
    ) -> Result<(Option<LogPosition>, SecretString), ProvidersError> {
        let (destination, _) = own(change.provider);
        let (organization, value) = (change.organization, new_signing_secret()?);
        let (now, grace) = (Utc::now(), replacement.grace());
        let mut tries = 1;
        loop {
            let current: Destination = self.commands.load(organization, destination.uuid()).await?;
            let mut secret = SecretRef { secret_id: SecretId::default(), secret_version: current.next_version() };
            let rotate = |secret| DestinationCommand::RotateSecret { secret, grace, now };
            current.decide(rotate(secret)).map_err(CommandError::Refused)?;
            let owner = SecretOwner::Destination(destination);
            secret.secret_id = self.vault.store(organization, owner, secret.secret_version, &value).await?;
            let command = rotate(secret);
            match self.commands.execute::<Destination>(organization, destination.uuid(), command, change.by).await {
                Err(CommandError::Refused(DestinationError::VersionTaken)) if tries < TRIES => tries += 1,
                result => return Ok((result?, value)),
            }
        }
    }

    async fn must_be_connected(&self, change: Change<'_>) -> Result<(), ProvidersError> {
        let provider: Provider = self.commands.load(change.organization, change.provider.uuid()).await?;
        if provider.is_connected() {
            return Ok(());
        }
        Err(CommandError::Refused(ProviderError::NotFound).into())
    }

    /// Adds a provider's own destination and the route to it; returns the signing secret if it was just created.
    async fn set_in(
        &self,
        together: &mut Together<'_>,
        change: Change<'_>,
        wish: &Wish,
    ) -> Result<Option<SecretString>, ProvidersError> {
        let (destination, route) = own(change.provider);
        let organization = change.organization;
        let current: Destination = self.commands.load(organization, destination.uuid()).await?;
        let signing_secret = if current.outgoing().is_empty() { Some(new_signing_secret()?) } else { None };
        let values: Vec<SecretString> = signing_secret.iter().cloned().chain(wish.secret_headers()).collect();
        let mut new: Vec<SecretRef> = (current.next_version()..)
            .zip(&values)
            .map(|(secret_version, _)| SecretRef { secret_id: SecretId::default(), secret_version })
            .collect();
        let set = |current: &Destination, new: &[SecretRef]| {
            let outgoing = new.first().copied().filter(|_| signing_secret.is_some());
            let settings = wish.settings(current, new.last().copied());
            current.decide(DestinationCommand::Set { settings, outgoing })
        };
        // Fails early, before secrets are stored for a command that would be refused.
        set(&current, &new).map_err(CommandError::Refused)?;
        for (reference, value) in new.iter_mut().zip(&values) {
            let owner = SecretOwner::Destination(destination);
            reference.secret_id = self.vault.store(organization, owner, reference.secret_version, value).await?;
        }
        let mut was_there = false;
        let decide = |current: &Destination| {
            was_there = current.settings().is_some();
            set(current, &new)
        };
        together.add::<Destination>(destination.uuid(), decide).await?;
        let (name, provider_id) = (Label::new(ROUTE_NAME), change.provider);
        let settings = RouteSettings { name, provider_id, destination_id: destination };
        // The two come and go together.
        let decide = |route: &Route| if was_there { Ok(Vec::new()) } else { route.decide(RouteCommand::Set(settings)) };
        together.add::<Route>(route.uuid(), decide).await?;
        Ok(signing_secret)
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
            let owner = SecretOwner::Provider(provider);
            for (reference, secret) in new.iter_mut().zip(secrets) {
                reference.secret_id = self.vault.store(organization, owner, reference.secret_version, secret).await?;
            }
            let command = to_command(&current, &new);
            match self.commands.execute::<Provider>(organization, provider.uuid(), command, by).await {
                Err(CommandError::Refused(ProviderError::VersionTaken)) if tries < TRIES => tries += 1,
                result => return Ok(result?),
            }
        }
    }
}

/// A provider's own destination, and the route to it.
fn own(provider: ProviderId) -> (DestinationId, RouteId) {
    (DestinationId::of_provider(provider), RouteId::of_provider(provider))
}

fn not_appended(error: AppendError) -> ProvidersError {
    let error: CommandError<ProviderError> = match error {
        AppendError::Conflict => CommandError::Busy,
        AppendError::Overloaded | AppendError::OverLimit(_) => CommandError::Overloaded,
        AppendError::Failed => CommandError::Unavailable(error.to_string()),
    };
    error.into()
}

/// A signing secret for deliveries, in the format of Standard Webhooks.
pub fn new_signing_secret() -> Result<SecretString, KeyError> {
    Ok(SecretString::from(outgoing::secret(&random_bytes()?)))
}

fn judge(provider: ProviderName, secret: &SecretString, accept_simulator: bool) -> Result<(), ProvidersError> {
    check_secret(provider, secret.expose_secret(), accept_simulator)
        .map_err(|error| ProvidersError::Secret(error.to_string()))
}
