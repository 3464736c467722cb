//! Secrets at rest: master keys, and the ciphertexts under them.

pub mod master;
pub mod vault;
