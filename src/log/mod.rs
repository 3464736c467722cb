//! The log: the only SQL on `commits` and `events`. Append, read, follow its heads, and the seam to cqrs-es.
//!
//! Deliberately elsewhere: the meaning of events (crate `hookledger-aggregates`) and the read models derived
//! from them (crate `hookledger-projections`).

mod balance;
mod batch;
mod bodies;
mod commands;
mod commit;
mod flusher;
pub mod follow;
mod fresh;
mod heads;
mod limits;
mod outage;
mod pressure;
mod read;
mod recent;
mod record;
pub mod relay;
mod removal;
mod stored;
pub mod stored_event;
mod tail;
mod unit;
mod walk;
mod writer;

pub use balance::{BalanceChange, Standing, balance_changes, standings_before};
pub use bodies::{RawRequest, bodies_containing, bodies_of, headers_of};
pub use commands::{CommandError, Commands, Together};
pub use fresh::{FreshBodies, FreshBody};
pub use heads::{Epoch, Heads, HeadsError, Positions, Remembered, Wake};
pub use outage::{Unreachable, is_busy, is_out_of_range, is_unavailable};
pub use read::{
    Batch, Broken, LogSpan, ReadError, Reader, Scope, Tail, Touched, What, count_after, destination_changes,
    end_of_stream, events_of, positions_at, recorded_at, settings_until, stories_of, streams_of, tails_of,
};
pub use record::remove_old_flushes;
pub use removal::{
    Removable, Removal, removable, removal_of, remove_bodies, remove_body, removed_after, retried_after, with_bodies,
};
pub use stored::{oldest_after_checkpoint, stored_at};
pub use tail::{Incarnation, LostTail, Noticed, noticed_since};
pub use unit::{Appended, Body, LogPosition, MonthlyLimit, NewEvent, Sequence, Unit, UsedMonth};
pub use walk::{
    KeptRequest, Row, Walked, WalkedCommit, begin, ends, kept_requests, outside_partitions, stray_request, walk,
};
pub use writer::{AppendError, Log, Priority, Writer};
