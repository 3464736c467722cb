//! Reading for people: a transaction that sees one organization, whatever its queries forget.
//!
//! This is the second of two walls. The first is that every query names its organization; here the
//! database itself shows nothing else (`migrations/0010_tenancy.sql`).

use std::ops::{Deref, DerefMut};

use hookledger_aggregates::OrganizationId;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use super::outage::is_unreachable;

/// Where people's reads begin.
#[derive(Clone, Debug)]
pub struct Tenants {
    pool: PgPool,
}

/// A read-only transaction that is confined to one organization (or to none, see
/// [`Tenants::everybody`]). It ends when it is dropped. Hand `&mut *tenant` to a query.
pub struct Tenant {
    transaction: Transaction<'static, Postgres>,
}

impl Tenants {
    /// Over connections that act as `hookledger_runtime`.
    #[must_use]
    pub(super) fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Reads of one organization; of the platform's own rows with [`OrganizationId::PLATFORM`].
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn of(&self, organization: OrganizationId) -> Result<Tenant, sqlx::Error> {
        self.begin(&format!("set_config('hookledger.organization', '{}', true)", organization.uuid())).await
    }

    /// Reads across organizations: for what super admins ask of all of them at once, and nothing else.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn everybody(&self) -> Result<Tenant, sqlx::Error> {
        self.begin("set_config('hookledger.everybody', 'on', true)").await
    }

    /// One message and one answer for both: each read costs a round trip more than its query. A connection
    /// that turns out dead is no reason to refuse a read, which changes nothing: it begins once again.
    async fn begin(&self, setting: &str) -> Result<Tenant, sqlx::Error> {
        let attempt = || self.pool.begin_with(format!("begin read only; select {setting}"));
        let transaction = match attempt().await {
            // To have waited for a connection in vain is the answer.
            Err(error) if is_unreachable(&error) && !matches!(error, sqlx::Error::PoolTimedOut) => attempt().await?,
            transaction => transaction?,
        };
        Ok(Tenant { transaction })
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
