//! `POST /webhooks/{org_slug}/{provider}`.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Buf;
use futures::{FutureExt as _, Stream, StreamExt as _};
use hookledger_aggregates::Metadata;
use http::{HeaderMap, Method, StatusCode};
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::{Answer, Services, client, declared_length, error, share, waits_to_be_asked, with};
use crate::receive::{Accepted, NotAccepted, Owner, ReceiveError, Request, WebhookAnswer, drain_body, read_body};

pub(super) fn route(services: Arc<Services>) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    warp::path!("webhooks" / String / String)
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(sender())
        .and(with(services))
        .and(warp::body::stream())
        .then(|slug, provider, method, headers, sender, services, body| {
            // Warp moves the future from state to state, and it is kilobytes large, so it is boxed.
            async move { answer(slug, provider, method, headers, sender, services, body).await.into_response() }.boxed()
        })
}

/// The origin of a webhook.
struct Sender {
    address: String,
    share: Option<IpAddr>,
}

fn sender() -> impl Filter<Extract = (Sender,), Error = std::convert::Infallible> + Copy {
    client().and(share()).map(|address, share| Sender { address, share })
}

async fn answer<B: Buf>(
    slug: String,
    provider: String,
    method: Method,
    headers: HeaderMap,
    sender: Sender,
    services: Arc<Services>,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Answer {
    // A client that waits for 100 Continue is answered at once, and not asked for a body that nobody reads.
    let begun = AtomicBool::new(!waits_to_be_asked(&headers));
    let mut body = std::pin::pin!(body.inspect(|_| begun.store(true, Ordering::Relaxed)));
    if method != Method::POST {
        drain(body, &begun).await;
        return Answer::method_not_allowed("POST");
    }
    let started = Instant::now();
    let (answer, webhook) = match receive(&slug, &provider, headers, sender, &services, body.as_mut()).await {
        Ok(accepted) => (Answer::from(WebhookAnswer::from(&accepted)), Some(accepted.webhook)),
        Err(Refused::ToBeHeldBack(hold_back, answer)) => {
            drain(body, &begun).await;
            tokio::time::sleep(hold_back).await;
            metrics::counter!("hookledger_received_total", "status" => "503").increment(1);
            // `Admission` logs these, many at once.
            return answer;
        }
        Err(Refused::AtOnce(answer)) => {
            drain(body, &begun).await;
            (answer, None)
        }
    };
    let status = answer.status();
    metrics::histogram!("hookledger_receive_seconds").record(started.elapsed());
    metrics::counter!("hookledger_received_total", "status" => status.as_str().to_owned()).increment(1);
    tracing::info!(
        webhook.id = webhook.map(tracing::field::display),
        http.status = status.as_u16(),
        duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        "webhook answered"
    );
    answer
}

async fn drain<B: Buf>(body: Pin<&mut impl Stream<Item = Result<B, warp::Error>>>, begun: &AtomicBool) {
    if begun.load(Ordering::Relaxed) {
        drain_body(body).await;
    }
}

async fn receive<B: Buf>(
    slug: &str,
    provider: &str,
    headers: HeaderMap,
    sender: Sender,
    services: &Services,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Accepted, Refused> {
    let unknown = || {
        let sentence = "Unknown endpoint: no organization or provider has this URL.";
        Refused::AtOnce(error(StatusCode::NOT_FOUND, "unknown_endpoint", sentence))
    };
    let endpoint = services.receiver.endpoint(slug, provider).ok_or_else(|| {
        if services.receiver.may_miss_endpoints() { ReceiveError::Unavailable.into() } else { unknown() }
    })?;
    if let Some(sandbox) = &services.app.sandbox
        && sandbox.is_closed(slug).await.map_err(|_| ReceiveError::Unavailable)?
    {
        return Err(unknown());
    }
    let declared = declared_length(&headers);
    services.receiver.admit(&endpoint)?;
    let owner = Owner { client: sender.share, endpoint: Some(endpoint.provider.id.uuid()) };
    let claim = services.bodies.for_webhook(owner, declared);
    let body = read_body(body, declared, services.max_body, claim).await;
    let body = body.map_err(|error| Refused::AtOnce(error.into()))?;
    Ok(services.receiver.receive(&endpoint, Request { headers, body, by: Metadata::sender(sender.address) }).await?)
}

/// The answer to a webhook that is not admitted.
enum Refused {
    AtOnce(Answer),
    /// Delayed by this time.
    ToBeHeldBack(Duration, Answer),
}

impl From<NotAccepted> for Refused {
    fn from(refused: NotAccepted) -> Self {
        refused.error.into()
    }
}

impl From<ReceiveError> for Refused {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Overloaded { hold_back } => Self::ToBeHeldBack(hold_back, error.into()),
            other => Self::AtOnce(other.into()),
        }
    }
}
