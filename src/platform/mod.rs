//! The foundation of everything else: the database, secrets, mail, outgoing HTTP, threads, vital signs.
//! Nothing here knows webhooks, events or people.

pub mod egress;
pub mod lane;
pub mod mail;
pub mod rate;
pub mod secrets;
pub mod store;
pub mod vitals;
