//! Context of resolvers: the application, and the viewer.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::parser::types::OperationType;
use async_graphql::{Context, Error};
use hookledger_aggregates::OrganizationId;
use hookledger_aggregates::delivery::DeliveryEvent;
use hookledger_aggregates::destination::DestinationEvent;
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::organization::OrganizationEvent;
use hookledger_aggregates::provider::ProviderEvent;
use hookledger_aggregates::retention::RetentionEvent;
use hookledger_aggregates::route::RouteEvent;
use hookledger_aggregates::user::UserEvent;
use hookledger_aggregates::webhook::WebhookEvent;

use super::errors::{Code, internal};
use super::guards::allowance::{Allowance, Rendering, SEARCH, TooManyReads};
use super::guards::rights::Viewer;
use super::types::system::Platform;
use crate::audit::Ledgers;
use crate::demo::sandbox::Sandbox;
use crate::directory::{self, Directory};
use crate::identity::{Accounts, Errands, Limits, Refusals, Sessions};
use crate::log::follow::Checkpoints;
use crate::log::{Commands, Log, LogPosition};
use crate::platform::egress::Egress;
use crate::platform::store::{Reading, Tenant, Tenants};
use crate::providers::Providers;
use crate::reads::changes::{Changes, Ticks};
use crate::receive::Receiver;
use crate::retention;

/// How long a mutation waits for its read models.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(5);
const BEHIND: &str = "The change is saved and will show shortly.";

/// The change that a mutation made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    Organization,
    /// Of a provider, its destination or its routes.
    Provider,
    User,
    Retention,
    /// A webhook was received, or created by a person.
    Webhook,
    /// A person requested the retry of a webhook.
    Retry,
}

impl Changed {
    fn aggregate_types(self) -> &'static [&'static str] {
        match self {
            Self::Organization => &[OrganizationEvent::AGGREGATE],
            Self::Provider => &[ProviderEvent::AGGREGATE, DestinationEvent::AGGREGATE, RouteEvent::AGGREGATE],
            Self::User => &[UserEvent::AGGREGATE],
            Self::Retention => &[RetentionEvent::AGGREGATE],
            Self::Webhook => &[WebhookEvent::AGGREGATE],
            Self::Retry => &[DeliveryEvent::AGGREGATE],
        }
    }

    /// As in the log's scopes: of the traffic of webhooks, only the request for a retry.
    fn is_administrative(self) -> bool {
        self != Self::Webhook
    }
}

/// Everything that resolvers read from and write to.
#[derive(Clone)]
pub struct App {
    /// For all reads: see [`tenant`].
    pub tenants: Tenants,
    pub commands: Commands,
    pub checkpoints: Checkpoints,
    pub directory: Directory,
    pub providers: Providers,
    pub receiver: Receiver,
    pub egress: Egress,
    pub log: Log,
    pub base_url: String,
    pub changes: Changes,
    pub ticks: Ticks,
    pub accounts: Arc<Accounts>,
    pub sessions: Sessions,
    pub refusals: Refusals,
    pub errands: Errands,
    pub limits: Arc<Limits>,
    pub platform: Platform,
    /// For the public demo, if enabled.
    pub sandbox: Option<Arc<Sandbox>>,
    pub ledgers: Ledgers,
    /// Memory held by the answers of this node.
    pub rendering: Rendering,
}

impl App {
    pub(super) fn of<'a>(context: &Context<'a>) -> Result<&'a Self, Error> {
        context.data()
    }

    /// Waits until everything that shows this change has applied it: read models, removals, and this node's
    /// directory.
    pub(super) async fn caught_up(&self, changed: Changed, place: Option<LogPosition>) -> Result<(), Error> {
        let Some(place) = place else { return Ok(()) };
        let types = changed.aggregate_types();
        let is_one_of = |those: &[&str]| types.iter().any(|one| those.contains(one));
        let removes = is_one_of(&retention::REMOVES_FOR).then_some(retention::FOLLOWER);
        let showing = |one| hookledger_projections::showing(one, changed.is_administrative());
        let mut models: Vec<&str> = types.iter().copied().flat_map(showing).chain(removes).collect();
        models.sort_unstable();
        models.dedup();
        let models = self.checkpoints.wait_for(&models, place, CATCH_UP_LIMIT);
        let directory = async {
            !is_one_of(&directory::HOLDS)
                || tokio::time::timeout(CATCH_UP_LIMIT, self.directory.wait_for(place)).await.is_ok()
        };
        let (models, directory) = tokio::join!(models, directory);
        if models.map_err(internal)? && directory {
            return Ok(());
        }
        Err(Code::Unavailable.error(BEHIND))
    }
}

/// A connection for the viewer's reads of an organization, which shows no other organization's rows.
pub(super) async fn tenant(context: &Context<'_>, organization: OrganizationId) -> Result<Tenant, Error> {
    let confined = Viewer::of(context)?.confined(organization);
    reads(context, Reading::Page, 1)?.of(confined).await.map_err(internal)
}

/// Entry point for a use case's reads.
pub(super) fn page_reads(context: &Context<'_>) -> Result<Tenants, Error> {
    reads(context, Reading::Page, 1)
}

/// The same for scans of many rows, which cost more and wait among themselves.
pub(super) async fn searching(context: &Context<'_>, organization: OrganizationId) -> Result<Tenant, Error> {
    let confined = Viewer::of(context)?.confined(organization);
    reads(context, Reading::Search, SEARCH)?.of(confined).await.map_err(internal)
}

/// A connection for super admins' reads across organizations.
pub(super) async fn everybody(context: &Context<'_>) -> Result<Tenant, Error> {
    Viewer::of(context)?.must_be_super_admin()?;
    reads(context, Reading::Page, 1)?.everybody().await.map_err(internal)
}

/// Pays for reads, and returns their entry point.
fn reads(context: &Context<'_>, reading: Reading, price: i64) -> Result<Tenants, Error> {
    Allowance::of(context)?.reads(price).map_err(TooManyReads::told)?;
    let subscribes = context.query_env.operation.node.ty == OperationType::Subscription;
    let reading = if subscribes { Reading::Subscription } else { reading };
    Ok(App::of(context)?.tenants.asked_by(Viewer::of(context)?.asker(), reading))
}
