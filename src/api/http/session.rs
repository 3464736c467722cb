//! The session of a token: checked for every request, and repeatedly while a socket is open.

use http::{HeaderMap, StatusCode, header};

use super::{Answer, Services, error};
use crate::api::graphql::Viewer;
use crate::identity::{Authenticated, Client};

/// Why a request has no viewer.
pub(super) enum NoViewer {
    /// The token is not one of ours, or its session is no longer in force.
    Refused,
    /// The store could not be asked.
    Unavailable,
}

/// The viewer with that token.
pub(super) async fn viewer(services: &Services, token: &str, client: Client) -> Result<Viewer, NoViewer> {
    let found = services.app.sessions.authenticate(token).await.map_err(|error| {
        tracing::error!(%error, "a session cannot be read");
        NoViewer::Unavailable
    })?;
    let Authenticated { user, session } = found.ok_or(NoViewer::Refused)?;
    Ok(Viewer { user, session, client })
}

/// The viewer with the token in `Authorization: Bearer`.
pub(super) async fn viewer_of(services: &Services, headers: &HeaderMap, client: Client) -> Result<Viewer, NoViewer> {
    let token = bearer(headers).ok_or(NoViewer::Refused)?;
    viewer(services, token, client).await
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

impl From<NoViewer> for Answer {
    fn from(none: NoViewer) -> Self {
        match none {
            NoViewer::Refused => {
                error(StatusCode::UNAUTHORIZED, "unauthenticated", "Sign in first: a valid token is required.")
            }
            NoViewer::Unavailable => {
                error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The database isn't responding. Try again.")
                    .retry_after(1)
            }
        }
    }
}
