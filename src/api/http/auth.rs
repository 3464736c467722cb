//! Signing in and out: requesting a link, using it, ending a session.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Buf;
use chrono::Utc;
use futures::Stream;
use hookledger_aggregates::{Actor, Metadata, OrganizationId, UserId};
use hookledger_projections::organizations;
use http::{HeaderMap, Method, StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::session::viewer_of;
use super::{Answer, Services, error, person, read, share, with};
use crate::identity::{Client, IdentityError, Redeemed};
use crate::platform::store::{Asker, Reading};

/// Maximum size of a request in bytes.
const MAX_BODY: usize = 4 << 10;

#[derive(Deserialize)]
struct LinkRequest {
    email: String,
}

#[derive(Deserialize)]
struct VerifyRequest {
    token: String,
}

#[derive(Serialize)]
struct LinkResponse {
    message: &'static str,
}

#[derive(Serialize)]
struct VerifyResponse {
    token: String,
    user: UserBody,
    organization: Option<OrganizationBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UserBody {
    id: uuid::Uuid,
    email: Option<String>,
    role: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OrganizationBody {
    id: uuid::Uuid,
    slug: String,
    name: String,
}

pub(super) fn route(services: Arc<Services>) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    let request = || {
        warp::method()
            .and(warp::header::headers_cloned())
            .and(person())
            .and(share())
            .and(with(Arc::clone(&services)))
            .and(warp::body::stream())
    };
    let ask = warp::path!("api" / "auth" / "request-magic-link").and(request()).then(
        |method, headers, client, share, services: Arc<Services>, body| async move {
            ask(method, headers, client, share, &services, body).await.unwrap_or_else(|answer| answer).into_response()
        },
    );
    let verify = warp::path!("api" / "auth" / "verify-magic-link").and(request()).then(
        |method, headers, client, share, services: Arc<Services>, body| async move {
            verify(method, headers, client, share, &services, body)
                .await
                .unwrap_or_else(|answer| answer)
                .into_response()
        },
    );
    let logout = warp::path!("api" / "auth" / "logout")
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(person())
        .and(with(Arc::clone(&services)))
        .then(|method, headers, client, services: Arc<Services>| async move {
            logout(method, headers, client, &services).await.unwrap_or_else(|answer| answer).into_response()
        });
    ask.or(verify).unify().or(logout).unify()
}

/// Answers before anybody is looked up.
async fn ask<B: Buf>(
    method: Method,
    headers: HeaderMap,
    client: Client,
    share: Option<IpAddr>,
    services: &Services,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Answer, Answer> {
    let LinkRequest { email } =
        posted(&method, &headers, share, services, body, "The body must be JSON: {\"email\": \"…\"}.").await?;
    let claim = services.app.accounts.claim(&email).map_err(|refused| match refused {
        IdentityError::Address(_) => error(StatusCode::BAD_REQUEST, "address_invalid", "This isn't an email address."),
        other => failed(&other),
    })?;
    services.app.limits.ask_for_link(claim, &client.address, share.is_none()).map_err(|too_often| {
        let sentence = "Too many sign-in links requested. Try again later.";
        error(StatusCode::TOO_MANY_REQUESTS, "rate_limited", sentence).retry_after(too_often.retry_after)
    })?;
    services.app.errands.ask_for_link(email, client).map_err(|_| unavailable())?;
    let message = "If this address has an account, we've sent a sign-in link to it.";
    Ok(Answer::json(StatusCode::ACCEPTED, &LinkResponse { message }))
}

async fn verify<B: Buf>(
    method: Method,
    headers: HeaderMap,
    client: Client,
    share: Option<IpAddr>,
    services: &Services,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Answer, Answer> {
    let VerifyRequest { token } =
        posted(&method, &headers, share, services, body, "The body must be JSON: {\"token\": \"…\"}.").await?;
    services.app.limits.use_link(&client.address, share.is_none()).map_err(|too_often| {
        let sentence = "Too many sign-in attempts. Try again later.";
        error(StatusCode::TOO_MANY_REQUESTS, "rate_limited", sentence).retry_after(too_often.retry_after)
    })?;
    let redeemed = services.links.redeem(&services.app.sessions, &token, client.clone(), Utc::now()).await;
    let (user, session) = match redeemed.map_err(|error| failed(&error))? {
        Redeemed::SignedIn { user, session } => (user, session),
        Redeemed::Refused { organization, user, reason } => {
            // A person with the link may not be its owner.
            let metadata = Metadata { actor: Actor::System, ..client.metadata(user, None) };
            services.app.refusals.sign_in(organization, user, reason, &metadata);
            return Err(link_invalid());
        }
        Redeemed::Elsewhere => {
            let sentence =
                "This address already belongs to another organization, and an address can belong to only one.";
            return Err(error(StatusCode::CONFLICT, "address_elsewhere", sentence));
        }
        Redeemed::Unknown => return Err(link_invalid()),
    };
    let organization = OrganizationId::new(user.organization_id);
    let organization =
        organization_row(services, organization, UserId::new(user.id)).await.map_err(|error| failed(&error.into()))?;
    let response = VerifyResponse {
        token: session.token,
        user: UserBody { id: user.id, email: user.email, role: user.role },
        organization: organization.map(|row| OrganizationBody { id: row.id, slug: row.slug, name: row.name }),
    };
    Ok(Answer::json(StatusCode::OK, &response))
}

async fn organization_row(
    services: &Services,
    id: OrganizationId,
    user: UserId,
) -> Result<Option<organizations::Organization>, sqlx::Error> {
    let tenants = services.app.tenants.asked_by(Asker::Person(id, user), Reading::Page);
    organizations::find(&mut *tenants.of(id).await?, id).await
}

async fn logout(method: Method, headers: HeaderMap, client: Client, services: &Services) -> Result<Answer, Answer> {
    if method != Method::POST {
        return Err(Answer::method_not_allowed("POST"));
    }
    let viewer = viewer_of(services, &headers, client).await?;
    let (sessions, user) = (&services.app.sessions, UserId::new(viewer.user.id));
    let ended = sessions.end(viewer.home(), user, viewer.session, &viewer.metadata()).await;
    ended.map_err(|error| failed(&error))?;
    Ok(Answer::text(StatusCode::NO_CONTENT, "application/json", ""))
}

/// The posted JSON.
async fn posted<T: DeserializeOwned, B: Buf>(
    method: &Method,
    headers: &HeaderMap,
    share: Option<IpAddr>,
    services: &Services,
    body: impl Stream<Item = Result<B, warp::Error>>,
    form: &'static str,
) -> Result<T, Answer> {
    if method != Method::POST {
        return Err(Answer::method_not_allowed("POST"));
    }
    let is_json =
        headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if !is_json {
        return Err(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Send application/json"));
    }
    let body = read(headers, body, MAX_BODY, services.bodies.for_people(share)).await?;
    serde_json::from_slice(&body.bytes).map_err(|_| error(StatusCode::BAD_REQUEST, "bad_request", form))
}

fn link_invalid() -> Answer {
    let sentence = "This sign-in link is invalid, expired, or already used. Request a new one.";
    error(StatusCode::UNAUTHORIZED, "link_invalid", sentence)
}

fn failed(error: &IdentityError) -> Answer {
    tracing::error!(%error, "signing in or out failed");
    unavailable()
}

fn unavailable() -> Answer {
    error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Sign-in isn't available right now. Try again.")
        .retry_after(1)
}
