//! Following the log: leases, checkpoints, and the loop that hands events to handlers.
//!
//! One follower per name runs at a time, on the node that holds its lease. Its rows and its checkpoint change
//! in one transaction, so a crash loses nothing and repeats nothing.

mod checkpoints;
mod follower;
mod handler;
mod lease;
mod leases;
mod limit;
mod progress;
mod projector;

pub(crate) use checkpoints::Move;
pub use checkpoints::{Checkpoints, Lag, Standing};
pub use follower::{Follower, Step};
pub use handler::{Followed, Handler, HandlerError, UnderPressure};
pub(crate) use lease::{Isolation, Lease};
pub use leases::Leases;
#[cfg(feature = "eventstore")]
pub(crate) use limit::READ_LIMIT;
pub(crate) use limit::{STATEMENT_LIMIT, within};
pub use projector::Projector;
