//! What people change. Each mutation checks who asks, runs one command, waits until the read models
//! know of it, and answers with what it changed.

use async_graphql::{Context, Error, ID, InputObject, MaybeUndefined, Object, SimpleObject};
use chrono::Utc;
use hookledger_aggregates::organization::{Organization as Aggregate, OrganizationCommand, OrganizationError, Slug};
use hookledger_aggregates::provider::{ProviderCommand, ProviderError};
use hookledger_aggregates::signature::{Opinion, SIMULATOR_SENTENCE, judge_secret};
use hookledger_aggregates::{Metadata, OrganizationId, ProviderId, ProviderName as Name};
use hookledger_projections::{organizations, webhook_providers};
use secrecy::{ExposeSecret as _, SecretString};

use super::context::{App, Changed, Viewer, tenant};
use super::destination;
use super::errors::{Code, command, internal, not_found};
use super::ids::NodeId;
use super::organization::{Organization, Plan};
use super::provider::{ProviderName, WebhookProvider};
use super::query::existing_organization;
use crate::log::LogPosition;
use crate::providers::{Change, Providers, ProvidersError, Replacement};

#[derive(InputObject)]
struct CreateOrganizationInput {
    name: String,
    /// 1 to 100 of a-z, 0-9 and -; fixed once made.
    slug: String,
    plan: Option<Plan>,
    /// Accepted webhooks per month. Left out: the plan's; null: unlimited.
    webhook_limit: MaybeUndefined<i32>,
}

#[derive(InputObject)]
struct UpdateOrganizationInput {
    id: ID,
    name: Option<String>,
    plan: Option<Plan>,
    /// Left out: unchanged, or a new plan's; null: unlimited.
    webhook_limit: MaybeUndefined<i32>,
}

#[derive(InputObject)]
pub(super) struct SetActiveInput {
    pub(super) id: ID,
    pub(super) is_active: bool,
}

#[derive(InputObject)]
struct ConnectProviderInput {
    organization_id: ID,
    provider_name: ProviderName,
    /// The service's signing secret; for PayPal, the webhook id that PayPal shows. It is never shown again.
    secret: String,
    /// Where its webhooks are forwarded to, an https URL; left out: recording them is the processing.
    destination_url: Option<String>,
}

#[derive(InputObject)]
struct RotateProviderSecretInput {
    provider_id: ID,
    secret: String,
    /// How long the earlier secrets still verify; a day when left out, at most 30.
    grace_seconds: Option<i32>,
    /// The version that the new secret replaces. Needed where several secrets stay, which the others then do.
    replaces_version: Option<i32>,
}

#[derive(InputObject)]
struct AddProviderSecretInput {
    provider_id: ID,
    secret: String,
    /// What tells it from the others, 1 to 64 characters.
    label: String,
    /// Accepts what PayPal's webhooks simulator sends, whose webhook id is `WEBHOOK_ID`. Anyone with a PayPal
    /// account can send such webhooks.
    accept_simulator: Option<bool>,
}

#[derive(InputObject)]
struct LabelProviderSecretInput {
    provider_id: ID,
    version: i32,
    label: String,
}

#[derive(InputObject)]
struct RevokeProviderSecretInput {
    provider_id: ID,
    version: i32,
}

#[derive(InputObject)]
struct CheckProviderSecretInput {
    provider_name: ProviderName,
    secret: String,
}

#[derive(SimpleObject)]
struct AddProviderSecretPayload {
    provider: WebhookProvider,
}

#[derive(SimpleObject)]
struct LabelProviderSecretPayload {
    provider: WebhookProvider,
}

#[derive(SimpleObject)]
struct RevokeProviderSecretPayload {
    provider: WebhookProvider,
}

/// What there is to say of a text as a signing secret.
#[derive(SimpleObject)]
struct CheckProviderSecretPayload {
    /// Why it would be refused.
    refused: Option<&'static str>,
    /// Why it may be the wrong one, though it would be taken.
    doubtful: Option<&'static str>,
    /// It is what PayPal's simulator signs with: taken only with `acceptSimulator`.
    is_simulator: bool,
}

#[derive(InputObject)]
struct DeleteProviderInput {
    id: ID,
}

#[derive(SimpleObject)]
struct CreateOrganizationPayload {
    organization: Organization,
}

#[derive(SimpleObject)]
struct UpdateOrganizationPayload {
    organization: Organization,
}

#[derive(SimpleObject)]
struct SetOrganizationActivePayload {
    organization: Organization,
}

#[derive(SimpleObject)]
struct ConnectProviderPayload {
    provider: WebhookProvider,
    /// The secret that signs deliveries, where a destination was set. It is never shown again.
    signing_secret: Option<String>,
}

#[derive(SimpleObject)]
struct RotateProviderSecretPayload {
    provider: WebhookProvider,
}

#[derive(SimpleObject)]
struct SetProviderActivePayload {
    provider: WebhookProvider,
}

#[derive(SimpleObject)]
struct DeleteProviderPayload {
    provider: WebhookProvider,
}

/// Organizations and their providers.
#[derive(Default)]
pub struct SettingsMutation;

#[Object]
impl SettingsMutation {
    /// For super admins.
    async fn create_organization(
        &self,
        context: &Context<'_>,
        input: CreateOrganizationInput,
    ) -> Result<CreateOrganizationPayload, Error> {
        Viewer::of(context)?.must_be_super_admin()?;
        let slug: Slug = input.slug.parse().map_err(refused_input)?;
        let id = OrganizationId::from_slug(slug.as_str());
        let plan: hookledger_aggregates::organization::Plan = input.plan.map(Into::into).unwrap_or_default();
        let webhook_limit = limit(input.webhook_limit)?.unwrap_or_else(|| plan.webhook_limit());
        let name = input.name.parse().map_err(refused_input)?;
        let organization =
            change_organization(context, id, OrganizationCommand::Create { name, slug, plan, webhook_limit }).await?;
        Ok(CreateOrganizationPayload { organization })
    }

    /// For super admins.
    async fn update_organization(
        &self,
        context: &Context<'_>,
        input: UpdateOrganizationInput,
    ) -> Result<UpdateOrganizationPayload, Error> {
        Viewer::of(context)?.must_be_super_admin()?;
        let id = organization_id(&input.id)?;
        let name = input.name.as_deref().map(str::parse).transpose().map_err(refused_input)?;
        let plan = input.plan.map(Into::into);
        let webhook_limit = limit(input.webhook_limit)?;
        let organization =
            change_organization(context, id, OrganizationCommand::Update { name, plan, webhook_limit }).await?;
        Ok(UpdateOrganizationPayload { organization })
    }

    /// For super admins. A deactivated organization refuses its webhooks, and its users' sessions end
    /// at once.
    async fn set_organization_active(
        &self,
        context: &Context<'_>,
        input: SetActiveInput,
    ) -> Result<SetOrganizationActivePayload, Error> {
        Viewer::of(context)?.must_be_super_admin()?;
        let id = organization_id(&input.id)?;
        let organization = change_organization(context, id, OrganizationCommand::SetActive(input.is_active)).await?;
        Ok(SetOrganizationActivePayload { organization })
    }

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
        let wish = input.destination_url.map(|url| destination::plain(app, &url)).transpose()?;
        let (id, by) = (ProviderId::derive(organization, provider_name), viewer.metadata());
        let change = Change { organization, provider: id, by: &by };
        let mut last = app.providers.connect(change, provider_name, input.secret.into()).await.map_err(refused)?;
        let mut signing_secret = None;
        if let Some(wish) = wish {
            let set = app.providers.set_destination(change, wish).await.map_err(refused)?;
            (last, signing_secret) = (set.last, set.signing_secret);
        }
        let provider = provider_after(context, organization, id, last).await?;
        Ok(ConnectProviderPayload { provider, signing_secret: signing_secret.map(|secret| shown_once(&secret)) })
    }

    /// For admins of the organization. Earlier secrets verify until their grace period ends.
    async fn rotate_provider_secret(
        &self,
        context: &Context<'_>,
        input: RotateProviderSecretInput,
    ) -> Result<RotateProviderSecretPayload, Error> {
        let managed = Managed::of(context, &input.provider_id).await?;
        let version = input.replaces_version.map(version).transpose()?;
        let replacement = Replacement { grace_seconds: input.grace_seconds, version };
        let rotated = managed
            .providers()
            .rotate_secret(managed.change(), managed.name()?, input.secret.into(), replacement)
            .await;
        Ok(RotateProviderSecretPayload { provider: managed.after(context, rotated.map_err(refused)?).await? })
    }

    /// For admins of the organization. The secret verifies beside the others until somebody revokes it: two
    /// endpoints of a service can send to one URL.
    async fn add_provider_secret(
        &self,
        context: &Context<'_>,
        input: AddProviderSecretInput,
    ) -> Result<AddProviderSecretPayload, Error> {
        let managed = Managed::of(context, &input.provider_id).await?;
        let (secret, accept) = (input.secret.into(), input.accept_simulator.unwrap_or_default());
        let added =
            managed.providers().add_secret(managed.change(), managed.name()?, secret, &input.label, accept).await;
        Ok(AddProviderSecretPayload { provider: managed.after(context, added.map_err(refused)?).await? })
    }

    /// For admins of the organization.
    async fn label_provider_secret(
        &self,
        context: &Context<'_>,
        input: LabelProviderSecretInput,
    ) -> Result<LabelProviderSecretPayload, Error> {
        let command = ProviderCommand::LabelSecret { version: version(input.version)?, label: input.label };
        Ok(LabelProviderSecretPayload { provider: change_provider(context, &input.provider_id, command).await? })
    }

    /// For admins of the organization. The secret verifies no longer, at once. The last one cannot be revoked.
    async fn revoke_provider_secret(
        &self,
        context: &Context<'_>,
        input: RevokeProviderSecretInput,
    ) -> Result<RevokeProviderSecretPayload, Error> {
        let command = ProviderCommand::RevokeSecret { version: version(input.version)?, now: Utc::now() };
        Ok(RevokeProviderSecretPayload { provider: change_provider(context, &input.provider_id, command).await? })
    }

    /// For everybody who is signed in. Says whether a secret would be taken, and keeps nothing. A mutation, so that
    /// no secret is in a URL or a cache.
    async fn check_provider_secret(
        &self,
        context: &Context<'_>,
        input: CheckProviderSecretInput,
    ) -> Result<CheckProviderSecretPayload, Error> {
        Viewer::of(context)?;
        let mut said = CheckProviderSecretPayload { refused: None, doubtful: None, is_simulator: false };
        match judge_secret(input.provider_name.into(), &input.secret) {
            Opinion::Fine => {}
            Opinion::Doubtful(sentence) => said.doubtful = Some(sentence),
            Opinion::Refused(sentence) => said.refused = Some(sentence),
            Opinion::Simulator => (said.refused, said.is_simulator) = (Some(SIMULATOR_SENTENCE), true),
        }
        Ok(said)
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
        let provider = change_provider(context, &input.id, ProviderCommand::Delete).await?;
        Ok(DeleteProviderPayload { provider })
    }
}

pub(super) fn organization_id(id: &ID) -> Result<OrganizationId, Error> {
    match NodeId::decode(id) {
        Some(NodeId::Organization(id)) => Ok(id),
        _ => Err(not_found()),
    }
}

pub(super) fn provider_id(id: &ID) -> Result<(OrganizationId, ProviderId), Error> {
    match NodeId::decode(id) {
        Some(NodeId::Provider(organization, id)) if id.belongs_to(organization) => Ok((organization, id)),
        _ => Err(not_found()),
    }
}

/// A secret's version.
fn version(version: i32) -> Result<u32, Error> {
    u32::try_from(version).map_err(|_| Code::BadUserInput.error("A version must be 1 or more."))
}

/// Left out, unlimited, or a number that is not negative.
fn limit(limit: MaybeUndefined<i32>) -> Result<Option<Option<u32>>, Error> {
    match limit {
        MaybeUndefined::Undefined => Ok(None),
        MaybeUndefined::Null => Ok(Some(None)),
        MaybeUndefined::Value(limit) => u32::try_from(limit)
            .map(|limit| Some(Some(limit)))
            .map_err(|_| Code::BadUserInput.error("`webhookLimit` must be 0 or more, or null for unlimited.")),
    }
}

fn refused_input(error: OrganizationError) -> Error {
    Code::BadUserInput.error(error.to_string())
}

async fn change_organization(
    context: &Context<'_>,
    id: OrganizationId,
    change: OrganizationCommand,
) -> Result<Organization, Error> {
    let (app, viewer) = (App::of(context)?, Viewer::of(context)?);
    let place = app.commands.execute::<Aggregate>(id, id.uuid(), change, &viewer.metadata()).await;
    let place = place.map_err(|error| {
        command(error, |refused| match refused {
            OrganizationError::AlreadyExists => Code::Conflict,
            OrganizationError::NotFound => Code::NotFound,
            OrganizationError::BadName | OrganizationError::BadSlug => Code::BadUserInput,
        })
    })?;
    app.caught_up(Changed::Organization, place).await?;
    let mut tenant = tenant(context, id).await?;
    organizations::find(&mut *tenant, id).await.map_err(internal)?.map(Organization).ok_or_else(not_found)
}

async fn change_provider(context: &Context<'_>, id: &ID, command: ProviderCommand) -> Result<WebhookProvider, Error> {
    let managed = Managed::of(context, id).await?;
    let changed = managed.providers().change(managed.change(), command).await;
    managed.after(context, changed.map_err(refused)?).await
}

/// A provider that is there, and that the viewer may change.
pub(super) struct Managed<'a> {
    app: &'a App,
    pub(super) organization: OrganizationId,
    pub(super) id: ProviderId,
    row: webhook_providers::WebhookProvider,
    by: Metadata,
}

impl<'a> Managed<'a> {
    pub(super) async fn of(context: &Context<'a>, id: &ID) -> Result<Self, Error> {
        let (app, viewer) = (App::of(context)?, Viewer::of(context)?);
        let (organization, id) = provider_id(id)?;
        viewer.must_manage(organization)?;
        let row = existing_provider(context, organization, id).await?;
        Ok(Self { app, organization, id, row, by: viewer.metadata() })
    }

    pub(super) fn app(&self) -> &'a App {
        self.app
    }

    pub(super) fn providers(&self) -> &'a Providers {
        &self.app.providers
    }

    pub(super) fn change(&self) -> Change<'_> {
        Change { organization: self.organization, provider: self.id, by: &self.by }
    }

    fn name(&self) -> Result<Name, Error> {
        self.row.provider_name.parse().map_err(internal)
    }

    pub(super) async fn after(
        &self,
        context: &Context<'_>,
        last: Option<LogPosition>,
    ) -> Result<WebhookProvider, Error> {
        provider_after(context, self.organization, self.id, last).await
    }
}

/// What a refused or failed change of a provider means to who asked for it.
pub(super) fn refused(error: ProvidersError) -> Error {
    match error {
        ProvidersError::Secret(sentence) => Code::BadUserInput.error(sentence),
        ProvidersError::Command(error) => command(error, provider_refusal),
        ProvidersError::Vault(_) | ProvidersError::Random(_) => internal(error),
    }
}

/// A secret for the one answer that shows it.
pub(super) fn shown_once(secret: &SecretString) -> String {
    secret.expose_secret().to_owned()
}

fn provider_refusal(error: &ProviderError) -> Code {
    match error {
        ProviderError::AlreadyConnected
        | ProviderError::VersionTaken
        | ProviderError::LastSecret
        | ProviderError::TooManySecrets => Code::Conflict,
        ProviderError::NotFound | ProviderError::NoSuchSecret(_) => Code::NotFound,
        ProviderError::BadGrace
        | ProviderError::BadLabel
        | ProviderError::ReplacesWhich
        | ProviderError::BadConcurrency
        | ProviderError::BadTimeout
        | ProviderError::NoDestination => Code::BadUserInput,
    }
}

pub(super) async fn existing_provider(
    context: &Context<'_>,
    organization: OrganizationId,
    id: ProviderId,
) -> Result<webhook_providers::WebhookProvider, Error> {
    let mut tenant = tenant(context, organization).await?;
    let rows = webhook_providers::find_many(&mut *tenant, organization, &[id]).await.map_err(internal)?;
    rows.into_iter().next().ok_or_else(not_found)
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
