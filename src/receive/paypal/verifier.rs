//! Verifies webhooks that were accepted before their certificate was available.
//!
//! The log is the queue: a webhook waits if it was received unverified and has no second event. So a crash
//! loses nothing, and any node can verify; if two do, one append is a conflict.

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

/// Interval of looks for webhooks left by other nodes or an earlier start.
const POLL: Duration = Duration::from_secs(5);
/// Webhooks per round, and concurrent fetches of certificates.
const BATCH: i64 = 256;
const FETCHES: usize = 4;
/// Certificates fetched at once, and the rate after that, because strangers can name certificates.
const FETCH_RATE: Rate = Rate::new(20, Duration::from_secs(6));
/// Pause after a failed fetch of a certificate; doubles with each failure, up to a limit.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(300);
/// Missing certificates logged for the operator in that time.
const TOLD: usize = 16;
/// A webhook still unverified after this time is refused; PayPal has given up by then as well.
const GIVE_UP: chrono::Duration = chrono::Duration::days(3);
/// How many times one webhook is decided while others append to the same streams.
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

/// The only task of a node that verifies later.
pub struct Verifier {
    receiver: Receiver,
    fetch: Arc<dyn Fetch>,
    /// When a certificate may be fetched again, and the pause before that.
    retries: HashMap<CertificateUrl, (Instant, Duration)>,
    /// The last webhook looked at, so that those that cannot be verified now do not hide the others.
    seen: Remembered<Option<LogPosition>>,
    fetches: Buckets,
}

/// Outcome for a waiting webhook.
enum Outcome {
    Done,
    Needs(CertificateUrl),
    /// It waits for the provider's secret.
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
                    tracing::warn!(%error, "could not verify waiting webhooks; retrying");
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

    /// Time until the next certificate may be fetched again.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        self.retries.values().map(|(at, _)| at.saturating_duration_since(now)).min().map_or(POLL, |wait| wait.min(POLL))
    }

    /// One round over the waiting webhooks; returns whether to continue at once.
    async fn step(&mut self) -> Result<bool, VerifyError> {
        let epoch = self.receiver.log.epoch();
        let waiting = self.receiver.reader.unverified(*self.seen.get(), BATCH).await?;
        let mut needed = self.receiver.unverified.wanted();
        for recorded in &waiting {
            match self.verify(recorded, epoch).await {
                Ok(Outcome::Done | Outcome::Waits) => {}
                Ok(Outcome::Needs(url)) => drop(needed.insert(url)),
                Err(error) => {
                    tracing::warn!(%error, webhook.id = %recorded.aggregate_id, "could not verify a waiting webhook");
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

    /// Logs missing certificates for the operator, whose directory is read anew in each round.
    fn tell_missing(&mut self, needed: HashSet<CertificateUrl>) {
        let now = Instant::now();
        self.retries.retain(|_, (at, _)| *at > now);
        for url in needed {
            if self.retries.len() < TOLD && !self.retries.contains_key(&url) {
                tracing::warn!(
                    certificate.url = url.as_str(),
                    certificate.file = format!("{}.pem", url.name()),
                    "webhooks wait for a certificate that is missing from HOOKLEDGER_PAYPAL_CERT_DIR"
                );
                self.retries.insert(url, (now + RETRY_LAST, RETRY_LAST));
            }
        }
    }

    /// Fetches the certificates that are due; returns whether any result is new.
    async fn fetch_all(&mut self, needed: HashSet<CertificateUrl>) -> bool {
        let now = Instant::now();
        self.retries.retain(|url, (at, _)| needed.contains(url) || *at > now);
        // A set has no order, so a genuine certificate has its chance among those that strangers name. One
        // that is left out is requested again by the webhook that needs it, or by PayPal's next try.
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
                    tracing::info!(certificate.url = url.as_str(), "fetched a certificate");
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
                    tracing::warn!(reason, certificate.url = url.as_str(), "could not fetch a certificate; retrying");
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
        let Event::Webhook(event @ WebhookEvent::ReceivedUnverified { receipt, event_webhook_id, routing: _ }) =
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
            return self
                .fail(&waiting, refuse(RejectionReason::SignatureInvalid, "The body is no longer stored."))
                .await;
        };
        let headers = header_map(&raw.headers);
        let raw = &raw;
        let request = Unverified { headers: &headers, body: &raw.body };
        // The provider was connected anew, so the request was sent to another connection.
        let claims = claims(receipt.provider, request);
        if webhook_id(&endpoint, &claims, &receipt.body_sha256) != waiting.event_webhook_id {
            let refusal = refuse(RejectionReason::ProviderDisabled, "The provider was deleted.");
            return self.fail(&waiting, refusal).await;
        }
        // Without its secret, nothing can be verified or refused.
        let Some(secrets) = endpoint.provider.secrets.as_deref() else { return Ok(Outcome::Waits) };
        // As of its receipt, because the wait must not make it stale.
        let at = recorded.recorded_at;
        let verdict = verify(receipt.provider, request, secrets, &self.receiver.trust(), at);
        match verdict {
            Ok(Verdict::NeedsCertificate(_)) if self.receiver.reader.time().await? - at > GIVE_UP => {
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
                                self.receiver.limits.note_used_up(recorded.organization, limit, used, epoch);
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

    /// Decides a genuine webhook: new, known, or a replay with another body.
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
            // A different body is stored with the duplicates' bodies, so that an erasure finds it. Nothing
            // would find it here.
            let position = waiting.recorded.position;
            let gone =
                RetentionEvent::BodyErased { position, reason: Some(Label::new("another delivery of a webhook")) };
            events.push(NewEvent::of(organization, waiting.webhook.uuid(), at(1), &gone, &system)?);
        } else {
            for (sequence, event) in (2..).zip(waiting.state.decide(WebhookCommand::Verify { verified })?) {
                events.push(NewEvent::of(organization, waiting.webhook.uuid(), at(sequence), &event, &system)?);
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
        // Nothing that a stranger sent stays stored.
        let position = waiting.recorded.position;
        let gone = RetentionEvent::BodyErased { position, reason: Some(Label::new("it could not be verified")) };
        unit.events.push(NewEvent::of(organization, waiting.webhook.uuid(), Sequence::At(1), &gone, &system)?);
        match self.append(unit.decided_in(waiting.epoch)).await {
            // Another node was faster.
            Ok(()) | Err(AppendError::Conflict) => Ok(Outcome::Done),
            Err(error) => Err(error.into()),
        }
    }

    async fn append(&self, unit: Unit) -> Result<(), AppendError> {
        let mut verdicts = self.receiver.log.append_all(vec![unit]).await?;
        verdicts.pop().unwrap_or(Err(AppendError::Failed)).map(drop)
    }
}

/// A webhook that waits for verification.
struct Waiting<'a> {
    recorded: &'a RecordedEvent,
    webhook: WebhookId,
    event_webhook_id: WebhookId,
    state: Webhook,
    epoch: Epoch,
}

/// The stored headers, `name:value` lines.
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
