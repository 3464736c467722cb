//! A person who signs in: a member or admin of one organization, or a super admin of none.
//!
//! The e-mail address itself is kept beside the log (it is personal data, and may have to be
//! erased); the event holds the claim's id, a keyed hash.

use serde::{Deserialize, Serialize};

use crate::decision::aggregate;
use crate::{EmailClaimId, SessionId};

/// What a user may do. Super admins belong to no organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    SuperAdmin,
    Admin,
    Member,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::SuperAdmin, Self::Admin, Self::Member];

    /// The name in events and read models.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SuperAdmin => "super_admin",
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }
}

/// State: whether the user is registered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct User {
    role: Option<Role>,
}

#[derive(Clone, Debug)]
pub enum UserCommand {
    Register { role: Role, email_claim: EmailClaimId },
    SignIn { session: SessionId },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserEvent {
    #[serde(rename = "user.registered", rename_all = "camelCase")]
    Registered { role: Role, email_claim_id: EmailClaimId },
    #[serde(rename = "user.signed_in", rename_all = "camelCase")]
    SignedIn { session_id: SessionId },
}

aggregate!(User, "user", UserCommand, UserEvent, UserError, {
    Registered => "user.registered" v 1,
    SignedIn => "user.signed_in" v 1,
});

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error("this user is registered already")]
    AlreadyRegistered,
    #[error("there is no such user")]
    NotRegistered,
}

impl User {
    /// # Errors
    /// [`UserError`] when the user is, or is not, registered yet.
    pub fn decide(&self, command: UserCommand) -> Result<Vec<UserEvent>, UserError> {
        match (command, self.role) {
            (UserCommand::Register { role, email_claim }, None) => {
                Ok(vec![UserEvent::Registered { role, email_claim_id: email_claim }])
            }
            (UserCommand::Register { .. }, Some(_)) => Err(UserError::AlreadyRegistered),
            (UserCommand::SignIn { session }, Some(_)) => Ok(vec![UserEvent::SignedIn { session_id: session }]),
            (UserCommand::SignIn { .. }, None) => Err(UserError::NotRegistered),
        }
    }

    fn evolve(&mut self, event: &UserEvent) {
        match event {
            UserEvent::Registered { role, .. } => self.role = Some(*role),
            UserEvent::SignedIn { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_registered_user_signs_in() {
        let session = SessionId::default();
        assert_eq!(User::default().decide(UserCommand::SignIn { session }), Err(UserError::NotRegistered));
        let user = User { role: Some(Role::Member) };
        assert_eq!(user.decide(UserCommand::SignIn { session }), Ok(vec![UserEvent::SignedIn { session_id: session }]));
    }
}
