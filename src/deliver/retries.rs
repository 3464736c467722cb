//! Retries requested by people: of one webhook, or of thousands.

use std::collections::HashMap;

use hookledger_aggregates::webhook::{Webhook, WebhookCommand, WebhookError, WebhookEvent};
use hookledger_aggregates::{Event, Label, Metadata, OrganizationId, WebhookId};

use crate::log::{self, AppendError, Log, LogPosition, NewEvent, ReadError, Sequence, Unit};
use crate::platform::store::{TenantError, Tenants};

/// Webhooks whose streams are read at once.
const PORTION: usize = 500;
/// How many times a retry is requested for webhooks whose streams others append to at the same time.
const TRIES: usize = 10;

#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    #[error("{0} of the webhooks were not retried because they are being sent right now. Try again.")]
    Busy(usize),
    #[error("{0}")]
    Append(#[from] AppendError),
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Tenant(#[from] TenantError),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

/// Outcome of a request for retries.
#[derive(Debug, Default)]
pub struct Retried {
    pub count: usize,
    /// Why the others were refused, for example because somebody else requested it earlier.
    pub refused: Vec<WebhookError>,
    /// Log position of the last request.
    pub last: Option<LogPosition>,
}

/// An organization's webhooks, and the person who requests their retries.
pub struct Retries<'a> {
    pub log: &'a Log,
    pub tenants: &'a Tenants,
    pub organization: OrganizationId,
    pub by: &'a Metadata,
}

impl Retries<'_> {
    /// Requests a retry of each of these webhooks.
    ///
    /// # Errors
    /// After an error, some may have been retried already.
    pub async fn request(&self, webhooks: &[WebhookId], reason: Option<Label>) -> Result<Retried, RetryError> {
        let request = WebhookCommand::RequestRetry { reason };
        let mut retried = Retried::default();
        for portion in webhooks.chunks(PORTION) {
            self.request_portion(portion, &request, &mut retried).await?;
        }
        Ok(retried)
    }

    /// Tries again for webhooks whose streams got another event meanwhile, most likely a duplicate.
    async fn request_portion(
        &self,
        webhooks: &[WebhookId],
        request: &WebhookCommand,
        retried: &mut Retried,
    ) -> Result<(), RetryError> {
        let mut left = webhooks.to_vec();
        for _ in 0..TRIES {
            let mut units = Vec::with_capacity(left.len());
            let epoch = self.log.epoch();
            for (id, (state, sequence)) in self.states(&left).await? {
                match state.decide(request.clone()) {
                    Ok(events) => units.push((id, self.unit(id, sequence, &events)?.decided_in(epoch))),
                    Err(refused) => retried.refused.push(refused),
                }
            }
            if units.is_empty() {
                return Ok(());
            }
            let (ids, units): (Vec<_>, Vec<_>) = units.into_iter().unzip();
            left.clear();
            for (id, verdict) in ids.into_iter().zip(self.log.append_all(units).await?) {
                match verdict {
                    Ok(appended) => {
                        retried.count += 1;
                        retried.last = Some(appended.last);
                    }
                    Err(AppendError::Conflict) => left.push(id),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if left.is_empty() { Ok(()) } else { Err(RetryError::Busy(left.len())) }
    }

    fn unit(&self, id: WebhookId, sequence: i64, events: &[WebhookEvent]) -> Result<Unit, RetryError> {
        let new = |(at, event): (i64, &WebhookEvent)| {
            NewEvent::of(self.organization, id.uuid(), Sequence::At(at), event, self.by)
        };
        Ok(Unit::new((sequence + 1..).zip(events).map(new).collect::<Result<_, _>>()?))
    }

    /// The current states of these webhooks, each with the sequence of its last event.
    async fn states(&self, webhooks: &[WebhookId]) -> Result<HashMap<WebhookId, (Webhook, i64)>, RetryError> {
        let mut tenant = self.tenants.of(self.organization).await?;
        let (mut states, mut left) = (HashMap::<WebhookId, (Webhook, i64)>::new(), webhooks.to_vec());
        // A single query, except for webhooks with hundreds of retries.
        let mut after = 0;
        while !left.is_empty() {
            let tails = log::tails_of(&mut *tenant, self.organization, &left, after).await?;
            left.clear();
            for tail in tails {
                let (state, sequence) = states.entry(tail.webhook).or_default();
                for recorded in tail.events.iter().filter(|recorded| recorded.sequence > *sequence) {
                    if let Event::Webhook(event) = &recorded.event {
                        state.evolve(event);
                    }
                }
                *sequence = tail.sequence.max(*sequence);
                if !tail.is_last {
                    left.push(tail.webhook);
                }
            }
            after =
                left.iter().filter_map(|id| states.get(id)).map(|(_, sequence)| *sequence).min().unwrap_or_default();
        }
        Ok(states)
    }
}
