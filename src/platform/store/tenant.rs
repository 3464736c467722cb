//! Reads for people: a transaction that sees one organization, whatever its queries forget.
//!
//! This is the second of two barriers. The first is that every query names its organization; here the
//! database itself shows nothing else (`keep_tenants_apart`).

use std::ops::{Deref, DerefMut};

use hookledger_aggregates::OrganizationId;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use super::outage::is_unreachable;
use super::places::{Asker, Busy, Place, Places, Reading};

/// Entry point for people's reads, on the node's behalf until [`Tenants::asked_by`] names somebody else.
#[derive(Clone, Debug)]
pub struct Tenants {
    pool: PgPool,
    places: Places,
    asker: Asker,
    reading: Reading,
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// For callers that treat a wait in vain like an unreachable database.
impl From<TenantError> for sqlx::Error {
    fn from(error: TenantError) -> Self {
        match error {
            TenantError::Busy(Busy) => Self::PoolTimedOut,
            TenantError::Database(error) => error,
        }
    }
}

/// A read-only transaction that is confined to one organization (or to none, see [`Tenants::everybody`]). It
/// ends when it is dropped. Pass `&mut *tenant` to a query.
pub struct Tenant {
    transaction: Transaction<'static, Postgres>,
    _place: Place,
}

impl Tenants {
    /// Over connections that act as `hookledger_runtime`.
    #[must_use]
    pub(super) fn new(pool: PgPool) -> Self {
        let places = Places::new(pool.options().get_max_connections());
        Self { pool, places, asker: Asker::Node, reading: Reading::Page }
    }

    /// The same entry point, with reads queued among those of that asker.
    #[must_use]
    pub fn asked_by(&self, asker: Asker, reading: Reading) -> Self {
        Self { asker, reading, ..self.clone() }
    }

    /// Reads of one organization; of the platform's own rows with [`OrganizationId::PLATFORM`].
    pub async fn of(&self, organization: OrganizationId) -> Result<Tenant, TenantError> {
        self.begin(&format!("set_config('hookledger.organization', '{}', true)", organization.uuid())).await
    }

    /// Reads across organizations: only for super admins' questions about all of them.
    pub async fn everybody(&self) -> Result<Tenant, TenantError> {
        self.begin("set_config('hookledger.everybody', 'on', true)").await
    }

    /// A single round trip besides the query. A dead connection is no reason to refuse a read, which changes
    /// nothing: it is tried once more.
    async fn begin(&self, setting: &str) -> Result<Tenant, TenantError> {
        let place = self.places.take(&self.asker, self.reading).await?;
        metrics::counter!("hookledger_reads_total", "by" => self.by()).increment(1);
        let attempt = || self.pool.begin_with(format!("begin read only; select {setting}"));
        let transaction = match attempt().await {
            // A timeout of the pool is the final answer.
            Err(error) if is_unreachable(&error) && !matches!(error, sqlx::Error::PoolTimedOut) => attempt().await?,
            transaction => transaction?,
        };
        Ok(Tenant { transaction, _place: place })
    }

    fn by(&self) -> &'static str {
        match (&self.asker, self.reading) {
            (Asker::Node, _) => "node",
            (Asker::Guest(_), _) => "guest",
            (Asker::Person(..), Reading::Page) => "person",
            (Asker::Person(..), Reading::Search) => "search",
            (Asker::Person(..), Reading::Subscription) => "subscription",
        }
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

impl Deref for Tenant {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.transaction
    }
}

impl DerefMut for Tenant {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }
}
