//! The admins of one organization, so that at least one remains.
//!
//! A change of a person's admin role appends to this stream in the same unit as to their own, each at its
//! expected sequence: if two admins demote each other at once, the second change is decided again. The stream
//! has the organization's ID.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::UserId;
use crate::decision::aggregate;

/// The organization's admins, as defined by [`crate::user::User::administers`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Team {
    admins: BTreeSet<UserId>,
}

/// Adds or removes an admin.
#[derive(Clone, Debug)]
pub enum TeamCommand {
    /// Nothing happens if the user is an admin already.
    Add {
        /// A user who has become an admin.
        admin: UserId,
    },
    /// Nothing happens if the user is not an admin.
    Remove {
        /// A user who ceases to be an admin.
        admin: UserId,
        /// Super admins may leave an organization without an admin.
        even_the_last: bool,
    },
}

/// An admin was added or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TeamEvent {
    /// The organization has one more admin.
    #[serde(rename = "team.admin_added", rename_all = "camelCase")]
    AdminAdded {
        /// The new admin.
        user_id: UserId,
    },
    /// The organization has one admin fewer.
    #[serde(rename = "team.admin_removed", rename_all = "camelCase")]
    AdminRemoved {
        /// The former admin.
        user_id: UserId,
    },
}

aggregate!(Team, "team", TeamCommand, TeamEvent, TeamError, {
    AdminAdded => "team.admin_added" v 1,
    AdminRemoved => "team.admin_removed" v 1,
});

/// Why a change is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TeamError {
    /// No admin would remain.
    #[error("An organization needs at least one active admin, and this is the last one.")]
    LastAdmin,
}

impl Team {
    /// Decides a command.
    ///
    /// # Errors
    /// [`TeamError::LastAdmin`] if no admin would remain.
    pub fn decide(&self, command: TeamCommand) -> Result<Vec<TeamEvent>, TeamError> {
        match command {
            TeamCommand::Add { admin } if self.admins.contains(&admin) => Ok(vec![]),
            TeamCommand::Add { admin } => Ok(vec![TeamEvent::AdminAdded { user_id: admin }]),
            TeamCommand::Remove { admin, even_the_last } => {
                if !even_the_last && self.admins.iter().all(|other| *other == admin) {
                    return Err(TeamError::LastAdmin);
                }
                let is_one = self.admins.contains(&admin);
                Ok(is_one.then_some(TeamEvent::AdminRemoved { user_id: admin }).into_iter().collect())
            }
        }
    }

    /// Applies an event.
    pub fn evolve(&mut self, event: &TeamEvent) {
        match event {
            TeamEvent::AdminAdded { user_id } => drop(self.admins.insert(*user_id)),
            TeamEvent::AdminRemoved { user_id } => drop(self.admins.remove(user_id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_admin_stays_unless_a_super_admin_says_otherwise() {
        let user = |number| UserId::new(uuid::Uuid::from_u128(number));
        let remove = |admin, even_the_last| TeamCommand::Remove { admin, even_the_last };
        let mut team = Team::default();
        for number in [1, 2, 2] {
            for event in team.decide(TeamCommand::Add { admin: user(number) }).unwrap() {
                team.evolve(&event);
            }
        }
        for event in team.decide(remove(user(1), false)).unwrap() {
            team.evolve(&event);
        }
        assert_eq!(team.decide(remove(user(2), false)), Err(TeamError::LastAdmin));
        assert_eq!(team.decide(remove(user(2), true)), Ok(vec![TeamEvent::AdminRemoved { user_id: user(2) }]));
        assert_eq!(team.decide(remove(user(3), false)), Ok(vec![]));
        assert_eq!(Team::default().decide(remove(user(3), false)), Err(TeamError::LastAdmin));
    }
}
