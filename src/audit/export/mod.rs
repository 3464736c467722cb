//! An organization's ledger as one file that verifies by itself: written from a store ([`write`]), and
//! checked with nothing but the file ([`read`]). [`format`] says what is in it.

pub mod format;
pub mod read;
pub mod write;
