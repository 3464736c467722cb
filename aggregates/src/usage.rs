//! The monthly usage of an organization with a limit, as far as people are warned about it.
//!
//! One stream per organization and month, so that each warning is given once. The counting itself happens
//! when webhooks are appended.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::decision::aggregate;

/// Percentages of the limit at which people are warned; ascending.
pub const WARN_AT: [u8; 2] = [80, 100];

/// The highest share that was warned about.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    warned: u8,
}

/// Records the usage of a month.
#[derive(Clone, Debug)]
pub enum UsageCommand {
    /// Compares the webhooks of a month with the limit.
    Note {
        /// The first day of the month, UTC.
        month: NaiveDate,
        /// Webhooks accepted in the month so far, without duplicates.
        accepted: u64,
        /// The organization's monthly limit, in accepted webhooks.
        limit: u32,
    },
}

/// A share of the limit was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UsageEvent {
    /// The month reached a share of the limit for the first time.
    #[serde(rename = "usage.warned", rename_all = "camelCase")]
    Warned {
        /// The first day of the month.
        month: NaiveDate,
        /// The share of the limit that was reached: one of [`WARN_AT`].
        percent: u8,
        /// The monthly limit at that time, in accepted webhooks.
        limit: u32,
        /// Webhooks accepted in the month at that time.
        accepted: u64,
    },
}

aggregate!(Usage, "usage", UsageCommand, UsageEvent, UsageError, {
    Warned => "usage.warned" v 1,
});

/// Recording usage is never refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {}

/// The highest share of [`WARN_AT`] that is reached; 0 if none is.
#[must_use]
pub fn share_reached(accepted: u64, limit: u32) -> u8 {
    let reached = |percent: &u8| u128::from(accepted) * 100 >= u128::from(limit) * u128::from(*percent);
    WARN_AT.into_iter().rev().find(reached).unwrap_or_default()
}

impl Usage {
    /// Warns once about each share of the limit.
    pub fn decide(&self, command: UsageCommand) -> Result<Vec<UsageEvent>, UsageError> {
        let UsageCommand::Note { month, accepted, limit } = command;
        let percent = share_reached(accepted, limit);
        Ok(if percent > self.warned { vec![UsageEvent::Warned { month, percent, limit, accepted }] } else { vec![] })
    }

    fn evolve(&mut self, event: &UsageEvent) {
        match event {
            UsageEvent::Warned { percent, .. } => self.warned = self.warned.max(*percent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(accepted: u64) -> UsageCommand {
        UsageCommand::Note { month: NaiveDate::from_ymd_opt(2026, 11, 1).unwrap(), accepted, limit: 50 }
    }

    #[test]
    fn each_share_is_warned_of_once() {
        let mut usage = Usage::default();
        let mut warned = Vec::new();
        for accepted in [39, 40, 41, 49, 50, 50] {
            for event in usage.decide(note(accepted)).unwrap() {
                let UsageEvent::Warned { percent, accepted, .. } = &event;
                warned.push((*percent, *accepted));
                usage.evolve(&event);
            }
        }
        assert_eq!(warned, [(80, 40), (100, 50)]);
    }

    #[test]
    fn nothing_allowed_is_used_up_at_once() {
        assert_eq!((share_reached(0, 0), share_reached(0, 1), share_reached(1, 1)), (100, 0, 100));
    }
}
