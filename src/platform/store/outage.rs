//! Recognizes errors that mean that the database is unreachable, rather than that the request is wrong.

use std::io::ErrorKind;

/// Whether the server was unreachable or ended the connection. Says nothing about whether it carried out the
/// request.
#[must_use]
pub fn is_unreachable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        // A handshake that was cut off; a refused certificate stays refused.
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
/// crash. 57P03: starting, recovering or stopping. 57P05 and 25P03: ended after being idle for too long.
fn is_away(code: &str) -> bool {
    code.starts_with("08") || matches!(code, "53300" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03")
}

/// Whether the server is reachable but starting, recovering or stopping.
pub(super) fn is_starting(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "57P03")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_from_a_mistake() {
        for code in ["08006", "53300", "57P01", "57P02", "57P03"] {
            assert!(is_away(code));
        }
        assert!(!is_away("57014") && !is_away("23505"));
    }
}
