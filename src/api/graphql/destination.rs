//! Where webhooks are forwarded to: what people see of a destination, and how they change it.

use async_graphql::{Context, Enum, Error, ID, InputObject, MaybeUndefined, Object, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::provider::ProviderCommand;
use hookledger_aggregates::{OrganizationId, ProviderId};
use hookledger_projections::webhook_providers;
use uuid::Uuid;

use super::context::App;
use super::errors::{Code, internal};
use super::mutations::{Managed, refused, shown_once};
use super::provider::{SecretInfo, WebhookProvider};
use super::rows::{CircuitsOf, OutgoingSecretsOf, WaitingOf, load};
use crate::deliver::{CircuitNote, CircuitState as Circuits};
use crate::providers::{DestinationError, Headers, Replacement, Set, Wish};

/// Whether attempts go through.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "Circuits")]
pub enum CircuitState {
    /// Everything goes through.
    Closed,
    /// It failed so often that nothing is sent for a while.
    Open,
    /// One attempt goes through, and decides.
    HalfOpen,
}

/// A destination's circuit on one node.
#[derive(SimpleObject)]
pub struct Circuit {
    node: Uuid,
    state: CircuitState,
    /// Attempts in a row that failed, when the node last told.
    failures: i32,
    opened_at: Option<DateTime<Utc>>,
    /// When the next single attempt is let through.
    probe_at: Option<DateTime<Utc>>,
    changed_at: DateTime<Utc>,
}

impl Circuit {
    pub(super) fn of(row: CircuitNote) -> Result<Self, Error> {
        Ok(Self {
            state: row.state().map_err(internal)?.into(),
            node: row.node,
            failures: row.failures,
            opened_at: row.opened_at,
            probe_at: row.probe_at,
            changed_at: row.changed_at,
        })
    }
}

/// Where a provider's webhooks are forwarded to.
pub struct Destination(pub(super) webhook_providers::WebhookProvider);

impl Destination {
    fn key(&self) -> (OrganizationId, ProviderId) {
        (OrganizationId::new(self.0.organization_id), ProviderId::new(self.0.id))
    }

    async fn circuit_rows(&self, context: &Context<'_>) -> Result<Vec<Circuit>, Error> {
        let (organization, provider) = self.key();
        let rows = load(context, CircuitsOf(organization, provider)).await?.unwrap_or_default();
        rows.into_iter().map(Circuit::of).collect()
    }
}

#[Object]
impl Destination {
    async fn url(&self) -> Option<&str> {
        self.0.destination_url.as_deref()
    }
    /// How long it may take to answer; null: the deployment's default.
    async fn timeout_seconds(&self) -> Option<i32> {
        self.0.destination_timeout_seconds
    }
    /// Attempts at the same time, per node.
    async fn concurrency(&self) -> Option<i32> {
        self.0.destination_concurrency
    }
    /// Names of the headers that deliveries carry besides. Their values are never shown.
    async fn header_names(&self) -> &[String] {
        self.0.destination_headers.as_deref().unwrap_or_default()
    }
    /// Deliveries carry the sender's signature header too.
    async fn original_signature(&self) -> bool {
        self.0.destination_original_signature
    }
    async fn set_at(&self) -> Option<DateTime<Utc>> {
        self.0.destination_set_at
    }
    /// The secrets that sign deliveries now or did, newest first.
    async fn secrets(&self, context: &Context<'_>) -> Result<Vec<SecretInfo>, Error> {
        let (organization, provider) = self.key();
        let rows = load(context, OutgoingSecretsOf(organization, provider)).await?.unwrap_or_default();
        Ok(rows.into_iter().map(SecretInfo::from).collect())
    }
    /// Whether attempts go through on every node: the worst of its circuits.
    async fn circuit(&self, context: &Context<'_>) -> Result<CircuitState, Error> {
        let circuits = self.circuit_rows(context).await?;
        let any = |state| circuits.iter().any(|circuit| circuit.state == state);
        Ok(match () {
            () if any(CircuitState::Open) => CircuitState::Open,
            () if any(CircuitState::HalfOpen) => CircuitState::HalfOpen,
            () => CircuitState::Closed,
        })
    }
    /// The circuits that ever opened, by node.
    async fn circuits(&self, context: &Context<'_>) -> Result<Vec<Circuit>, Error> {
        self.circuit_rows(context).await
    }
    /// Webhooks that wait for an attempt, or are in one.
    async fn waiting(&self, context: &Context<'_>) -> Result<i64, Error> {
        let (organization, provider) = self.key();
        Ok(load(context, WaitingOf(organization, provider)).await?.unwrap_or_default())
    }
}

/// A header that deliveries carry besides.
#[derive(InputObject)]
struct HeaderInput {
    name: String,
    /// It is stored encrypted and never shown again.
    value: String,
}

#[derive(InputObject)]
struct SetProviderDestinationInput {
    provider_id: ID,
    /// An https URL; null: webhooks are recorded and not forwarded any more.
    url: Option<String>,
    /// 1 to 120; left out: the deployment's default.
    timeout_seconds: Option<i32>,
    /// Attempts at the same time, 1 to 256; left out: 16.
    concurrency: Option<i32>,
    /// Left out: as they are. They replace all earlier ones.
    headers: MaybeUndefined<Vec<HeaderInput>>,
    /// Deliveries carry the sender's signature header too, so that the sender's own library verifies them with the
    /// sender's own secret. Left out: as it is, and false at first.
    original_signature: Option<bool>,
}

#[derive(SimpleObject)]
struct SetProviderDestinationPayload {
    provider: WebhookProvider,
    /// The secret that signs deliveries, where it was made just now. It is never shown again.
    signing_secret: Option<String>,
}

#[derive(InputObject)]
struct RotateDestinationSecretInput {
    provider_id: ID,
    /// How long the earlier secrets still sign beside the new one; a day when left out, at most 30.
    grace_seconds: Option<i32>,
}

#[derive(SimpleObject)]
struct RotateDestinationSecretPayload {
    provider: WebhookProvider,
    /// The new secret. It is never shown again.
    signing_secret: String,
}

#[derive(Default)]
pub struct DestinationMutation;

#[Object]
impl DestinationMutation {
    /// For admins of the organization. Webhooks that come from now on are forwarded there, signed as
    /// Standard Webhooks say.
    async fn set_provider_destination(
        &self,
        context: &Context<'_>,
        input: SetProviderDestinationInput,
    ) -> Result<SetProviderDestinationPayload, Error> {
        let managed = Managed::of(context, &input.provider_id).await?;
        let set = match wish(managed.app(), input)? {
            None => {
                let removed = managed.providers().change(managed.change(), ProviderCommand::RemoveDestination).await;
                Set { last: removed.map_err(refused)?, signing_secret: None }
            }
            Some(wish) => managed.providers().set_destination(managed.change(), wish).await.map_err(refused)?,
        };
        let provider = managed.after(context, set.last).await?;
        Ok(SetProviderDestinationPayload { provider, signing_secret: set.signing_secret.as_ref().map(shown_once) })
    }

    /// For admins of the organization. Earlier secrets sign beside the new one until their grace ends.
    async fn rotate_destination_secret(
        &self,
        context: &Context<'_>,
        input: RotateDestinationSecretInput,
    ) -> Result<RotateDestinationSecretPayload, Error> {
        let managed = Managed::of(context, &input.provider_id).await?;
        let replacement = Replacement { grace_seconds: input.grace_seconds, version: None };
        let rotated = managed.providers().rotate_signing_secret(managed.change(), replacement).await;
        let (last, secret) = rotated.map_err(refused)?;
        let provider = managed.after(context, last).await?;
        Ok(RotateDestinationSecretPayload { provider, signing_secret: shown_once(&secret) })
    }
}

fn unfit(error: DestinationError) -> Error {
    Code::BadUserInput.error(error.to_string())
}

/// A destination of a URL and nothing else.
pub(super) fn plain(app: &App, url: &str) -> Result<Wish, Error> {
    Wish::to_url(url, &app.base_url, app.egress.allow_list()).map_err(unfit)
}

/// A destination as it is asked for; none where it is to be removed.
fn wish(app: &App, input: SetProviderDestinationInput) -> Result<Option<Wish>, Error> {
    let Some(url) = input.url else { return Ok(None) };
    let number = |number: i32, what: &str| {
        u32::try_from(number).map_err(|_| Code::BadUserInput.error(format!("`{what}` must be 1 or more.")))
    };
    let mut wish = plain(app, &url)?;
    wish.timeout_seconds = input.timeout_seconds.map(|seconds| number(seconds, "timeoutSeconds")).transpose()?;
    if let Some(concurrency) = input.concurrency {
        wish.concurrency = number(concurrency, "concurrency")?;
    }
    wish.headers = match input.headers {
        MaybeUndefined::Undefined => Headers::Unchanged,
        MaybeUndefined::Null => Headers::None,
        MaybeUndefined::Value(headers) => {
            Headers::of(headers.into_iter().map(|header| (header.name, header.value))).map_err(unfit)?
        }
    };
    wish.original_signature = input.original_signature;
    Ok(Some(wish))
}
