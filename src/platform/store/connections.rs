//! The number of connections of a node, and the purpose of each pool.

use std::fmt;
use std::str::FromStr;

/// Connections of a node, all pools together: the setting `HOOKLEDGER_DATABASE_CONNECTIONS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections(u32);

/// There are fewer connections than the pools need.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a valid number of connections. Use at least {FEWEST}")]
pub struct TooFew(String);

/// Each pool needs two, so that a task with a connection never waits for another one that has one.
const FEWEST: u32 = 16;
/// The writer, the ledger, the relay and the watch have a fixed number.
const FIXED: u32 = 7;

impl Default for Connections {
    /// Two nodes and an operator with psql easily fit into PostgreSQL's default of 100.
    fn default() -> Self {
        Self(27)
    }
}

impl FromStr for Connections {
    type Err = TooFew;
    fn from_str(text: &str) -> Result<Self, TooFew> {
        text.parse().ok().filter(|number| *number >= FEWEST).map(Self).ok_or_else(|| TooFew(text.to_owned()))
    }
}

impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The purpose of a pool, which determines the settings of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Appending to the log: a commit is durable once it is answered.
    Append,
    /// Projections: their rows and checkpoints change together and can be derived again, so commits need not
    /// wait for the disk.
    Follow,
    /// The trees of the ledger, with the settings of projections.
    Ledger,
    /// The queue of deliveries, with the settings of projections.
    Queue,
    /// Mirroring the log, with the settings of projections.
    Relay,
    /// The server's own queries and updates: commands, checkpoints, sign-in links.
    Work,
    /// Reading for people, through [`super::Tenants`].
    Query,
}

impl Connections {
    /// The share of a pool.
    pub(super) fn of(self, use_: Use) -> u32 {
        let shared = self.0.saturating_sub(FIXED);
        let (queue, follow, work) = (share(shared, 3), share(shared, 5), share(shared, 5));
        match use_ {
            Use::Append | Use::Ledger | Use::Relay => 2,
            Use::Queue => queue,
            Use::Follow => follow,
            Use::Work => work,
            Use::Query => shared.saturating_sub(queue + follow + work).max(2),
        }
    }
}

/// That many twentieths, and at least two.
fn share(shared: u32, twentieths: u32) -> u32 {
    (shared * twentieths / 20).max(2)
}

impl Use {
    /// Every role that a running server uses.
    pub(super) const ROLES: [&'static str; 2] = [Self::Work.role(), Self::Query.role()];

    pub(super) const fn role(self) -> &'static str {
        match self {
            Self::Append | Self::Follow | Self::Ledger | Self::Queue | Self::Relay | Self::Work => "hookledger_worker",
            Self::Query => "hookledger_runtime",
        }
    }

    pub(super) fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Append => &[("statement_timeout", "10s"), ("synchronous_commit", "on")],
            // A batch is looked up by its keys. With stale statistics, as on tables that grow by thousands of
            // rows per second, the planner scanned the whole table instead, and to read the next 1,000 events
            // it read all later ones. A plan made while a table was nearly empty would be kept for the life
            // of the connection, so a new plan each time is cheaper.
            Self::Follow | Self::Ledger | Self::Queue | Self::Relay => &[
                ("statement_timeout", "60s"),
                ("synchronous_commit", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
                ("enable_bitmapscan", "off"),
                ("enable_seqscan", "off"),
                ("plan_cache_mode", "force_custom_plan"),
            ],
            // The directory reads the log here.
            Self::Work => &[("statement_timeout", "10s"), ("synchronous_commit", "on"), ("enable_bitmapscan", "off")],
            Self::Query => &[("statement_timeout", "10s"), ("synchronous_commit", "on")],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOLS: [Use; 7] = [Use::Append, Use::Follow, Use::Ledger, Use::Queue, Use::Relay, Use::Work, Use::Query];

    #[test]
    fn all_pools_and_the_watch_together_stay_within_the_setting() {
        assert_eq!(Connections::default().to_string(), "27");
        for number in FEWEST..200 {
            let connections: Connections = number.to_string().parse().unwrap();
            let pools: Vec<u32> = POOLS.iter().map(|use_| connections.of(*use_)).collect();
            assert!(pools.iter().all(|pool| *pool >= 2), "{number}: {pools:?}");
            assert!(pools.iter().sum::<u32>() < number, "{number}: {pools:?}");
        }
        for wrong in ["15", "0", "-1", "many", ""] {
            assert!(wrong.parse::<Connections>().is_err(), "{wrong}");
        }
    }
}
