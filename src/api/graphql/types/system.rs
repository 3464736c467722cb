//! An overview of the platform for super admins: followers, deliveries, the database, the settings.

use std::sync::Arc;

use async_graphql::{ComplexObject, Context, Error, Object, SimpleObject};
use chrono::{DateTime, Utc};
use hookledger_aggregates::{DestinationId, OrganizationId};

use super::destination::Circuit;
use super::provider::WebhookProvider;
use crate::api::graphql::context::{App, everybody};
use crate::api::graphql::errors::internal;
use crate::api::graphql::guards::rights::Viewer;
use crate::api::graphql::rows::{ProviderOf, SenderTo, load};
use crate::deliver;
use crate::log::follow::Standing;
use crate::platform::store;
use crate::reads::rebuild;

/// The platform now.
pub struct System;

/// A follower of the log, such as a read model.
#[derive(SimpleObject)]
pub struct Follower {
    name: String,
    /// Events that it has not handled yet.
    lag: i64,
    /// Why it stopped, if it did; it continues when the cause is repaired.
    stopped_by: Option<String>,
    partitions: Vec<FollowerPartition>,
}

/// A follower's progress in a partition of the log.
#[derive(SimpleObject)]
pub struct FollowerPartition {
    partition: i32,
    position: i64,
    /// The last position of the partition.
    head: i64,
    stopped_by: Option<String>,
}

/// Deliveries of all organizations.
#[derive(SimpleObject)]
pub struct Deliveries {
    /// Deliveries that wait for an attempt, or whose attempt is running.
    waiting: i64,
    /// Of those, deliveries whose attempt is running.
    running: i64,
    /// Due time of the longest overdue attempt.
    overdue_since: Option<DateTime<Utc>>,
    /// Nodes that deliver.
    nodes: i64,
}

/// A circuit of any organization.
#[derive(SimpleObject)]
#[graphql(complex)]
pub struct OpenCircuit {
    circuit: Circuit,
    #[graphql(skip)]
    destination: (OrganizationId, DestinationId),
}

#[ComplexObject]
impl OpenCircuit {
    /// The provider of the first route to the destination; null if it no longer exists.
    async fn provider(&self, context: &Context<'_>) -> Result<Option<WebhookProvider>, Error> {
        let (organization, destination) = self.destination;
        let Some(provider) = load(context, SenderTo(organization, destination)).await? else { return Ok(None) };
        Ok(load(context, ProviderOf(organization, provider)).await?.map(WebhookProvider))
    }
}

/// The store.
#[derive(SimpleObject)]
pub struct Database {
    /// PostgreSQL's own text for its version.
    version: String,
    /// Bytes on disk.
    size: i64,
    connections: i64,
    max_connections: i64,
    /// Events in the log.
    events: i64,
}

/// The node that answers this query.
#[derive(SimpleObject)]
pub struct RunningNode {
    version: &'static str,
    started_at: DateTime<Utc>,
    /// Approximate wait of an append, in milliseconds.
    append_wait_ms: i64,
    /// How far this node's clock is ahead of the database's in milliseconds; negative if it is behind, null
    /// until measured.
    clock_difference_ms: Option<i64>,
}

#[Object]
impl System {
    /// The followers of the log, by name.
    async fn followers(&self, context: &Context<'_>) -> Result<Vec<Follower>, Error> {
        let standings = App::of(context)?.checkpoints.standings(rebuild::scope_of).await.map_err(internal)?;
        Ok(standings.chunk_by(|one, other| one.name == other.name).map(follower).collect())
    }

    async fn deliveries(&self, context: &Context<'_>) -> Result<Deliveries, Error> {
        let mut tenants = everybody(context).await?;
        let deliver::Backlog { waiting, running, overdue_since, nodes } =
            deliver::backlog(&mut *tenants).await.map_err(internal)?;
        Ok(Deliveries { waiting, running, overdue_since, nodes })
    }

    /// Circuits that are not closed, the latest first; at most 100.
    async fn open_circuits(&self, context: &Context<'_>) -> Result<Vec<OpenCircuit>, Error> {
        let mut tenants = everybody(context).await?;
        let rows = deliver::open_circuits(&mut *tenants).await.map_err(internal)?;
        let circuit = |row: deliver::OpenCircuit| {
            let organization = OrganizationId::new(row.organization_id);
            let destination = (organization, DestinationId::new(row.circuit.destination_id));
            Ok(OpenCircuit { circuit: Circuit::of(row.circuit)?, destination })
        };
        rows.into_iter().map(circuit).collect()
    }

    async fn database(&self, context: &Context<'_>) -> Result<Database, Error> {
        let mut tenants = everybody(context).await?;
        let store::Facts { version, size, connections, max_connections } =
            store::facts(&mut *tenants).await.map_err(internal)?;
        let events = App::of(context)?.checkpoints.events().await.map_err(internal)?;
        Ok(Database { version, size, connections, max_connections, events })
    }

    /// The node that answers this query.
    async fn node(&self, context: &Context<'_>) -> Result<RunningNode, Error> {
        let app = App::of(context)?;
        let append_wait_ms = i64::try_from(app.log.expected_wait().as_millis()).unwrap_or(i64::MAX);
        Ok(RunningNode {
            version: env!("CARGO_PKG_VERSION"),
            started_at: app.platform.started_at,
            append_wait_ms,
            clock_difference_ms: app.platform.clock.difference().map(|difference| difference.num_milliseconds()),
        })
    }

    /// The settings of the node that answers, without secrets.
    async fn settings(&self, context: &Context<'_>) -> Result<Vec<PlatformSetting>, Error> {
        Ok(App::of(context)?.platform.settings.to_vec())
    }
}

impl System {
    /// For super admins.
    pub(crate) fn of(context: &Context<'_>) -> Result<Self, Error> {
        Viewer::of(context)?.must_be_super_admin().map(|()| Self)
    }
}

fn follower(standings: &[Standing]) -> Follower {
    Follower {
        name: standings.first().map(|standing| standing.name.clone()).unwrap_or_default(),
        lag: standings.iter().map(|standing| standing.head - standing.position).sum(),
        stopped_by: standings.iter().find_map(|standing| standing.stopped_by.clone()),
        partitions: standings
            .iter()
            .map(|standing| FollowerPartition {
                partition: standing.partition,
                position: standing.position,
                head: standing.head,
                stopped_by: standing.stopped_by.clone(),
            })
            .collect(),
    }
}

/// A setting of the server.
#[derive(Clone, Debug, PartialEq, Eq, SimpleObject)]
pub struct PlatformSetting {
    /// The environment variable.
    pub name: String,
    /// Its effect.
    pub help: String,
    /// Its value; null if it is not set, and for secrets.
    pub value: Option<String>,
    pub default: Option<String>,
    pub is_secret: bool,
    pub is_set: bool,
}

/// Facts about this process, collected at its start.
#[derive(Clone, Debug)]
pub struct Platform {
    pub clock: store::Clock,
    pub started_at: DateTime<Utc>,
    pub settings: Arc<Vec<PlatformSetting>>,
}
