//! A person who signs in: a member or admin of one organization, or a super admin of none.
//!
//! The email address itself is stored beside the log, because it is personal data and may have to be erased;
//! events contain the claim's ID, a keyed hash.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::decision::aggregate;
use crate::{EmailClaimId, SessionId};

/// A user's role. Super admins belong to no organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees and manages every organization. Registered by the operator.
    SuperAdmin,
    /// Manages one organization: its people, providers and settings.
    Admin,
    /// Sees one organization and retries its webhooks.
    Member,
}

impl Role {
    /// Every role, the most powerful first.
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

/// The state of a user: role, status, and the sessions that have not ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct User {
    role: Option<Role>,
    email_claim: Option<EmailClaimId>,
    joined: bool,
    active: bool,
    sessions: BTreeSet<SessionId>,
    erased: bool,
}

/// Registers, invites or changes a user, or ends their sessions.
#[derive(Clone, Debug)]
pub enum UserCommand {
    /// By the operator: nobody is asked, and the address is claimed at once.
    Register {
        /// The initial role.
        role: Role,
        /// The claim on the address.
        email_claim: EmailClaimId,
    },
    /// By an admin: the address is claimed when its owner first signs in.
    Invite {
        /// The initial role; not super admin.
        role: Role,
        /// The claim on the address, still to be taken.
        email_claim: EmailClaimId,
    },
    /// With a sign-in link. It also accepts an invitation.
    SignIn {
        /// The session that begins.
        session: SessionId,
    },
    /// To admin or member.
    SetRole(Role),
    /// Deactivation also ends all sessions.
    SetActive(bool),
    /// Signs out one session.
    EndSession {
        /// The session that ends.
        session: SessionId,
    },
    /// Signs out everywhere.
    EndSessions,
    /// Erases the person's data beside the log. Requires deactivation first, which reveals whether the
    /// organization would be left without an admin.
    Erase,
}

/// A user was registered, invited or changed, or signed in or out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserEvent {
    /// By the operator: the user may sign in, and holds the address.
    #[serde(rename = "user.registered", rename_all = "camelCase")]
    Registered {
        /// The initial role.
        role: Role,
        /// The claim on the address.
        email_claim_id: EmailClaimId,
    },
    /// By an admin: the user may sign in, but does not hold the address yet.
    #[serde(rename = "user.invited", rename_all = "camelCase")]
    Invited {
        /// The initial role.
        role: Role,
        /// The claim on the address, still to be taken.
        email_claim_id: EmailClaimId,
    },
    /// An invited user signed in for the first time.
    #[serde(rename = "user.joined")]
    Joined {},
    /// A session began.
    #[serde(rename = "user.signed_in", rename_all = "camelCase")]
    SignedIn {
        /// The new session.
        session_id: SessionId,
    },
    /// By an admin.
    #[serde(rename = "user.role_changed")]
    RoleChanged {
        /// The new role.
        role: Role,
    },
    /// The user may sign in again.
    #[serde(rename = "user.activated")]
    Activated {},
    /// Also ends the user's sessions.
    #[serde(rename = "user.deactivated")]
    Deactivated {},
    /// Signed out, or revoked.
    #[serde(rename = "user.session_ended", rename_all = "camelCase")]
    SessionEnded {
        /// The session.
        session_id: SessionId,
    },
    /// All sessions that began earlier.
    #[serde(rename = "user.sessions_ended")]
    SessionsEnded {},
    /// The address and the data of sessions are erased, permanently.
    #[serde(rename = "user.erased")]
    Erased {},
}

aggregate!(User, "user", UserCommand, UserEvent, UserError, {
    Registered => "user.registered" v 1,
    Invited => "user.invited" v 1,
    Joined => "user.joined" v 1,
    SignedIn => "user.signed_in" v 1,
    RoleChanged => "user.role_changed" v 1,
    Activated => "user.activated" v 1,
    Deactivated => "user.deactivated" v 1,
    SessionEnded => "user.session_ended" v 1,
    SessionsEnded => "user.sessions_ended" v 1,
    Erased => "user.erased" v 1,
});

/// Why a command is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// The ID is in use.
    #[error("This user already exists.")]
    AlreadyRegistered,
    /// No user has the ID.
    #[error("User not found.")]
    NotRegistered,
    /// A deactivated user cannot sign in.
    #[error("This user is deactivated. Reactivate them first.")]
    Deactivated,
    /// A change of role would make somebody a super admin, or no longer one.
    #[error("Super admins are managed by the platform operator and can't have another role.")]
    SuperAdmin,
    /// Only a deactivated user can be erased.
    #[error("This user is active. Deactivate them first.")]
    Active,
    /// Erasure is permanent.
    #[error("This user was erased and can't be restored. Invite the person again.")]
    Erased,
}

impl User {
    /// Whether the user counts as one of the organization's admins, of whom at least one remains: an active
    /// admin who has signed in. An invited person may never come.
    #[must_use]
    pub fn administers(&self) -> bool {
        self.joined && self.active && matches!(self.role, Some(Role::Admin | Role::SuperAdmin))
    }

    /// Whether the user holds the address, and not only an invitation.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.joined
    }

    /// Whether the account is active; the organization may be deactivated nevertheless.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Whether the person's data was erased.
    #[must_use]
    pub fn is_erased(&self) -> bool {
        self.erased
    }

    /// The user's role; `None` if not registered.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// The claim on the user's address, taken or still to be taken.
    #[must_use]
    pub fn email_claim(&self) -> Option<EmailClaimId> {
        self.email_claim
    }

    /// Decides a command. Nothing changes if the user already is in the requested state.
    pub fn decide(&self, command: UserCommand) -> Result<Vec<UserEvent>, UserError> {
        let Some(role) = self.role else {
            return match command {
                UserCommand::Register { role, email_claim } => {
                    Ok(vec![UserEvent::Registered { role, email_claim_id: email_claim }])
                }
                UserCommand::Invite { role: Role::SuperAdmin, .. } => Err(UserError::SuperAdmin),
                UserCommand::Invite { role, email_claim } => {
                    Ok(vec![UserEvent::Invited { role, email_claim_id: email_claim }])
                }
                UserCommand::SignIn { .. }
                | UserCommand::SetRole(_)
                | UserCommand::SetActive(_)
                | UserCommand::EndSession { .. }
                | UserCommand::EndSessions
                | UserCommand::Erase => Err(UserError::NotRegistered),
            };
        };
        match command {
            // Ended sessions stay ended.
            UserCommand::Erase | UserCommand::EndSession { .. } | UserCommand::EndSessions if self.erased => Ok(vec![]),
            _ if self.erased => Err(UserError::Erased),
            UserCommand::Erase if self.active => Err(UserError::Active),
            UserCommand::Erase => Ok(vec![UserEvent::Erased {}]),
            UserCommand::Register { .. } | UserCommand::Invite { .. } => Err(UserError::AlreadyRegistered),
            UserCommand::SignIn { .. } if !self.active => Err(UserError::Deactivated),
            UserCommand::SignIn { session } => {
                let joined = (!self.joined).then_some(UserEvent::Joined {});
                Ok(joined.into_iter().chain([UserEvent::SignedIn { session_id: session }]).collect())
            }
            UserCommand::SetRole(new) if new == role => Ok(vec![]),
            UserCommand::SetRole(new) if new == Role::SuperAdmin || role == Role::SuperAdmin => {
                Err(UserError::SuperAdmin)
            }
            UserCommand::SetRole(role) => Ok(vec![UserEvent::RoleChanged { role }]),
            UserCommand::SetActive(active) if active == self.active => Ok(vec![]),
            UserCommand::SetActive(true) => Ok(vec![UserEvent::Activated {}]),
            UserCommand::SetActive(false) => Ok(vec![UserEvent::Deactivated {}]),
            UserCommand::EndSession { session } if self.sessions.contains(&session) => {
                Ok(vec![UserEvent::SessionEnded { session_id: session }])
            }
            UserCommand::EndSessions if !self.sessions.is_empty() => Ok(vec![UserEvent::SessionsEnded {}]),
            UserCommand::EndSession { .. } | UserCommand::EndSessions => Ok(vec![]),
        }
    }

    /// Applies an event.
    pub fn evolve(&mut self, event: &UserEvent) {
        match event {
            UserEvent::Registered { role, email_claim_id } | UserEvent::Invited { role, email_claim_id } => {
                self.role = Some(*role);
                self.email_claim = Some(*email_claim_id);
                self.active = true;
                self.joined = matches!(event, UserEvent::Registered { .. });
            }
            UserEvent::Joined {} => self.joined = true,
            UserEvent::SignedIn { session_id } => drop(self.sessions.insert(*session_id)),
            UserEvent::RoleChanged { role } => self.role = Some(*role),
            UserEvent::Activated {} => self.active = true,
            UserEvent::Deactivated {} => {
                self.active = false;
                self.sessions.clear();
            }
            UserEvent::SessionEnded { session_id } => drop(self.sessions.remove(session_id)),
            UserEvent::SessionsEnded {} => self.sessions.clear(),
            UserEvent::Erased {} => self.erased = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u128) -> SessionId {
        SessionId::new(uuid::Uuid::from_u128(number))
    }

    fn given(commands: &[UserCommand]) -> User {
        let mut user = User::default();
        for command in commands {
            for event in user.decide(command.clone()).unwrap() {
                user.evolve(&event);
            }
        }
        user
    }

    fn invited(role: Role) -> UserCommand {
        UserCommand::Invite { role, email_claim: EmailClaimId::default() }
    }

    #[test]
    fn only_a_registered_user_signs_in() {
        let sign_in = UserCommand::SignIn { session: session(1) };
        assert_eq!(User::default().decide(sign_in.clone()), Err(UserError::NotRegistered));
        let register = UserCommand::Register { role: Role::Member, email_claim: EmailClaimId::default() };
        let user = given(std::slice::from_ref(&register));
        assert_eq!(user.decide(sign_in), Ok(vec![UserEvent::SignedIn { session_id: session(1) }]));
        assert_eq!(user.decide(register), Err(UserError::AlreadyRegistered));
    }

    #[test]
    fn who_was_invited_joins_by_signing_in() {
        let user = given(&[invited(Role::Admin)]);
        assert!(!user.has_joined() && !user.administers());
        let events = user.decide(UserCommand::SignIn { session: session(1) }).unwrap();
        assert_eq!(events, [UserEvent::Joined {}, UserEvent::SignedIn { session_id: session(1) }]);
        assert!(given(&[invited(Role::Admin), UserCommand::SignIn { session: session(1) }]).administers());
    }

    #[test]
    fn a_deactivated_user_does_not_sign_in_and_has_no_sessions() {
        let (first, off) = (UserCommand::SignIn { session: session(1) }, UserCommand::SetActive(false));
        let user = given(&[invited(Role::Admin), first.clone(), off.clone()]);
        assert_eq!(user.decide(first.clone()), Err(UserError::Deactivated));
        assert_eq!(user.decide(UserCommand::EndSession { session: session(1) }), Ok(vec![]));
        assert_eq!(user.decide(off), Ok(vec![]));
        assert!(!user.administers());
    }

    #[test]
    fn who_was_erased_is_and_stays_gone() {
        let off = UserCommand::SetActive(false);
        let invitation = invited(Role::Member);
        assert_eq!(User::default().decide(UserCommand::Erase), Err(UserError::NotRegistered));
        assert_eq!(given(std::slice::from_ref(&invitation)).decide(UserCommand::Erase), Err(UserError::Active));
        let user = given(&[invitation, off, UserCommand::Erase]);
        assert!(user.is_erased());
        assert_eq!(user.decide(UserCommand::Erase), Ok(vec![]));
        assert_eq!(user.decide(UserCommand::EndSessions), Ok(vec![]));
        for command in [
            UserCommand::SetActive(true),
            UserCommand::SetRole(Role::Admin),
            UserCommand::SignIn { session: session(1) },
        ] {
            assert_eq!(user.decide(command), Err(UserError::Erased));
        }
    }

    #[test]
    fn a_session_ends_once() {
        let sign_in = |number| UserCommand::SignIn { session: session(number) };
        let end = UserCommand::EndSession { session: session(1) };
        let user = given(&[invited(Role::Member), sign_in(1), sign_in(2)]);
        assert_eq!(user.decide(end.clone()), Ok(vec![UserEvent::SessionEnded { session_id: session(1) }]));
        assert_eq!(user.decide(UserCommand::EndSession { session: session(3) }), Ok(vec![]));
        let user = given(&[invited(Role::Member), sign_in(1), sign_in(2), end.clone()]);
        assert_eq!(user.decide(end), Ok(vec![]));
        assert_eq!(user.decide(UserCommand::EndSessions), Ok(vec![UserEvent::SessionsEnded {}]));
    }

    #[test]
    fn nobody_becomes_or_ceases_to_be_a_super_admin_by_a_change_of_role() {
        let operator = UserCommand::Register { role: Role::SuperAdmin, email_claim: EmailClaimId::default() };
        assert_eq!(given(&[operator]).decide(UserCommand::SetRole(Role::Member)), Err(UserError::SuperAdmin));
        let member = given(&[invited(Role::Member)]);
        assert_eq!(member.decide(UserCommand::SetRole(Role::SuperAdmin)), Err(UserError::SuperAdmin));
        assert_eq!(User::default().decide(invited(Role::SuperAdmin)), Err(UserError::SuperAdmin));
        assert_eq!(member.decide(UserCommand::SetRole(Role::Member)), Ok(vec![]));
    }
}
