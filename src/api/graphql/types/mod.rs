//! The types of the contract: what each of their fields shows.

pub(crate) mod analytics;
pub(crate) mod audit;
pub(crate) mod conservation;
pub(crate) mod demo;
pub(crate) mod destination;
pub(crate) mod duplicate;
pub(crate) mod history;
pub(crate) mod ids;
pub(crate) mod insight;
pub(crate) mod ledger;
pub(crate) mod node;
pub(crate) mod order;
pub(crate) mod organization;
pub(crate) mod paging;
pub(crate) mod position;
pub(crate) mod provider;
pub(crate) mod removal;
pub(crate) mod shown;
pub(crate) mod system;
pub(crate) mod tester;
pub(crate) mod time;
pub(crate) mod usage;
pub(crate) mod user;
pub(crate) mod viewer;
pub(crate) mod webhook;
