//! Notifications about changes, for subscribers on this node.
//!
//! Projections run on one node, subscribers are on all. So each node with subscribers checks how far the read
//! model has come, reads from the log which webhooks changed, and sends their rows. A node without
//! subscribers does nothing. A notification is only a hint to look: a subscriber that is too slow or briefly
//! away learns that it missed some.

mod ticks;
mod webhooks;

pub use ticks::{Tick, Ticks};
pub use webhooks::{Change, Changes, Watcher};
