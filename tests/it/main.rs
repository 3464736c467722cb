//! The integration tests: one binary, a real PostgreSQL, a fresh database for each test, real HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::format_collect,
    clippy::print_stderr,
    clippy::too_many_lines,
    reason = "a test that fails should panic, and tell what it measured"
)]

mod app;
mod appending;
mod arguments;
mod audit;
mod audit_verify;
mod browser;
mod cluster;
mod commands;
mod conservation;
mod contract;
mod costs;
mod deliveries;
mod demo;
mod directory;
mod docs;
mod duplicates;
mod edge;
mod embedded;
#[cfg(feature = "eventstore")]
mod eventstore;
mod followers;
mod fuzz;
mod graphql;
mod held;
mod insight;
mod kill;
mod layers;
mod ledger;
mod limits;
mod log;
mod lost_tail;
mod mail;
mod mailbox;
mod master_keys;
mod monthly_limit;
mod outages;
mod patience;
mod paypal;
mod people;
mod process;
mod projections;
mod proxy;
mod reading;
mod rebuild;
mod receiving;
#[cfg(feature = "eventstore")]
mod relay;
mod retention;
mod schema;
mod secrets;
mod senders;
mod sessions;
mod shares;
mod siege;
mod signatures;
mod sink;
mod subscriptions;
mod tamper;
mod tenancy;
mod tester;
mod vendors;
