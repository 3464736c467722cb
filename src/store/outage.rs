//! Which errors mean that the store is away, rather than that something is wrong with what was asked.

use std::error::Error;
use std::io::ErrorKind;

use crate::audit::LedgerError;
use crate::audit::store::StoreError as LedgerStoreError;
use crate::identity::IdentityError;
use crate::log::{AppendError, ReadError};
use crate::secrets::vault::VaultError;
use crate::store::{Busy, TenantError};

/// Whether the store, or the way to it, is away: the same may work a moment later.
#[must_use]
pub fn is_unavailable(error: &(dyn Error + 'static)) -> bool {
    // Transparent errors hide themselves from `source`, so each is looked into.
    let mut next = Some(error);
    while let Some(error) = next {
        let away = if let Some(error) = error.downcast_ref::<sqlx::Error>() {
            is_unreachable(error)
        } else if let Some(ReadError::Database(error)) = error.downcast_ref() {
            is_unreachable(error)
        } else if let Some(VaultError::Database(error)) = error.downcast_ref() {
            is_unreachable(error)
        } else if let Some(LedgerError::Store(LedgerStoreError::Database(error))) = error.downcast_ref() {
            is_unreachable(error)
        } else if let Some(TenantError::Database(error)) = error.downcast_ref() {
            is_unreachable(error)
        } else if let Some(error) = error.downcast_ref::<AppendError>() {
            matches!(error, AppendError::Failed | AppendError::Overloaded)
        } else {
            match error.downcast_ref() {
                Some(IdentityError::Database(error) | IdentityError::Vault(VaultError::Database(error))) => {
                    is_unreachable(error)
                }
                Some(IdentityError::Unavailable(_)) => true,
                Some(IdentityError::Append(AppendError::Failed | AppendError::Overloaded)) => true,
                _ => false,
            }
        };
        if away {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether a parameter was refused for what it is: its type should have refused it before.
#[must_use]
pub fn is_out_of_range(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let database = match (error.downcast_ref(), error.downcast_ref()) {
            (Some(error), _) | (_, Some(ReadError::Database(error))) => Some(error),
            _ => None,
        };
        match database {
            Some(sqlx::Error::Encode(_)) => return true,
            // Numbers and times out of range, and U+0000 in a text.
            Some(sqlx::Error::Database(error)) => {
                return error
                    .code()
                    .is_some_and(|code| matches!(&*code, "22003" | "22007" | "22008" | "22021" | "22P05"));
            }
            _ => next = error.source(),
        }
    }
    false
}

/// Whether nothing was read because others of the same asker, or of the same kind, take all the time.
#[must_use]
pub fn is_busy(error: &(dyn Error + 'static)) -> bool {
    error.is::<Busy>() || matches!(error.downcast_ref(), Some(TenantError::Busy(_)))
}

/// Whether the server was not reached, or ended the connection. Not whether it did what was asked.
#[must_use]
pub fn is_unreachable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        // A handshake that was cut off; a certificate that is refused stays refused.
        sqlx::Error::Tls(error) => error.downcast_ref::<std::io::Error>().is_some_and(|error| {
            matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
        }),
        // The stream ended in the middle of a message.
        sqlx::Error::Protocol(told) => told.contains("unexpected") && told.contains("EOF"),
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_away(&code)),
        _ => false,
    }
}

/// 08: connection exceptions. 53300: too many connections. 57P01, 57P02: ended by an administrator or a
/// crash. 57P03: starting, recovering or stopping. 57P05 and 25P03: ended after idling too long.
fn is_away(code: &str) -> bool {
    code.starts_with("08") || matches!(code, "53300" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03")
}

/// Whether the server is there, and starts, recovers or stops.
pub(super) fn is_starting(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "57P03")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_from_a_mistake_through_every_wrapper() {
        let away = || sqlx::Error::Io(ErrorKind::ConnectionReset.into());
        let wrapped: [Box<dyn Error>; 6] = [
            Box::new(away()),
            Box::new(sqlx::Error::PoolTimedOut),
            Box::new(ReadError::Database(away())),
            Box::new(VaultError::Database(away())),
            Box::new(IdentityError::Vault(VaultError::Database(away()))),
            Box::new(AppendError::Failed),
        ];
        for error in &wrapped {
            assert!(is_unavailable(error.as_ref()), "{error:?}");
        }
        for code in ["08006", "53300", "57P01", "57P02", "57P03"] {
            assert!(is_away(code));
        }
        for error in [sqlx::Error::RowNotFound, sqlx::Error::ColumnNotFound("id".to_owned())] {
            assert!(!is_unavailable(&error), "{error:?}");
        }
        assert!(!is_away("57014") && !is_away("23505"));
    }
}
