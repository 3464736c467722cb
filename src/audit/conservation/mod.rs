//! Conservation: received = succeeded + pending + processing + failed + dead-lettered, for each
//! organization, by the log; and the read models say the same. Checked all the time, by one node.
//!
//! The log's side is counted by its own follower, [`Checker`], from the types of events alone, knowing
//! nothing of projections. The read models' side is `webhook_balances`, which triggers keep as rows of
//! `webhook_logs` change, whoever changes them. Both are compared in one snapshot, in which the counts of
//! the log are brought to exactly where the read model is. Nothing here ever reads a whole table of webhooks.

mod balances;
mod checker;

pub use balances::{Balance, list, mismatches};
pub use checker::Checker;
