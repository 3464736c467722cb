//! Links by mail. A request is answered before anything is looked up, so that neither the answer nor its
//! timing reveals whether an address has a user. The rest happens here, one request after the other.

use std::sync::Arc;

use chrono::Utc;
use hookledger_aggregates::access::SignInRefusal;
use hookledger_aggregates::{Actor, EmailClaimId, Metadata, OrganizationId, UserId};
use hookledger_projections::{organizations, users};
use lettre::Address;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::accounts::Accounts;
use super::client::Client;
use super::error::IdentityError;
use super::letters;
use super::links::Links;
use super::refusals::Refusals;
use crate::platform::mail::{Mail, Mailer};

/// Queued errands; more are refused.
const QUEUE: usize = 1_024;
/// Open invitations of one address that one mail reminds of.
const INVITATIONS: i64 = 3;

/// A mail to prepare.
enum Errand {
    /// Somebody wants to sign in with this address.
    Link { email: String, client: Client },
    /// A person was invited, by this member of the same organization.
    Invitation { organization: OrganizationId, user: UserId, by: Option<String> },
}

/// Accepts errands. Cheap to clone.
#[derive(Clone)]
pub struct Errands(mpsc::Sender<Errand>);

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many emails are queued")]
pub struct Overloaded;

impl Errands {
    /// Requests a link for the user of this address, if there is one.
    pub fn ask_for_link(&self, email: String, client: Client) -> Result<(), Overloaded> {
        self.0.try_send(Errand::Link { email, client }).map_err(|_| Overloaded)
    }

    /// Requests a mail to an invited person, with the name of the inviter in the same organization.
    pub fn invite(&self, organization: OrganizationId, user: UserId, by: Option<String>) -> Result<(), Overloaded> {
        self.0.try_send(Errand::Invitation { organization, user, by }).map_err(|_| Overloaded)
    }
}

/// Runs errands.
pub struct Courier {
    queue: mpsc::Receiver<Errand>,
    pool: PgPool,
    accounts: Arc<Accounts>,
    links: Links,
    refusals: Refusals,
    mailer: Mailer,
    base_url: String,
}

impl Courier {
    /// A courier and its handle.
    #[must_use]
    pub fn new(
        pool: PgPool,
        accounts: Arc<Accounts>,
        links: Links,
        refusals: Refusals,
        mailer: Mailer,
        base_url: String,
    ) -> (Errands, Self) {
        let (to_queue, queue) = mpsc::channel(QUEUE);
        (Errands(to_queue), Self { queue, pool, accounts, links, refusals, mailer, base_url })
    }

    /// Runs errands until stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(errand)) = stop.run_until_cancelled(self.queue.recv()).await {
            let done = match errand {
                Errand::Link { email, client } => self.link(&email, client).await,
                Errand::Invitation { organization, user, by } => {
                    self.invitation(organization, user, by.as_deref()).await
                }
            };
            if let Err(error) = done {
                tracing::error!(%error, "could not mail a link");
            }
        }
    }

    async fn link(&self, email: &str, client: Client) -> Result<(), IdentityError> {
        let claim = self.accounts.claim(email)?;
        let Some(user) = users::find_by_claim(&self.pool, claim).await? else {
            for invited in users::invitations(&self.pool, claim, INVITATIONS).await? {
                self.invitation(OrganizationId::new(invited.organization_id), UserId::new(invited.id), None).await?;
            }
            return Ok(());
        };
        let (organization, id) = (OrganizationId::new(user.organization_id), UserId::new(user.id));
        if !user.may_sign_in() {
            // The person who asks is not verified to be the user.
            let metadata = Metadata { actor: Actor::System, ..client.metadata(id, None) };
            self.refusals.sign_in(organization, id, SignInRefusal::Deactivated, &metadata);
            return Ok(());
        }
        let link = self.links.create(organization, id, Utc::now()).await?;
        self.send(&user, |to| letters::sign_in(to, link))
    }

    /// If the address belongs to a user elsewhere, only its reader learns that, not the inviter.
    async fn invitation(
        &self,
        organization: OrganizationId,
        user: UserId,
        by: Option<&str>,
    ) -> Result<(), IdentityError> {
        let row = users::find(&self.pool, organization, user).await?;
        let inviting = organizations::find(&self.pool, organization).await?;
        let (Some(row), Some(inviting)) = (row, inviting) else { return Ok(()) };
        if row.joined_at.is_some() || !row.may_sign_in() {
            return Ok(());
        }
        if users::find_by_claim(&self.pool, self.claim_of(&row)?).await?.is_some() {
            return self.send(&row, |to| letters::belongs_elsewhere(to, &inviting.name));
        }
        let link = self.links.create(organization, user, Utc::now()).await?;
        self.send(&row, |to| letters::invitation(to, by, &inviting.name, link, &self.base_url))
    }

    fn claim_of(&self, user: &users::User) -> Result<EmailClaimId, IdentityError> {
        self.accounts.claim(user.email.as_deref().unwrap_or_default())
    }

    fn send(&self, user: &users::User, letter: impl FnOnce(Address) -> Mail) -> Result<(), IdentityError> {
        // An erased address gets no mail.
        let Some(email) = &user.email else { return Ok(()) };
        let to = email.parse().map_err(|_| IdentityError::Address(email.clone()))?;
        if self.mailer.send(letter(to)).is_err() {
            tracing::error!(user.id = %user.id, "the mail queue is full; did not send a mail");
        }
        Ok(())
    }
}
