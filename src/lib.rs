//! Hookledger: receives other people's webhooks, remembers each in an append-only ledger, and passes it on.
//! The library behind the `hookledger` binary and its tests.
//!
//! A module uses only modules before it in this list: `platform`, `log`, then `directory`, `identity` and
//! `reads`, then `audit`, `receive` and `deliver`, then `providers`, `demo`, `retention`, `api`, `node`,
//! `cli`. A test (`tests/it/layers.rs`) enforces it.

pub mod api;
pub mod audit;
pub mod cli;
pub mod deliver;
pub mod demo;
pub mod directory;
pub mod identity;
pub mod log;
pub mod node;
pub mod platform;
pub mod providers;
pub mod reads;
pub mod receive;
pub mod retention;
