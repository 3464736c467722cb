//! The audit trail.

use async_graphql::connection::{Connection, EmptyFields};
use async_graphql::{Context, Error, ID, InputObject, Json, Object};
use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, UserId};
use hookledger_projections::audit_logs;
use uuid::Uuid;

use super::ids::{List, NodeId, decode_cursor, encode_cursor};
use super::organization::Organization;
use super::paging::{Cursor, Window, connection};
use super::position::LogPosition;
use super::time::Time;
use super::user::User;
use crate::api::graphql::context::{everybody, tenant};
use crate::api::graphql::errors::{Code, unread};
use crate::api::graphql::rows::{OrganizationOf, UserOf, load};

/// Maximum length of an action or a resource type, in characters.
const MAX_NAME: usize = 100;

/// Filters audit entries; omitted fields match everything.
#[derive(Default, InputObject)]
pub struct AuditFilter {
    /// ID of the user who did it.
    user_id: Option<ID>,
    /// Such as `created`, `updated`, `signed_in`.
    action: Option<String>,
    /// Such as `organization`, `user`, `provider`, `webhook`.
    resource_type: Option<String>,
    resource_id: Option<Uuid>,
    /// At this time or later.
    from: Option<Time>,
    /// Before this time.
    to: Option<Time>,
}

impl AuditFilter {
    fn checked(self) -> Result<audit_logs::AuditFilter, Error> {
        let user = self.user_id.map(|id| match NodeId::decode(&id) {
            Some(NodeId::User(_, id)) => Ok(id.uuid()),
            _ => id.parse().map_err(|_| Code::BadUserInput.error("`userId` isn't a user's ID.")),
        });
        let name = |name: Option<String>| match name {
            Some(name) if name.len() > MAX_NAME || name.contains('\0') => {
                Err(Code::BadUserInput.error("Unknown action or resource type."))
            }
            name => Ok(name),
        };
        Ok(audit_logs::AuditFilter {
            user: user.transpose()?,
            action: name(self.action)?,
            resource_type: name(self.resource_type)?,
            resource: self.resource_id,
            from: self.from.map(|from| from.0),
            to: self.to.map(|to| to.0),
        })
    }
}

/// An action, or a refused attempt at one.
pub struct AuditEntry(audit_logs::AuditEntry);

impl AuditEntry {
    fn organization_id(&self) -> OrganizationId {
        OrganizationId::new(self.0.organization_id)
    }
}

#[Object]
impl AuditEntry {
    /// Log position of its event.
    async fn position(&self) -> LogPosition {
        LogPosition { partition: self.0.partition, position: self.0.position }
    }
    async fn at(&self) -> DateTime<Utc> {
        self.0.at
    }
    /// The user who did it; null for the system, or for somebody who was not signed in.
    async fn user_id(&self) -> Option<Uuid> {
        self.0.user_id
    }
    /// The user who did it, if they belong to the organization; super admins do not.
    async fn user(&self, context: &Context<'_>) -> Result<Option<User>, Error> {
        match self.0.user_id {
            Some(id) => Ok(load(context, UserOf(self.organization_id(), UserId::new(id))).await?.map(User)),
            None => Ok(None),
        }
    }
    /// The session in which it was done.
    async fn session_id(&self) -> Option<Uuid> {
        self.0.session_id
    }
    /// The client's address.
    async fn client(&self) -> Option<&str> {
        self.0.client.as_deref()
    }
    /// The client's user agent.
    async fn user_agent(&self) -> Option<&str> {
        self.0.agent.as_deref()
    }
    async fn action(&self) -> &str {
        &self.0.action
    }
    async fn resource_type(&self) -> &str {
        &self.0.resource_type
    }
    async fn resource_id(&self) -> Uuid {
        self.0.resource_id
    }
    /// `{"old": {…}, "new": {…}}` with only the changed fields.
    async fn changes(&self) -> Json<&serde_json::Value> {
        Json(&self.0.changes.0)
    }
    /// Null for entries about the platform.
    async fn organization(&self, context: &Context<'_>) -> Result<Option<Organization>, Error> {
        let id = self.organization_id();
        Ok(load(context, OrganizationOf(id, id)).await?.map(Organization))
    }
}

/// The audit trail of an organization, or, for super admins, of all.
pub(crate) async fn list(
    context: &Context<'_>,
    organization: Option<OrganizationId>,
    filter: Option<AuditFilter>,
    window: Window,
) -> Result<Connection<Cursor, AuditEntry>, Error> {
    let filter = filter.unwrap_or_default().checked()?;
    let list = organization.unwrap_or(OrganizationId::PLATFORM);
    let page = window.request(|cursor| {
        let (time, key) = decode_cursor::<12>(List::AuditLog, list, cursor)?;
        let (partition, position) = key.split_at(4);
        // The halves of 12 bytes are 4 and 8.
        let partition = i32::from_be_bytes(partition.try_into().unwrap_or_default());
        Ok((time, partition, i64::from_be_bytes(position.try_into().unwrap_or_default())))
    })?;
    let rows = match organization {
        Some(organization) => {
            let mut tenant = tenant(context, organization).await?;
            audit_logs::list(&mut *tenant, organization, &filter, page).await
        }
        None => audit_logs::list_everywhere(&mut *everybody(context).await?, &filter, page).await,
    };
    let cursor = |row: &audit_logs::AuditEntry| {
        let key = [&row.partition.to_be_bytes()[..], &row.position.to_be_bytes()[..]].concat();
        encode_cursor(List::AuditLog, list, row.at, &key)
    };
    Ok(connection(rows.map_err(unread)?, &page, cursor, AuditEntry, EmptyFields))
}
