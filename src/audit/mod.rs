//! The ledger: proof that nothing in the log was altered, removed or reordered.
//!
//! Each event of the log is a leaf of exactly one Merkle tree (RFC 6962), that of its [`LedgerId`].
//! [`crate::log::stored_event`] defines the bytes of a leaf, [`tree`] how trees grow and what proofs are,
//! [`checkpoint`] how the head of a tree is signed. Those three are pure, and sufficient for a verifier.
//! [`LedgerFollower`] builds the trees, as a follower of the log; [`store`] and [`lookup`] have their tables.
//! [`Ledgers`] signs and proves; [`file`] and [`Witness`] take signed heads out of the database. [`loss`] is
//! a signed statement about a database that lost the end of its log. [`export`] writes and reads files that
//! can be verified on their own, [`verify`] checks a store, [`conservation`] that every webhook is accounted for.
//!
//! Deliberately elsewhere: SQL on `events` (`log`), and permissions (`api`).

pub mod checkpoint;
pub mod conservation;
pub mod export;
pub mod file;
mod follower;
mod growing;
mod ledger_id;
mod ledgers;
pub mod lookup;
pub mod loss;
mod positions;
pub mod store;
pub mod tree;
pub mod verify;
mod witness;

pub use follower::{FOLLOWER, Leaf, LedgerFollower};
pub use ledger_id::LedgerId;
pub use ledgers::{Consistency, Inclusion, LedgerError, Ledgers};
pub use witness::{Witness, WitnessError};
