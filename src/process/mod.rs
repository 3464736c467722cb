//! Processing webhooks whose provider has no destination: recording them is the processing.
//!
//! A follower of the log. It appends what the aggregate decides at the expected sequence, so that
//! doing the same events again, after a crash or on another node, is a conflict and changes
//! nothing.

use std::time::Duration;

use futures::future::BoxFuture;
use hookledger_aggregates::webhook::{Outcome, Phase, Webhook, WebhookCommand, WebhookEvent};
use hookledger_aggregates::{Event, Metadata, OrganizationId, RecordedEvent};
use uuid::Uuid;

use crate::follow::{Handler, HandlerError};
use crate::log::{AppendError, Log, NewEvent, ReadError, Reader, Scope, Sequence, Unit};

/// Events of one webhook's stream that are read to decide again; duplicates make streams long.
const STREAM_LIMIT: i64 = 100_000;
/// Webhooks whose success is appended together.
const PORTION: usize = 32;
/// Processing waits less than projections do: it is what a webhook's pending time is made of.
const GATHER: Duration = Duration::from_millis(50);
/// How often a webhook is decided again while others append to its stream.
const TRIES: usize = 10;

/// Takes pending webhooks to success.
pub struct Recorder {
    log: Log,
    reader: Reader,
}

impl Recorder {
    #[must_use]
    pub fn new(log: Log, reader: Reader) -> Self {
        Self { log, reader }
    }

    /// The usual case: nothing happened to the webhook since it was verified.
    fn decide_verified(recorded: &RecordedEvent, event: &WebhookEvent) -> Result<Option<Unit>, HandlerError> {
        let mut webhook = Webhook::default();
        webhook.evolve(event);
        record(&mut webhook, recorded.organization, recorded.aggregate_id, recorded.sequence)
    }

    /// Something happened, a duplicate most likely: read the stream and decide again.
    async fn decide_again(&self, organization: OrganizationId, id: Uuid) -> Result<(), HandlerError> {
        for _ in 0..TRIES {
            let stream = self.reader.stream(organization, "webhook", id, STREAM_LIMIT).await.map_err(unread)?;
            let mut webhook = Webhook::default();
            for recorded in &stream {
                if let Event::Webhook(event) = &recorded.event {
                    webhook.evolve(event);
                }
            }
            let last = stream.last().map_or(0, |recorded| recorded.sequence);
            let Some(unit) = record(&mut webhook, organization, id, last)? else { return Ok(()) };
            match self.log.append_all(vec![unit]).await.map_err(transient)?.pop() {
                Some(Ok(_)) => return Ok(()),
                Some(Err(AppendError::Conflict)) => {}
                Some(Err(error)) => return Err(transient(error)),
                None => return Err(transient(AppendError::Failed)),
            }
        }
        Err(transient(AppendError::Conflict))
    }
}

/// What recording a pending webhook appends; nothing where it is not pending any more.
fn record(
    webhook: &mut Webhook,
    organization: OrganizationId,
    id: Uuid,
    last_sequence: i64,
) -> Result<Option<Unit>, HandlerError> {
    if webhook.phase() != Phase::Pending {
        return Ok(None);
    }
    let attempt = webhook.next_attempt();
    let outcome = Outcome::default();
    let mut events = Vec::new();
    for command in [WebhookCommand::StartAttempt { attempt }, WebhookCommand::SucceedAttempt { attempt, outcome }] {
        for event in webhook.decide(command).map_err(unappliable)? {
            let sequence = Sequence::At(last_sequence + 1 + i64::try_from(events.len()).map_err(unappliable)?);
            let new = NewEvent::of(organization, id, sequence, &event, &Metadata::default()).map_err(unappliable)?;
            webhook.evolve(&event);
            events.push(new);
        }
    }
    Ok(Some(Unit::new(events)))
}

/// An event of a later release will not be understood by waiting.
fn unread(error: ReadError) -> HandlerError {
    match error {
        ReadError::Decode { .. } => unappliable(error),
        ReadError::Database(_) | ReadError::Gap { .. } => transient(error),
    }
}

fn transient(error: impl std::fmt::Display) -> HandlerError {
    HandlerError::Transient(error.to_string())
}

fn unappliable(error: impl std::fmt::Display) -> HandlerError {
    HandlerError::Unappliable(error.to_string())
}

impl Handler for Recorder {
    fn name(&self) -> &'static str {
        "processing"
    }

    fn scope(&self) -> Scope {
        Scope::Pending
    }

    fn gather(&self) -> Duration {
        GATHER
    }

    fn react<'a>(&'a self, events: &'a [RecordedEvent]) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            let (mut units, mut webhooks) = (Vec::new(), Vec::new());
            for recorded in events {
                let pending = match &recorded.event {
                    Event::Webhook(event @ WebhookEvent::SignatureVerified(_)) => {
                        Self::decide_verified(recorded, event)?
                    }
                    Event::Webhook(WebhookEvent::RetryRequested { .. }) => {
                        self.decide_again(recorded.organization, recorded.aggregate_id).await?;
                        None
                    }
                    Event::Webhook(_)
                    | Event::Organization(_)
                    | Event::User(_)
                    | Event::EmailClaim(_)
                    | Event::Team(_)
                    | Event::Access(_)
                    | Event::Usage(_)
                    | Event::Provider(_) => None,
                };
                if let Some(unit) = pending {
                    units.push(unit);
                    webhooks.push((recorded.organization, recorded.aggregate_id));
                }
            }
            if units.is_empty() {
                return Ok(());
            }
            // In portions, which the writer lets in beside what providers wait for.
            let portions = units.chunks(PORTION).map(|portion| self.log.append_all(portion.to_vec()));
            let verdicts = futures::future::try_join_all(portions).await.map_err(transient)?;
            for ((organization, id), verdict) in webhooks.into_iter().zip(verdicts.into_iter().flatten()) {
                match verdict {
                    Ok(_) => {}
                    Err(AppendError::Conflict) => self.decide_again(organization, id).await?,
                    Err(error) => return Err(transient(error)),
                }
            }
            Ok(())
        })
    }
}
