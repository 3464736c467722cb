//! A provider, and what may be known of its secrets.

use async_graphql::{Context, Enum, Error, ID, Object, SimpleObject};
use chrono::{DateTime, Duration, Utc};
use hookledger_aggregates::{DestinationId, OrganizationId, ProviderId};
use hookledger_projections::{destinations, organizations, webhook_providers};

use super::destination::Destination;
use super::ids::NodeId;
use super::insight::ProviderHealth;
use super::organization::Organization;
use crate::api::graphql::context::App;
use crate::api::graphql::errors::internal;
use crate::api::graphql::guards::allowance::Allowance;
use crate::api::graphql::rows::{DestinationOf, HealthOf, OrganizationOf, SecretsOf, load};

/// A third-party service.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "hookledger_aggregates::ProviderName")]
pub enum ProviderName {
    Stripe,
    Github,
    Paypal,
    Shopify,
    /// Any sender of Standard Webhooks.
    Standard,
}

/// One version of a secret, without the secret itself.
#[derive(SimpleObject)]
pub struct SecretInfo {
    version: i32,
    /// The label given by a person.
    label: Option<String>,
    set_at: DateTime<Utc>,
    /// When it stops verifying or signing; null for the current one.
    expires_at: Option<DateTime<Utc>>,
    /// When it last verified a webhook; null for outgoing signing secrets.
    last_used_at: Option<DateTime<Utc>>,
    /// Nothing uses it any more: a later one verifies, and this one has not for a day.
    safe_to_retire: bool,
}

/// Senders switch to a new secret one after the other.
const UNUSED_FOR: Duration = Duration::days(1);

fn secret_info(row: &webhook_providers::SecretVersion, newest_used_at: Option<DateTime<Utc>>) -> SecretInfo {
    let last_sign = row.last_used_at.unwrap_or(row.set_at);
    SecretInfo {
        version: row.version,
        label: row.label.clone(),
        set_at: row.set_at,
        expires_at: row.expires_at,
        last_used_at: row.last_used_at,
        // Only replaced secrets expire.
        safe_to_retire: row.expires_at.is_some() && newest_used_at.is_some_and(|at| at - last_sign >= UNUSED_FOR),
    }
}

impl From<destinations::SigningSecretVersion> for SecretInfo {
    fn from(row: destinations::SigningSecretVersion) -> Self {
        let destinations::SigningSecretVersion { version, set_at, expires_at, destination_id: _ } = row;
        Self { version, label: None, set_at, expires_at, last_used_at: None, safe_to_retire: false }
    }
}

/// An organization's connection to one third-party service.
pub struct WebhookProvider(pub(crate) webhook_providers::WebhookProvider);

impl WebhookProvider {
    fn organization_id(&self) -> OrganizationId {
        OrganizationId::new(self.0.organization_id)
    }

    async fn organization_row(&self, context: &Context<'_>) -> Result<organizations::Organization, Error> {
        let row = load(context, OrganizationOf(self.organization_id(), self.organization_id())).await?;
        row.ok_or_else(|| internal("a provider's organization has no row"))
    }

    async fn secret_rows(&self, context: &Context<'_>) -> Result<Vec<webhook_providers::SecretVersion>, Error> {
        let rows = load(context, SecretsOf(self.organization_id(), ProviderId::new(self.0.id))).await?;
        let rows = rows.unwrap_or_default();
        Allowance::of(context)?.list(rows.len())?;
        Ok(rows)
    }
}

#[Object]
impl WebhookProvider {
    pub(crate) async fn id(&self) -> ID {
        NodeId::Provider(self.organization_id(), ProviderId::new(self.0.id)).encode()
    }
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }
    async fn updated_at(&self) -> DateTime<Utc> {
        self.0.updated_at
    }
    async fn organization(&self, context: &Context<'_>) -> Result<Organization, Error> {
        self.organization_row(context).await.map(Organization)
    }
    async fn provider_name(&self) -> Result<ProviderName, Error> {
        let name: Result<hookledger_aggregates::ProviderName, _> = self.0.provider_name.parse();
        name.map(ProviderName::from).map_err(internal)
    }
    /// Whether it accepts webhooks.
    async fn is_active(&self) -> bool {
        self.0.is_active
    }
    /// When it was deleted, if it was; its webhooks stay.
    async fn deleted_at(&self) -> Option<DateTime<Utc>> {
        self.0.deleted_at
    }
    /// Whether any secret verifies now.
    async fn has_secret(&self, context: &Context<'_>) -> Result<bool, Error> {
        let now = Utc::now();
        let secrets = self.secret_rows(context).await?;
        Ok(secrets.iter().any(|secret| secret.expires_at.is_none_or(|at| at > now)))
    }
    /// The current and former secrets that verify webhooks, newest first.
    async fn secrets(&self, context: &Context<'_>) -> Result<Vec<SecretInfo>, Error> {
        let rows = self.secret_rows(context).await?;
        let newest_used_at = rows.first().and_then(|newest| newest.last_used_at);
        Ok(rows.iter().map(|row| secret_info(row, newest_used_at)).collect())
    }
    /// Its own destination, which was set with it; null if it has none.
    async fn destination(&self, context: &Context<'_>) -> Result<Option<Destination>, Error> {
        let own = DestinationId::of_provider(ProviderId::new(self.0.id));
        let row = load(context, DestinationOf(self.organization_id(), own)).await?;
        Ok(row.filter(|row| row.deleted_at.is_none()).map(Destination))
    }
    /// Its health in the last 24 hours.
    async fn health(&self, context: &Context<'_>) -> Result<ProviderHealth, Error> {
        let row = load(context, HealthOf(self.organization_id(), ProviderId::new(self.0.id))).await?;
        Ok(row.unwrap_or_default().into())
    }
    /// The URL that the service sends its webhooks to.
    async fn webhook_url(&self, context: &Context<'_>) -> Result<String, Error> {
        let slug = self.organization_row(context).await?.slug;
        Ok(format!("{}/webhooks/{slug}/{}", App::of(context)?.base_url, self.0.provider_name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_safe_to_retire_once_a_later_one_has_verified_alone_for_a_day() {
        let at = |hours: i64| DateTime::UNIX_EPOCH + Duration::hours(hours);
        let row = |expires_at, last_used_at| webhook_providers::SecretVersion {
            provider_id: uuid::Uuid::nil(),
            version: 1,
            label: None,
            set_at: at(0),
            expires_at,
            last_used_at,
        };
        let safe =
            |expires_at, last_used_at, newest| secret_info(&row(expires_at, last_used_at), newest).safe_to_retire;
        assert!(safe(Some(at(99)), Some(at(1)), Some(at(25))));
        assert!(safe(Some(at(99)), None, Some(at(25))));
        assert!(!safe(Some(at(99)), Some(at(2)), Some(at(25))));
        assert!(!safe(Some(at(99)), Some(at(1)), None));
        assert!(!safe(None, Some(at(1)), Some(at(25))));
    }
}
