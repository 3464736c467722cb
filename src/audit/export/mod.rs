//! An organization's ledger as one file that can be verified on its own: written from a store ([`write`]), and
//! verified with nothing but the file ([`read`]). [`format`] defines its content.

pub mod format;
pub mod read;
pub mod write;
