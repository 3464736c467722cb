//! Whose session a token is: asked for every request, and again and again while a socket is open.

use hookledger_projections::users;

use super::Services;
use crate::graphql::Viewer;
use crate::identity::Claims;

/// Why nobody is let in.
pub(super) enum NoViewer {
    /// The token is not one of ours, not in force any more, or its user may not sign in.
    Refused,
    /// It could not be told.
    Unavailable,
}

/// Who asks with that token, from that address.
pub(super) async fn viewer(services: &Services, token: &str, client: &str) -> Result<Viewer, NoViewer> {
    let claims = services.tokens.check(token).map_err(|_| NoViewer::Refused)?;
    let user = user(services, &claims).await.map_err(|error| {
        tracing::error!(%error, "a session's user cannot be read");
        NoViewer::Unavailable
    })?;
    let user = user.filter(|user| user.is_active).ok_or(NoViewer::Refused)?;
    Ok(Viewer { user, session: claims.sid, client: client.to_owned() })
}

async fn user(services: &Services, claims: &Claims) -> Result<Option<users::User>, sqlx::Error> {
    let mut tenant = services.app.tenants.of(claims.org).await?;
    users::find(&mut *tenant, claims.org, claims.sub).await
}
