//! Errors of rebuilds and replays.

use hookledger_projections::ProjectionError;

use crate::log::{LogPosition, ReadError};
use crate::platform::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    #[error("no projection is called {0:?}. Projections: {1}")]
    Unknown(String, String),
    #[error("another command is working on {0}. Wait until it ends, or end it")]
    Busy(String),
    #[error("could not decode the event at {}:{}: {reason}", at.partition, at.position)]
    Event { at: LogPosition, reason: String },
    #[error("the columns of {0} changed since the copy was created. Rebuild it")]
    Changed(String),
    #[error("there is no rebuilt copy of {0}. Create one with `hookledger projections rebuild {0}`")]
    NoCopy(String),
    #[error("{0} has no primary key, so its rows cannot be compared")]
    NoKey(String),
    #[error(
        "{0} was in use all the time, so it could not be switched. The copy is kept: try `hookledger projections switch {0}`"
    )]
    InUse(String),
    #[error("the copy is ahead of the live read model, which started over. Rebuild it")]
    Ahead,
    #[error("{0:?} is neither a time like 2026-01-31T12:00:00Z nor a position like 3:1500 (PARTITION:POSITION)")]
    AsOf(String),
    #[error("there is no event at {}:{}", .0.partition, .0.position)]
    NoEvent(LogPosition),
    #[error("no organization has the slug {0:?}")]
    NoOrganization(String),
    #[error("{0:?} cannot be a schema name. Use up to 48 lower-case letters, digits and _, beginning with a letter")]
    SchemaName(String),
    #[error("the schema {0} exists and is not a replay; nothing was changed")]
    NotOurs(String),
}
