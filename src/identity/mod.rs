//! Identity: users, sign-in links and sessions. There are no passwords.
//!
//! What deliberately does not live here: who may do what (`graphql::context`), and how a mail
//! leaves ([`crate::platform::mail`]).

mod accounts;
mod client;
mod courier;
mod error;
mod forget;
mod letters;
mod limits;
mod links;
mod refusals;
mod sessions;
mod tokens;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use accounts::{Accounts, Authority, Invited};
pub use client::Client;
pub use courier::{Courier, Errands, Overloaded};
pub use error::IdentityError;
pub use forget::{REMAINS, forget};
pub use limits::Limits;
pub use links::{Links, Redeemed, SignInLink};
pub use refusals::{RefusalRecorder, Refusals};
pub use sessions::{Authenticated, Begun, Session, SessionKeeper, Sessions};
pub use tokens::{Claims, TokenError, Tokens};

/// How often rows that are long over are removed.
const SWEEP: Duration = Duration::from_secs(3_600);

/// Removes rows of links and sessions that are long over, until stopped.
pub async fn sweep(links: Links, sessions: Sessions, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
        let swept = futures::future::try_join(links.sweep(), sessions.sweep()).await;
        if let Err(error) = swept {
            tracing::warn!(%error, "links and sessions that are over cannot be removed; trying again later");
        }
    }
}
