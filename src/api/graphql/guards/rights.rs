//! The rights of the person who asks: what they may see and change.

use std::ops::Deref;

use async_graphql::parser::types::OperationType;
use async_graphql::{Context, Error};
use hookledger_aggregates::user::Role;
use hookledger_aggregates::{Metadata, OrganizationId, SessionId, UserId};
use hookledger_projections::users;

use crate::api::graphql::context::App;
use crate::api::graphql::errors::{Code, not_found};
use crate::identity::{Client, Refusals};
use crate::platform::store::Asker;

/// The signed-in user.
#[derive(Clone, Debug)]
pub struct Viewer {
    pub user: users::User,
    pub session: SessionId,
    pub client: Client,
}

/// The viewer and the requested field: checks permissions, and records refused mutations.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    viewer: &'a Viewer,
    refusals: Option<&'a Refusals>,
    field: &'a str,
}

impl Deref for Asking<'_> {
    type Target = Viewer;
    fn deref(&self) -> &Viewer {
        self.viewer
    }
}

impl Viewer {
    pub(crate) fn of<'a>(context: &Context<'a>) -> Result<Asking<'a>, Error> {
        // HTTP already requires a session; this is a second check.
        let viewer = context.data_opt().ok_or_else(|| Code::Unauthenticated.error("Sign in first."))?;
        let is_mutation = context.query_env.operation.node.ty == OperationType::Mutation;
        let refusals = context.data_opt::<App>().filter(|_| is_mutation).map(|app| &app.refusals);
        Ok(Asking { viewer, refusals, field: context.item.node.name.node.as_str() })
    }

    #[must_use]
    pub fn is_super_admin(&self) -> bool {
        self.user.role == Role::SuperAdmin.as_str() && self.home() == OrganizationId::PLATFORM
    }

    /// The viewer's own organization; the platform for super admins.
    #[must_use]
    pub fn home(&self) -> OrganizationId {
        OrganizationId::new(self.user.organization_id)
    }

    /// The group of reads that the viewer's reads wait among.
    #[must_use]
    pub fn asker(&self) -> Asker {
        Asker::Person(self.home(), UserId::new(self.user.id))
    }

    /// Whether the viewer may see this organization.
    #[must_use]
    pub fn sees(&self, organization: OrganizationId) -> bool {
        self.is_super_admin() || (self.home() == organization && organization != OrganizationId::PLATFORM)
    }

    /// Whether an earlier look at the same session found the same permissions.
    pub(crate) fn has_rights_of(&self, earlier: &Self) -> bool {
        (self.user.id, self.user.organization_id, &self.user.role, self.session)
            == (earlier.user.id, earlier.user.organization_id, &earlier.user.role, earlier.session)
    }

    /// The organization whose rows the database shows for a request about `organization`: for anybody but
    /// super admins always their own, whatever a resolver forgot to check.
    pub(crate) fn confined(&self, organization: OrganizationId) -> OrganizationId {
        if self.is_super_admin() { organization } else { self.home() }
    }

    /// Whether the viewer is an admin of this organization, or a super admin.
    #[must_use]
    pub fn manages(&self, organization: OrganizationId) -> bool {
        self.is_super_admin() || (self.sees(organization) && self.user.role == Role::Admin.as_str())
    }

    /// Metadata of the viewer's actions.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        self.client.clone().metadata(UserId::new(self.user.id), Some(self.session))
    }
}

impl Asking<'_> {
    /// Requires a super admin or an admin of the organization. To viewers who may not see it, the answer is
    /// the same as for an unknown ID.
    pub(crate) fn must_manage(&self, organization: OrganizationId) -> Result<(), Error> {
        if !self.sees(organization) {
            return Err(self.refuse_as_unknown());
        }
        if self.manages(organization) {
            return Ok(());
        }
        Err(self.forbidden("Only an admin of the organization can do this."))
    }

    pub(crate) fn must_be_super_admin(&self) -> Result<(), Error> {
        if self.is_super_admin() { Ok(()) } else { Err(self.forbidden("Only a super admin can do this.")) }
    }

    /// Refuses an existing object as if it did not exist.
    pub(crate) fn refuse_as_unknown(&self) -> Error {
        self.note_refusal();
        not_found()
    }

    fn forbidden(&self, sentence: &'static str) -> Error {
        self.note_refusal();
        Code::Forbidden.error(sentence)
    }

    /// The field's own name, regardless of aliases.
    fn note_refusal(&self) {
        if let Some(refusals) = self.refusals {
            refusals.action(self.home(), UserId::new(self.user.id), self.field, &self.metadata());
        }
    }
}
