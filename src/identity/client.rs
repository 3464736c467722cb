//! The origin of a person's request.

use hookledger_aggregates::{Actor, Label, Metadata, SessionId, UserId};

/// The client's address and user agent.
#[derive(Clone, Debug, Default)]
pub struct Client {
    pub address: String,
    pub agent: Option<Label>,
}

impl Client {
    /// `agent` is an unchanged `User-Agent` header.
    #[must_use]
    pub fn new(address: String, agent: Option<&[u8]>) -> Self {
        Self { address, agent: agent.map(Label::from_bytes) }
    }

    /// Metadata of what a user does in a session.
    #[must_use]
    pub fn metadata(self, user: UserId, session: Option<SessionId>) -> Metadata {
        Metadata { actor: Actor::User(user), client: Some(self.address), agent: self.agent, session }
    }
}
