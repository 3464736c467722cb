//! Reads of what projections wrote: searches, past settings, changes, and rebuilds.

pub mod changes;
pub mod history;
pub mod rebuild;
pub mod search;
