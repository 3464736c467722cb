//! Which operations of a socket run, by the ids that the client gave them.

use std::collections::{HashMap, HashSet};

/// Concurrent operations per socket.
pub(super) const MAX_OPERATIONS: usize = 32;

/// The ids of a socket's operations.
///
/// A client may end an operation and begin another with the same id at once, while answers of the first are
/// still on their way. async-graphql says exactly once of each operation that it is complete, and says it before
/// anything about the next one with that id. So everything about an id belongs to an ended operation until that
/// was said.
#[derive(Default)]
pub(super) struct Ids {
    running: HashSet<String>,
    /// Operations that ended for the client, but have not been called complete.
    ended: HashMap<String, usize>,
}

/// Why an operation does not begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotBegun {
    Duplicate,
    TooMany,
}

impl Ids {
    pub(super) fn begin(&mut self, id: &str) -> Result<(), NotBegun> {
        if self.running.contains(id) {
            return Err(NotBegun::Duplicate);
        }
        if self.running.len() >= MAX_OPERATIONS {
            return Err(NotBegun::TooMany);
        }
        self.running.insert(id.to_owned());
        Ok(())
    }

    /// Ends an operation for the client, whose id is free from now on. Says whether it ran.
    pub(super) fn end(&mut self, id: &str) -> bool {
        let ran = self.running.remove(id);
        if ran {
            *self.ended.entry(id.to_owned()).or_default() += 1;
        }
        ran
    }

    /// Whether an answer with this id is of an operation that runs.
    pub(super) fn is_running(&self, id: &str) -> bool {
        !self.ended.contains_key(id) && self.running.contains(id)
    }

    /// An operation was called complete. Says whether the client has to hear that.
    pub(super) fn complete(&mut self, id: &str) -> bool {
        match self.ended.get_mut(id) {
            None => self.running.remove(id),
            Some(count) => {
                *count -= 1;
                if *count == 0 {
                    self.ended.remove(id);
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_used_once_at_a_time() {
        let mut ids = Ids::default();
        assert_eq!(ids.begin("1"), Ok(()));
        assert_eq!(ids.begin("1"), Err(NotBegun::Duplicate));
        assert!(ids.is_running("1") && ids.complete("1"));
        assert!(!ids.is_running("1") && !ids.end("1"));
        assert_eq!(ids.begin("1"), Ok(()));
    }

    #[test]
    fn answers_of_an_ended_operation_are_not_those_of_the_next_one_with_its_id() {
        let mut ids = Ids::default();
        for _ in 0..3 {
            assert_eq!(ids.begin("1"), Ok(()));
            assert!(ids.end("1") && !ids.end("1"));
        }
        assert_eq!(ids.begin("1"), Ok(()));
        for _ in 0..3 {
            assert!(!ids.is_running("1"), "it is an answer of one that ended");
            assert!(!ids.complete("1"));
        }
        assert!(ids.is_running("1") && ids.complete("1"));
        assert!(ids.running.is_empty() && ids.ended.is_empty());
    }

    #[test]
    fn a_socket_runs_a_limited_number_of_operations() {
        let mut ids = Ids::default();
        for n in 0..MAX_OPERATIONS {
            assert_eq!(ids.begin(&n.to_string()), Ok(()));
        }
        assert_eq!(ids.begin("one more"), Err(NotBegun::TooMany));
        assert_eq!(ids.begin("0"), Err(NotBegun::Duplicate));
        assert!(ids.end("0"));
        assert_eq!(ids.begin("one more"), Ok(()));
    }
}
