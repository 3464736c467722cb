//! Reading what the projections wrote: searches, settings as they were, what changed, and rebuilding all of it.

pub mod changes;
pub mod history;
pub mod rebuild;
pub mod search;
