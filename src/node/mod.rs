//! One node: assembles everything that runs, and starts and stops it in order.

pub mod config;
pub mod keys;
pub mod settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use hookledger_aggregates::user::Role;
use hookledger_aggregates::webhook::RetryPolicy;
use hookledger_aggregates::{Metadata, OrganizationId};
use hookledger_projections::users;
use secrecy::SecretString;
use sqlx::PgPool;
use sqlx::migrate::MigrateError;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::api::graphql::{App, Platform, Rendering, schema};
use crate::api::http::{Clients, Readiness, Server, Services, Sockets, operations, routes};
use crate::audit::checkpoint::LedgerKeys;
use crate::audit::conservation::Checker;
use crate::audit::file::CheckpointFile;
use crate::audit::loss::watch::LossWatch;
use crate::audit::{LedgerFollower, Ledgers, Witness, WitnessError};
use crate::deliver::{self, Feeder, Places, Queue, Sweeper, Worker};
use crate::demo::sandbox::Sandbox;
use crate::directory::{Directory, DirectoryError, DirectoryFollower};
use crate::identity::{
    Accounts, Courier, IdentityError, Limits, Links, Refusals, SessionKeeper, Sessions, Tokens, sweep,
};
use crate::log::follow::{Checkpoints, Follower, Handler, Leases, Projector};
use crate::log::relay::RelayError;
#[cfg(feature = "eventstore")]
use crate::log::relay::{Relay, Target};
use crate::log::{Commands, FreshBodies, Heads, HeadsError, Log, ReadError, Reader, Writer, is_unavailable};
use crate::platform::egress::{Egress, StartError};
use crate::platform::lane::{Lane, Niceness};
use crate::platform::mail::{MailQueue, Transport, TransportError};
use crate::platform::secrets::vault::{Vault, VaultError};
use crate::platform::store::{Clock, Store, StoreError, Tenants, Use};
use crate::platform::vitals::Vitals;
use crate::providers::Providers;
use crate::reads::changes::{Changes, Ticks, Watcher};
use crate::receive::paypal::{self, CertificateStore, Fetch, FetchFromPaypal, Verifier};
use crate::receive::{
    Admission, BodyBudget, DuplicateCounter, Duplicates, Limits as MonthlyLimits, Parts, Receiver, RejectionCounter,
    Rejections,
};
use crate::retention::{Eraser, Sweep};
use config::{ServeSettings, StoreSettings};
use keys::KeysError;

/// How long stopping may take in total: requests in flight, tasks, the writer and the connections.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Maximum concurrent connections to the operations address.
const OPERATORS: usize = 64;
/// Pause between two tries to start.
const START_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Mail(#[from] TransportError),
    #[error(transparent)]
    Egress(#[from] StartError),
    #[error(transparent)]
    Witness(#[from] WitnessError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Heads(#[from] HeadsError),
    #[error(transparent)]
    Relay(#[from] RelayError),
    #[error("could not start a thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("PayPal certificates: {0}")]
    Certificates(#[from] paypal::StoreError),
    #[error("could not set up TLS for PayPal: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    #[error("could not listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the read models did not catch up in time; check whether a node of an earlier release is running")]
    Behind,
}

impl NodeError {
    /// Whether the database was lost during the start, so that another try may succeed.
    fn is_away(&self) -> bool {
        let error: &(dyn std::error::Error + 'static) = match self {
            Self::Store(
                StoreError::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _))
                | StoreError::Database(error),
            )
            | Self::Directory(
                DirectoryError::Read(ReadError::Database(error)) | DirectoryError::Vault(VaultError::Database(error)),
            )
            | Self::Heads(HeadsError::Database(error))
            | Self::Database(error) => error,
            Self::Vault(error) => error,
            Self::Identity(error) => error,
            _ => return false,
        };
        is_unavailable(error)
    }
}

/// Repeats a step that lost the database, for as long as the store waits for a missing database.
async fn patiently<T>(store: &Store, mut step: impl AsyncFnMut() -> Result<T, NodeError>) -> Result<T, NodeError> {
    let begun = Instant::now();
    loop {
        match step().await {
            Err(error) if error.is_away() && begun.elapsed() < store.patience() => {
                tracing::warn!(%error, "lost the database during the start; retrying");
                tokio::time::sleep(START_PAUSE).await;
            }
            done => return done,
        }
    }
}

/// The core that the server and the operator's commands share: a log with a writer, and the followers of the
/// read models.
pub struct Core {
    /// For the server's own queries. People's reads go through `tenants`.
    pub pool: PgPool,
    pub tenants: Tenants,
    pub log: Log,
    pub heads: Heads,
    pub vault: Vault,
    pub accounts: Arc<Accounts>,
    pub commands: Commands,
    pub checkpoints: Checkpoints,
    pub reader: Reader,
    /// Which of the node's tasks are stalled.
    pub vitals: Vitals,
    /// Offset between this node's clock and the database's.
    pub clock: Clock,
    /// The leases that this node holds.
    pub leases: Leases,
    followers: PgPool,
    stop: CancellationToken,
    stop_writer: CancellationToken,
    tasks: TaskTracker,
    writer: TaskTracker,
    append_lane: Lane,
    follow_lane: Lane,
    ledger_lane: Lane,
    /// Tasks end with their core, even if a start is abandoned halfway.
    _stop_when_dropped: (DropGuard, DropGuard),
}

impl Core {
    /// Migrates the schema and starts the writer and the projections. Retries if the database is lost
    /// meanwhile.
    pub async fn start(store: &Store, settings: &StoreSettings) -> Result<Self, NodeError> {
        patiently(store, async || Self::try_start(store, settings).await).await
    }

    /// The use cases that change providers.
    #[must_use]
    pub fn providers(&self) -> Providers {
        Providers::new(self.commands.clone(), self.vault.clone())
    }

    async fn try_start(store: &Store, settings: &StoreSettings) -> Result<Self, NodeError> {
        store.migrate().await?;
        let append_lane = Lane::start("append", Niceness::None).map_err(NodeError::Thread)?;
        let follow_lane = Lane::start("follow", Niceness::Background).map_err(NodeError::Thread)?;
        let ledger_lane = Lane::start("ledger", Niceness::Background).map_err(NodeError::Thread)?;
        let pool = store.pool(Use::Work).await?;
        let followers = pool_of(&follow_lane, store, Use::Follow).await?;
        let vault = Vault::new(pool.clone(), keys::master(settings)?);
        vault.prove_keys().await?;
        let heads = Heads::default();
        heads.refresh(&pool).await?;
        let (log, writer) = Writer::new(pool_of(&append_lane, store, Use::Append).await?, heads.clone());
        let accounts = Arc::new(Accounts::new(pool.clone(), log.clone(), &vault).await?);
        vault.remember_keys().await?;
        let watch = store.watch();
        let (stop, stop_writer) = (CancellationToken::new(), CancellationToken::new());
        let core = Self {
            clock: watch.clock(),
            commands: Commands::new(pool.clone(), log.clone()),
            checkpoints: Checkpoints::new(pool.clone()),
            reader: Reader::new(pool.clone()),
            vitals: Vitals::default(),
            leases: Leases::new(pool.clone(), Uuid::new_v4()),
            _stop_when_dropped: (stop.clone().drop_guard(), stop_writer.clone().drop_guard()),
            stop,
            stop_writer,
            tasks: TaskTracker::new(),
            writer: TaskTracker::new(),
            pool,
            append_lane,
            follow_lane,
            ledger_lane,
            tenants: store.tenants().await?,
            log,
            heads,
            vault,
            accounts,
            followers,
        };
        let writing = writer.run(core.vitals.clone(), core.stop_writer.clone());
        let writing = core.vitals.watch("writer", core.stop_writer.clone(), writing);
        core.writer.spawn_on(writing, core.append_lane.handle());
        core.spawn("store", watch.run(core.vitals.clone(), core.stop.clone()));
        core.spawn("leases", core.leases.clone().run(core.vitals.clone(), core.stop.clone()));
        core.spawn("heads", core.heads.clone().poll(core.pool.clone(), core.stop.clone()));
        for projection in hookledger_projections::all() {
            core.follow(Box::new(Projector(projection)));
        }
        core.follow(Box::new(SessionKeeper));
        core.first_super_admin(settings).await?;
        Ok(core)
    }

    /// Starts the comparison of the read models with the log, and the removal of bodies that are older than
    /// `retention` or whose erasure was requested.
    fn keep_house(&self, retention: chrono::Duration) {
        self.check_conservation();
        self.remove_what_is_old(retention);
    }

    /// Compares the read models with the log for as long as the node runs.
    fn check_conservation(&self) {
        let checker =
            Checker::new(self.followers.clone(), self.heads.clone(), self.leases.clone(), self.vitals.clone());
        self.tasks.spawn_on(checker.run(self.stop.clone()), self.follow_lane.handle());
    }

    fn remove_what_is_old(&self, period: chrono::Duration) {
        self.follow(Box::new(Eraser::new(self.followers.clone())));
        let sweep = Sweep::new(self.pool.clone(), self.log.clone(), self.heads.clone(), self.leases.clone(), period)
            .watched(self.vitals.clone());
        self.spawn("retention", sweep.run(self.stop.clone()));
    }

    /// Starts the notification of subscribers about changes.
    fn watch(&self) -> Changes {
        let changes = Changes::default();
        let (reader, checkpoints, heads) = (self.reader.clone(), self.checkpoints.clone(), self.heads.clone());
        let watcher = Watcher::new(changes.clone(), reader, checkpoints, heads, self.tenants.clone())
            .watched(self.vitals.clone());
        self.spawn("watcher", watcher.run(self.stop.clone()));
        changes
    }

    /// Starts the task that logs the number of suppressed rejections.
    fn count_rejections(&self) -> Arc<Rejections> {
        let rejections = Arc::new(Rejections::default());
        let counter = RejectionCounter::new(Arc::clone(&rejections), self.log.clone());
        self.spawn("rejections", counter.run(self.stop.clone()));
        rejections
    }

    /// Starts the task that logs the number of suppressed duplicates.
    fn count_duplicates(&self) -> Arc<Duplicates> {
        let duplicates = Arc::new(Duplicates::of(&self.heads));
        let counter = DuplicateCounter::new(Arc::clone(&duplicates), self.log.clone());
        self.spawn("duplicates", counter.run(self.stop.clone()));
        duplicates
    }

    fn follow(&self, handler: Box<dyn Handler>) {
        let name = handler.name();
        let follower = Follower::new(handler, self.followers.clone(), self.heads.clone(), self.leases.clone());
        let follower = follower.watched(self.vitals.clone());
        let following = self.vitals.watch(name, self.stop.clone(), follower.run(self.stop.clone()));
        self.tasks.spawn_on(following, self.follow_lane.handle());
    }

    /// Runs an essential task until the node stops.
    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.vitals.watch(name, self.stop.clone(), task));
    }

    /// Mirrors the log into an EventStoreDB if one is configured, on a thread that ends when the returned
    /// lane is dropped.
    #[cfg(feature = "eventstore")]
    async fn relay(&self, store: &Store, url: Option<&SecretString>) -> Result<Option<Lane>, NodeError> {
        let Some(url) = url else { return Ok(None) };
        let target = Target::new(url).await?;
        let lane = Lane::start("relay", Niceness::Background).map_err(NodeError::Thread)?;
        let pool = pool_of(&lane, store, Use::Relay).await?;
        let relay = Relay { target, pool, heads: self.heads.clone(), leases: self.leases.clone() };
        let relaying = self.vitals.watch("relay", self.stop.clone(), relay.run(self.stop.clone()));
        self.tasks.spawn_on(relaying, lane.handle());
        Ok(Some(lane))
    }

    #[cfg(not(feature = "eventstore"))]
    async fn relay(&self, _: &Store, url: Option<&SecretString>) -> Result<Option<Lane>, NodeError> {
        url.map_or(Ok(None), |_| Err(RelayError::NotBuilt.into()))
    }

    /// Adds new events to the ledger's trees. Runs on its own thread, because it hashes every event and must
    /// stay within seconds of the log whatever projections do.
    pub async fn follow_ledger(&self, store: &Store) -> Result<(), NodeError> {
        let pool = pool_of(&self.ledger_lane, store, Use::Ledger).await?;
        let follower =
            Follower::new(Box::new(LedgerFollower::default()), pool, self.heads.clone(), self.leases.clone())
                .watched(self.vitals.clone());
        let following = self.vitals.watch("ledger", self.stop.clone(), follower.run(self.stop.clone()));
        self.tasks.spawn_on(following, self.ledger_lane.handle());
        Ok(())
    }

    /// Creates the super admin at the first start. If several nodes start at once, one of them does it.
    async fn first_super_admin(&self, settings: &StoreSettings) -> Result<(), NodeError> {
        // A command that is run with another address does not create another super admin.
        let exists: bool = users::any_super_admin(&self.pool).await?;
        if exists {
            return Ok(());
        }
        let registered = self
            .accounts
            .register(OrganizationId::PLATFORM, &settings.super_admin_email, Role::SuperAdmin, &Metadata::default())
            .await;
        match registered {
            Ok((_, place)) => {
                let limit = Duration::from_secs(10);
                if !self.checkpoints.wait_for(&["users"], place, limit).await? {
                    return Err(NodeError::Behind);
                }
                let link = self.sign_in_link(settings, &settings.super_admin_email).await?;
                tracing::info!(
                    user.email = settings.super_admin_email, link.url = link.url, link.expires_at = %link.expires_at,
                    "created the super admin; sign in with this link"
                );
                Ok(())
            }
            Err(IdentityError::AddressTaken) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A new sign-in link for a user, or for an invited person who has not joined.
    ///
    /// # Errors
    /// [`IdentityError::NoSuchUser`] if nobody has the address, [`IdentityError::SeveralInvitations`] if
    /// several organizations invited it.
    pub async fn sign_in_link(
        &self,
        settings: &StoreSettings,
        email: &str,
    ) -> Result<crate::identity::SignInLink, NodeError> {
        self.sign_in_link_by(settings, email, None).await
    }

    /// Like [`Self::sign_in_link`]; picks this organization's invitation.
    pub async fn sign_in_link_by(
        &self,
        settings: &StoreSettings,
        email: &str,
        organization: Option<OrganizationId>,
    ) -> Result<crate::identity::SignInLink, NodeError> {
        let user = self.accounts.find_or_invited(email, organization).await?;
        let organization = OrganizationId::new(user.organization_id);
        let user = hookledger_aggregates::UserId::new(user.id);
        Ok(self.links(settings).create(organization, user, Utc::now()).await?)
    }

    fn links(&self, settings: &StoreSettings) -> Links {
        Links::new(self.pool.clone(), settings.base_url.0.clone(), settings.magic_link_ttl.0)
    }

    /// Stops followers first and the writer last, so that accepted work is finished.
    pub async fn stop(self) {
        self.stop_until(Instant::now() + STOP_LIMIT).await;
    }

    /// Stops by the deadline, whatever the database does. Another node, or the next start, takes over
    /// unfinished work, as after a crash.
    async fn stop_until(self, deadline: Instant) {
        let now = Instant::now();
        let remaining = deadline.saturating_duration_since(now);
        self.stop.cancel();
        self.tasks.close();
        let tasks = tokio::time::timeout(remaining * 2 / 3, self.tasks.wait()).await;
        self.stop_writer.cancel();
        self.writer.close();
        let writer = tokio::time::timeout_at(deadline - remaining / 6, self.writer.wait()).await;
        let closing = async { tokio::join!(self.pool.close(), self.tenants.close(), self.followers.close()) };
        let closed = tokio::time::timeout_at(deadline, closing).await;
        if tasks.is_err() || writer.is_err() || closed.is_err() {
            tracing::warn!(
                tasks.unfinished = self.tasks.len(),
                writer.unfinished = self.writer.len(),
                connections.open = closed.is_err(),
                "reached the time limit for stopping; another node or the next start takes over unfinished work"
            );
        }
    }
}

/// A pool whose connections run on the lane that uses them.
async fn pool_of(lane: &Lane, store: &Store, use_: Use) -> Result<PgPool, NodeError> {
    let store = store.clone();
    Ok(lane.run(async move { store.pool(use_).await }).await.map_err(NodeError::Thread)??)
}

/// Listeners for the public and for operators.
struct Listeners {
    server: Server,
    address: SocketAddr,
    operators: Option<Server>,
}

impl Listeners {
    fn bind(settings: &ServeSettings) -> Result<Self, NodeError> {
        let listen =
            |address, clients| Server::bind(address, clients).map_err(|source| NodeError::Listen { address, source });
        let proxies = settings.trusted_proxies.clone();
        let clients = Clients::new(settings.max_connections, settings.max_connections_per_client, proxies);
        let server = listen(settings.listen, clients)?;
        let address = server.address().map_err(|source| NodeError::Listen { address: settings.listen, source })?;
        let operators = settings.operations_listen;
        let operators = operators.map(|address| listen(address, Clients::new(OPERATORS, OPERATORS, Vec::new())));
        Ok(Self { server, address, operators: operators.transpose()? })
    }

    async fn serve(self, services: Arc<Services>, stop: CancellationToken) {
        if self.operators.is_none() && !services.operations_are_public {
            tracing::info!(
                "not serving metrics or the reasons of /readyz; set HOOKLEDGER_OPERATIONS_LISTEN to serve them"
            );
        }
        let operating = async {
            if let Some(operators) = self.operators {
                operators.run(operations(Arc::clone(&services)), stop.clone()).await;
            }
        };
        tokio::join!(self.server.run(routes(Arc::clone(&services)), stop.clone()), operating);
    }
}

/// Serves until stopped. `ready` receives the address once requests are accepted.
pub async fn serve(
    store: &Store,
    settings: &ServeSettings,
    stop: CancellationToken,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), NodeError> {
    serve_fetching(store, settings, stop, ready, Arc::new(FetchFromPaypal::new()?)).await
}

/// Like [`serve`], with another source of certificates, so that tests need no network.
pub async fn serve_fetching(
    store: &Store,
    settings: &ServeSettings,
    stop: CancellationToken,
    ready: impl FnOnce(SocketAddr),
    fetch: Arc<dyn Fetch>,
) -> Result<(), NodeError> {
    let listeners = Listeners::bind(settings)?;
    let metrics = metrics();
    let tokens =
        Arc::new(Tokens::new(keys::jwt(&settings.store)?, settings.store.base_url.0.clone(), settings.session_ttl.0));
    let transport = transport(settings)?;
    let core = Core::start(store, &settings.store).await?;
    core.follow_ledger(store).await?;
    let ledgers = sign_ledger(settings, &core)?;

    let _relay = core.relay(store, settings.eventstore_url.as_ref()).await?;
    let directory = Directory::default();
    let mut follower =
        DirectoryFollower::new(directory.clone(), core.reader.clone(), core.heads.clone(), core.vault.clone())
            .watched(core.vitals.clone());
    patiently(store, async || Ok(follower.load().await?)).await?;
    core.spawn("directory", follower.run(core.stop.clone()));
    let fresh = Arc::new(FreshBodies::of(&core.heads));
    let egress = Egress::new(settings.egress_allow_cidrs.clone())?;
    deliver(store, settings, &core, &directory, Arc::clone(&fresh), egress.clone()).await?;
    let receiver = receiver(settings, &core, &directory, fresh)?;
    let verifier = Verifier::new(receiver.clone(), fetch);
    core.spawn("verifier", verifier.run(core.stop.clone()));

    core.keep_house(settings.retention_bodies.0);
    let changes = core.watch();

    let links = core.links(&settings.store);
    let sessions = Sessions::new(core.pool.clone(), tokens, Arc::clone(&core.accounts));
    core.spawn("expiry", sweep(links.clone(), sessions.clone(), core.stop.clone()));
    let (refusals, recorder) = Refusals::new(core.log.clone());
    core.spawn("refusals", recorder.run(core.stop.clone()));
    let (mailer, queue) = MailQueue::new(transport, settings.mail_from.clone());
    core.spawn("mail", queue.run(core.stop.clone()));
    let (errands, courier) = Courier::new(
        core.pool.clone(),
        Arc::clone(&core.accounts),
        links.clone(),
        refusals.clone(),
        mailer,
        settings.store.base_url.0.clone(),
    );
    core.spawn("courier", courier.run(core.stop.clone()));

    let providers = core.providers();
    let sandbox = Sandbox::new(core.commands.clone(), core.reader.clone(), providers.clone(), directory.clone());
    let app = App {
        tenants: core.tenants.clone(),
        commands: core.commands.clone(),
        checkpoints: core.checkpoints.clone(),
        directory: directory.clone(),
        providers: providers.clone(),
        receiver: receiver.clone(),
        egress,
        log: core.log.clone(),
        base_url: settings.store.base_url.0.clone(),
        changes,
        ticks: Ticks::new(core.tenants.clone(), core.stop.clone()),
        accounts: Arc::clone(&core.accounts),
        sessions,
        refusals,
        errands,
        limits: Arc::new(Limits::default()),
        platform: Platform {
            clock: core.clock.clone(),
            started_at: chrono::Utc::now(),
            settings: Arc::new(settings::of(settings)),
        },
        sandbox: settings.demo.then(|| Arc::new(sandbox)),
        ledgers,
        rendering: Rendering::default(),
    };
    let services = Services {
        receiver,
        schema: schema(app.clone()),
        sockets: Sockets::new(stop.clone()),
        links,
        checkpoints: core.checkpoints.clone(),
        vitals: core.vitals.clone(),
        metrics,
        max_body: settings.max_body.0,
        bodies: BodyBudget::new(settings.body_budget.0, settings.max_body.0),
        graphql_get: settings.graphql_get,
        operations_are_public: listeners.operators.is_none() && settings.is_local(),
        readiness: Readiness::default(),
        app,
    };
    ready(listeners.address);
    let stopping = {
        let stop = stop.clone();
        async move {
            stop.cancelled().await;
            Instant::now() + STOP_LIMIT
        }
    };
    let (deadline, ()) = tokio::join!(stopping, listeners.serve(Arc::new(services), stop));
    core.stop_until(deadline).await;
    Ok(())
}

/// Starts receiving webhooks, and the measurements for admission.
fn receiver(
    settings: &ServeSettings,
    core: &Core,
    directory: &Directory,
    fresh: Arc<FreshBodies>,
) -> Result<Receiver, NodeError> {
    let (limits, warner) = MonthlyLimits::new(core.commands.clone(), &core.heads);
    core.spawn("warner", warner.run(core.stop.clone()));
    let certificates = CertificateStore::new(settings.paypal_cert_dir.clone(), settings.paypal_trust_roots.as_deref())?;
    let admission = Admission::default();
    let receiver = Receiver::new(Parts {
        directory: directory.clone(),
        log: core.log.clone(),
        reader: core.reader.clone(),
        rejections: core.count_rejections(),
        duplicates: core.count_duplicates(),
        limits,
        certificates: Arc::new(certificates),
        paypal_max_age: settings.paypal_max_age.0,
        fresh,
        admission: admission.clone(),
    });
    let measuring = admission.run(Handle::current(), core.stop.clone());
    core.tasks.spawn_on(core.vitals.watch("admission", core.stop.clone(), measuring), core.append_lane.handle());
    Ok(receiver)
}

/// The transport for mails. A directory takes precedence over a server, for tests and closed networks.
fn transport(settings: &ServeSettings) -> Result<Transport, TransportError> {
    match (&settings.mail_dir, &settings.smtp_url) {
        (Some(directory), _) => Transport::directory(directory.clone()),
        (None, Some(url)) => Transport::smtp(url),
        (None, None) => Ok(Transport::Log),
    }
}

/// Starts signing the heads of the ledger's trees, and sending them to a witness.
fn sign_ledger(settings: &ServeSettings, core: &Core) -> Result<Ledgers, NodeError> {
    let file = settings.checkpoint_file().map(CheckpointFile::new);
    let losses = LossWatch {
        pool: core.pool.clone(),
        keys: LedgerKeys::derive(&keys::master(&settings.store)?).public(),
        file: settings.checkpoint_file(),
        vitals: core.vitals.clone(),
    };
    core.spawn("losses", losses.run(core.stop.clone()));
    let witness = |url| Witness::new(url, file.clone(), core.vitals.clone());
    let (put, witness) = settings.witness_url.as_deref().map(witness).transpose()?.unzip();
    let keys = LedgerKeys::derive(&keys::master(&settings.store)?);
    let base_url = settings.store.base_url.0.clone();
    let ledgers = Ledgers::new(core.pool.clone(), core.leases.node(), keys, base_url, file, put);
    if let Some(witness) = witness {
        core.tasks.spawn(witness.run(ledgers.clone(), core.stop.clone()));
    }
    let every = settings.checkpoint_interval.0.to_std().unwrap_or(Duration::from_secs(5));
    core.spawn("checkpoints", ledgers.clone().run(every, core.vitals.clone(), core.stop.clone()));
    Ok(ledgers)
}

/// Starts processing webhooks: the queue's feeder and the worker.
async fn deliver(
    store: &Store,
    settings: &ServeSettings,
    core: &Core,
    directory: &Directory,
    fresh: Arc<FreshBodies>,
    egress: Egress,
) -> Result<(), NodeError> {
    // A span in the settings is never negative.
    let attempt_timeout = settings.attempt_timeout.0.to_std().unwrap_or_default();
    let queue = Queue::new(store.pool(Use::Queue).await?, core.leases.node(), core.heads.clone());
    let sweeper = Sweeper::new(
        core.pool.clone(),
        queue.clone(),
        settings.pending_timeout.0.to_std().unwrap_or_default(),
        core.vitals.clone(),
    );
    let places = Arc::new(Places::default());
    let (hand, worker) = Worker::new(deliver::Parts {
        log: core.log.clone(),
        reader: core.reader.clone(),
        directory: directory.clone(),
        queue: queue.clone(),
        places: Arc::clone(&places),
        egress,
        fresh,
        settings: deliver::Settings {
            policy: RetryPolicy { delays: settings.retry_delays.0.clone() },
            pending_timeout: settings.pending_timeout.0.to_std().unwrap_or_default(),
            attempt_timeout,
        },
    });
    core.follow(Box::new(Feeder::new(directory.clone(), queue, places, attempt_timeout, hand)));
    core.spawn("worker", worker.run(core.stop.clone()));
    core.spawn("sweeper", sweeper.run(core.stop.clone()));
    Ok(())
}

fn metrics() -> metrics_exporter_prometheus::PrometheusHandle {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // If a process has several nodes, as in tests, the first one installs the recorder.
    let _ = metrics::set_global_recorder(recorder);
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    handle
}
