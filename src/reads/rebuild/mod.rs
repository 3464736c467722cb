//! Read models beside the live ones: rebuilt while traffic flows, compared, and put in their place;
//! or replayed as they stood at some time.
//!
//! A [`Copies`] is a schema with empty copies of a projection's tables. The same `Projection::apply`
//! fills it, with the search path set to that schema, and checkpoints of its own lie beside the rows.
//! A rebuild goes exactly as far as the live projection has come, never further: so both can be
//! compared row by row in one snapshot, and exchanged without a word to the live follower, whose
//! checkpoint stays true.
//!
//! What deliberately does not live here: what an event means (crate `hookledger-projections`), and
//! anything that sends. Only what is in `hookledger_projections::all()` can be rebuilt: other tables
//! hold what is not in the log.

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
