//! The client of EventStoreDB, at arm's length.
//!
//! The crate `eventstore` 4.0.0 has faults that must not become ours:
//! - It installs a TLS implementation for the whole process when it is first used, and panics for ever
//!   where somebody else did before. [`Target::claim`] lets it be the first, or says so.
//! - One failed connect ends its task, and every later call fails. So whatever goes wrong ends the
//!   session, and the next one has a new client.
//! - Its task holds itself alive, with its connections, when the client is dropped; and it panics on
//!   answers that lack a field. So each client lives on a thread of its own, which ends with it.
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

/// How long a call may take, connecting included.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// How long the client may take to choose its TLS implementation, which is its first act.
const CLAIM_LIMIT: Duration = Duration::from_secs(10);

/// Where the mirror is.
#[derive(Clone)]
pub struct Target(ClientSettings);

impl std::fmt::Debug for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Target").field(self.0.hosts()).finish()
    }
}

impl Target {
    /// Reads a connection string and lets the client set itself up, without connecting.
    ///
    /// # Errors
    /// [`RelayError`].
    pub async fn new(url: &SecretString) -> Result<Self, RelayError> {
        let settings: ClientSettings = url.expose_secret().parse().map_err(|error| RelayError::Url(reason(&error)))?;
        // The client would panic at each of its connects.
        let files = settings.user_certificate().into_iter().flat_map(|(certificate, key)| [certificate, key]);
        for path in settings.tls_ca_file().into_iter().chain(files) {
            std::fs::read(path).map_err(|source| RelayError::File { path: path.clone(), source })?;
        }
        let target = Self(settings);
        target.claim().await?;
        Ok(target)
    }

    /// Lets the client be the first in this process that installs a TLS implementation. Everybody else
    /// here names their own.
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
            let late = |_| RelayError::Client("it does not begin".to_owned());
            tokio::time::timeout(CLAIM_LIMIT, claimed).await.map_err(late)
        };
        CLAIMED.get_or_try_init(|| claim).await.map(drop)
    }
}

/// The error of the crate holds the whole connection string, with its password.
fn reason(error: &eventstore::ClientSettingsParseError) -> String {
    match error.error() {
        Some(error) => error.to_string(),
        None => error.message().to_owned(),
    }
}

/// What did not work. The outcome of an append is then unknown, but for [`CallError::Refused`].
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no answer within {} s", CALL_LIMIT.as_secs())]
    Late,
    #[error("the client failed")]
    Panicked,
    #[error("a thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
    #[error("the stream has another revision than expected: {0}")]
    Refused(String),
    #[error("the stream was deleted for good")]
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

/// One client and the thread that it lives on.
pub(super) struct Session {
    client: Client,
    lane: Option<Lane>,
}

impl Session {
    /// Makes a client. It connects when it is first asked.
    pub(super) async fn open(target: &Target) -> Result<Self, CallError> {
        let lane = Lane::start("relay-client", Niceness::Background).map_err(CallError::Thread)?;
        let settings = target.0.clone();
        let client = lane.run(async move { Client::new(settings) }).await.map_err(|_| CallError::Panicked)??;
        Ok(Self { client, lane: Some(lane) })
    }

    /// The last event of a stream, if it has any.
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

    /// Appends to a stream whose last revision is `after`; answers the last revision then.
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

    /// Does it on the client's thread, and does not wait longer than it may take.
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
    /// Whoever drops a session does not wait until its thread has ended.
    fn drop(&mut self) {
        let lane = self.lane.take();
        // Where there is no thread to be had, it is waited for after all.
        let _ = std::thread::Builder::new().name("relay-end".to_owned()).spawn(move || drop(lane));
    }
}
