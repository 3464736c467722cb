//! The store: the location of PostgreSQL, its connections, and its migrations.
//!
//! There are three roles. The owner creates the schema. The running server acts as `hookledger_worker`, which
//! owns nothing and can only insert into and read the log, and reads for people as `hookledger_runtime`,
//! which only reads, and sees one organization at a time. In the embedded store it logs in as each of them,
//! and the cluster's superuser creates all three; see [`roles`].

mod connections;
pub mod embedded;
mod facts;
mod migrate;
mod outage;
mod places;
mod roles;
pub mod schema;
mod sockets;
mod tenant;
mod watch;

use std::path::Path;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool};

pub use self::connections::{Connections, TooFew, Use};
use self::embedded::{DATABASE, OWNER, SUPERUSER};
pub use self::facts::{Facts, facts};
pub use self::outage::is_unreachable;
pub use self::places::{Asker, Busy, Reading};
use self::sockets::Sockets;
pub use self::tenant::{Tenant, TenantError, Tenants};
pub use self::watch::{Clock, StoreWatch};

/// How long to wait for a server that starts or recovers; a node waits this long for an unreachable one as
/// well.
const RECOVERY_LIMIT: Duration = Duration::from_secs(300);
/// How long a command waits for an unreachable server: its URL may be wrong.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);
/// How long connecting, or waiting for a free connection, may take.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may take to show that it is alive.
const PING_LIMIT: Duration = Duration::from_secs(2);
/// Interval of log lines about an unreachable server.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(5);

/// How the server handles a connection whose node is gone, or paused in a transaction that holds locks.
const OF_EVERY_CONNECTION: &[(&str, &str)] = &[
    ("idle_in_transaction_session_timeout", "5s"),
    ("client_connection_check_interval", "2s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "15000"),
];

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Embedded(#[from] embedded::EmbeddedError),
    #[error("DATABASE_URL must begin with postgres:// or postgresql://")]
    Scheme,
    #[error("DATABASE_URL is not a valid PostgreSQL URL: {0}")]
    Url(#[source] sqlx::Error),
    #[error("could not reach the database at {server}: {source}")]
    Unreachable { server: String, source: sqlx::Error },
    #[error("could not migrate the schema: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// How to connect to the store.
#[derive(Clone, Debug)]
pub struct Store {
    options: PgConnectOptions,
    sockets: Sockets,
    connections: Connections,
    patience: Duration,
    logins: Logins,
}

/// The users that a running server connects as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Logins {
    /// The URL's user, which then switches to another role.
    One,
    /// Each role itself, from which nothing leads to the owner.
    OfEachRole,
}

impl Store {
    fn new(options: PgConnectOptions) -> Self {
        let sockets = Sockets::to(&options);
        Self { options, sockets, connections: Connections::default(), patience: COMMAND_PATIENCE, logins: Logins::One }
    }

    /// The PostgreSQL at `DATABASE_URL`.
    pub fn at_url(url: &SecretString) -> Result<Self, StoreError> {
        let text = url.expose_secret();
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return Err(StoreError::Scheme);
        }
        let options = PgConnectOptions::from_str(text).map_err(StoreError::Url)?;
        Ok(Self::new(options.application_name("hookledger")))
    }

    /// The embedded PostgreSQL: waits until it has recovered, and creates roles and database once.
    pub async fn embedded(socket_directory: &Path) -> Result<Self, StoreError> {
        let local = |user: &str, database: &str| local_options(socket_directory, user, database);
        let mut superuser = Self::new(local(SUPERUSER, "postgres")).waiting().owner().await?;
        // Two commands may start at once on a new directory.
        sqlx::query("select pg_advisory_lock(7305)").execute(&mut superuser).await?;
        roles::make(&mut superuser).await?;
        let has_database = "select exists (select from pg_database where datname = $1)";
        if !sqlx::query_scalar::<_, bool>(has_database).bind(DATABASE).fetch_one(&mut superuser).await? {
            superuser.execute(format!("create database {DATABASE} owner {OWNER}").as_str()).await?;
        }
        superuser.close().await?;
        Ok(Self { logins: Logins::OfEachRole, ..Self::new(local(OWNER, DATABASE)) })
    }

    /// Limits the connections of a node, all pools together.
    #[must_use]
    pub fn with(self, connections: Connections) -> Self {
        Self { connections, ..self }
    }

    /// Waits for an unreachable server as long as for a starting one, as a node does.
    #[must_use]
    pub fn waiting(self) -> Self {
        Self { patience: RECOVERY_LIMIT, ..self }
    }

    /// How long to wait for an unreachable server.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Migrates the schema as the owner. Several nodes may call this at once.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrate::run(self).await
    }

    /// A connection of the owner, for commands that create and move tables. Row-level security applies to it
    /// too, so it reads tenants' rows as the worker.
    pub async fn owner(&self) -> Result<PgConnection, StoreError> {
        self.patiently(|| self.options.connect()).await
    }

    /// Entry point for people's reads.
    pub async fn tenants(&self) -> Result<Tenants, StoreError> {
        Ok(Tenants::new(self.pool(Use::Query).await?))
    }

    /// A pool of connections with the role of that use.
    pub async fn pool(&self, use_: Use) -> Result<PgPool, StoreError> {
        self.patiently(|| Box::pin(self.pool_options(use_).connect_with(self.options_of(use_)))).await
    }

    /// The watch, which reports whether the store answers, and closes connections that never will.
    #[must_use]
    pub fn watch(&self) -> StoreWatch {
        StoreWatch::new(self.options_of(Use::Work), self.sockets.clone())
    }

    /// Connection options for that use. The role is part of the session's start, so that no connection is
    /// ever without it, and `reset role` changes nothing.
    fn options_of(&self, use_: Use) -> PgConnectOptions {
        let settings = OF_EVERY_CONNECTION.iter().chain(use_.settings()).copied();
        let options = self.options.clone().options(settings);
        match self.logins {
            Logins::One => options.options([("role", use_.role())]),
            Logins::OfEachRole => options.username(use_.role()),
        }
    }

    fn pool_options(&self, use_: Use) -> PgPoolOptions {
        let (opened, asked) = (self.sockets.clone(), self.sockets.clone());
        PgPoolOptions::new()
            .max_connections(self.connections.of(use_))
            .acquire_timeout(ACQUIRE_LIMIT)
            // Testing would cost a round trip each time. The operating system knows which connections the
            // server closed.
            .test_before_acquire(false)
            .before_acquire(move |connection, _| {
                let may_be_dead = asked.has_closed();
                Box::pin(async move {
                    if may_be_dead {
                        tokio::time::timeout(PING_LIMIT, connection.ping())
                            .await
                            .map_err(|_| sqlx::Error::PoolTimedOut)??;
                    }
                    Ok(true)
                })
            })
            .after_connect(move |_, _| {
                let opened = opened.clone();
                Box::pin(async move {
                    opened.resolve().await;
                    opened.look();
                    Ok(())
                })
            })
    }

    /// Connects, and retries while the server starts, recovers or is unreachable.
    async fn patiently<'a, T>(
        &self,
        connect: impl Fn() -> BoxFuture<'a, Result<T, sqlx::Error>> + Send + Sync,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let mut complained: Option<Instant> = None;
        loop {
            let connected = tokio::time::timeout(2 * ACQUIRE_LIMIT, connect()).await;
            let error = match connected.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(connected) => return Ok(connected),
                Err(error) => error,
            };
            let limit = if outage::is_starting(&error) { RECOVERY_LIMIT } else { self.patience };
            if !is_unreachable(&error) || begun.elapsed() >= limit {
                return Err(StoreError::Unreachable { server: self.server(), source: error });
            }
            if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) && begun.elapsed() > PING_LIMIT / 2 {
                complained = Some(Instant::now());
                tracing::warn!(
                    database.server = self.server(), %error, waited_s = begun.elapsed().as_secs(), limit_s = limit.as_secs(),
                    "could not reach the database; retrying"
                );
            }
            tokio::time::sleep(Duration::from_millis(if begun.elapsed() < PING_LIMIT { 50 } else { 250 })).await;
        }
    }

    /// The server as named in errors: never with a password.
    fn server(&self) -> String {
        match self.options.get_socket() {
            Some(directory) => directory.display().to_string(),
            None => format!("{}:{}", self.options.get_host(), self.options.get_port()),
        }
    }
}

fn local_options(socket: &Path, user: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket)
        .username(user)
        .database(database)
        .application_name("hookledger")
}
