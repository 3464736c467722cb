//! The ledger: proof that nothing in the log was altered, removed or reordered.
//!
//! Each event of the log is a leaf of exactly one Merkle tree (RFC 6962), that of its [`LedgerId`].
//! [`leaf`] says which bytes a leaf is made of, [`tree`] how trees grow and what proofs are,
//! [`checkpoint`] how the head of a tree is signed. Those three are pure; a verifier needs no more.
//!
//! What deliberately does not live here: SQL on `events` (that is `log`), and who may see what
//! (`graphql`, `http`).

pub mod checkpoint;
pub mod leaf;
mod ledger_id;
pub mod tree;

pub use ledger_id::LedgerId;
