//! The pure core of Hookledger: what may happen, and what it means.
//!
//! Here live the ids, the recorded-event envelope, one file per aggregate (state, command, event,
//! error, `decide`, `apply`), the read-time upcasters, and the verification of signatures.
//!
//! What deliberately does not live here: databases, HTTP servers, clocks, randomness, any I/O.
//! Time arrives as an argument, secrets arrive opened, and everything is testable by
//! given/when/then.

pub mod access;
pub mod decision;
pub mod email_claim;
pub mod event;
pub mod ids;
pub mod label;
pub mod organization;
pub mod outgoing;
pub mod provider;
pub mod provider_name;
pub mod retention;
pub mod signature;
pub mod team;
pub mod upcast;
pub mod usage;
pub mod user;
pub mod webhook;

pub use event::{Actor, Event, Metadata, RecordedEvent};
pub use ids::{
    ConnectionId, DuplicateBodiesId, EmailClaimId, EventIdentity, OrganizationId, Partition, ProviderId, SecretId,
    SessionId, TransmissionId, UsageId, UserId, WebhookId,
};
pub use label::Label;
pub use provider_name::ProviderName;
