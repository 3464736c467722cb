//! Mutations of people: invitations, roles, sessions.

use async_graphql::{Context, Error, ID, InputObject, Object, SimpleObject};
use hookledger_aggregates::user::UserCommand;
use hookledger_aggregates::{OrganizationId, SessionId, UserId};
use hookledger_projections::users;

use super::SetActiveInput;
use crate::api::graphql::context::{App, Changed, tenant};
use crate::api::graphql::errors::{Code, identity, internal, not_found};
use crate::api::graphql::guards::named::{existing_organization, organization_id};
use crate::api::graphql::guards::rights::Viewer;
use crate::api::graphql::types::ids::NodeId;
use crate::api::graphql::types::user::{Role, Session, User};
use crate::identity::Authority;
use crate::log::{LogPosition, LogSpan, end_of_stream, events_of};
use crate::platform::rate::TooOften;

#[derive(InputObject)]
struct InviteUserInput {
    organization_id: ID,
    email: String,
    role: Role,
}

#[derive(InputObject)]
struct SetUserRoleInput {
    id: ID,
    role: Role,
}

#[derive(InputObject)]
struct EndSessionInput {
    id: ID,
}

#[derive(InputObject)]
struct EndUserSessionsInput {
    user_id: ID,
}

#[derive(SimpleObject)]
struct InviteUserPayload {
    user: User,
}

#[derive(SimpleObject)]
struct SetUserRolePayload {
    user: User,
}

#[derive(SimpleObject)]
struct SetUserActivePayload {
    user: User,
}

#[derive(SimpleObject)]
struct EndSessionPayload {
    session: Session,
}

#[derive(SimpleObject)]
struct EndUserSessionsPayload {
    user: User,
}

#[derive(Default)]
pub struct PeopleMutation;

#[Object]
impl PeopleMutation {
    /// For admins of the organization. Sends a mail with a link, also again to a person who has not joined.
    /// Only the owner of the address learns whether it belongs to a user elsewhere.
    async fn invite_user(&self, context: &Context<'_>, input: InviteUserInput) -> Result<InviteUserPayload, Error> {
        let (app, viewer) = (App::of(context)?, Viewer::of(context)?);
        let organization = organization_id(&input.organization_id)?;
        viewer.must_manage(organization)?;
        existing_organization(context, organization).await?;
        let address = app.accounts.claim(&input.email).map_err(identity)?;
        app.limits.invite(UserId::new(viewer.user.id), organization, address).map_err(too_many)?;
        let metadata = viewer.metadata();
        let invited = app.accounts.invite(organization, &input.email, input.role.into(), &metadata).await;
        let invited = invited.map_err(identity)?;
        let place = match invited.place {
            Some(place) => Some(place),
            // Somebody else may have invited the person just now.
            None => first_event(context, organization, invited.user).await?,
        };
        let user = user_after(context, organization, invited.user, place).await?;
        // The name of a person of another organization is not revealed.
        let by = viewer.user.email.clone().filter(|_| viewer.home() == organization);
        app.errands.invite(organization, invited.user, by).map_err(|_| {
            Code::Unavailable
                .error("The person was invited, but the email couldn't be sent. Invite them again to resend it.")
        })?;
        Ok(InviteUserPayload { user })
    }

    /// For admins of the organization. Only a super admin can change the role of its last active admin.
    async fn set_user_role(&self, context: &Context<'_>, input: SetUserRoleInput) -> Result<SetUserRolePayload, Error> {
        let user = change_user(context, &input.id, UserCommand::SetRole(input.role.into())).await?;
        Ok(SetUserRolePayload { user })
    }

    /// For admins of the organization. A deactivated user's sessions end at once. Only a super admin can
    /// deactivate the last active admin.
    async fn set_user_active(
        &self,
        context: &Context<'_>,
        input: SetActiveInput,
    ) -> Result<SetUserActivePayload, Error> {
        let user = change_user(context, &input.id, UserCommand::SetActive(input.is_active)).await?;
        Ok(SetUserActivePayload { user })
    }

    /// For the session's user, and for admins.
    async fn end_session(&self, context: &Context<'_>, input: EndSessionInput) -> Result<EndSessionPayload, Error> {
        let (app, viewer) = (App::of(context)?, Viewer::of(context)?);
        let Some(NodeId::Session(organization, id)) = NodeId::decode(&input.id) else { return Err(not_found()) };
        let session = existing_session(context, organization, id).await?;
        let user = UserId::new(session.user_id);
        let place = app.sessions.end(organization, user, id, &viewer.metadata()).await.map_err(identity)?;
        app.caught_up(Changed::User, place).await?;
        let row = find_session(context, organization, id).await?.ok_or_else(not_found)?;
        Ok(EndSessionPayload { session: Session { is_current: id == viewer.session, row } })
    }

    /// Ends all of a user's sessions. For the user, and for admins.
    async fn end_user_sessions(
        &self,
        context: &Context<'_>,
        input: EndUserSessionsInput,
    ) -> Result<EndUserSessionsPayload, Error> {
        let (app, viewer) = (App::of(context)?, Viewer::of(context)?);
        let (organization, id) = user_id(&input.user_id)?;
        if viewer.user.id != id.uuid() || viewer.home() != organization {
            viewer.must_manage(organization)?;
        }
        existing_user(context, organization, id).await?;
        let place = app.sessions.end_all(organization, id, &viewer.metadata()).await.map_err(identity)?;
        Ok(EndUserSessionsPayload { user: user_after(context, organization, id, place).await? })
    }
}

fn too_many(TooOften { retry_after }: TooOften) -> Error {
    Code::RateLimited.error(format!("Too many invitations. Try again in {retry_after} s."))
}

fn user_id(id: &ID) -> Result<(OrganizationId, UserId), Error> {
    match NodeId::decode(id) {
        Some(NodeId::User(organization, id)) => Ok((organization, id)),
        _ => Err(not_found()),
    }
}

/// Log position of a user's first event.
async fn first_event(
    context: &Context<'_>,
    organization: OrganizationId,
    user: UserId,
) -> Result<Option<LogPosition>, Error> {
    let mut tenant = tenant(context, organization).await?;
    let of_user = LogSpan { aggregate_id: Some(user.uuid()), ..LogSpan::default() };
    let first = events_of(&mut *tenant, organization, &of_user, 1).await.map_err(internal)?;
    Ok(first.first().map(|event| LogPosition { partition: event.partition, position: event.position }))
}

/// Changes a user; returns the user from the updated read models.
pub(crate) async fn change_user(context: &Context<'_>, id: &ID, change: UserCommand) -> Result<User, Error> {
    let (app, viewer) = (App::of(context)?, Viewer::of(context)?);
    let (organization, id) = user_id(id)?;
    viewer.must_manage(organization)?;
    existing_user(context, organization, id).await?;
    let authority = if viewer.is_super_admin() { Authority::Platform } else { Authority::Organization };
    let place = app.accounts.change(organization, id, change, authority, &viewer.metadata()).await.map_err(identity)?;
    let place = match place {
        Some(place) => Some(place),
        // The answer includes somebody else's change from a moment before.
        None => end_of_stream(&mut *tenant(context, organization).await?, organization, "user", id.uuid())
            .await
            .map_err(internal)?,
    };
    app.caught_up(Changed::User, place).await?;
    existing_user(context, organization, id).await.map(User)
}

async fn existing_user(context: &Context<'_>, organization: OrganizationId, id: UserId) -> Result<users::User, Error> {
    let mut tenant = tenant(context, organization).await?;
    users::find(&mut *tenant, organization, id).await.map_err(internal)?.ok_or_else(not_found)
}

/// Another user's session is reported as unknown, except to those who may end it.
async fn existing_session(
    context: &Context<'_>,
    organization: OrganizationId,
    id: SessionId,
) -> Result<crate::identity::Session, Error> {
    let viewer = Viewer::of(context)?;
    let session = find_session(context, organization, id).await?;
    let may_end = |session: &crate::identity::Session| {
        viewer.manages(organization) || (session.user_id == viewer.user.id && viewer.home() == organization)
    };
    session.filter(may_end).ok_or_else(|| viewer.refuse_as_unknown())
}

async fn find_session(
    context: &Context<'_>,
    organization: OrganizationId,
    id: SessionId,
) -> Result<Option<crate::identity::Session>, Error> {
    let mut tenant = tenant(context, organization).await?;
    crate::identity::Session::find(&mut *tenant, organization, id).await.map_err(internal)
}

async fn user_after(
    context: &Context<'_>,
    organization: OrganizationId,
    id: UserId,
    place: Option<LogPosition>,
) -> Result<User, Error> {
    App::of(context)?.caught_up(Changed::User, place).await?;
    existing_user(context, organization, id).await.map(User)
}
