//! The core that the server and the operator's commands share.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use hookledger_aggregates::user::Role;
use hookledger_aggregates::{Metadata, OrganizationId};
use hookledger_projections::users;
use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::config::StoreSettings;
use super::error::{NodeError, patiently};
use super::keys;
use crate::identity::{Accounts, IdentityError, Links, SessionKeeper};
use crate::log::follow::{Checkpoints, Follower, Handler, Leases, Projector};
use crate::log::{Commands, Heads, Log, Reader, Writer};
use crate::platform::lane::{Lane, Niceness};
use crate::platform::secrets::vault::Vault;
use crate::platform::store::{Clock, Store, Tenants, Use};
use crate::platform::vitals::Vitals;
use crate::providers::Providers;

/// How long stopping may take in total: requests in flight, tasks, the writer and the connections.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(15);

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
    pub(super) followers: PgPool,
    pub(super) stop: CancellationToken,
    stop_writer: CancellationToken,
    pub(super) tasks: TaskTracker,
    writer: TaskTracker,
    pub(super) append_lane: Lane,
    pub(super) follow_lane: Lane,
    pub(super) ledger_lane: Lane,
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

    /// Starts a follower on the lane of followers.
    pub(super) fn follow(&self, handler: Box<dyn Handler>) {
        let name = handler.name();
        let follower = Follower::new(handler, self.followers.clone(), self.heads.clone(), self.leases.clone());
        let follower = follower.watched(self.vitals.clone());
        let following = self.vitals.watch(name, self.stop.clone(), follower.run(self.stop.clone()));
        self.tasks.spawn_on(following, self.follow_lane.handle());
    }

    /// Runs an essential task until the node stops.
    pub(super) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.vitals.watch(name, self.stop.clone(), task));
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

    pub(super) fn links(&self, settings: &StoreSettings) -> Links {
        Links::new(self.pool.clone(), settings.base_url.0.clone(), settings.magic_link_ttl.0)
    }

    /// Stops followers first and the writer last, so that accepted work is finished.
    pub async fn stop(self) {
        self.stop_until(Instant::now() + STOP_LIMIT).await;
    }

    /// Stops by the deadline, whatever the database does. Another node, or the next start, takes over
    /// unfinished work, as after a crash.
    pub(super) async fn stop_until(self, deadline: Instant) {
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
pub(super) async fn pool_of(lane: &Lane, store: &Store, use_: Use) -> Result<PgPool, NodeError> {
    let store = store.clone();
    Ok(lane.run(async move { store.pool(use_).await }).await.map_err(NodeError::Thread)??)
}
