//! What everything else stands on: the database, secrets, mail, HTTP that goes out, threads, vital signs.
//! Nothing here knows webhooks, events or people.

pub mod egress;
pub mod lane;
pub mod mail;
pub mod rate;
pub mod secrets;
pub mod store;
pub mod vitals;
