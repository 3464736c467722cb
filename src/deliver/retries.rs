//! Retries requested by people: of one webhook, or of thousands.

use std::collections::{BTreeMap, HashMap};

use hookledger_aggregates::delivery::{Delivery, DeliveryCommand, DeliveryError, DeliveryEvent};
use hookledger_aggregates::{
    DeliveryId, DestinationId, Event, Label, Metadata, OrganizationId, Phase, RouteId, Status, WebhookId,
};
use hookledger_projections::{ProjectionError, deliveries, webhook_logs};

use crate::log::{self, AppendError, Log, LogPosition, NewEvent, ReadError, Sequence, Unit};
use crate::platform::store::{TenantError, Tenants};

/// Webhooks whose deliveries are read at once.
const PORTION: usize = 500;
/// How many times a retry is requested for deliveries whose streams others append to at the same time.
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
    Projection(#[from] ProjectionError),
    #[error("{0}")]
    Tenant(#[from] TenantError),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

impl From<sqlx::Error> for RetryError {
    fn from(error: sqlx::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Outcome of a request for retries.
#[derive(Debug, Default)]
pub struct Retried {
    /// Webhooks with a delivery that is retried.
    pub count: usize,
    /// Why others were refused, for example because somebody else requested it earlier.
    pub refused: Vec<DeliveryError>,
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

/// The failed deliveries of a portion of webhooks.
type Failed = BTreeMap<DeliveryId, deliveries::Delivery>;

impl Retries<'_> {
    /// Requests a retry of the failed deliveries of each of these webhooks; of the cancelled ones, if none failed.
    ///
    /// # Errors
    /// After an error, some may have been retried already.
    pub async fn request(&self, webhooks: &[WebhookId], reason: Option<Label>) -> Result<Retried, RetryError> {
        let mut retried = Retried::default();
        for portion in webhooks.chunks(PORTION) {
            let failed = self.failed(portion, &mut retried).await?;
            self.request_portion(failed, reason.as_ref(), &mut retried).await?;
        }
        Ok(retried)
    }

    /// The deliveries of webhooks that can be retried, according to the read model; the log decides.
    async fn failed(&self, webhooks: &[WebhookId], retried: &mut Retried) -> Result<Failed, RetryError> {
        let mut tenant = self.tenants.of(self.organization).await?;
        let rows = deliveries::of_webhooks(&mut *tenant, self.organization, webhooks).await?;
        let known = webhook_logs::find_many(&mut *tenant, self.organization, webhooks).await?;
        let mut of_webhooks: HashMap<WebhookId, Vec<(Phase, deliveries::Delivery)>> = HashMap::new();
        for row in rows {
            of_webhooks.entry(WebhookId::new(row.webhook_id)).or_default().push((row.phase()?, row));
        }
        let mut failed = Failed::new();
        for row in known {
            let all = of_webhooks.remove(&WebhookId::new(row.webhook_id)).unwrap_or_default();
            let stands = match row.status()? {
                _ if !all.is_empty() => Phase::of_webhook(all.iter().map(|(phase, _)| *phase)),
                Status::Success => Phase::Succeeded,
                Status::Failed => Phase::Rejected,
                Status::Pending | Status::Processing => Phase::Unverified,
            };
            let has_failed = |phase| matches!(phase, Phase::AwaitingRetry | Phase::DeadLettered);
            let is_wanted = |phase| has_failed(phase) || stands == Phase::Cancelled;
            let before = failed.len();
            let wanted = all.into_iter().filter(|(phase, _)| is_wanted(*phase));
            failed.extend(wanted.map(|(_, row)| (DeliveryId::new(row.delivery_id), row)));
            if failed.len() == before {
                retried.refused.push(DeliveryError::NotFailed(stands));
            }
        }
        Ok(failed)
    }

    /// Tries again for deliveries whose streams got another event meanwhile.
    async fn request_portion(
        &self,
        mut left: Failed,
        reason: Option<&Label>,
        retried: &mut Retried,
    ) -> Result<(), RetryError> {
        let (mut done, mut refused) = (std::collections::HashSet::new(), HashMap::new());
        for _ in 0..TRIES {
            let mut units = Vec::with_capacity(left.len());
            let epoch = self.log.epoch();
            let mut states = self.states(&left.keys().copied().collect::<Vec<_>>()).await?;
            for (id, row) in std::mem::take(&mut left) {
                let (state, sequence) = states.remove(&id).unwrap_or_default();
                let request = DeliveryCommand::RequestRetry {
                    webhook_id: WebhookId::new(row.webhook_id),
                    route_id: RouteId::new(row.route_id),
                    destination_id: DestinationId::new(row.destination_id),
                    reason: reason.cloned(),
                };
                match state.decide(request) {
                    Ok(events) => units.push(((id, row), self.unit(id, sequence, &events)?.decided_in(epoch))),
                    Err(error) => drop(refused.insert(row.webhook_id, error)),
                }
            }
            if units.is_empty() {
                break;
            }
            let (rows, units): (Vec<_>, Vec<_>) = units.into_iter().unzip();
            for ((id, row), verdict) in rows.into_iter().zip(self.log.append_all(units).await?) {
                match verdict {
                    Ok(appended) => {
                        done.insert(row.webhook_id);
                        retried.last = Some(appended.last);
                    }
                    Err(AppendError::Conflict) => drop(left.insert(id, row)),
                    Err(error) => return Err(error.into()),
                }
            }
            if left.is_empty() {
                break;
            }
        }
        retried.count += done.len();
        retried.refused.extend(refused.into_iter().filter(|(webhook, _)| !done.contains(webhook)).map(|(_, why)| why));
        if left.is_empty() { Ok(()) } else { Err(RetryError::Busy(left.len())) }
    }

    fn unit(&self, id: DeliveryId, sequence: i64, events: &[DeliveryEvent]) -> Result<Unit, RetryError> {
        let new = |(at, event): (i64, &DeliveryEvent)| {
            NewEvent::of(self.organization, id.uuid(), Sequence::At(at), event, self.by)
        };
        Ok(Unit::new((sequence + 1..).zip(events).map(new).collect::<Result<_, _>>()?))
    }

    /// The current states of these deliveries, each with the sequence of its last event.
    async fn states(&self, deliveries: &[DeliveryId]) -> Result<HashMap<DeliveryId, (Delivery, i64)>, RetryError> {
        let mut tenant = self.tenants.of(self.organization).await?;
        let (mut states, mut left) = (HashMap::<DeliveryId, (Delivery, i64)>::new(), deliveries.to_vec());
        // A single query, except for deliveries with hundreds of retries.
        let mut after = 0;
        while !left.is_empty() {
            let tails = log::tails_of(&mut *tenant, self.organization, &left, after).await?;
            left.clear();
            for tail in tails {
                let (state, sequence) = states.entry(tail.delivery).or_default();
                for recorded in tail.events.iter().filter(|recorded| recorded.sequence > *sequence) {
                    if let Event::Delivery(event) = &recorded.event {
                        state.evolve(event);
                    }
                }
                *sequence = tail.sequence.max(*sequence);
                if !tail.is_last {
                    left.push(tail.delivery);
                }
            }
            after =
                left.iter().filter_map(|id| states.get(id)).map(|(_, sequence)| *sequence).min().unwrap_or_default();
        }
        Ok(states)
    }
}
