//! Receiving: `POST /webhooks/{org_slug}/{provider}`, from bytes to a durable answer.
//!
//! receive → verify → append; everything else follows the log. Nothing here asks the database
//! before it appends, and nothing calls the network.

mod body;
mod rejections;

use std::sync::Arc;

use bytes::Bytes;
use chrono::Utc;
use hookledger_aggregates::event::Stored as _;
use hookledger_aggregates::signature::{Claims, Refusal, Unverified, Verified, claims, verify};
use hookledger_aggregates::webhook::{Receipt, RejectionReason, Webhook, WebhookCommand, WebhookError, WebhookEvent};
use hookledger_aggregates::{Event, Label, Metadata, OrganizationId, ProviderName, WebhookId};
use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::directory::{Directory, Endpoint};
use crate::log::{AppendError, Body, Log, NewEvent, ReadError, Reader, Sequence, Unit};

pub use body::{BodyError, drain_body, read_body};
pub use rejections::{RejectionCounter, Rejections};

/// Bodies of rejected requests are kept up to this size: enough to see what was wrong with them,
/// too little to fill a disk with. Digest and size are always kept.
const REJECTED_BODY_LIMIT: usize = 64 << 10;
/// Bodies above this are hashed off the threads that serve everybody.
const LARGE_BODY: usize = 256 << 10;

/// A request, as far as HTTP understood it.
#[derive(Debug)]
pub struct Request {
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The client's address.
    pub client: String,
}

/// What happened to a genuine webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub webhook: WebhookId,
    pub duplicate: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("{}", .0.detail.as_str())]
    Refused(Refusal),
    #[error("Provider disabled")]
    ProviderDisabled,
    #[error("Organization disabled")]
    OrganizationDisabled,
    /// Rejections of this endpoint are counted, not logged, for so many seconds.
    #[error("too many rejected requests at this endpoint")]
    RateLimited { retry_after: u64 },
    #[error("the log takes no more for now; send it again")]
    Unavailable,
}

/// Receives webhooks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Receiver {
    directory: Directory,
    log: Log,
    reader: Reader,
    rejections: Arc<Rejections>,
}

impl Receiver {
    #[must_use]
    pub fn new(directory: Directory, log: Log, reader: Reader, rejections: Arc<Rejections>) -> Self {
        Self { directory, log, reader, rejections }
    }

    /// The endpoint of that address, if there is one.
    #[must_use]
    pub fn endpoint(&self, slug: &str, provider: &str) -> Option<Endpoint> {
        let provider: ProviderName = provider.parse().ok()?;
        self.directory.endpoint(slug, provider)
    }

    /// Whether the endpoint takes webhooks at all; a refusal is logged. Asked before the body is
    /// read: there is no need to take 25 MiB for a disabled provider.
    ///
    /// # Errors
    /// [`ReceiveError`] for a disabled organization or provider.
    pub async fn admit(&self, endpoint: &Endpoint, headers: &HeaderMap, client: &str) -> Result<(), ReceiveError> {
        let (reason, answer) = if !endpoint.organization_is_active {
            (RejectionReason::OrganizationDisabled, ReceiveError::OrganizationDisabled)
        } else if !endpoint.provider.is_active {
            (RejectionReason::ProviderDisabled, ReceiveError::ProviderDisabled)
        } else if endpoint.provider.secrets.is_none() {
            return Err(ReceiveError::Unavailable);
        } else {
            return Ok(());
        };
        let request = Request { headers: headers.clone(), body: Bytes::new(), client: client.to_owned() };
        let claims = claims(endpoint.provider.name, Unverified { headers, body: &[] });
        let refusal = Refusal { reason, detail: Label::new(&answer.to_string()) };
        self.reject(endpoint, request, claims, hex::encode(Sha256::digest([])), refusal).await?;
        Err(answer)
    }

    /// Verifies and appends. When this answers, the webhook is in the log, durably.
    ///
    /// # Errors
    /// [`ReceiveError`]; a refusal is in the log as well, or counted.
    pub async fn receive(&self, endpoint: &Endpoint, request: Request) -> Result<Accepted, ReceiveError> {
        // Hashing 25 MiB twice takes tens of milliseconds, in which others would wait.
        let (request, judged) = if request.body.len() > LARGE_BODY {
            let endpoint = endpoint.clone();
            let judging = move || {
                let judged = judge(&endpoint, &request);
                (request, judged)
            };
            tokio::task::spawn_blocking(judging).await.map_err(|_| ReceiveError::Unavailable)?
        } else {
            let judged = judge(endpoint, &request);
            (request, judged)
        };
        match judged.verdict {
            Ok(verified) => {
                let identity = identity(&judged.claims, &judged.sha256);
                let webhook = WebhookId::derive(endpoint.provider.id, &identity);
                let receipt = receipt(endpoint, &request, &judged.claims, judged.sha256);
                let command = WebhookCommand::Receive { receipt, verified: verified.into_match() };
                self.accept(endpoint, request, webhook, command).await
            }
            Err(refusal) => {
                let answer = ReceiveError::Refused(refusal.clone());
                self.reject(endpoint, request, judged.claims, judged.sha256, refusal).await?;
                Err(answer)
            }
        }
    }

    /// Appends a webhook that is new, or else what came again.
    async fn accept(
        &self,
        endpoint: &Endpoint,
        request: Request,
        webhook: WebhookId,
        command: WebhookCommand,
    ) -> Result<Accepted, ReceiveError> {
        let WebhookCommand::Receive { receipt, .. } = &command else { return Err(ReceiveError::Unavailable) };
        let (sha256, size) = (receipt.body_sha256.clone(), receipt.body_size);
        let metadata = Metadata::sender(request.client);
        let headers = kept_headers(&request.headers);
        let mut unit = unit(endpoint.organization, webhook, Sequence::At(1), &Webhook::default(), command, &metadata)?;
        unit.body = Some(Body { organization: endpoint.organization, webhook, headers, body: request.body });
        match self.log.append(unit).await {
            Ok(_) => Ok(Accepted { webhook, duplicate: false }),
            Err(AppendError::Conflict) => self.accept_duplicate(endpoint, webhook, sha256, size, &metadata).await,
            Err(AppendError::Overloaded | AppendError::Failed) => Err(ReceiveError::Unavailable),
        }
    }

    /// The id is taken, so this event was received before. What is appended depends only on that
    /// first receipt, which never changes, and so needs no place of its own in the stream.
    async fn accept_duplicate(
        &self,
        endpoint: &Endpoint,
        webhook: WebhookId,
        body_sha256: String,
        body_size: u64,
        metadata: &Metadata,
    ) -> Result<Accepted, ReceiveError> {
        let organization = endpoint.organization;
        let first = self.reader.stream(organization, WebhookEvent::AGGREGATE, webhook.uuid(), 1).await?;
        let mut state = Webhook::default();
        if let Some(Event::Webhook(event)) = first.first().map(|recorded| &recorded.event) {
            state.evolve(event);
        }
        let command = WebhookCommand::ReceiveDuplicate { body_sha256, body_size };
        let unit = unit(organization, webhook, Sequence::End, &state, command, metadata)?;
        self.log.append(unit).await?;
        Ok(Accepted { webhook, duplicate: true })
    }

    /// Logs what was wrong under a fresh id, so that a forger cannot make the genuine one look like
    /// a duplicate. Beyond the endpoint's rate it is counted instead.
    async fn reject(
        &self,
        endpoint: &Endpoint,
        mut request: Request,
        claims: Claims,
        sha256: String,
        refusal: Refusal,
    ) -> Result<(), ReceiveError> {
        if let Err(retry_after) = self.rejections.admit(endpoint.organization, endpoint.provider.id) {
            return Err(ReceiveError::RateLimited { retry_after });
        }
        let webhook = WebhookId::new(Uuid::now_v7());
        let receipt = receipt(endpoint, &request, &claims, sha256);
        let Refusal { reason, detail } = refusal;
        let command = WebhookCommand::Reject { receipt, reason, detail };
        let metadata = Metadata::sender(std::mem::take(&mut request.client));
        let mut unit = unit(endpoint.organization, webhook, Sequence::At(1), &Webhook::default(), command, &metadata)?;
        if request.body.len() <= REJECTED_BODY_LIMIT {
            let headers = kept_headers(&request.headers);
            unit.body = Some(Body { organization: endpoint.organization, webhook, headers, body: request.body });
        }
        self.log.append(unit).await?;
        Ok(())
    }
}

/// What a request says of itself, and whether that is true.
struct Judged {
    claims: Claims,
    sha256: String,
    verdict: Result<Verified, Refusal>,
}

fn judge(endpoint: &Endpoint, request: &Request) -> Judged {
    let unverified = Unverified { headers: &request.headers, body: &request.body };
    let secrets = endpoint.provider.secrets.as_deref().unwrap_or_default();
    Judged {
        claims: claims(endpoint.provider.name, unverified),
        sha256: hex::encode(Sha256::digest(&request.body)),
        verdict: verify(endpoint.provider.name, unverified, secrets, Utc::now()),
    }
}

/// What makes two deliveries the same event: the provider's id of it, or else the body.
fn identity(claims: &Claims, sha256: &str) -> Vec<u8> {
    claims.event_id.clone().unwrap_or_else(|| format!("sha256:{sha256}").into_bytes())
}

fn receipt(endpoint: &Endpoint, request: &Request, claims: &Claims, body_sha256: String) -> Receipt {
    let content_type = request.headers.get(http::header::CONTENT_TYPE);
    Receipt {
        provider_id: endpoint.provider.id,
        provider: endpoint.provider.name,
        provider_event_id: claims.event_id_label(),
        event_type: claims.event_type.clone(),
        body_sha256,
        body_size: request.body.len() as u64,
        content_type: content_type.map(|value| Label::from_bytes(value.as_bytes())),
        signature: claims.signature.clone(),
    }
}

/// Lets the aggregate decide and makes a unit of what it decided.
fn unit(
    organization: OrganizationId,
    webhook: WebhookId,
    sequence: Sequence,
    state: &Webhook,
    command: WebhookCommand,
    metadata: &Metadata,
) -> Result<Unit, ReceiveError> {
    let mut events = Vec::with_capacity(2);
    for (offset, event) in (0..).zip(state.decide(command)?) {
        let sequence = match sequence {
            Sequence::At(first) => Sequence::At(first + offset),
            Sequence::End => Sequence::End,
        };
        events.push(NewEvent::of(organization, webhook.uuid(), sequence, &event, metadata)?);
    }
    Ok(Unit::new(events))
}

/// Every header as it came, as `name:value` lines, but those that carry a caller's own credentials.
fn kept_headers(headers: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::with_capacity(headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 2).sum());
    for (name, value) in headers {
        if *name == http::header::AUTHORIZATION || *name == http::header::COOKIE {
            continue;
        }
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.push(b':');
        lines.extend_from_slice(value.as_bytes());
        lines.push(b'\n');
    }
    lines
}

impl From<AppendError> for ReceiveError {
    fn from(_: AppendError) -> Self {
        Self::Unavailable
    }
}

impl From<ReadError> for ReceiveError {
    fn from(error: ReadError) -> Self {
        tracing::error!(%error, "a duplicate's first receipt cannot be read");
        Self::Unavailable
    }
}

impl From<WebhookError> for ReceiveError {
    fn from(error: WebhookError) -> Self {
        tracing::error!(%error, "a webhook was decided against its own first receipt");
        Self::Unavailable
    }
}

impl From<serde_json::Error> for ReceiveError {
    fn from(error: serde_json::Error) -> Self {
        tracing::error!(%error, "an event cannot be written as JSON");
        Self::Unavailable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_kept_and_everything_else_is() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", "1".parse().unwrap());
        headers.append("x-a", http::HeaderValue::from_bytes(b"\xff").unwrap());
        headers.append("authorization", "Bearer t".parse().unwrap());
        headers.append("cookie", "s=1".parse().unwrap());
        assert_eq!(kept_headers(&headers), b"x-a:1\nx-a:\xff\n");
    }

    #[test]
    fn an_event_without_an_id_is_known_by_its_body() {
        let claims = Claims::default();
        assert_eq!(identity(&claims, "aa"), b"sha256:aa");
        assert_ne!(identity(&claims, "aa"), identity(&claims, "bb"));
    }
}
