//! The integration tests: one binary, a real PostgreSQL, a fresh database for each test, real HTTP.

#![allow(clippy::print_stderr, reason = "tests tell what they skip or measure")]

mod app;
mod commands;
mod graphql;
mod kill;
mod log;
mod process;
mod projections;
mod receiving;
mod vendors;
