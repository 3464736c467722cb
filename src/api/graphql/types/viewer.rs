//! The signed-in user.

use async_graphql::{Context, Error, Object};
use hookledger_aggregates::UserId;
use hookledger_projections::organizations;

use super::organization::Organization;
use super::user::{self, Session, User};
use crate::api::graphql::context::tenant;
use crate::api::graphql::errors::internal;
use crate::api::graphql::guards::rights::Viewer as Caller;

/// The signed-in user.
pub struct Viewer;

#[Object]
impl Viewer {
    async fn user(&self, context: &Context<'_>) -> Result<User, Error> {
        Ok(User(Caller::of(context)?.user.clone()))
    }

    async fn is_super_admin(&self, context: &Context<'_>) -> Result<bool, Error> {
        Ok(Caller::of(context)?.is_super_admin())
    }

    /// The viewer's own organization; null for super admins.
    async fn organization(&self, context: &Context<'_>) -> Result<Option<Organization>, Error> {
        let home = Caller::of(context)?.home();
        let mut tenant = tenant(context, home).await?;
        let row = organizations::find(&mut *tenant, home).await.map_err(internal)?;
        Ok(row.map(Organization))
    }

    /// The viewer's sessions, newest first.
    async fn sessions(&self, context: &Context<'_>) -> Result<Vec<Session>, Error> {
        let viewer = Caller::of(context)?;
        user::sessions(context, viewer.home(), UserId::new(viewer.user.id)).await
    }
}
