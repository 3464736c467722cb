//! Verifies what was accepted before its certificate was at hand.
//!
//! The log is the queue: what waits is what was received unverified and has no second event. So
//! nothing is lost by a crash, and any node can do it; of two that do, one append is a conflict.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::StreamExt as _;
use hookledger_aggregates::retention::RetentionEvent;
use hookledger_aggregates::signature::{CertificateUrl, Refusal, Unverified, Verdict, claims, verify};
use hookledger_aggregates::webhook::{
    Receipt, RejectionReason, SignatureMatch, Webhook, WebhookCommand, WebhookError, WebhookEvent,
};
use hookledger_aggregates::{Event, Label, Metadata, RecordedEvent, TransmissionId, WebhookId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::Receiver;
use super::super::accept::{BodyRoom, Known, replayed};
use super::super::duplicate_bodies::keep_body;
use super::super::units::{UnitError, unit};
use super::super::webhook_id;
use super::fetch::{Fetch, FetchError};
use crate::log::{
    AppendError, Body, Epoch, LogPosition, MonthlyLimit, NewEvent, RawRequest, ReadError, Remembered, Sequence, Unit,
};
use crate::platform::rate::{Buckets, Rate};

/// How often what other nodes or an earlier start left is looked for.
const POLL: Duration = Duration::from_secs(5);
/// What is looked at in one round, and how many certificates are fetched at once.
const BATCH: i64 = 256;
const FETCHES: usize = 4;
/// Certificates that are asked for at once, and how often after that: strangers name them.
const FETCH_RATE: Rate = Rate::new(20, Duration::from_secs(6));
/// How long after a failed fetch the same is tried again: twice as long each time, up to a limit.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(300);
/// Missing certificates that the operator is told of in that time.
const TOLD: usize = 16;
/// What could not be verified for so long is refused: PayPal has given up by then as well.
const GIVE_UP: chrono::Duration = chrono::Duration::days(3);
/// How often one webhook is decided again while others append to the same streams.
const TRIES: usize = 5;

#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Unit(#[from] UnitError),
}

impl From<serde_json::Error> for VerifyError {
    fn from(error: serde_json::Error) -> Self {
        Self::Unit(error.into())
    }
}

impl From<WebhookError> for VerifyError {
    fn from(error: WebhookError) -> Self {
        Self::Unit(error.into())
    }
}

/// The one task of a node that verifies later.
pub struct Verifier {
    receiver: Receiver,
    fetch: Arc<dyn Fetch>,
    /// When a certificate may be asked for again, and the wait before that.
    retries: HashMap<CertificateUrl, (Instant, Duration)>,
    /// What was looked at last: what cannot be verified now must not hide what can.
    seen: Remembered<Option<LogPosition>>,
    fetches: Buckets,
}

/// What became of a webhook that waits.
enum Outcome {
    Done,
    Needs(CertificateUrl),
    /// For the provider's secret.
    Waits,
}

impl Verifier {
    #[must_use]
    pub fn new(receiver: Receiver, fetch: Arc<dyn Fetch>) -> Self {
        let seen = receiver.log.remember();
        Self { receiver, fetch, retries: HashMap::new(), seen, fetches: Buckets::new(FETCH_RATE) }
    }

    /// Verifies until stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let more = match self.step().await {
                Ok(more) => more,
                Err(error) => {
                    tracing::warn!(%error, "what waits to be verified cannot be verified; trying again");
                    false
                }
            };
            if !more {
                let pause = self.pause();
                let waiting = tokio::time::timeout(pause, self.receiver.unverified.notified());
                let _ = stop.run_until_cancelled(waiting).await;
            }
        }
    }

    /// Until the next certificate may be asked for again.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        self.retries.values().map(|(at, _)| at.saturating_duration_since(now)).min().map_or(POLL, |wait| wait.min(POLL))
    }

    /// One round over what waits; whether there is more to do at once.
    async fn step(&mut self) -> Result<bool, VerifyError> {
        let epoch = self.receiver.log.epoch();
        let waiting = self.receiver.reader.unverified(*self.seen.get(), BATCH).await?;
        let mut needed = self.receiver.unverified.wanted();
        for recorded in &waiting {
            match self.verify(recorded, epoch).await {
                Ok(Outcome::Done | Outcome::Waits) => {}
                Ok(Outcome::Needs(url)) => drop(needed.insert(url)),
                Err(error) => {
                    tracing::warn!(%error, webhook.id = %recorded.aggregate_id, "a webhook cannot be verified now");
                }
            }
        }
        let full = i64::try_from(waiting.len()).is_ok_and(|count| count == BATCH);
        let last = waiting.last().map(|last| LogPosition { partition: last.partition, position: last.position });
        *self.seen.get() = last.filter(|_| full);
        let fetched = if self.receiver.certificates.is_offline() {
            self.tell_missing(needed);
            false
        } else {
            self.fetch_all(needed).await
        };
        if fetched {
            *self.seen.get() = None;
        }
        Ok(fetched || full)
    }

    /// Tells the operator, whose directory is looked at anew in each round, what is not there.
    fn tell_missing(&mut self, needed: HashSet<CertificateUrl>) {
        let now = Instant::now();
        self.retries.retain(|_, (at, _)| *at > now);
        for url in needed {
            if self.retries.len() < TOLD && !self.retries.contains_key(&url) {
                tracing::warn!(
                    certificate.url = url.as_str(),
                    certificate.file = format!("{}.pem", url.name()),
                    "webhooks wait for a certificate that is not in the directory of certificates"
                );
                self.retries.insert(url, (now + RETRY_LAST, RETRY_LAST));
            }
        }
    }

    /// Fetches what is due; whether anything became known.
    async fn fetch_all(&mut self, needed: HashSet<CertificateUrl>) -> bool {
        let now = Instant::now();
        self.retries.retain(|url, (at, _)| needed.contains(url) || *at > now);
        // A set has no order, so that the genuine one has its chance among what strangers name. What finds none is
        // wanted again by what waits for it, or by PayPal's next try.
        let is_due = |url: &CertificateUrl| self.retries.get(url).is_none_or(|(at, _)| *at <= now);
        let due: Vec<_> = needed.into_iter().filter(|url| is_due(url) && self.fetches.check(&()).is_ok()).collect();
        let fetch = &self.fetch;
        let results: Vec<_> = futures::stream::iter(due)
            .map(|url| async move {
                let result = fetch.fetch(&url).await;
                (url, result)
            })
            .buffer_unordered(FETCHES)
            .collect()
            .await;
        let mut known = false;
        for (url, result) in results {
            match result {
                Ok(pem) => {
                    tracing::info!(certificate.url = url.as_str(), "a certificate was fetched");
                    self.receiver.certificates.put(&url, pem, Utc::now());
                }
                Err(error @ FetchError::NotThere(_)) => {
                    self.receiver.certificates.refuse(
                        &url,
                        format!("The certificate couldn't be fetched: {error}."),
                        Utc::now(),
                    );
                }
                Err(FetchError::Failed(reason)) => {
                    let wait = self.retries.get(&url).map_or(RETRY_FIRST, |(_, last)| (*last * 2).min(RETRY_LAST));
                    tracing::warn!(
                        reason,
                        certificate.url = url.as_str(),
                        "a certificate cannot be fetched; trying again"
                    );
                    self.retries.insert(url, (Instant::now() + wait, wait));
                    continue;
                }
            }
            self.retries.remove(&url);
            known = true;
        }
        known
    }

    /// `recorded` was read in that epoch.
    async fn verify(&self, recorded: &RecordedEvent, epoch: Epoch) -> Result<Outcome, VerifyError> {
        let Event::Webhook(event @ WebhookEvent::ReceivedUnverified { receipt, event_webhook_id, owed: _ }) =
            &recorded.event
        else {
            return Ok(Outcome::Done);
        };
        let mut waiting = Waiting {
            recorded,
            webhook: WebhookId::new(recorded.aggregate_id),
            event_webhook_id: *event_webhook_id,
            state: Webhook::default(),
            epoch,
        };
        waiting.state.evolve(event);
        let refuse = |reason, detail: &str| Refusal { reason, detail: Label::new(detail) };
        let Some(endpoint) = self.receiver.directory.endpoint_of(recorded.organization, receipt.provider_id) else {
            let refusal = refuse(RejectionReason::ProviderDisabled, "The provider was deleted.");
            return self.fail(&waiting, refusal).await;
        };
        let Some(raw) = self.receiver.reader.body(recorded.organization, waiting.webhook).await? else {
            return self.fail(&waiting, refuse(RejectionReason::SignatureInvalid, "The body is no longer kept.")).await;
        };
        let headers = header_map(&raw.headers);
        let raw = &raw;
        let request = Unverified { headers: &headers, body: &raw.body };
        // Another connection is another sender, to whom it was not sent.
        let claims = claims(receipt.provider, request);
        if webhook_id(&endpoint, &claims, &receipt.body_sha256) != waiting.event_webhook_id {
            let refusal = refuse(RejectionReason::ProviderDisabled, "The provider was deleted.");
            return self.fail(&waiting, refusal).await;
        }
        // Without its secret nothing can be verified, and nothing be refused.
        let Some(secrets) = endpoint.provider.secrets.as_deref() else { return Ok(Outcome::Waits) };
        // As of its receipt: it did not become stale by waiting for us.
        let at = recorded.recorded_at;
        let verdict = verify(receipt.provider, request, secrets, &self.receiver.trust(), at);
        match verdict {
            Ok(Verdict::NeedsCertificate(_)) if Utc::now() - at > GIVE_UP => {
                let detail = "Its certificate couldn't be fetched within 3 days.";
                self.fail(&waiting, refuse(RejectionReason::SignatureInvalid, detail)).await
            }
            Ok(Verdict::NeedsCertificate(url)) => Ok(Outcome::Needs(url)),
            Err(refusal) => self.fail(&waiting, refusal).await,
            Ok(Verdict::Verified(verified)) => {
                let transmission = verified.transmission().map(|id| TransmissionId::derive(receipt.provider_id, id));
                let matched = verified.into_match(receipt.provider_id);
                for _ in 0..TRIES {
                    match self.decide(&waiting, receipt, raw, matched.clone(), transmission, endpoint.limit).await {
                        Err(VerifyError::Append(AppendError::Conflict)) => {}
                        Err(VerifyError::Append(AppendError::OverLimit(used))) => {
                            if let Some(limit) = endpoint.limit {
                                self.receiver.limits.note_used_up(recorded.organization, limit, used);
                            }
                            let detail = "Monthly limit reached.";
                            return self.fail(&waiting, refuse(RejectionReason::MonthlyLimitReached, detail)).await;
                        }
                        other => return other,
                    }
                }
                Err(AppendError::Conflict.into())
            }
        }
    }

    /// A genuine webhook: is it new, known, or a replay with another body?
    async fn decide(
        &self,
        waiting: &Waiting<'_>,
        receipt: &Receipt,
        raw: &RawRequest,
        verified: SignatureMatch,
        transmission: Option<TransmissionId>,
        limit: Option<MonthlyLimit>,
    ) -> Result<Outcome, VerifyError> {
        let organization = waiting.recorded.organization;
        let receiver = &self.receiver;
        if receiver.has_second_event(organization, waiting.webhook).await? {
            return Ok(Outcome::Done);
        }
        let bound = match transmission {
            Some(transmission) => receiver.bound_to(organization, transmission).await?,
            None => None,
        };
        if bound.as_ref().is_some_and(|sha256| *sha256 != receipt.body_sha256) {
            return self.fail(waiting, replayed()).await;
        }
        let (system, at) = (Metadata::default(), Sequence::At);
        let (mut events, mut kept) = (Vec::new(), None);
        let known = receiver.known(organization, waiting.event_webhook_id).await?;
        let is_new = known.is_none();
        if let Some(known) = known {
            if let BodyRoom::At(sequence) = receiver.room_for_body(organization, &known, &receipt.body_sha256).await? {
                let keep = keep_body(organization, known.webhook, sequence, receipt.clone(), verified);
                events.push(keep.event(&system)?);
                let (headers, body) = (raw.headers.clone().into(), raw.body.clone().into());
                kept = Some(Body { organization, webhook: keep.owner(), headers, body });
            }
            let Known { webhook, state, .. } = known;
            let (body_sha256, body_size) = (receipt.body_sha256.clone(), receipt.body_size);
            for event in state.decide(WebhookCommand::ReceiveDuplicate { body_sha256, body_size })? {
                events.push(NewEvent::of(organization, webhook.uuid(), Sequence::End, &event, &system)?);
            }
            for event in waiting.state.decide(WebhookCommand::Merge { into: webhook })? {
                events.push(NewEvent::of(organization, waiting.webhook.uuid(), at(2), &event, &system)?);
            }
            // A body that differs is kept with the others, where it is found to be erased; nobody would find it here.
            let position = waiting.recorded.position;
            let gone =
                RetentionEvent::BodyErased { position, reason: Some(Label::new("another delivery of a webhook")) };
            events.push(NewEvent::of(organization, waiting.webhook.uuid(), at(1), &gone, &system)?);
        } else {
            for event in waiting.state.decide(WebhookCommand::Verify { verified })? {
                events.push(NewEvent::of(organization, waiting.webhook.uuid(), at(2), &event, &system)?);
            }
            let identified = WebhookEvent::Identified { webhook_id: waiting.webhook };
            events.push(NewEvent::of(organization, waiting.event_webhook_id.uuid(), at(1), &identified, &system)?);
        }
        if let (Some(transmission), None) = (transmission, bound) {
            let event = WebhookEvent::TransmissionBound { body_sha256: receipt.body_sha256.clone() };
            events.push(NewEvent::of(organization, transmission.uuid(), at(1), &event, &system)?);
        }
        let mut unit = Unit::new(events);
        unit.limit = limit.filter(|_| is_new);
        unit.body = kept;
        self.append(unit.decided_in(waiting.epoch)).await?;
        Ok(Outcome::Done)
    }

    async fn fail(&self, waiting: &Waiting<'_>, refusal: Refusal) -> Result<Outcome, VerifyError> {
        let Refusal { reason, detail } = refusal;
        let command = WebhookCommand::FailVerification { reason, detail };
        let organization = waiting.recorded.organization;
        let system = Metadata::default();
        let mut unit = unit(organization, waiting.webhook, Sequence::At(2), &waiting.state, command, &system)?;
        // Strangers store nothing here.
        let position = waiting.recorded.position;
        let gone = RetentionEvent::BodyErased { position, reason: Some(Label::new("it could not be verified")) };
        unit.events.push(NewEvent::of(organization, waiting.webhook.uuid(), Sequence::At(1), &gone, &system)?);
        match self.append(unit.decided_in(waiting.epoch)).await {
            // Another node was first.
            Ok(()) | Err(AppendError::Conflict) => Ok(Outcome::Done),
            Err(error) => Err(error.into()),
        }
    }

    async fn append(&self, unit: Unit) -> Result<(), AppendError> {
        let mut verdicts = self.receiver.log.append_all(vec![unit]).await?;
        verdicts.pop().unwrap_or(Err(AppendError::Failed)).map(drop)
    }
}

/// A webhook that waits to be verified.
struct Waiting<'a> {
    recorded: &'a RecordedEvent,
    webhook: WebhookId,
    event_webhook_id: WebhookId,
    state: Webhook,
    epoch: Epoch,
}

/// The headers as they were kept, `name:value` lines.
fn header_map(lines: &[u8]) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = http::HeaderName::from_bytes(&line[..colon]);
        let value = http::HeaderValue::from_bytes(&line[colon + 1..]);
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}
