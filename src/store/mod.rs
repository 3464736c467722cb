//! The store: where PostgreSQL is, its connections, and its migrations.
//!
//! Three roles are used. The owner makes the schema. The running server acts as `hookledger_worker`,
//! which owns nothing and can only insert into and read the log, and reads for people as
//! `hookledger_runtime`, which only reads, and sees one organization at a time.

pub mod embedded;
mod facts;
mod tenant;

use std::path::Path;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool};

use self::embedded::{DATABASE, Embedded, OWNER, SUPERUSER};
pub use self::facts::{Facts, facts};
pub use self::tenant::{Tenant, Tenants};

/// The migrations, as they were when this binary was built.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// How long a server may take to recover after a crash.
const RECOVERY_LIMIT: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Embedded(#[from] embedded::EmbeddedError),
    #[error("DATABASE_URL does not begin with postgres:// or postgresql://")]
    Scheme,
    #[error("DATABASE_URL is not a PostgreSQL URL: {0}")]
    Url(#[source] sqlx::Error),
    #[error("the database cannot be reached: {0}")]
    Unreachable(#[source] sqlx::Error),
    #[error("the schema cannot be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// How to connect to the store.
#[derive(Clone, Debug)]
pub struct Store {
    options: PgConnectOptions,
}

impl Store {
    /// The PostgreSQL that `DATABASE_URL` names.
    ///
    /// # Errors
    /// When it is not a URL of PostgreSQL.
    pub fn at_url(url: &SecretString) -> Result<Self, StoreError> {
        let text = url.expose_secret();
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return Err(StoreError::Scheme);
        }
        let options = PgConnectOptions::from_str(text).map_err(StoreError::Url)?;
        Ok(Self { options: options.application_name("hookledger") })
    }

    /// The embedded PostgreSQL: waits until it has recovered, and makes role and database once.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn embedded(embedded: &Embedded) -> Result<Self, StoreError> {
        let local = |user: &str, database: &str| local_options(embedded.socket_directory(), user, database);
        let mut superuser = connect_patiently(&local(SUPERUSER, "postgres")).await?;
        // Two commands may start at once on a fresh directory.
        sqlx::query("select pg_advisory_lock(7305)").execute(&mut superuser).await?;
        let has_role = "select exists (select from pg_roles where rolname = $1)";
        if !sqlx::query_scalar::<_, bool>(has_role).bind(OWNER).fetch_one(&mut superuser).await? {
            superuser.execute(format!("create role {OWNER} login createrole").as_str()).await?;
        }
        let has_database = "select exists (select from pg_database where datname = $1)";
        if !sqlx::query_scalar::<_, bool>(has_database).bind(DATABASE).fetch_one(&mut superuser).await? {
            superuser.execute(format!("create database {DATABASE} owner {OWNER}").as_str()).await?;
        }
        superuser.close().await?;
        Ok(Self { options: local(OWNER, DATABASE) })
    }

    /// Brings the schema up to date, as the owner. Several nodes may ask at once.
    ///
    /// # Errors
    /// When the server cannot be reached or a migration fails; what it did is rolled back.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut owner = connect_patiently(&self.options).await?;
        MIGRATIONS.run(&mut owner).await?;
        owner.close().await?;
        Ok(())
    }

    /// One connection of the owner, for commands that make and move tables. Row-level security holds for
    /// it too: what it reads of tenants it reads as the worker.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn owner(&self) -> Result<PgConnection, StoreError> {
        connect_patiently(&self.options).await
    }

    /// Where people's reads begin.
    ///
    /// # Errors
    /// When the server cannot be reached or the role is not there.
    pub async fn tenants(&self) -> Result<Tenants, StoreError> {
        Ok(Tenants::new(self.pool(Use::Query).await?))
    }

    /// A pool of connections that act as the role of that use.
    ///
    /// # Errors
    /// When the server cannot be reached or the role is not there.
    pub async fn pool(&self, use_: Use) -> Result<PgPool, StoreError> {
        let become_ = match use_ {
            Use::Append | Use::Follow | Use::Work => "set role hookledger_worker",
            Use::Query => "set role hookledger_runtime",
        };
        PgPoolOptions::new()
            .max_connections(use_.connections())
            .acquire_timeout(Duration::from_secs(10))
            .test_before_acquire(false)
            .after_connect(move |connection, _| Box::pin(async move { connection.execute(become_).await.map(drop) }))
            .connect_with(self.options.clone().options(use_.settings().iter().copied()))
            .await
            .map_err(StoreError::Unreachable)
    }
}

/// What a pool is for, which says how its connections are set.
#[derive(Clone, Copy, Debug)]
pub enum Use {
    /// Appending to the log: a commit is durable when it is answered.
    Append,
    /// Projections: their rows and checkpoints change together and can be derived again, so their
    /// commits need not wait for the disk.
    Follow,
    /// What the server itself asks and notes for everybody: commands, checkpoints, sign-in links.
    Work,
    /// Reading for people, through [`Tenants`].
    Query,
}

impl Use {
    fn connections(self) -> u32 {
        match self {
            Self::Append => 2,
            Self::Follow => 8,
            Self::Work => 12,
            Self::Query => 16,
        }
    }

    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Append => &[("statement_timeout", "10s"), ("synchronous_commit", "on")],
            // A batch is looked up by its keys. Where statistics are stale, as they are on tables that
            // grow by thousands of rows a second, the planner scanned the whole table instead; and to read
            // the next thousand events, all that came after them. A plan that was made while a table was
            // nearly empty would be kept for as long as the connection: a new one costs less than it may.
            Self::Follow => &[
                ("statement_timeout", "60s"),
                ("synchronous_commit", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
                ("enable_bitmapscan", "off"),
                ("enable_seqscan", "off"),
                ("plan_cache_mode", "force_custom_plan"),
            ],
            // The directory reads the log here.
            Self::Work => &[("statement_timeout", "10s"), ("synchronous_commit", "on"), ("enable_bitmapscan", "off")],
            Self::Query => &[("statement_timeout", "10s"), ("synchronous_commit", "on")],
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

/// Connects, and while the server starts or recovers tries again.
async fn connect_patiently(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let deadline = Instant::now() + RECOVERY_LIMIT;
    loop {
        match options.connect().await {
            Ok(connection) => return Ok(connection),
            Err(error) if is_starting(&error) && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(StoreError::Unreachable(error)),
        }
    }
}

/// 57P03, `cannot_connect_now`: starting up, recovering or shutting down.
fn is_starting(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "57P03")
}
