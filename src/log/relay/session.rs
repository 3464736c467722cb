//! The client of EventStoreDB, isolated.
//!
//! The crate `eventstore` 4.0.0 has faults that must not affect us:
//! - It installs a TLS implementation for the whole process on first use, and panics forever if another part of the
//!   process did so before. [`Target::claim`] makes it the first, or reports the problem.
//! - One failed connect ends its task, and every later call fails. So every failure ends the session, and the next
//!   session has a new client.
//! - Its task keeps itself alive, with its connections, after the client is dropped, and it panics on answers that lack
//!   a field. So each client has its own thread, which ends with it.
//! - A subscription that ended cleanly spins. Nothing here subscribes.

use std::time::Duration;

use eventstore::{
    AppendToStreamOptions, Client, ClientSettings, EventData, ExpectedRevision, ReadStreamOptions, RecordedEvent,
    StreamPosition,
};
use rustls::crypto::CryptoProvider;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::OnceCell;

use super::RelayError;
use crate::platform::lane::{Lane, Niceness};

/// How long a call may take, including connecting.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// How long the client may take to choose its TLS implementation, which is the first thing that it does.
const CLAIM_LIMIT: Duration = Duration::from_secs(10);

/// Address and credentials of the mirror.
#[derive(Clone)]
pub struct Target(ClientSettings);

impl std::fmt::Debug for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Target").field(self.0.hosts()).finish()
    }
}

impl Target {
    /// Parses a connection string and lets the client initialize itself without connecting.
    pub async fn new(url: &SecretString) -> Result<Self, RelayError> {
        let settings: ClientSettings = url.expose_secret().parse().map_err(|error| RelayError::Url(reason(&error)))?;
        // The client would panic at each connect.
        let files = settings.user_certificate().into_iter().flat_map(|(certificate, key)| [certificate, key]);
        for path in settings.tls_ca_file().into_iter().chain(files) {
            std::fs::read(path).map_err(|source| RelayError::File { path: path.clone(), source })?;
        }
        let target = Self(settings);
        target.claim().await?;
        Ok(target)
    }

    /// Lets the client be the first in this process to install a TLS implementation. All other code here
    /// names its own.
    async fn claim(&self) -> Result<(), RelayError> {
        static CLAIMED: OnceCell<()> = OnceCell::const_new();
        let claim = async {
            if CryptoProvider::get_default().is_some() {
                return Err(RelayError::TlsIsTaken);
            }
            let _session = Session::open(self).await.map_err(|error| RelayError::Client(error.to_string()))?;
            let claimed = async {
                while CryptoProvider::get_default().is_none() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let late = |_| RelayError::Client("the client does not start".to_owned());
            tokio::time::timeout(CLAIM_LIMIT, claimed).await.map_err(late)
        };
        CLAIMED.get_or_try_init(|| claim).await.map(drop)
    }
}

/// The crate's error contains the whole connection string, including the password.
fn reason(error: &eventstore::ClientSettingsParseError) -> String {
    match error.error() {
        Some(error) => error.to_string(),
        None => error.message().to_owned(),
    }
}

/// Why a call failed. The outcome of an append is then unknown, except for [`CallError::Refused`].
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no answer within {} s", CALL_LIMIT.as_secs())]
    Late,
    #[error("the client failed")]
    Panicked,
    #[error("could not start a thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("the stream has another revision than expected: {0}")]
    Refused(String),
    #[error("the stream was deleted permanently")]
    Deleted,
    #[error("{0}")]
    Client(#[source] eventstore::Error),
}

impl From<eventstore::Error> for CallError {
    fn from(error: eventstore::Error) -> Self {
        match error {
            eventstore::Error::WrongExpectedVersion { .. } => Self::Refused(error.to_string()),
            eventstore::Error::ResourceDeleted => Self::Deleted,
            other => Self::Client(other),
        }
    }
}

/// One client and its thread.
pub(super) struct Session {
    client: Client,
    lane: Option<Lane>,
}

impl Session {
    /// Creates a client. It connects on its first call.
    pub(super) async fn open(target: &Target) -> Result<Self, CallError> {
        let lane = Lane::start("relay-client", Niceness::Background).map_err(CallError::Thread)?;
        let settings = target.0.clone();
        let client = lane.run(async move { Client::new(settings) }).await.map_err(|_| CallError::Panicked)??;
        Ok(Self { client, lane: Some(lane) })
    }

    /// The last event of a stream, if any.
    pub(super) async fn last(&self, stream: String) -> Result<Option<RecordedEvent>, CallError> {
        let client = self.client.clone();
        self.call(async move {
            let options = ReadStreamOptions::default().position(StreamPosition::End).max_count(1);
            let next = match client.read_stream(stream, &options).await {
                Ok(mut events) => events.next().await,
                Err(error) => Err(error),
            };
            match next {
                Ok(event) => Ok(event.and_then(|event| event.event)),
                Err(eventstore::Error::ResourceNotFound) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Appends to a stream whose last revision is `after`; returns the new last revision.
    pub(super) async fn append(
        &self,
        stream: String,
        after: Option<u64>,
        events: Vec<EventData>,
    ) -> Result<u64, CallError> {
        let client = self.client.clone();
        let expected = after.map_or(ExpectedRevision::NoStream, ExpectedRevision::Exact);
        self.call(async move {
            let options = AppendToStreamOptions::default().expected_revision(expected).deadline(CALL_LIMIT);
            client.append_to_stream(stream, &options, events).await.map(|written| written.next_expected_version)
        })
        .await
    }

    /// Runs the call on the client's thread, and waits no longer than the limit.
    async fn call<T: Send + 'static>(
        &self,
        work: impl Future<Output = eventstore::Result<T>> + Send + 'static,
    ) -> Result<T, CallError> {
        let Some(lane) = &self.lane else { return Err(CallError::Panicked) };
        let answer = tokio::time::timeout(CALL_LIMIT, lane.run(work)).await.map_err(|_| CallError::Late)?;
        Ok(answer.map_err(|_| CallError::Panicked)??)
    }
}

impl Drop for Session {
    /// Dropping a session does not wait for its thread to end.
    fn drop(&mut self) {
        let lane = self.lane.take();
        // Without a thread to wait on, it waits here after all.
        let _ = std::thread::Builder::new().name("relay-end".to_owned()).spawn(move || drop(lane));
    }
}
