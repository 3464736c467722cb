//! What can keep a webhook from being delivered, in sentences for the customer.
//!
//! They tell nothing of the network that Hookledger runs in: the details go to the log.

use std::time::Duration;

use super::address::Forbidden;

/// Why there is no answer to record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error("The host of the destination could not be found: {0}")]
    Unresolvable(#[from] Unresolvable),
    #[error("The destination could not be connected to. Check that it is running and reachable from the Internet.")]
    Unreachable,
    #[error("No encrypted connection could be made: {0}")]
    Tls(TlsFailure),
    #[error("The destination could not be connected to within {} s.", .0.as_secs_f64())]
    ConnectTimedOut(Duration),
    #[error("The destination did not answer within {} s.", .0.as_secs_f64())]
    TimedOut(Duration),
    #[error("{0}")]
    Broken(Broken),
}

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unresolvable {
    #[error("it has no address in the DNS. Check its spelling and its records.")]
    NoAddress,
    #[error("it has more than 64 addresses.")]
    TooMany,
    #[error("the DNS did not answer. This usually passes by itself.")]
    NoAnswer,
}

/// What was wrong with the encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsFailure {
    #[error("the certificate is not from an authority that is generally trusted, or an intermediate one is missing.")]
    Untrusted,
    #[error("the certificate is for another host.")]
    OtherHost,
    #[error("the certificate has expired or is not valid yet.")]
    Expired,
    #[error("the certificate is not acceptable.")]
    Certificate,
    #[error("the destination does not speak TLS 1.2 or 1.3 on this port.")]
    Handshake,
}

/// How an exchange went wrong after the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("The destination closed the connection before it answered.")]
    Closed,
    #[error("The destination's answer is not HTTP/1.1.")]
    NotHttp,
    #[error("The destination sent more than 256 KiB or 1,024 lines of headers, or too much before them.")]
    TooMuch,
}

/// What a failure says about the destination, for a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// We refused to connect: says nothing about the destination's health, and nothing was sent.
    Forbidden,
    /// It cannot be reached, or is silent.
    NoAnswer,
    /// It answered, with something that is not HTTP.
    BadAnswer,
}

impl SendError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Forbidden(_) => Kind::Forbidden,
            Self::Broken(Broken::NotHttp | Broken::TooMuch) => Kind::BadAnswer,
            Self::Unresolvable(_)
            | Self::Unreachable
            | Self::Tls(_)
            | Self::ConnectTimedOut(_)
            | Self::TimedOut(_)
            | Self::Broken(Broken::Closed) => Kind::NoAnswer,
        }
    }

    /// What hyper says of an exchange that failed.
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

    /// What rustls says of a handshake that failed.
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
