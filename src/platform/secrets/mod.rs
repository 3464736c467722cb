//! Secrets at rest: master keys, and what is encrypted under them.

pub mod master;
pub mod vault;
