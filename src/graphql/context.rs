//! What resolvers work with: the application, and who is asking.

use std::time::Duration;

use async_graphql::{Context, Error};
use hookledger_aggregates::user::Role;
use hookledger_aggregates::{Actor, Metadata, OrganizationId, SessionId, UserId};
use hookledger_projections::users;

use super::errors::{Code, internal, not_found};
use crate::changes::{Changes, Ticks};
use crate::directory::Directory;
use crate::follow::Checkpoints;
use crate::log::{Commands, LogPosition};
use crate::secrets::vault::Vault;
use crate::store::{Tenant, Tenants};

/// How long a mutation waits for its read models.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(5);

/// What resolvers read from and write to.
#[derive(Clone)]
pub struct App {
    /// For every read: see [`tenant`].
    pub tenants: Tenants,
    pub commands: Commands,
    pub checkpoints: Checkpoints,
    pub directory: Directory,
    pub vault: Vault,
    pub base_url: String,
    pub changes: Changes,
    pub ticks: Ticks,
}

impl App {
    pub(super) fn of<'a>(context: &Context<'a>) -> Result<&'a Self, Error> {
        context.data()
    }

    /// Waits until the read models, and this node's directory, know of a change.
    pub(super) async fn caught_up(&self, projections: &[&str], place: Option<LogPosition>) -> Result<(), Error> {
        let Some(place) = place else { return Ok(()) };
        let models = self.checkpoints.wait_for(projections, place, CATCH_UP_LIMIT);
        let directory = tokio::time::timeout(CATCH_UP_LIMIT, self.directory.wait_for(place));
        let (models, directory) = tokio::join!(models, directory);
        if models.map_err(internal)? && directory.is_ok() {
            return Ok(());
        }
        Err(Code::Unavailable.error("the change is recorded, and will show as soon as the read models caught up"))
    }
}

/// A connection for the viewer's reads of an organization, which shows no other's rows.
pub(super) async fn tenant(context: &Context<'_>, organization: OrganizationId) -> Result<Tenant, Error> {
    let confined = Viewer::of(context)?.confined(organization);
    App::of(context)?.tenants.of(confined).await.map_err(internal)
}

/// A connection for what super admins ask of all organizations at once.
pub(super) async fn everybody(context: &Context<'_>) -> Result<Tenant, Error> {
    Viewer::of(context)?.must_be_super_admin()?;
    App::of(context)?.tenants.everybody().await.map_err(internal)
}

/// Who is asking.
#[derive(Clone, Debug)]
pub struct Viewer {
    pub user: users::User,
    pub session: SessionId,
    /// The client's address.
    pub client: String,
}

impl Viewer {
    pub(super) fn of<'a>(context: &Context<'a>) -> Result<&'a Self, Error> {
        // HTTP lets nobody in without a session; this is the second door.
        context.data_opt().ok_or_else(|| Code::Unauthenticated.error("sign in first"))
    }

    pub(super) fn is_super_admin(&self) -> bool {
        self.user.role == Role::SuperAdmin.as_str() && self.home() == OrganizationId::PLATFORM
    }

    /// The viewer's own organization; the platform for super admins.
    pub(super) fn home(&self) -> OrganizationId {
        OrganizationId::new(self.user.organization_id)
    }

    /// Whether the viewer may see what is this organization's.
    pub(super) fn sees(&self, organization: OrganizationId) -> bool {
        self.is_super_admin() || (self.home() == organization && organization != OrganizationId::PLATFORM)
    }

    /// Whether an earlier look at the same session found the same rights.
    pub(crate) fn has_rights_of(&self, earlier: &Self) -> bool {
        (self.user.id, self.user.organization_id, &self.user.role, self.session)
            == (earlier.user.id, earlier.user.organization_id, &earlier.user.role, earlier.session)
    }

    /// Which organization's rows the database shows, when one's are asked for: to anybody but super
    /// admins their own alone, whatever a resolver forgot to check.
    pub(super) fn confined(&self, organization: OrganizationId) -> OrganizationId {
        if self.is_super_admin() { organization } else { self.home() }
    }

    /// Lets super admins and the organization's own admins pass. Who may not see it learns as much
    /// as from an id that nobody has.
    pub(super) fn must_manage(&self, organization: OrganizationId) -> Result<(), Error> {
        if !self.sees(organization) {
            return Err(not_found());
        }
        if self.is_super_admin() || self.user.role == Role::Admin.as_str() {
            return Ok(());
        }
        Err(Code::Forbidden.error("only an admin of the organization may do this"))
    }

    pub(super) fn must_be_super_admin(&self) -> Result<(), Error> {
        if self.is_super_admin() { Ok(()) } else { Err(Code::Forbidden.error("only a super admin may do this")) }
    }

    /// The circumstances of what the viewer does.
    pub(super) fn metadata(&self) -> Metadata {
        Metadata {
            actor: Actor::User(UserId::new(self.user.id)),
            client: Some(self.client.clone()),
            session: Some(self.session),
        }
    }
}
