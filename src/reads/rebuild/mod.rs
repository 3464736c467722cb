//! Read models beside the live ones: rebuilt while traffic continues, compared, and switched to; or replayed
//! as of some time.
//!
//! A [`Copies`] is a schema with empty copies of a projection's tables. The same `Projection::apply` fills
//! it, with the search path set to that schema and separate checkpoints. A rebuild goes exactly as far as the
//! live projection, never further. So both can be compared row by row in one snapshot, and switched without
//! involving the live follower, whose checkpoint stays correct.
//!
//! Deliberately elsewhere: the meaning of events (crate `hookledger-projections`), and everything that sends.
//! Only the tables of `hookledger_projections::all()` can be rebuilt: others contain data that is not in the
//! log.

mod compare;
mod copies;
mod error;
mod replay;
mod status;
mod switch;

pub use compare::{Comparison, Difference, TableComparison};
pub use error::RebuildError;
pub use replay::{AsOf, Replay, Replayed, drop_replay};
pub use status::{PartitionStatus, ProjectionStatus, scope_of, status};
pub use switch::{Rebuild, Step};

use copies::Copies;
