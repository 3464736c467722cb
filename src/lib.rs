//! Hookledger: receives other people's webhooks, remembers each in an append-only ledger, and
//! passes it on. The library behind the `hookledger` binary and its tests.

pub mod audit;
pub mod changes;
pub mod config;
pub mod conservation;
pub mod deliver;
pub mod demo;
pub mod directory;
pub mod follow;
pub mod graphql;
pub mod history;
pub mod http;
pub mod identity;
pub mod keys;
pub mod lane;
pub mod log;
pub mod mail;
pub mod node;
pub mod progress;
pub mod rate;
pub mod rebuild;
pub mod receive;
pub mod relay;
pub mod retention;
pub mod samples;
pub mod sandbox;
pub mod search;
pub mod secrets;
pub mod settings;
pub mod store;
pub mod tester;
pub mod vitals;
