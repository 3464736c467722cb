//! The claim on an email address: one stream per address, so that an address belongs to at most one user.
//!
//! The stream's ID is a keyed hash of the address, so that the log does not contain the address. The claim is
//! appended in one unit with the event that gives the address to the user: `user.registered`, or
//! `user.joined` after an invitation. The second claimant gets a conflict.
//!
//! Within an organization, an address has a separate claim ([`EmailClaimId::within`]), taken by an invitation
//! or a registration there. So an invitation neither depends on, nor reveals, whether the address has a user
//! elsewhere; nor does it block the address.
//!
//! [`EmailClaimId::within`]: crate::EmailClaimId::within

use serde::{Deserialize, Serialize};

use crate::UserId;
use crate::decision::aggregate;

/// The state of a claim: its holder.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EmailClaim {
    holder: Option<UserId>,
}

/// Takes or releases an address.
#[derive(Clone, Debug)]
pub enum EmailClaimCommand {
    /// For a user who registers, or who joins after an invitation.
    Take {
        /// The user who will hold the address.
        user: UserId,
    },
    /// The holder was erased, so the address may be invited again.
    Release {
        /// The user who was erased. Nothing happens if another user holds the address.
        user: UserId,
    },
}

/// The address was taken or released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EmailClaimEvent {
    /// The address belongs to a user.
    #[serde(rename = "email_claim.taken", rename_all = "camelCase")]
    Taken {
        /// The new holder.
        user_id: UserId,
    },
    /// The address belongs to nobody and may be claimed again.
    #[serde(rename = "email_claim.released", rename_all = "camelCase")]
    Released {
        /// The former holder.
        user_id: UserId,
    },
}

aggregate!(EmailClaim, "email_claim", EmailClaimCommand, EmailClaimEvent, EmailClaimError, {
    Taken => "email_claim.taken" v 1,
    Released => "email_claim.released" v 1,
});

/// Why an address cannot be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmailClaimError {
    /// Another user holds the address.
    #[error("This email address belongs to another user.")]
    Taken,
}

impl EmailClaim {
    /// The user who holds the address.
    #[must_use]
    pub fn holder(&self) -> Option<UserId> {
        self.holder
    }

    /// Decides a command. Nothing changes if the user already holds the address, or no longer does.
    ///
    /// # Errors
    /// [`EmailClaimError::Taken`] if another user holds the address.
    pub fn decide(&self, command: EmailClaimCommand) -> Result<Vec<EmailClaimEvent>, EmailClaimError> {
        match command {
            EmailClaimCommand::Take { user } => match self.holder {
                None => Ok(vec![EmailClaimEvent::Taken { user_id: user }]),
                Some(holder) if holder == user => Ok(vec![]),
                Some(_) => Err(EmailClaimError::Taken),
            },
            EmailClaimCommand::Release { user } => {
                let is_held = self.holder == Some(user);
                Ok(is_held.then_some(EmailClaimEvent::Released { user_id: user }).into_iter().collect())
            }
        }
    }

    /// Applies an event.
    pub fn evolve(&mut self, event: &EmailClaimEvent) {
        match event {
            EmailClaimEvent::Taken { user_id } => self.holder = Some(*user_id),
            EmailClaimEvent::Released { user_id: _ } => self.holder = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_one_user() {
        let mut claim = EmailClaim::default();
        let (first, second) = (UserId::new(uuid::Uuid::from_u128(1)), UserId::new(uuid::Uuid::from_u128(2)));
        for event in claim.decide(EmailClaimCommand::Take { user: first }).unwrap() {
            claim.evolve(&event);
        }
        assert_eq!(claim.decide(EmailClaimCommand::Take { user: first }), Ok(vec![]));
        assert_eq!(claim.decide(EmailClaimCommand::Take { user: second }), Err(EmailClaimError::Taken));
        assert_eq!(claim.decide(EmailClaimCommand::Release { user: second }), Ok(vec![]));
        for event in claim.decide(EmailClaimCommand::Release { user: first }).unwrap() {
            claim.evolve(&event);
        }
        assert_eq!(
            claim.decide(EmailClaimCommand::Take { user: second }),
            Ok(vec![EmailClaimEvent::Taken { user_id: second }])
        );
    }
}
