//! Identity: users, sign-in links and sessions. There are no passwords.
//!
//! Deliberately elsewhere: who may do what (`graphql::guards::rights`), and the sending of mails
//! ([`crate::platform::mail`]).

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

/// Interval of removing old rows.
const SWEEP: Duration = Duration::from_secs(3_600);

/// Removes old rows of links and sessions until stopped.
pub async fn sweep(links: Links, sessions: Sessions, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
        let swept = futures::future::try_join(links.sweep(), sessions.sweep()).await;
        if let Err(error) = swept {
            tracing::warn!(%error, "could not remove old links and sessions; retrying later");
        }
    }
}
