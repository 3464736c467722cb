//! Reasons why a webhook could not be delivered, in sentences for the customer.
//!
//! They reveal nothing about the network that Hookledger runs in; details go to the server's log.

use std::time::Duration;

use super::address::Forbidden;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error("DNS lookup failed: {}", .why.told(.host))]
    Unresolvable { host: String, why: Unresolvable },
    #[error("Connection failed. Check that the destination is running and reachable from the internet.")]
    Unreachable,
    #[error("TLS handshake failed: {0}")]
    Tls(TlsFailure),
    #[error("Connection timed out after {} s. Check that the destination is running and reachable from the internet.", .0.as_secs_f64())]
    ConnectTimedOut(Duration),
    #[error("Timed out: the destination did not respond within {} s.", .0.as_secs_f64())]
    TimedOut(Duration),
    #[error("{0}")]
    Broken(Broken),
}

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresolvable {
    NoAddress,
    TooMany,
    NoAnswer,
}

impl Unresolvable {
    /// The error for this host.
    pub(super) fn of(self, host: &str) -> SendError {
        SendError::Unresolvable { host: host.to_owned(), why: self }
    }

    fn told(self, host: &str) -> String {
        match self {
            Self::NoAddress => format!("{host} does not exist. Check the destination's URL."),
            Self::TooMany => format!("{host} has more than 64 addresses."),
            Self::NoAnswer => format!("no DNS server answered for {host}. This usually resolves itself."),
        }
    }
}

/// Why TLS failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsFailure {
    #[error("the certificate isn't from a trusted authority, or an intermediate certificate is missing.")]
    Untrusted,
    #[error("the certificate is for a different host.")]
    OtherHost,
    #[error("the certificate has expired or isn't valid yet.")]
    Expired,
    #[error("the certificate isn't valid.")]
    Certificate,
    #[error("the destination doesn't support TLS 1.2 or 1.3 on this port.")]
    Handshake,
}

/// Why an exchange failed on an open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("The destination closed the connection without responding.")]
    Closed,
    #[error("The destination's response isn't HTTP/1.1.")]
    NotHttp,
    #[error("The destination sent too many headers: at most 256 KiB and 1,024 lines are read.")]
    TooMuch,
}

/// The meaning of a failure for the circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// We refused to connect: nothing was sent, and the destination's health is unknown.
    Forbidden,
    /// It is unreachable or silent.
    NoAnswer,
    /// It answered with something other than HTTP.
    BadAnswer,
}

impl SendError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Forbidden(_) => Kind::Forbidden,
            Self::Broken(Broken::NotHttp | Broken::TooMuch) => Kind::BadAnswer,
            Self::Unresolvable { .. }
            | Self::Unreachable
            | Self::Tls(_)
            | Self::ConnectTimedOut(_)
            | Self::TimedOut(_)
            | Self::Broken(Broken::Closed) => Kind::NoAnswer,
        }
    }

    /// From hyper's error of a failed exchange.
    pub(super) fn from_exchange(error: &hyper::Error, meter_ran_out: bool) -> Self {
        tracing::debug!(error = %error, cause = ?std::error::Error::source(error), "a delivery's exchange failed");
        Self::Broken(if meter_ran_out || error.is_parse_too_large() {
            Broken::TooMuch
        } else if error.is_parse() {
            Broken::NotHttp
        } else {
            Broken::Closed
        })
    }

    /// From rustls' error of a failed handshake.
    pub(super) fn from_handshake(error: &std::io::Error) -> Self {
        use rustls::CertificateError as C;
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        tracing::debug!(error = %error, "a delivery's TLS handshake failed");
        Self::Tls(match inner {
            Some(rustls::Error::InvalidCertificate(reason)) => match reason {
                C::UnknownIssuer => TlsFailure::Untrusted,
                C::NotValidForName | C::NotValidForNameContext { .. } => TlsFailure::OtherHost,
                C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => {
                    TlsFailure::Expired
                }
                _ => TlsFailure::Certificate,
            },
            _ => TlsFailure::Handshake,
        })
    }
}
