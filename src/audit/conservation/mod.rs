//! Conservation: for each organization, what has to come of its webhooks (one outcome for each delivery, and one for a
//! webhook without deliveries) = succeeded + pending + processing + failed + dead-lettered + cancelled, by the log; and the read models agree. One node checks it continuously.
//!
//! [`Checker`] counts the log's side with its own follower, from the types of events alone, without knowledge
//! of projections. The read models' side is `webhook_balances`, which triggers maintain on every change to
//! `webhook_logs` and `deliveries`. Both are compared in one snapshot, in which the log is counted exactly up to the read
//! model's position. Nothing here reads a whole table of webhooks.

mod balances;
mod checker;

pub use balances::{Balance, list, mismatches};
pub use checker::Checker;
