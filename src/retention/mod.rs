//! Retention: removal of old bodies, and erasure of a body or a person's data on request. Events are never
//! removed: each removal is itself an event.
//!
//! [`Sweep`] decides that bodies are too old and appends an event. [`Eraser`] follows the log and carries it
//! out, so that even after a crash nothing is removed without an event.

mod eraser;
mod sweep;

pub use eraser::{Eraser, FOLLOWER, REMOVES_FOR};
pub use sweep::Sweep;
