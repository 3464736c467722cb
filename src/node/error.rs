//! The errors of a start, and its retries.

use std::net::SocketAddr;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use tokio::time::Instant;

use super::keys::KeysError;
use crate::audit::WitnessError;
use crate::directory::DirectoryError;
use crate::identity::IdentityError;
use crate::log::relay::RelayError;
use crate::log::{HeadsError, ReadError, is_unavailable};
use crate::platform::egress::StartError;
use crate::platform::mail::TransportError;
use crate::platform::secrets::vault::VaultError;
use crate::platform::store::{Store, StoreError};
use crate::receive::paypal;

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
pub(super) async fn patiently<T>(
    store: &Store,
    mut step: impl AsyncFnMut() -> Result<T, NodeError>,
) -> Result<T, NodeError> {
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
