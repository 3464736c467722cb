//! The relay: mirrors each partition of the log into a stream of an EventStoreDB, for subscribers there.
//!
//! Position n of partition p is revision n − 1 of the stream `hookledger-p`, under an ID that follows from
//! both. So the server itself knows how far the mirror goes, and the checkpoints in PostgreSQL are only for
//! people to see. The relay compares the server's last event with the log before it appends after it.
//!
//! Nobody waits for the relay. It runs on its own thread, every call has a time limit, and failures are
//! retried. The client crate is isolated in `session` because it has faults.
//!
//! Bodies are not mirrored, because they are not in the log.

#[cfg(feature = "eventstore")]
mod event;
#[cfg(feature = "eventstore")]
mod mirror;
#[cfg(feature = "eventstore")]
mod session;

#[cfg(feature = "eventstore")]
pub use event::{event_id, stream_name};
#[cfg(feature = "eventstore")]
pub use mirror::Relay;
#[cfg(feature = "eventstore")]
pub use session::Target;

/// Name of its lease and checkpoints.
pub const NAME: &str = "relay";

/// Why a node cannot relay. Whether the server is reachable is not checked here.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error(
        "HOOKLEDGER_EVENTSTORE_URL is set, but this binary was built without the relay: build it with \
         `cargo build --release --features eventstore`, or leave the setting out"
    )]
    NotBuilt,
    #[error("HOOKLEDGER_EVENTSTORE_URL is not a connection string like esdb://user:password@host:2113?tls=true: {0}")]
    Url(String),
    #[error("{path}, which HOOKLEDGER_EVENTSTORE_URL names, cannot be read: {source}")]
    File { path: String, source: std::io::Error },
    #[error(
        "another part of this process chose a TLS implementation before the client of EventStoreDB, which cannot \
         work then"
    )]
    TlsIsTaken,
    #[error("the client of EventStoreDB cannot be set up: {0}")]
    Client(String),
}
