//! The kinds of faults, and the setting that each needs.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Whose clock is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    Node,
    Database,
}

/// The components of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// PostgreSQL is the node's own, under its data directory.
    pub embedded: bool,
    pub nodes: usize,
    /// The database is on a file system that can be filled.
    pub small_disk: bool,
    /// The processes that run under libfaketime.
    pub clock: Option<Clock>,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = if self.embedded { "embedded" } else { "external" };
        write!(f, "{store}, {} node{}", self.nodes, if self.nodes == 1 { "" } else { "s" })?;
        if self.small_disk {
            f.write_str(", small disk")?;
        }
        match self.clock {
            Some(Clock::Node) => f.write_str(", clock of a node"),
            Some(Clock::Database) => f.write_str(", clock of the database"),
            None => Ok(()),
        }
    }
}

/// Requirements of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    pub embedded: bool,
    /// Minimum number of nodes.
    pub nodes: usize,
    pub small_disk: bool,
    pub clock: Option<Clock>,
}

const EXTERNAL: Needs = Needs { embedded: false, nodes: 1, small_disk: false, clock: None };
const TWO_NODES: Needs = Needs { nodes: 2, ..EXTERNAL };
const EMBEDDED: Needs = Needs { embedded: true, ..EXTERNAL };

macro_rules! kinds {
    ($($kind:ident $name:literal $needs:expr, $millis:expr, $what:literal;)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $(#[doc = $what] $kind,)* }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$kind => $what),* }
            }

            #[must_use]
            pub const fn needs(self) -> Needs {
                match self { $(Self::$kind => $needs),* }
            }

            /// Duration in milliseconds.
            #[must_use]
            pub const fn lasts(self) -> Range<u64> {
                match self { $(Self::$kind => $millis),* }
            }
        }
    };
}

kinds! {
    KillNode "kill-node" EXTERNAL, 500..4_000, "kill -9 of a node, which is started again";
    KillBackend "kill-backend" EXTERNAL, 3_000..6_000, "kill -9 of the backend that appends, or of any other: PostgreSQL restarts all of them";
    KillPostmaster "kill-postmaster" EXTERNAL, 500..5_000, "kill -9 of the postmaster, which is started again";
    KillBoth "kill-both" EXTERNAL, 500..5_000, "kill -9 of a node and of the postmaster";
    RestartFast "restart-fast" EXTERNAL, 500..4_000, "PostgreSQL is restarted, fast mode";
    RestartImmediate "restart-immediate" EXTERNAL, 500..4_000, "PostgreSQL is restarted, immediate mode, and recovers";
    PauseNode "pause-node" EXTERNAL, 3_000..16_000, "SIGSTOP of a node, and SIGCONT";
    PauseBackend "pause-backend" EXTERNAL, 3_000..16_000, "SIGSTOP of the backend that appends, or of any other";
    PauseWalwriter "pause-walwriter" EXTERNAL, 3_000..12_000, "SIGSTOP of PostgreSQL's walwriter";
    TerminateAll "terminate-all" EXTERNAL, 2_000..8_000, "`pg_terminate_backend` of every connection, two to ten times";
    Reset "reset" EXTERNAL, 2_000..6_000, "every connection to the database is reset, again and again";
    Refuse "refuse" EXTERNAL, 2_000..8_000, "the database's port refuses connections, and open ones are reset";
    Delay "delay" EXTERNAL, 4_000..10_000, "each packet between node and database is late by 20 to 300 ms";
    Stall "stall" EXTERNAL, 3_000..16_000, "nothing passes for a while, and then everything that was sent";
    BlackHole "black-hole" EXTERNAL, 5_000..20_000, "packets are swallowed, also those of new connections; the old ones stay silent for ever";
    HalfOpen "half-open" EXTERNAL, 5_000..20_000, "open connections fall silent for ever, and new ones work";
    CutCommit "cut-commit" EXTERNAL, 3_000..8_000, "connections are cut while an append is in flight: before PostgreSQL has all of it, or before its answer arrives";
    CutTransaction "cut-transaction" EXTERNAL, 3_000..8_000, "connections are cut inside a transaction: before PostgreSQL has all of a statement, or before its answer arrives";
    SilentTransaction "silent-transaction" EXTERNAL, 5_000..20_000, "connections fall silent for ever inside a transaction";
    LongSnapshot "long-snapshot" EXTERNAL, 10_000..20_000, "a transaction keeps its snapshot, as a backup does";
    ConnectionsUsedUp "connections-used-up" EXTERNAL, 3_000..10_000, "somebody else takes every connection that is free, and the node's are terminated";
    DiskFull "disk-full" Needs { small_disk: true, ..EXTERNAL }, 3_000..8_000, "the database's disk is full";
    NodeClock "node-clock" Needs { clock: Some(Clock::Node), ..EXTERNAL }, 6_000..12_000, "a node's clock jumps by ten minutes, forwards or backwards";
    DatabaseClock "database-clock" Needs { clock: Some(Clock::Database), ..EXTERNAL }, 6_000..12_000, "the database's clock jumps by ten minutes, forwards or backwards";
    Promotion "promotion" EXTERNAL, 1_000..4_000, "a replica is promoted that lacks the tail of the log";
    StopUp "stop-up" EXTERNAL, 500..2_000, "SIGTERM of a node while the database is up";
    StopDown "stop-down" EXTERNAL, 500..2_000, "SIGTERM of a node while the database is down";
    StopHanging "stop-hanging" EXTERNAL, 500..2_000, "SIGTERM of a node while the database does not answer";
    StartFirst "start-first" EXTERNAL, 2_000..8_000, "a node starts while the database refuses connections";
    PauseOneOfTwo "pause-one-of-two" TWO_NODES, 4_000..16_000, "SIGSTOP of one of two nodes, and SIGCONT";
    HoleForOneOfTwo "hole-for-one-of-two" TWO_NODES, 5_000..20_000, "packets of one of two nodes are swallowed";
    RollingRestart "rolling-restart" TWO_NODES, 500..1_000, "both nodes are restarted, one after the other";
    EmbeddedKill "embedded-kill" EMBEDDED, 500..4_000, "kill -9 of a node with its embedded PostgreSQL";
    EmbeddedKillNode "embedded-kill-node" EMBEDDED, 500..4_000, "kill -9 of a node that has an embedded PostgreSQL";
    EmbeddedKillPostmaster "embedded-kill-postmaster" EMBEDDED, 2_000..4_000, "kill -9 of the embedded postmaster";
    EmbeddedKillBackend "embedded-kill-backend" EMBEDDED, 3_000..6_000, "kill -9 of a backend of the embedded PostgreSQL";
    EmbeddedDiskFull "embedded-disk-full" Needs { small_disk: true, ..EMBEDDED }, 3_000..8_000, "the disk of the data directory is full";
}

impl Kind {
    #[must_use]
    pub fn fits(self, setting: Setting) -> bool {
        let needs = self.needs();
        needs.embedded == setting.embedded
            && needs.nodes <= setting.nodes
            && (!needs.small_disk || setting.small_disk)
            && (needs.clock.is_none() || needs.clock == setting.clock)
    }

    /// Whether a node loses its memory, or is cut off until the other one considers it dead: running attempts
    /// are recorded as lost.
    #[must_use]
    pub const fn loses_a_node(self) -> bool {
        matches!(
            self,
            Self::KillNode
                | Self::KillBoth
                | Self::StopUp
                | Self::StopDown
                | Self::StopHanging
                | Self::StartFirst
                | Self::HoleForOneOfTwo
                | Self::RollingRestart
                | Self::EmbeddedKill
                | Self::EmbeddedKillNode
                | Self::EmbeddedKillPostmaster
                | Self::EmbeddedDiskFull
        )
    }

    /// Whether a node is suspended, so that its attempts may exceed their timeout or lease.
    #[must_use]
    pub const fn pauses_a_node(self) -> bool {
        matches!(self, Self::PauseNode | Self::PauseOneOfTwo)
    }

    /// The embedded PostgreSQL dies, and its node may exit with an error instead of restarting it.
    #[must_use]
    pub const fn may_end_the_node(self) -> bool {
        matches!(
            self,
            Self::EmbeddedKill | Self::EmbeddedKillNode | Self::EmbeddedKillPostmaster | Self::EmbeddedDiskFull
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = || Self::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("there is no kind {text:?}; the kinds are {}", known()))
    }
}
