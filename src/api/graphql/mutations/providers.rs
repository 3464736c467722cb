//! Connecting and changing providers.

use async_graphql::{Context, Error, ID, InputObject, Object, SimpleObject};
use hookledger_aggregates::destination::DestinationError;
use hookledger_aggregates::provider::{ProviderCommand, ProviderError};
use hookledger_aggregates::route::RouteError;
use hookledger_aggregates::{Metadata, OrganizationId, ProviderId, ProviderName as Name};
use hookledger_projections::webhook_providers;
use secrecy::{ExposeSecret as _, SecretString};

use super::{SetActiveInput, destinations};
use crate::api::graphql::context::{App, Changed};
use crate::api::graphql::errors::{Code, command, internal};
use crate::api::graphql::guards::named::{existing_organization, existing_provider, organization_id, provider_id};
use crate::api::graphql::guards::rights::Viewer;
use crate::api::graphql::types::provider::{ProviderName, WebhookProvider};
use crate::log::LogPosition;
use crate::providers::{Change, Providers, ProvidersError};

#[derive(InputObject)]
struct ConnectProviderInput {
    organization_id: ID,
    provider_name: ProviderName,
    /// The service's signing secret; for PayPal, the webhook ID that PayPal shows. It is never shown again.
    secret: String,
    /// An https URL that its webhooks are forwarded to; if omitted, webhooks are only stored.
    destination_url: Option<String>,
}

#[derive(InputObject)]
struct DeleteProviderInput {
    id: ID,
}

#[derive(SimpleObject)]
struct ConnectProviderPayload {
    provider: WebhookProvider,
    /// The secret that signs deliveries, if a destination was set. It is never shown again.
    signing_secret: Option<String>,
}

#[derive(SimpleObject)]
struct SetProviderActivePayload {
    provider: WebhookProvider,
}

#[derive(SimpleObject)]
struct DeleteProviderPayload {
    provider: WebhookProvider,
}

/// Providers.
#[derive(Default)]
pub struct ProviderMutation;

#[Object]
impl ProviderMutation {
    /// For admins of the organization.
    async fn connect_provider(
        &self,
        context: &Context<'_>,
        input: ConnectProviderInput,
    ) -> Result<ConnectProviderPayload, Error> {
        let viewer = Viewer::of(context)?;
        let organization = organization_id(&input.organization_id)?;
        viewer.must_manage(organization)?;
        existing_organization(context, organization).await?;
        let (app, provider_name) = (App::of(context)?, input.provider_name.into());
        let wish = input.destination_url.map(|url| destinations::plain(app, &url)).transpose()?;
        let (id, by) = (ProviderId::derive(organization, provider_name), viewer.metadata());
        let change = Change { organization, provider: id, by: &by };
        let set = app.providers.connect(change, provider_name, input.secret.into(), wish).await.map_err(refused)?;
        let provider = provider_after(context, organization, id, set.last).await?;
        Ok(ConnectProviderPayload { provider, signing_secret: set.signing_secret.as_ref().map(shown_once) })
    }

    /// For admins of the organization. An inactive provider refuses its webhooks.
    async fn set_provider_active(
        &self,
        context: &Context<'_>,
        input: SetActiveInput,
    ) -> Result<SetProviderActivePayload, Error> {
        let provider = change_provider(context, &input.id, ProviderCommand::SetActive(input.is_active)).await?;
        Ok(SetProviderActivePayload { provider })
    }

    /// For admins of the organization. Its webhooks and their history stay.
    async fn delete_provider(
        &self,
        context: &Context<'_>,
        input: DeleteProviderInput,
    ) -> Result<DeleteProviderPayload, Error> {
        let managed = Managed::of(context, &input.id).await?;
        let deleted = managed.providers().delete(managed.change()).await;
        let provider = managed.after(context, deleted.map_err(refused)?).await?;
        Ok(DeleteProviderPayload { provider })
    }
}

pub(crate) async fn change_provider(
    context: &Context<'_>,
    id: &ID,
    command: ProviderCommand,
) -> Result<WebhookProvider, Error> {
    let managed = Managed::of(context, id).await?;
    let changed = managed.providers().change(managed.change(), command).await;
    managed.after(context, changed.map_err(refused)?).await
}

/// An existing provider that the viewer may change.
pub(crate) struct Managed<'a> {
    app: &'a App,
    pub(crate) organization: OrganizationId,
    pub(crate) id: ProviderId,
    row: webhook_providers::WebhookProvider,
    by: Metadata,
}

impl<'a> Managed<'a> {
    pub(crate) async fn of(context: &Context<'a>, id: &ID) -> Result<Self, Error> {
        let (app, viewer) = (App::of(context)?, Viewer::of(context)?);
        let (organization, id) = provider_id(id)?;
        viewer.must_manage(organization)?;
        let row = existing_provider(context, organization, id).await?;
        Ok(Self { app, organization, id, row, by: viewer.metadata() })
    }

    pub(crate) fn app(&self) -> &'a App {
        self.app
    }

    pub(crate) fn providers(&self) -> &'a Providers {
        &self.app.providers
    }

    pub(crate) fn change(&self) -> Change<'_> {
        Change { organization: self.organization, provider: self.id, by: &self.by }
    }

    pub(super) fn name(&self) -> Result<Name, Error> {
        self.row.provider_name.parse().map_err(internal)
    }

    pub(crate) async fn after(
        &self,
        context: &Context<'_>,
        last: Option<LogPosition>,
    ) -> Result<WebhookProvider, Error> {
        provider_after(context, self.organization, self.id, last).await
    }
}

/// The error for a refused or failed change of a provider.
pub(crate) fn refused(error: ProvidersError) -> Error {
    match error {
        ProvidersError::Secret(sentence) => Code::BadUserInput.error(sentence),
        ProvidersError::Command(error) => command(error, provider_refusal),
        ProvidersError::Destination(error) => command(error, destination_refusal),
        ProvidersError::Route(error) => command(error, route_refusal),
        ProvidersError::Vault(_) | ProvidersError::Random(_) => internal(error),
    }
}

/// A secret for the only answer that shows it.
pub(crate) fn shown_once(secret: &SecretString) -> String {
    secret.expose_secret().to_owned()
}

fn provider_refusal(error: &ProviderError) -> Code {
    match error {
        ProviderError::AlreadyConnected
        | ProviderError::VersionTaken
        | ProviderError::LastSecret
        | ProviderError::TooManySecrets => Code::Conflict,
        ProviderError::NotFound | ProviderError::NoSuchSecret(_) => Code::NotFound,
        ProviderError::BadGrace | ProviderError::BadLabel | ProviderError::ReplacesWhich => Code::BadUserInput,
    }
}

fn destination_refusal(error: &DestinationError) -> Code {
    match error {
        DestinationError::VersionTaken | DestinationError::TooManySigning => Code::Conflict,
        DestinationError::NotFound => Code::NotFound,
        DestinationError::BadName
        | DestinationError::BadConcurrency
        | DestinationError::BadTimeout
        | DestinationError::BadGrace => Code::BadUserInput,
    }
}

fn route_refusal(error: &RouteError) -> Code {
    match error {
        RouteError::TooManyRoutes => Code::Conflict,
        RouteError::NotFound => Code::NotFound,
        RouteError::BadName | RouteError::OtherProvider => Code::BadUserInput,
    }
}

async fn provider_after(
    context: &Context<'_>,
    organization: OrganizationId,
    id: ProviderId,
    place: Option<LogPosition>,
) -> Result<WebhookProvider, Error> {
    App::of(context)?.caught_up(Changed::Provider, place).await?;
    existing_provider(context, organization, id).await.map(WebhookProvider)
}
