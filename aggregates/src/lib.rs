//! The pure core of Hookledger: what may happen, and what it means.
//!
//! It contains the IDs, the envelope of recorded events, one file per aggregate (state, command, event,
//! error, `decide`, `evolve`), the upcasters that run on reading, and the verification of signatures.
//!
//! Deliberately elsewhere: databases, HTTP servers, clocks, randomness, and any I/O. Time and opened secrets
//! are arguments, so everything can be tested with given/when/then.

pub mod access;
pub mod attempt;
pub mod decision;
pub mod delivery;
pub mod destination;
pub mod email_claim;
pub mod event;
pub mod ids;
pub mod label;
pub mod organization;
pub mod outgoing;
pub mod phase;
pub mod provider;
pub mod provider_name;
pub mod receipt;
pub mod retention;
pub mod route;
pub mod routing;
pub mod signature;
pub mod team;
pub mod upcast;
pub mod usage;
pub mod user;
pub mod webhook;

pub use event::{Actor, Event, Metadata, RecordedEvent};
pub use ids::{
    ConnectionId, DeliveryId, DestinationId, DuplicateBodiesId, EmailClaimId, EventIdentity, OrganizationId, Partition,
    ProviderId, RouteId, SecretId, SessionId, TransmissionId, UsageId, UserId, WebhookId,
};
pub use label::Label;
pub use phase::{Phase, Status};
pub use provider_name::ProviderName;
pub use routing::Routing;
