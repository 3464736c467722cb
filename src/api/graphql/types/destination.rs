//! Where webhooks are forwarded to, as people see it.

use async_graphql::{Context, Enum, Error, Object, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::{DestinationId, OrganizationId};
use hookledger_projections::destinations;
use uuid::Uuid;

use super::provider::SecretInfo;
use crate::api::graphql::errors::internal;
use crate::api::graphql::guards::allowance::Allowance;
use crate::api::graphql::rows::{CircuitsOf, SigningSecretsOf, WaitingOf, load};
use crate::deliver::{CircuitNote, CircuitState as Circuits};

/// Whether attempts are made.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "Circuits")]
pub enum CircuitState {
    /// All attempts are made.
    Closed,
    /// After many failures, nothing is sent for a while.
    Open,
    /// A single attempt is made, and decides.
    HalfOpen,
}

/// A destination's circuit on one node.
#[derive(SimpleObject)]
pub struct Circuit {
    node: Uuid,
    state: CircuitState,
    /// Consecutive failed attempts, as last reported by the node.
    failures: i32,
    opened_at: Option<DateTime<Utc>>,
    /// When the next single attempt may be made.
    probe_at: Option<DateTime<Utc>>,
    changed_at: DateTime<Utc>,
}

impl Circuit {
    pub(crate) fn of(row: CircuitNote) -> Result<Self, Error> {
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

/// Where webhooks are sent.
pub struct Destination(pub(crate) destinations::Destination);

impl Destination {
    fn key(&self) -> (OrganizationId, DestinationId) {
        (OrganizationId::new(self.0.organization_id), DestinationId::new(self.0.id))
    }

    async fn circuit_rows(&self, context: &Context<'_>) -> Result<Vec<Circuit>, Error> {
        let (organization, destination) = self.key();
        let rows = load(context, CircuitsOf(organization, destination)).await?.unwrap_or_default();
        rows.into_iter().map(Circuit::of).collect()
    }
}

#[Object]
impl Destination {
    async fn url(&self) -> &str {
        &self.0.url
    }
    /// Timeout in seconds; null for the deployment's default.
    async fn timeout_seconds(&self) -> Option<i32> {
        self.0.timeout_seconds
    }
    /// Concurrent attempts per node.
    async fn concurrency(&self) -> i32 {
        self.0.concurrency
    }
    /// Names of the additional headers of deliveries. Their values are never shown.
    async fn header_names(&self) -> &[String] {
        &self.0.header_names
    }
    /// Whether deliveries include the sender's signature header.
    async fn original_signature(&self) -> bool {
        self.0.original_signature
    }
    async fn set_at(&self) -> DateTime<Utc> {
        self.0.set_at
    }
    /// The current and former secrets that sign deliveries, newest first.
    async fn secrets(&self, context: &Context<'_>) -> Result<Vec<SecretInfo>, Error> {
        let (organization, destination) = self.key();
        let rows = load(context, SigningSecretsOf(organization, destination)).await?.unwrap_or_default();
        Allowance::of(context)?.list(rows.len())?;
        Ok(rows.into_iter().map(SecretInfo::from).collect())
    }
    /// Whether attempts are made on every node: the worst state of its circuits.
    async fn circuit(&self, context: &Context<'_>) -> Result<CircuitState, Error> {
        let circuits = self.circuit_rows(context).await?;
        let any = |state| circuits.iter().any(|circuit| circuit.state == state);
        Ok(match () {
            () if any(CircuitState::Open) => CircuitState::Open,
            () if any(CircuitState::HalfOpen) => CircuitState::HalfOpen,
            () => CircuitState::Closed,
        })
    }
    /// The circuits that have opened at least once, by node.
    async fn circuits(&self, context: &Context<'_>) -> Result<Vec<Circuit>, Error> {
        self.circuit_rows(context).await
    }
    /// Deliveries that wait for an attempt, or whose attempt is running.
    async fn waiting(&self, context: &Context<'_>) -> Result<i64, Error> {
        let (organization, destination) = self.key();
        Ok(load(context, WaitingOf(organization, destination)).await?.unwrap_or_default())
    }
}
