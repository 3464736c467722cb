//! What can go wrong beside the live read models.

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
    #[error("there is no projection {0:?}; there are {1}")]
    Unknown(String, String),
    #[error("another command works on {0}; wait for its end, or end it")]
    Busy(String),
    #[error("the event at {}:{} cannot be understood: {reason}", at.partition, at.position)]
    Event { at: LogPosition, reason: String },
    #[error("the columns of {0} changed since the copy was made; rebuild it anew")]
    Changed(String),
    #[error("there is no rebuilt copy of {0}; make one with `hookledger projections rebuild {0}`")]
    NoCopy(String),
    #[error("{0} has no primary key, so its rows cannot be told apart")]
    NoKey(String),
    #[error(
        "{0} was in use all the time and could not be exchanged; the copy is kept: try `hookledger projections switch {0}`"
    )]
    InUse(String),
    #[error("the copy has come further than the live read model, which began anew; rebuild it anew")]
    Ahead,
    #[error("{0:?} is neither a time like 2026-01-31T12:00:00Z nor PARTITION:POSITION like 3:1500")]
    AsOf(String),
    #[error("there is no event at {}:{}", .0.partition, .0.position)]
    NoEvent(LogPosition),
    #[error("there is no organization {0:?}")]
    NoOrganization(String),
    #[error(
        "{0:?} cannot be the name of a schema: lower case letters, digits and _, up to 48, beginning with a letter"
    )]
    SchemaName(String),
    #[error("the schema {0} is there and is not a replay; nothing was changed")]
    NotOurs(String),
}
