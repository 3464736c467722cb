//! Errors of people's use cases.

use hookledger_aggregates::email_claim::EmailClaimError;
use hookledger_aggregates::team::TeamError;
use hookledger_aggregates::user::UserError;

use crate::log::{AppendError, CommandError, Unreachable};
use crate::platform::secrets::vault::VaultError;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{0:?} isn't an email address.")]
    Address(String),
    #[error("This email address belongs to another user.")]
    AddressTaken,
    #[error("This person is already in the organization.")]
    AlreadyHere,
    #[error("No active user or open invitation has this email address.")]
    NoSuchUser,
    #[error("Several organizations invited this address. Choose one with --organization: {0}")]
    SeveralInvitations(String),
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Team(#[from] TeamError),
    #[error("Someone else is changing this too. Try again.")]
    Busy,
    #[error("could not read a stream of the log: {0}")]
    Read(String),
    /// The change may or may not have been made.
    #[error("{0}")]
    Unavailable(#[from] Unreachable),
    #[error("could not create a session token: {0}")]
    Token(#[from] super::TokenError),
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    #[error("{0}")]
    Vault(#[from] VaultError),
    #[error("{0}")]
    Append(#[from] AppendError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl From<EmailClaimError> for IdentityError {
    fn from(error: EmailClaimError) -> Self {
        match error {
            EmailClaimError::Taken => Self::AddressTaken,
        }
    }
}

/// Reading a stream refuses nothing and appends nothing.
pub(super) fn unread<E: std::error::Error>(error: CommandError<E>) -> IdentityError {
    match error {
        CommandError::Unavailable(reason) => IdentityError::Unavailable(Unreachable(reason)),
        other => IdentityError::Read(other.to_string()),
    }
}
