//! Hookledger: receives other people's webhooks, remembers each in an append-only ledger, and
//! passes it on. The library behind the `hookledger` binary and its tests.

pub mod log;
pub mod secrets;
pub mod store;
pub mod directory;
pub mod follow;
pub mod process;
pub mod receive;
pub mod identity;
pub mod graphql;
pub mod config;
pub mod http;
pub mod keys;
pub mod node;
pub mod demo;
