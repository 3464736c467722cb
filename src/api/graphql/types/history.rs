//! An organization's settings at some time.

use async_graphql::{Context, Error, Object, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::{OrganizationId, ProviderId, UserId};
use uuid::Uuid;

use super::organization::Plan;
use super::provider::ProviderName;
use super::user::{self, Role, User};
use crate::api::graphql::context::searching;
use crate::api::graphql::errors::{Code, unread};
use crate::api::graphql::guards::rights::Viewer;
use crate::api::graphql::rows::{UserOf, load};
use crate::log::settings_until;
use crate::reads::history::{ProviderSettings, Settings, UserSettings};

/// Maximum number of events that are folded.
const MAX_EVENTS: i64 = 10_000;

/// An organization at some time, according to its events up to then.
#[derive(SimpleObject)]
pub struct OrganizationState {
    /// The requested time.
    time: DateTime<Utc>,
    name: String,
    slug: String,
    plan: Plan,
    /// Accepted webhooks per calendar month, UTC; null is unlimited.
    webhook_limit: Option<i32>,
    is_active: bool,
    /// The users at that time, including deactivated ones.
    users: Vec<UserState>,
    /// The providers connected at that time.
    providers: Vec<ProviderState>,
}

/// A user at some time.
pub struct UserState {
    organization: OrganizationId,
    id: UserId,
    then: UserSettings,
}

#[Object]
impl UserState {
    async fn user_id(&self) -> Uuid {
        self.id.uuid()
    }
    /// Null for super admins.
    async fn role(&self) -> Option<Role> {
        user::role(self.then.role)
    }
    async fn is_active(&self) -> bool {
        self.then.is_active
    }
    /// Whether the user had signed in by then; false for an invited person.
    async fn has_joined(&self) -> bool {
        self.then.joined
    }
    /// The user now.
    async fn user(&self, context: &Context<'_>) -> Result<Option<User>, Error> {
        Ok(load(context, UserOf(self.organization, self.id)).await?.map(User))
    }
}

/// A provider at some time.
#[derive(SimpleObject)]
pub struct ProviderState {
    provider_id: Uuid,
    provider_name: ProviderName,
    is_active: bool,
    /// The URL that its webhooks were forwarded to.
    destination_url: Option<String>,
    /// The secrets that verified then, newest first; never a secret itself.
    secret_versions: Vec<SecretVersionState>,
}

/// A version of a secret at some time.
#[derive(SimpleObject)]
pub struct SecretVersionState {
    version: i32,
    set_at: DateTime<Utc>,
    /// When it would expire, as known then.
    expires_at: Option<DateTime<Utc>>,
}

fn provider(id: ProviderId, then: ProviderSettings, time: DateTime<Utc>) -> ProviderState {
    let in_force = then.secrets.into_iter().rev().filter(|(_, secret)| secret.expires_at.is_none_or(|at| at > time));
    ProviderState {
        provider_id: id.uuid(),
        provider_name: then.name.into(),
        is_active: then.is_active,
        destination_url: then.destination_url,
        secret_versions: in_force
            .map(|(version, secret)| SecretVersionState {
                version: version.cast_signed(),
                set_at: secret.set_at,
                expires_at: secret.expires_at,
            })
            .collect(),
    }
}

/// The settings of an organization at a time.
pub(crate) async fn as_of(
    context: &Context<'_>,
    organization: OrganizationId,
    time: DateTime<Utc>,
) -> Result<OrganizationState, Error> {
    Viewer::of(context)?.must_manage(organization)?;
    let mut tenant = searching(context, organization).await?;
    let events = settings_until(&mut *tenant, organization, time, MAX_EVENTS + 1).await.map_err(unread)?;
    drop(tenant);
    if i64::try_from(events.len()).is_ok_and(|count| count > MAX_EVENTS) {
        let limit =
            format!("More than {MAX_EVENTS} changes happened before that time. Use `hookledger replay` instead.");
        return Err(Code::LimitExceeded.error(limit));
    }
    let Settings { organization: then, users, providers } = Settings::fold(&events);
    let then = then.ok_or_else(|| Code::NotFound.error("The organization didn't exist at that time."))?;
    Ok(OrganizationState {
        time,
        name: then.name,
        slug: then.slug,
        plan: then.plan.into(),
        webhook_limit: then.webhook_limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)),
        is_active: then.is_active,
        users: users.into_iter().map(|(id, then)| UserState { organization, id, then }).collect(),
        providers: providers.into_iter().map(|(id, then)| provider(id, then, time)).collect(),
    })
}
