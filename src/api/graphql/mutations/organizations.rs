//! Creating and changing organizations.

use async_graphql::{Context, Error, ID, InputObject, MaybeUndefined, Object, SimpleObject};
use hookledger_aggregates::OrganizationId;
use hookledger_aggregates::organization::{Organization as Aggregate, OrganizationCommand, OrganizationError, Slug};
use hookledger_projections::organizations;

use super::SetActiveInput;
use crate::api::graphql::context::{App, Changed, tenant};
use crate::api::graphql::errors::{Code, command, internal, not_found};
use crate::api::graphql::guards::named::organization_id;
use crate::api::graphql::guards::rights::Viewer;
use crate::api::graphql::types::organization::{Organization, Plan};

#[derive(InputObject)]
struct CreateOrganizationInput {
    name: String,
    /// 1 to 100 of a-z, 0-9 and -; cannot be changed later.
    slug: String,
    plan: Option<Plan>,
    /// Accepted webhooks per month. Defaults to the plan's limit; null for unlimited.
    webhook_limit: MaybeUndefined<i32>,
}

#[derive(InputObject)]
struct UpdateOrganizationInput {
    id: ID,
    name: Option<String>,
    plan: Option<Plan>,
    /// Unchanged if omitted, or a new plan's limit; null for unlimited.
    webhook_limit: MaybeUndefined<i32>,
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

/// Organizations.
#[derive(Default)]
pub struct OrganizationMutation;

#[Object]
impl OrganizationMutation {
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

    /// For super admins. A deactivated organization refuses its webhooks, and its users' sessions end at
    /// once.
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
}

/// Omitted, unlimited, or a non-negative number.
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
