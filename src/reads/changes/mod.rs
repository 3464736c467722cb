//! What changes, told to those who watch on this node.
//!
//! Projections run on one node, watchers sit on all. So each node that has watchers looks itself how
//! far the read model has come, reads from the log which webhooks that concerns, and tells their rows.
//! A node without watchers asks nothing. What is told is never more than a hint to look: who is
//! too slow, or away for a moment, is told that there was more.

mod ticks;
mod webhooks;

pub use ticks::{Tick, Ticks};
pub use webhooks::{Change, Changes, Watcher};
