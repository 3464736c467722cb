//! Receiving: `POST /webhooks/{org_slug}/{provider}`, from bytes to a durable answer.
//!
//! receive → verify → append; everything else follows the log. Nothing here queries the database before it
//! appends, and nothing uses the network.

mod accept;
mod admission;
mod answer;
mod body;
mod duplicate_bodies;
mod duplicates;
mod hops;
mod limits;
pub mod paypal;
mod rejections;
mod room;
mod units;
mod unverified;

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Duration, Utc};
use hookledger_aggregates::signature::{Claims, Refusal, Trust, Unverified, Verdict, claims, verify};
use hookledger_aggregates::webhook::{Receipt, RejectionReason, Webhook, WebhookCommand};
use hookledger_aggregates::{Label, Metadata, Phase, ProviderName, WebhookId};
use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::directory::{Directory, Endpoint};
use crate::log::{AppendError, Body, FreshBodies, Log, ReadError, Reader, Sequence};
use hops::{hops, is_loop};

use paypal::CertificateStore;
use units::{UnitError, unit};
use unverified::WaitingRoom;

pub use admission::Admission;
pub use answer::WebhookAnswer;
pub use body::{BodyError, HeldBody, drain_body, read_body};
pub use duplicate_bodies::{DuplicateBody, RedeliverError, RedeliverRequest, duplicate_body};
pub use duplicates::{DuplicateCounter, Duplicates};
pub use limits::{LimitWarner, Limits};
pub use rejections::{RejectionCounter, Rejections};
pub use room::{BodyBudget, Claim, Owner};

/// Bodies of rejected requests are stored up to this size: enough to see what was wrong, too little to fill a
/// disk. Digest and size are always recorded.
const REJECTED_BODY_LIMIT: usize = 64 << 10;
/// Larger bodies are hashed on a thread that serves no other requests.
const LARGE_BODY: usize = 256 << 10;

/// A request, parsed as HTTP.
#[derive(Debug)]
pub struct Request {
    pub headers: HeaderMap,
    pub body: HeldBody,
    /// Its sender: the provider, or a person who tests the setup.
    pub by: Metadata,
}

/// Outcome for a genuine webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub webhook: WebhookId,
    pub duplicate: bool,
    /// Its status; of a duplicate, the status of the original.
    pub phase: Phase,
}

#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("{}", .0.detail.as_str())]
    Refused(Refusal),
    #[error("Provider disabled")]
    ProviderDisabled,
    #[error("Organization disabled")]
    OrganizationDisabled,
    #[error(
        "Delivery loop: this webhook was already delivered {0} times. Change the destination that leads back here."
    )]
    Loop(u32),
    #[error("Monthly limit reached: this organization may receive {limit} webhooks a month.")]
    LimitReached { limit: u32, resets_at: DateTime<Utc> },
    /// For this many seconds, rejections of this endpoint are counted and not logged.
    #[error("Too many rejected requests at this endpoint. Try again in {retry_after} s.")]
    RateLimited { retry_after: u64 },
    #[error("The server cannot store webhooks right now. Send it again.")]
    Unavailable,
    /// The load is too high to answer in time. The answer is delayed by `hold_back`, which slows the sender
    /// down.
    #[error("The server is busy. Send it again.")]
    Overloaded { hold_back: std::time::Duration },
}

/// A webhook that is not accepted, and why.
#[derive(Debug)]
pub struct NotAccepted {
    pub error: ReceiveError,
    /// The ID under which it is logged; `None` if it was only counted or not recorded.
    pub webhook: Option<WebhookId>,
}

impl From<ReceiveError> for NotAccepted {
    fn from(error: ReceiveError) -> Self {
        Self { error, webhook: None }
    }
}

/// Parts of a [`Receiver`].
pub struct Parts {
    pub directory: Directory,
    pub log: Log,
    pub reader: Reader,
    pub rejections: Arc<Rejections>,
    pub duplicates: Arc<Duplicates>,
    pub limits: Arc<Limits>,
    pub certificates: Arc<CertificateStore>,
    /// Maximum age of a PayPal transmission.
    pub paypal_max_age: Duration,
    pub fresh: Arc<FreshBodies>,
    pub admission: Admission,
}

/// Receives webhooks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Receiver {
    directory: Directory,
    log: Log,
    reader: Reader,
    rejections: Arc<Rejections>,
    duplicates: Arc<Duplicates>,
    limits: Arc<Limits>,
    certificates: Arc<CertificateStore>,
    unverified: Arc<WaitingRoom>,
    paypal_max_age: Duration,
    fresh: Arc<FreshBodies>,
    admission: Admission,
}

impl Receiver {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            directory: parts.directory,
            log: parts.log,
            reader: parts.reader,
            rejections: parts.rejections,
            duplicates: parts.duplicates,
            limits: parts.limits,
            certificates: parts.certificates,
            unverified: Arc::default(),
            paypal_max_age: parts.paypal_max_age,
            fresh: parts.fresh,
            admission: parts.admission,
        }
    }

    /// The endpoint of that address, if there is one.
    #[must_use]
    pub fn endpoint(&self, slug: &str, provider: &str) -> Option<Endpoint> {
        let provider: ProviderName = provider.parse().ok()?;
        self.directory.endpoint(slug, provider)
    }

    /// Whether the log may have endpoints that this release does not understand.
    #[must_use]
    pub fn may_miss_endpoints(&self) -> bool {
        self.directory.is_too_old()
    }

    /// Whether an answer in time can be expected. Checked before a body is read and a signature verified, so
    /// that a refusal is cheap. GitHub never retries, so it is refused last.
    pub fn admit(&self, endpoint: &Endpoint) -> Result<(), ReceiveError> {
        let is_github = endpoint.provider.name == ProviderName::Github;
        let is_admitted = self.admission.admits(self.log.expected_wait(), is_github);
        if is_admitted { Ok(()) } else { Err(ReceiveError::Overloaded { hold_back: self.admission.hold_back() }) }
    }

    /// Verifies and appends. Once this returns, the webhook is durably in the log.
    pub async fn receive(&self, endpoint: &Endpoint, request: Request) -> Result<Accepted, NotAccepted> {
        // Again, because the body may have taken long to arrive.
        self.admit(endpoint)?;
        // Hashing 25 MiB twice takes tens of milliseconds, which would delay others.
        let (request, judged) = if request.body.bytes.len() > LARGE_BODY {
            let endpoint = endpoint.clone();
            let receiver = self.clone();
            let judging = move || {
                let judged = receiver.judge(&endpoint, &request);
                (request, judged)
            };
            tokio::task::spawn_blocking(judging).await.map_err(|_| ReceiveError::Unavailable)?
        } else {
            let judged = self.judge(endpoint, &request);
            (request, judged)
        };
        let Judged { claims, sha256, verdict } = judged;
        match verdict {
            Ok(Verdict::Verified(verified)) => self.accept(endpoint, request, claims, sha256, verified).await,
            Ok(Verdict::NeedsCertificate(url)) => {
                Ok(self.accept_unverified(endpoint, request, claims, sha256, url).await?)
            }
            Err(error) => {
                let refusal = match &error {
                    ReceiveError::Refused(refusal) => refusal.clone(),
                    ReceiveError::ProviderDisabled => refusal(RejectionReason::ProviderDisabled, &error),
                    ReceiveError::OrganizationDisabled => refusal(RejectionReason::OrganizationDisabled, &error),
                    ReceiveError::Loop(_) => refusal(RejectionReason::LoopDetected, &error),
                    ReceiveError::LimitReached { .. }
                    | ReceiveError::RateLimited { .. }
                    | ReceiveError::Overloaded { .. }
                    | ReceiveError::Unavailable => {
                        return Err(error.into());
                    }
                };
                let webhook = self.reject(endpoint, request, &claims, sha256, refusal).await?;
                Err(NotAccepted { error, webhook })
            }
        }
    }

    fn judge(&self, endpoint: &Endpoint, request: &Request) -> Judged {
        let unverified = Unverified { headers: &request.headers, body: &request.body.bytes };
        let provider = &endpoint.provider;
        let verdict = match &provider.secrets {
            _ if !endpoint.organization_is_active => Err(ReceiveError::OrganizationDisabled),
            _ if !provider.is_active => Err(ReceiveError::ProviderDisabled),
            _ if is_loop(&request.headers) => Err(ReceiveError::Loop(hops(&request.headers))),
            None => Err(ReceiveError::Unavailable),
            Some(secrets) => {
                verify(provider.name, unverified, secrets, &self.trust(), Utc::now()).map_err(ReceiveError::Refused)
            }
        };
        let sha256 = hex::encode(Sha256::digest(&request.body.bytes));
        Judged { claims: claims(provider.name, unverified), sha256, verdict }
    }

    fn trust(&self) -> Trust<'_> {
        Trust { certificates: self.certificates.as_ref(), paypal_max_age: self.paypal_max_age }
    }

    /// Logs a rejection under a random ID, so that a forger cannot make the genuine webhook look like a
    /// duplicate, and returns that ID. Beyond the endpoint's rate, or if the log refuses it, the rejection is
    /// counted.
    async fn reject(
        &self,
        endpoint: &Endpoint,
        mut request: Request,
        claims: &Claims,
        sha256: String,
        refusal: Refusal,
    ) -> Result<Option<WebhookId>, ReceiveError> {
        if let Err(retry_after) = self.rejections.admit(endpoint.organization, endpoint.provider.id) {
            return Err(ReceiveError::RateLimited { retry_after });
        }
        let webhook = WebhookId::new(Uuid::now_v7());
        // Of a request with a large body, neither headers nor body are stored.
        let headers = (request.body.bytes.len() <= REJECTED_BODY_LIMIT).then(|| kept_headers(&request.headers));
        let receipt = receipt(endpoint, &request, claims, sha256, headers.as_deref());
        let Refusal { reason, detail } = refusal;
        let command = WebhookCommand::Reject { receipt, reason, detail };
        let metadata = std::mem::take(&mut request.by);
        let mut unit = unit(endpoint.organization, webhook, Sequence::At(1), &Webhook::default(), command, &metadata)?;
        unit.body = headers.map(|headers| Body {
            organization: endpoint.organization,
            webhook,
            headers,
            body: request.body.bytes.clone(),
        });
        if self.log.append(unit).await.is_err() {
            self.rejections.count(endpoint.organization, endpoint.provider.id);
            return Ok(None);
        }
        Ok(Some(webhook))
    }
}

fn refusal(reason: RejectionReason, answer: &ReceiveError) -> Refusal {
    Refusal { reason, detail: Label::new(&answer.to_string()) }
}

/// A request's claims, and whether they are true.
struct Judged {
    claims: Claims,
    sha256: String,
    verdict: Result<Verdict, ReceiveError>,
}

/// The ID of a request's webhook, provided that its claims are true.
fn webhook_id(endpoint: &Endpoint, claims: &Claims, sha256: &str) -> WebhookId {
    let connection = endpoint.provider.connection;
    let connection = if endpoint.is_for_tests { connection.for_tests() } else { connection };
    WebhookId::derive(connection, &claims.identity(sha256))
}

/// `headers` are the stored ones, if any.
fn receipt(
    endpoint: &Endpoint,
    request: &Request,
    claims: &Claims,
    body_sha256: String,
    headers: Option<&[u8]>,
) -> Receipt {
    let content_type = request.headers.get(http::header::CONTENT_TYPE);
    Receipt {
        provider_id: endpoint.provider.id,
        provider: endpoint.provider.name,
        provider_event_id: claims.event_id_label(),
        event_type: claims.event_type.clone(),
        body_sha256,
        body_size: request.body.bytes.len() as u64,
        headers_sha256: headers.map(|headers| hex::encode(Sha256::digest(headers))),
        content_type: content_type.map(|value| Label::from_bytes(value.as_bytes())),
        signature: claims.signature.clone(),
        duplicate_of: None,
        is_test: endpoint.is_for_tests,
        hops: hops(&request.headers),
    }
}

/// Every header as `name:value` lines, unchanged, except those with a caller's own credentials.
fn kept_headers(headers: &HeaderMap) -> Bytes {
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
    lines.into()
}

impl From<AppendError> for ReceiveError {
    fn from(_: AppendError) -> Self {
        Self::Unavailable
    }
}

impl From<ReadError> for ReceiveError {
    fn from(error: ReadError) -> Self {
        tracing::error!(%error, "could not read the first receipt of a duplicate");
        Self::Unavailable
    }
}

impl From<UnitError> for ReceiveError {
    fn from(error: UnitError) -> Self {
        tracing::error!(%error, "could not append events");
        Self::Unavailable
    }
}

impl From<serde_json::Error> for ReceiveError {
    fn from(error: serde_json::Error) -> Self {
        tracing::error!(%error, "could not serialize an event");
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
        assert_eq!(&kept_headers(&headers)[..], b"x-a:1\nx-a:\xff\n");
    }
}
