//! Accepting: a new webhook, a duplicate, or one that cannot be verified yet.

use std::collections::HashMap;

use bytes::Bytes;
use hookledger_aggregates::delivery::Delivery;
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::signature::{CertificateUrl, Claims, Refusal, Verified};
use hookledger_aggregates::webhook::{
    MAX_DUPLICATE_BODIES, Receipt, RejectionReason, SignatureMatch, Webhook, WebhookCommand, WebhookEvent,
};
use hookledger_aggregates::{DeliveryId, Event, Label, Metadata, OrganizationId, Phase, TransmissionId, WebhookId};
use uuid::Uuid;

use super::duplicate_bodies::keep_body;
use super::duplicates::{Delivered, Look, Original, Read};
use super::hops::hops;
use super::units::unit;
use super::{Accepted, NotAccepted, ReceiveError, Receiver, Request, kept_headers, receipt, refusal, webhook_id};
use crate::directory::Endpoint;
use crate::log::{AppendError, Body, Epoch, FreshBody, MonthlyLimit, NewEvent, ReadError, Sequence, Unit, UsedMonth};

/// A request with a larger body is refused until its certificate is available: such requests are rare, and
/// anybody can send them.
const UNVERIFIED_BODY_LIMIT: usize = 64 << 10;
/// Events of a known webhook that are read: its receipt, and usually everything after it.
const FIRST_EVENTS: i64 = 16;
/// How many times a webhook is decided when it races with others for the same streams.
const TRIES: usize = 5;

/// A webhook that is in the log, under its public ID.
pub(super) struct Known {
    pub(super) webhook: WebhookId,
    /// Folded from its first events; a duplicate depends only on the very first.
    pub(super) state: Webhook,
    /// Where it stands, its deliveries taken into account.
    phase: Phase,
    /// Duplicates among these events.
    logged: u32,
}

impl Known {
    fn original(&self, sha256: &str) -> Original {
        let body_differs = self.state.body_sha256() != sha256;
        Original { webhook: self.webhook, phase: self.phase, body_differs }
    }
}

impl Original {
    fn accepted(self) -> Accepted {
        Accepted { webhook: self.webhook, duplicate: true, phase: self.phase }
    }
}

/// Whether to store the body of a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyRoom {
    /// Yes, at this sequence of the webhook's stream of bodies.
    At(i64),
    /// It is stored already.
    Kept,
    /// The maximum number is stored.
    Full,
}

/// Whether an event was received before.
enum Came {
    Before(Accepted),
    /// Its transmission may still be bound to this body, by an earlier connection of the provider.
    First {
        is_bound: bool,
    },
}

/// The answer to a known transmission with a different body.
pub(super) fn replayed() -> Refusal {
    Refusal {
        reason: RejectionReason::TransmissionReplayed,
        detail: Label::new("This transmission ID was used before with a different body."),
    }
}

/// A request, with everything that its acceptance depends on.
struct Incoming<'a> {
    endpoint: &'a Endpoint,
    request: &'a Request,
    claims: &'a Claims,
    sha256: &'a str,
    /// Headers in the form in which they are stored.
    headers: Bytes,
    webhook: WebhookId,
    transmission: Option<TransmissionId>,
    metadata: Metadata,
}

impl Incoming<'_> {
    fn organization(&self) -> OrganizationId {
        self.endpoint.organization
    }

    fn receipt(&self) -> Receipt {
        receipt(self.endpoint, self.request, self.claims, self.sha256.to_owned(), Some(&self.headers))
    }

    /// Binds the transmission, if it has one that is not bound yet.
    fn bind(&self, unit: &mut Unit) -> Result<(), ReceiveError> {
        if let Some(transmission) = self.transmission {
            let event = WebhookEvent::TransmissionBound { body_sha256: self.sha256.to_owned() };
            let id = transmission.uuid();
            unit.events.push(NewEvent::of(self.organization(), id, Sequence::At(1), &event, &self.metadata)?);
        }
        Ok(())
    }

    fn delivered(&self) -> Delivered<'_> {
        Delivered {
            provider: self.endpoint.provider.id,
            event: self.webhook,
            body_sha256: self.sha256,
            transmission: self.transmission,
        }
    }

    /// A unit that records a duplicate.
    fn again(&self, original: Original) -> Result<Unit, ReceiveError> {
        let event = WebhookEvent::DuplicateReceived {
            body_sha256: self.sha256.to_owned(),
            body_size: self.request.body.bytes.len() as u64,
            body_differs: original.body_differs,
        };
        let id = original.webhook.uuid();
        Ok(Unit::new(vec![NewEvent::of(self.organization(), id, Sequence::End, &event, &self.metadata)?]))
    }

    fn body(&self, webhook: WebhookId) -> Body {
        let (headers, body) = (self.headers.clone(), self.request.body.bytes.clone());
        Body { organization: self.organization(), webhook, headers, body }
    }
}

impl Receiver {
    /// Appends a new webhook, or else records a duplicate.
    pub(super) async fn accept(
        &self,
        endpoint: &Endpoint,
        request: Request,
        claims: Claims,
        sha256: String,
        verified: Verified,
    ) -> Result<Accepted, NotAccepted> {
        let incoming = Incoming {
            endpoint,
            webhook: webhook_id(endpoint, &claims, &sha256),
            transmission: verified.transmission().map(|id| TransmissionId::derive(endpoint.provider.id, id)),
            metadata: request.by.clone(),
            headers: kept_headers(&request.headers),
            request: &request,
            claims: &claims,
            sha256: &sha256,
        };
        let error = match self.decide(&incoming, verified).await {
            Ok(accepted) => return Ok(accepted),
            Err(error) => error,
        };
        let refusal = match &error {
            ReceiveError::Refused(refusal) => refusal.clone(),
            ReceiveError::LimitReached { .. } => refusal(RejectionReason::MonthlyLimitReached, &error),
            _ => return Err(error.into()),
        };
        // Logged or counted, the answer is the same.
        let webhook = self.reject(endpoint, request, &claims, sha256, refusal).await.unwrap_or_default();
        Err(NotAccepted { error, webhook })
    }

    async fn decide(&self, incoming: &Incoming<'_>, verified: Verified) -> Result<Accepted, ReceiveError> {
        let (organization, endpoint) = (incoming.organization(), incoming.endpoint);
        let verified = verified.into_match(endpoint.provider.id);
        // Before any lookup, here or in the log.
        let epoch = self.log.epoch();
        match self.duplicates.look(&incoming.delivered()) {
            Look::Duplicate(original) => {
                if let Some(accepted) = self.note_again(incoming, original, epoch).await? {
                    return Ok(accepted);
                }
            }
            Look::Again => {
                if let Came::Before(accepted) = self.accept_known(incoming, &verified).await? {
                    return Ok(accepted);
                }
            }
            Look::Unknown => {}
        }
        let used_up = endpoint.limit.and_then(|limit| Some((limit, self.limits.used_up(organization, limit)?)));
        if let Some((limit, used)) = used_up {
            let _turn = self.limits.turn().await.ok_or(ReceiveError::Unavailable)?;
            return match self.accept_known(incoming, &verified).await? {
                Came::Before(accepted) => Ok(accepted),
                Came::First { .. } => Err(self.over_limit(organization, limit, used, epoch)),
            };
        }
        let mut is_bound = false;
        for _ in 0..TRIES {
            let routing = endpoint.provider.routing(incoming.webhook);
            let (phase, deliveries) = (routing.phase(), routing.matched.len());
            let command = WebhookCommand::Receive { receipt: incoming.receipt(), verified: verified.clone(), routing };
            let (first, new) = (Sequence::At(1), Webhook::default());
            let mut unit = unit(organization, incoming.webhook, first, &new, command, &incoming.metadata)?;
            if !is_bound {
                incoming.bind(&mut unit)?;
            }
            unit.body = Some(incoming.body(incoming.webhook));
            unit.limit = endpoint.limit;
            match self.log.append(unit).await {
                Ok(appended) => {
                    if let Some((limit, used)) = endpoint.limit.zip(appended.used) {
                        self.limits.note(organization, limit, used);
                    }
                    self.keep_fresh(incoming, deliveries);
                    return Ok(Accepted { webhook: incoming.webhook, duplicate: false, phase });
                }
                Err(AppendError::Conflict) => {
                    match self.accept_known(incoming, &verified).await? {
                        Came::Before(accepted) => return Ok(accepted),
                        // An earlier connection of the provider received this transmission with this body.
                        Came::First { is_bound: bound } => is_bound = bound,
                    }
                }
                Err(AppendError::OverLimit(used)) => {
                    // Only units with a limit can exceed it.
                    let limit = endpoint.limit.ok_or(ReceiveError::Unavailable)?;
                    return Err(self.over_limit(organization, limit, used, epoch));
                }
                Err(AppendError::Overloaded | AppendError::Failed) => return Err(ReceiveError::Unavailable),
            }
        }
        Err(ReceiveError::Unavailable)
    }

    /// Keeps the body for its deliveries, which follow in a moment. Only now is it certain that this is the
    /// webhook's own body and not a duplicate's.
    fn keep_fresh(&self, incoming: &Incoming<'_>, deliveries: usize) {
        if deliveries > 0 {
            let fresh = FreshBody {
                headers: incoming.headers.clone(),
                is_test: incoming.endpoint.is_for_tests,
                hops: hops(&incoming.request.headers),
                body: incoming.request.body.bytes.clone(),
                event_type: incoming.claims.event_type.clone(),
            };
            self.fresh.keep(incoming.webhook, &fresh, deliveries);
        }
    }

    fn over_limit(
        &self,
        organization: OrganizationId,
        limit: MonthlyLimit,
        used: UsedMonth,
        epoch: Epoch,
    ) -> ReceiveError {
        self.limits.note_used_up(organization, limit, used, epoch);
        ReceiveError::LimitReached { limit: limit.allowed, resets_at: used.resets_at() }
    }

    /// Records a duplicate of an event that was received before. The record depends only on the first
    /// receipt, which never changes, so it needs no particular sequence in the stream.
    async fn accept_known(&self, incoming: &Incoming<'_>, verified: &SignatureMatch) -> Result<Came, ReceiveError> {
        let organization = incoming.organization();
        for _ in 0..TRIES {
            let epoch = self.log.epoch();
            let bound = match incoming.transmission {
                Some(transmission) => self.bound_to(organization, transmission).await?,
                None => None,
            };
            if bound.as_deref().is_some_and(|sha256| sha256 != incoming.sha256) {
                tracing::warn!(organization.id = %organization, "a transmission was replayed with a different body");
                return Err(ReceiveError::Refused(replayed()));
            }
            let Some(known) = self.known(organization, incoming.webhook).await? else {
                self.duplicates.forget(incoming.webhook);
                return Ok(Came::First { is_bound: bound.is_some() });
            };
            let room = self.room_for_body(organization, &known, incoming.sha256).await?;
            let original = known.original(incoming.sha256);
            let remember = || {
                let is_full = room == BodyRoom::Full;
                let read = Read { body_sha256: known.state.body_sha256(), logged: known.logged, is_full, epoch };
                self.duplicates.remember(&incoming.delivered(), original, read);
            };
            let binds = incoming.transmission.is_some() && bound.is_none();
            let mut unit = incoming.again(original)?;
            match room {
                BodyRoom::At(sequence) => {
                    let receipt = incoming.receipt();
                    let keep = keep_body(organization, original.webhook, sequence, receipt, verified.clone());
                    unit.events.insert(0, keep.event(&incoming.metadata)?);
                    unit.body = Some(incoming.body(keep.owner()));
                }
                BodyRoom::Kept | BodyRoom::Full if !binds => {
                    remember();
                    match self.note_again(incoming, original, epoch).await? {
                        Some(accepted) => return Ok(Came::Before(accepted)),
                        None => continue,
                    }
                }
                BodyRoom::Kept | BodyRoom::Full => {}
            }
            if binds {
                incoming.bind(&mut unit)?;
            }
            match self.log.append(unit.decided_in(epoch)).await {
                Ok(_) => {
                    remember();
                    return Ok(Came::Before(original.accepted()));
                }
                // Meanwhile a body was stored or the transmission bound, to this body or another; decide
                // again.
                Err(AppendError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ReceiveError::Unavailable)
    }

    /// Logs a duplicate, or counts it beyond the rate. Returns `None` if the log may have lost the webhook
    /// since that epoch.
    async fn note_again(
        &self,
        incoming: &Incoming<'_>,
        original: Original,
        epoch: Epoch,
    ) -> Result<Option<Accepted>, ReceiveError> {
        let organization = incoming.organization();
        let is_logged = self.duplicates.is_logged(&incoming.delivered());
        let is_noted = !is_logged && self.duplicates.count(organization, original, epoch);
        if !is_noted {
            match self.log.append(incoming.again(original)?.decided_in(epoch)).await {
                Ok(_) => {}
                Err(AppendError::Conflict) => return Ok(None),
                // The first receipt is durable anyway, and the answer promises no more.
                Err(_) => drop(self.duplicates.count(organization, original, epoch)),
            }
        }
        Ok(Some(original.accepted()))
    }

    /// Whether and where to store the body of a duplicate.
    pub(super) async fn room_for_body(
        &self,
        organization: OrganizationId,
        known: &Known,
        sha256: &str,
    ) -> Result<BodyRoom, ReadError> {
        if known.state.body_sha256() == sha256 {
            return Ok(BodyRoom::Kept);
        }
        let kept = self.duplicate_bodies(organization, known.webhook).await?;
        Ok(if kept.iter().any(|kept| kept.receipt.body_sha256 == sha256) {
            BodyRoom::Kept
        } else if kept.len() >= MAX_DUPLICATE_BODIES {
            BodyRoom::Full
        } else {
            BodyRoom::At(i64::try_from(kept.len()).unwrap_or(i64::MAX) + 1)
        })
    }

    /// Accepts a webhook that cannot be verified until a certificate arrives. It gets a random ID, so that a
    /// forger cannot occupy the ID of the genuine event.
    pub(super) async fn accept_unverified(
        &self,
        endpoint: &Endpoint,
        request: Request,
        claims: Claims,
        sha256: String,
        certificate: CertificateUrl,
    ) -> Result<Accepted, ReceiveError> {
        // Anybody can send these, so only a few are accepted at a time. PayPal repeats a request that finds
        // no room.
        if !self.unverified.admit_client(request.by.client.as_deref().unwrap_or_default()) {
            return Err(ReceiveError::Unavailable);
        }
        self.unverified.want(certificate);
        if request.body.bytes.len() > UNVERIFIED_BODY_LIMIT || !self.unverified.admit(endpoint.provider.id) {
            return Err(ReceiveError::Unavailable);
        }
        let webhook = WebhookId::new(Uuid::now_v7());
        let incoming = Incoming {
            endpoint,
            webhook,
            transmission: None,
            metadata: request.by.clone(),
            headers: kept_headers(&request.headers),
            request: &request,
            claims: &claims,
            sha256: &sha256,
        };
        let event_webhook_id = webhook_id(endpoint, &claims, &sha256);
        let routing = endpoint.provider.routing(webhook);
        let command = WebhookCommand::ReceiveUnverified { receipt: incoming.receipt(), event_webhook_id, routing };
        let (first, new) = (Sequence::At(1), Webhook::default());
        let mut unit = unit(endpoint.organization, webhook, first, &new, command, &incoming.metadata)?;
        unit.body = Some(incoming.body(webhook));
        self.log.append(unit).await?;
        self.unverified.notify();
        Ok(Accepted { webhook, duplicate: false, phase: Phase::Unverified })
    }

    /// The webhook of a provider event, if the log has it.
    pub(super) async fn known(
        &self,
        organization: OrganizationId,
        event_webhook_id: WebhookId,
    ) -> Result<Option<Known>, ReadError> {
        let first = async |id: WebhookId| self.reader.stream(organization, "webhook", id.uuid(), FIRST_EVENTS).await;
        let (mut webhook, mut stream) = (event_webhook_id, first(event_webhook_id).await?);
        if let Some(Event::Webhook(WebhookEvent::Identified { webhook_id })) = stream.first().map(|first| &first.event)
        {
            webhook = *webhook_id;
            stream = first(webhook).await?;
        }
        let (mut state, mut logged, mut deliveries) = (Webhook::default(), 0, Vec::new());
        for recorded in &stream {
            if let Event::Webhook(event) = &recorded.event {
                state.evolve(event);
                logged += u32::from(matches!(event, WebhookEvent::DuplicateReceived { .. }));
                if let WebhookEvent::Routed(routing) = event {
                    deliveries = routing.matched.iter().map(|to| to.delivery_id).collect();
                }
            }
        }
        // A stream with only counts of duplicates belongs to a webhook that the log has lost.
        if state.phase() == Phase::Unknown {
            return Ok(None);
        }
        let phase = self.phase(organization, state.phase(), &deliveries).await?;
        Ok(Some(Known { webhook, state, phase, logged }))
    }

    /// Where a webhook with these deliveries stands; `without` is where it stands without any.
    async fn phase(
        &self,
        organization: OrganizationId,
        without: Phase,
        deliveries: &[DeliveryId],
    ) -> Result<Phase, ReadError> {
        if deliveries.is_empty() {
            return Ok(without);
        }
        let mut states: HashMap<DeliveryId, Delivery> =
            deliveries.iter().map(|id| (*id, Delivery::default())).collect();
        for tail in self.reader.stories(organization, deliveries).await? {
            let Some(state) = states.get_mut(&tail.delivery) else { continue };
            for recorded in &tail.events {
                if let Event::Delivery(event) = &recorded.event {
                    state.evolve(event);
                }
            }
        }
        Ok(Phase::of_webhook(states.values().map(Delivery::phase)))
    }

    /// The digest of the body that a transmission is bound to.
    pub(super) async fn bound_to(
        &self,
        organization: OrganizationId,
        transmission: TransmissionId,
    ) -> Result<Option<String>, ReadError> {
        let stream = self.reader.stream(organization, WebhookEvent::AGGREGATE, transmission.uuid(), 1).await?;
        Ok(match stream.into_iter().next().map(|recorded| recorded.event) {
            Some(Event::Webhook(WebhookEvent::TransmissionBound { body_sha256 })) => Some(body_sha256),
            _ => None,
        })
    }

    /// Whether anything was decided about a webhook since its receipt.
    pub(super) async fn has_second_event(
        &self,
        organization: OrganizationId,
        webhook: WebhookId,
    ) -> Result<bool, ReadError> {
        let stream = self.reader.stream(organization, WebhookEvent::AGGREGATE, webhook.uuid(), 2).await?;
        Ok(stream.len() > 1)
    }
}
