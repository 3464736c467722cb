//! The seam to cqrs-es: its framework runs commands, postgres-es reads, our writer persists.
//!
//! cqrs-es tags payloads with the event's name (serde's external tag). The log keeps the name in a column
//! instead, so the tag is removed before persisting and restored after reading, once the upcasters ran.

use std::future::Future;
use std::sync::{Arc, Mutex};

use cqrs_es::persist::{
    PersistedEventRepository, PersistedEventStore, PersistenceError, ReplayStream, SerializedEvent, SerializedSnapshot,
};
use cqrs_es::{Aggregate, AggregateError, CqrsFramework};
use hookledger_aggregates::event::Stored;
use hookledger_aggregates::upcast::upcast;
use hookledger_aggregates::{Metadata, OrganizationId};
use postgres_es::PostgresEventRepository;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::heads::Epoch;
use super::outage::is_unavailable;
use super::unit::{LogPosition, NewEvent, Sequence, Unit};
use super::writer::{AppendError, Log};

/// How many times a command is decided when other commands keep coming first.
const TRIES: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum CommandError<E: std::error::Error> {
    /// The aggregate refused.
    #[error(transparent)]
    Refused(E),
    /// Other commands kept coming first.
    #[error("Someone else is changing this too. Try again.")]
    Busy,
    /// The log accepts nothing at the moment.
    #[error("the log is overloaded; try again later")]
    Overloaded,
    /// The store is unreachable; the command may or may not have been carried out.
    #[error("could not reach the log: {0}")]
    Unavailable(String),
    /// The log could not be read or written.
    #[error("the log failed: {0}")]
    Failed(String),
}

impl<E: std::error::Error> CommandError<E> {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        if is_unavailable(error) { Self::Unavailable(error.to_string()) } else { Self::Failed(error.to_string()) }
    }
}

/// Runs commands against aggregates.
#[derive(Clone, Debug)]
pub struct Commands {
    pool: PgPool,
    log: Log,
}

impl Commands {
    #[must_use]
    pub fn new(pool: PgPool, log: Log) -> Self {
        Self { pool, log }
    }

    /// Loads the aggregate, lets it decide and appends the events; decides again if another command came
    /// first. Returns the log position of the last event, or nothing if nothing changed.
    pub async fn execute<A>(
        &self,
        organization: OrganizationId,
        aggregate_id: Uuid,
        command: A::Command,
        metadata: &Metadata,
    ) -> Result<Option<LogPosition>, CommandError<A::Error>>
    where
        A: Aggregate<Services = ()>,
        A::Command: Clone + Send,
    {
        for _ in 0..TRIES {
            let repository = Repository::new(self, organization);
            let appended = Arc::clone(&repository.appended);
            let store = PersistedEventStore::<_, A>::new_event_store(repository);
            let framework = CqrsFramework::new(store, vec![], ());
            let id = aggregate_id.to_string();
            match framework.execute_with_metadata(&id, command.clone(), metadata.to_map()).await {
                Ok(()) => return Ok(appended.lock().ok().and_then(|position| *position)),
                Err(AggregateError::UserError(error)) => return Err(CommandError::Refused(error)),
                Err(AggregateError::AggregateConflict) => {}
                Err(AggregateError::UnexpectedError(error)) if error.is::<Overload>() => {
                    return Err(CommandError::Overloaded);
                }
                Err(
                    AggregateError::DatabaseConnectionError(error)
                    | AggregateError::DeserializationError(error)
                    | AggregateError::UnexpectedError(error),
                ) => return Err(CommandError::of(&*error)),
            }
        }
        Err(CommandError::Busy)
    }

    /// The aggregate's current state, for facts that a command needs.
    pub async fn load<A>(&self, organization: OrganizationId, aggregate_id: Uuid) -> Result<A, CommandError<A::Error>>
    where
        A: Aggregate<Services = ()>,
    {
        self.load_with_sequence(organization, aggregate_id).await.map(|(aggregate, _)| aggregate)
    }

    /// The aggregate's current state and the sequence of its last event (0 without events), for units that
    /// span streams and name the expected sequence of each.
    pub async fn load_with_sequence<A>(
        &self,
        organization: OrganizationId,
        aggregate_id: Uuid,
    ) -> Result<(A, i64), CommandError<A::Error>>
    where
        A: Aggregate<Services = ()>,
    {
        let repository = Repository::new(self, organization);
        let failed = |error: &dyn std::error::Error| CommandError::Failed(error.to_string());
        let events = repository.get_events::<A>(&aggregate_id.to_string()).await.map_err(|error| match error {
            PersistenceError::ConnectionError(error) | PersistenceError::UnknownError(error) => {
                CommandError::of(&*error)
            }
            PersistenceError::OptimisticLockError | PersistenceError::DeserializationError(_) => failed(&error),
        })?;
        let (mut aggregate, mut sequence) = (A::default(), 0);
        for event in events {
            sequence = i64::try_from(event.sequence).map_err(|error| failed(&error))?;
            aggregate.apply(serde_json::from_value(event.payload).map_err(|error| failed(&error))?);
        }
        Ok((aggregate, sequence))
    }
}

/// Decisions on several streams of an organization, which are appended as one unit.
pub struct Together<'a> {
    commands: &'a Commands,
    organization: OrganizationId,
    by: &'a Metadata,
    epoch: Epoch,
    events: Vec<NewEvent>,
}

impl Commands {
    /// Begins a unit; streams are read from now on.
    #[must_use]
    pub fn together<'a>(&'a self, organization: OrganizationId, by: &'a Metadata) -> Together<'a> {
        Together { commands: self, organization, by, epoch: self.log.epoch(), events: Vec::new() }
    }
}

impl Together<'_> {
    /// Loads an aggregate and adds the events that it decides.
    pub async fn add<A>(
        &mut self,
        aggregate_id: Uuid,
        decide: impl FnOnce(&A) -> Result<Vec<A::Event>, A::Error>,
    ) -> Result<(), CommandError<A::Error>>
    where
        A: Aggregate<Services = ()>,
        A::Event: Stored,
    {
        let (state, sequence) = self.commands.load_with_sequence::<A>(self.organization, aggregate_id).await?;
        let events = decide(&state).map_err(CommandError::Refused)?;
        for (at, event) in (sequence + 1..).zip(&events) {
            let new = NewEvent::of(self.organization, aggregate_id, Sequence::At(at), event, self.by);
            self.events.push(new.map_err(|error| CommandError::Failed(error.to_string()))?);
        }
        Ok(())
    }

    /// Appends what was decided. Returns the log position of the last event, or nothing if nothing changed.
    ///
    /// # Errors
    /// [`AppendError::Conflict`] if another change of one of the streams came first: decide again.
    pub async fn append(self) -> Result<Option<LogPosition>, AppendError> {
        if self.events.is_empty() {
            return Ok(None);
        }
        let appended = self.commands.log.append(Unit::new(self.events).decided_in(self.epoch)).await?;
        Ok(Some(appended.last))
    }
}

/// Carries an overload of the log through cqrs-es.
#[derive(Debug, thiserror::Error)]
#[error("the log is overloaded; try again later")]
struct Overload;

/// Reads through postgres-es and writes through the writer, for one command of one organization.
struct Repository {
    pool: PgPool,
    stored: PostgresEventRepository,
    log: Log,
    organization: OrganizationId,
    /// The epoch in which the aggregate was read and decides.
    epoch: Epoch,
    appended: Arc<Mutex<Option<LogPosition>>>,
}

impl Repository {
    fn new(commands: &Commands, organization: OrganizationId) -> Self {
        Self {
            pool: commands.pool.clone(),
            // postgres-es writes this where a table goes.
            stored: PostgresEventRepository::new(commands.pool.clone())
                .with_tables("stream_events($1, $2)", "snapshots"),
            log: commands.log.clone(),
            organization,
            epoch: commands.log.epoch(),
            appended: Arc::default(),
        }
    }

    /// postgres-es reads a stream by type and ID alone. This refuses a stream of another organization,
    /// whatever the caller checked. Only claims on email addresses are read across organizations.
    async fn must_own<A: Aggregate>(&self, aggregate_id: &str) -> Result<(), PersistenceError> {
        if A::TYPE == "email_claim" {
            return Ok(());
        }
        let foreign: bool = sqlx::query_scalar(
            "select exists (select from commits
                            where stream_id = $1::uuid and aggregate_type = $2 and organization_id <> $3)",
        )
        .bind(aggregate_id)
        .bind(A::TYPE)
        .bind(self.organization.uuid())
        .fetch_one(&self.pool)
        .await
        .map_err(|error| PersistenceError::ConnectionError(error.into()))?;
        if foreign {
            return Err(PersistenceError::UnknownError("the stream belongs to another organization".into()));
        }
        Ok(())
    }

    fn new_event<A: Aggregate>(&self, event: &SerializedEvent) -> Result<NewEvent, PersistenceError> {
        let unknown = |error: &str| PersistenceError::UnknownError(error.to_owned().into());
        let payload = event.payload.get(&event.event_type).ok_or_else(|| unknown("an event has no tag"))?;
        let sequence = i64::try_from(event.sequence).map_err(|_| unknown("a sequence is too large"))?;
        Ok(NewEvent {
            partition: self.organization.partition(),
            organization: self.organization,
            aggregate_type: A::TYPE,
            aggregate_id: event.aggregate_id.parse().map_err(|_| unknown("an aggregate ID is not a UUID"))?,
            sequence: Sequence::At(sequence),
            event_type: event.event_type.clone(),
            event_version: event.event_version.clone(),
            payload: payload.to_string(),
            metadata: event.metadata.to_string(),
        })
    }
}

/// Runs the upcasters and restores the tag.
fn tagged(mut event: SerializedEvent) -> Result<SerializedEvent, PersistenceError> {
    let broken = |error: &dyn std::error::Error| PersistenceError::DeserializationError(error.to_string().into());
    let raw = serde_json::value::to_raw_value(&event.payload).map_err(|error| broken(&error))?;
    if let Some(upcasted) = upcast(&event.event_type, &event.event_version, &raw).map_err(|error| broken(&error))? {
        event.payload = serde_json::from_str(upcasted.get()).map_err(|error| broken(&error))?;
    }
    let fields = event.payload.take();
    event.payload = Value::Object([(event.event_type.clone(), fields)].into_iter().collect());
    Ok(event)
}

fn unsupported<T>() -> Result<T, PersistenceError> {
    Err(PersistenceError::UnknownError("snapshots and replays through cqrs-es are not supported".into()))
}

impl PersistedEventRepository for Repository {
    async fn get_events<A: Aggregate>(&self, aggregate_id: &str) -> Result<Vec<SerializedEvent>, PersistenceError> {
        self.must_own::<A>(aggregate_id).await?;
        self.stored.get_events::<A>(aggregate_id).await?.into_iter().map(tagged).collect()
    }

    async fn get_last_events<A: Aggregate>(
        &self,
        aggregate_id: &str,
        last_sequence: usize,
    ) -> Result<Vec<SerializedEvent>, PersistenceError> {
        self.must_own::<A>(aggregate_id).await?;
        self.stored.get_last_events::<A>(aggregate_id, last_sequence).await?.into_iter().map(tagged).collect()
    }

    fn get_snapshot<A: Aggregate>(
        &self,
        _aggregate_id: &str,
    ) -> impl Future<Output = Result<Option<SerializedSnapshot>, PersistenceError>> + Send {
        std::future::ready(unsupported())
    }

    async fn persist<A: Aggregate>(
        &self,
        events: &[SerializedEvent],
        _snapshot: Option<(String, Value, usize)>,
    ) -> Result<(), PersistenceError> {
        if events.is_empty() {
            return Ok(());
        }
        let unit = Unit::new(events.iter().map(|event| self.new_event::<A>(event)).collect::<Result<_, _>>()?);
        let appended = self.log.append(unit.decided_in(self.epoch)).await.map_err(|error| match error {
            AppendError::Conflict => PersistenceError::OptimisticLockError,
            // Commands have no monthly limit, so only overload is possible.
            AppendError::Overloaded | AppendError::OverLimit(_) => PersistenceError::UnknownError(Overload.into()),
            AppendError::Failed => PersistenceError::ConnectionError(error.into()),
        })?;
        if let Ok(mut place) = self.appended.lock() {
            *place = Some(appended.last);
        }
        Ok(())
    }

    fn stream_events<A: Aggregate>(
        &self,
        _aggregate_id: &str,
    ) -> impl Future<Output = Result<ReplayStream, PersistenceError>> + Send {
        std::future::ready(unsupported())
    }

    fn stream_all_events<A: Aggregate>(&self) -> impl Future<Output = Result<ReplayStream, PersistenceError>> + Send {
        std::future::ready(unsupported())
    }
}
