//! Recognizes errors that mean that the log or the database is unreachable, rather than that the request is
//! wrong.

use std::error::Error;

use super::{AppendError, ReadError};
use crate::platform::secrets::vault::VaultError;
use crate::platform::store::{Busy, TenantError, is_unreachable};

/// The log could not be reached; the request may or may not have been carried out.
#[derive(Debug, thiserror::Error)]
#[error("could not reach the log: {0}")]
pub struct Unreachable(pub String);

/// Whether the store is unreachable, so that the same request may succeed a moment later.
#[must_use]
pub fn is_unavailable(error: &(dyn Error + 'static)) -> bool {
    // `source` skips the inner error of a transparent one, so those are matched here.
    let mut next = Some(error);
    while let Some(error) = next {
        let database = error.downcast_ref().or_else(|| match error.downcast_ref() {
            Some(ReadError::Database(error)) => Some(error),
            _ => None,
        });
        let database = database.or_else(|| match error.downcast_ref() {
            Some(VaultError::Database(error)) => Some(error),
            _ => None,
        });
        let database = database.or_else(|| match error.downcast_ref() {
            Some(TenantError::Database(error)) => Some(error),
            _ => None,
        });
        if database.is_some_and(is_unreachable)
            || matches!(error.downcast_ref(), Some(AppendError::Failed | AppendError::Overloaded))
            || error.is::<Unreachable>()
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether the database refused a parameter's value; its type should have refused it earlier.
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

/// Whether nothing was read because other requests of the same person, or of the same kind, take all the
/// time.
#[must_use]
pub fn is_busy(error: &(dyn Error + 'static)) -> bool {
    error.is::<Busy>() || matches!(error.downcast_ref(), Some(TenantError::Busy(_)))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn an_outage_is_told_from_a_mistake_through_every_wrapper() {
        let away = || sqlx::Error::Io(ErrorKind::ConnectionReset.into());
        let wrapped: [Box<dyn Error>; 6] = [
            Box::new(away()),
            Box::new(sqlx::Error::PoolTimedOut),
            Box::new(ReadError::Database(away())),
            Box::new(VaultError::Database(away())),
            Box::new(Unreachable(String::new())),
            Box::new(AppendError::Failed),
        ];
        for error in &wrapped {
            assert!(is_unavailable(error.as_ref()), "{error:?}");
        }
        for error in [sqlx::Error::RowNotFound, sqlx::Error::ColumnNotFound("id".to_owned())] {
            assert!(!is_unavailable(&error), "{error:?}");
        }
    }
}
