//! Retention: what is not kept for ever. Bodies go when they are old, a body or what is known of a person
//! when somebody asks for it. Events never go: each removal is one, and what remains is what they say.
//!
//! [`Sweep`] decides that bodies are too old and appends it. [`Eraser`] follows the log and removes what it
//! says, so that whatever crashes, nothing goes that the log does not tell of.

mod eraser;
mod sweep;

pub use eraser::{Eraser, FOLLOWER, REMOVES_FOR};
pub use sweep::Sweep;
