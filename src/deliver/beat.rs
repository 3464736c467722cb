//! A node's heartbeat. It reports that the node is alive and which destinations are busy, detects dead nodes
//! and a database clock that went back, releases held deliveries, and times out attempts that no worker
//! started.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::queue::Alive;
use super::worker::{CLAIM, Shared, Taken, lease, log_failure};
use crate::directory::Standing;

/// Interval of the heartbeat.
const EVERY: Duration = Duration::from_secs(1);
/// A node without a heartbeat for this long counts as dead.
const DEAD_AFTER: Duration = Duration::from_secs(10);
/// After a longer silence of the database or of this node, other nodes' silence during it does not count.
const GAP: Duration = Duration::from_secs(3);
/// A smaller step back of the clock delays a delivery by less than this.
const STEP: TimeDelta = TimeDelta::seconds(1);
/// How long transactions that began before the clock went back may still write its earlier times: longer than
/// any statement of the queue may take.
const SET_RIGHT_FOR: Duration = Duration::from_secs(15);

pub(super) async fn beat(shared: Arc<Shared>, stop: CancellationToken) {
    let mut interval = tokio::time::interval(EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut pulse, mut clock) = (Pulse::default(), Backwards::default());
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        let busy = shared.places.busy(Instant::now());
        log_failure("busy", shared.queue.note_busy(&busy).await);
        let asked = Instant::now();
        match shared.queue.tell_alive().await {
            Ok((told, others)) => {
                let dead = pulse.dead(&others, Instant::now());
                if !dead.is_empty() {
                    log_failure("dead", shared.queue.bury(&dead).await);
                }
                if clock.has_gone_back(told, asked) {
                    shared.set_times_right().await;
                }
            }
            Err(error) => log_failure("alive", Err(error)),
        }
        shared.tell_again().await;
        shared.let_go().await;
        shared.time_out().await;
    }
}

impl Shared {
    /// Otherwise, rows written by a clock that was ahead would become due only when the clock reaches that
    /// time again.
    async fn set_times_right(&self) {
        match self.queue.set_times_right().await {
            Ok(0) => {}
            Ok(count) => {
                tracing::warn!(count, "the database's clock went back; corrected the due times of deliveries");
            }
            Err(error) => log_failure("times", Err(error)),
        }
    }

    /// Releases deliveries that are no longer held for any reason.
    async fn let_go(&self) {
        let held = match self.queue.held().await {
            Ok(held) => held,
            Err(error) => return log_failure("held", Err(error)),
        };
        for (route, destination) in held {
            if matches!(self.directory.standing(route, destination), Standing::Ready(_)) {
                match self.queue.let_go(route, destination).await {
                    Ok(count) => {
                        tracing::info!(route.id = %route, destination.id = %destination, count, "released held deliveries");
                    }
                    Err(error) => log_failure("let go", Err(error)),
                }
            }
        }
    }

    /// Claims first attempts that no worker started in time, to record the failure.
    async fn time_out(self: &Arc<Self>) {
        let lease = lease(self.settings.attempt_timeout);
        loop {
            match self.queue.claim_overdue(self.settings.pending_timeout, CLAIM, lease).await {
                Ok(overdue) if overdue.is_empty() => return,
                Ok(overdue) => self.start(overdue.into_iter().map(|due| Taken { due, place: None }).collect()),
                Err(error) => return log_failure("overdue", Err(error)),
            }
        }
    }
}

/// The last heartbeats of other nodes by this node's monotonic clock, so that neither a changed clock nor a
/// missing database makes a node look dead.
#[derive(Default)]
struct Pulse {
    last: Option<Instant>,
    /// Each node's last heartbeat, and when this node first saw it.
    told: HashMap<Uuid, (DateTime<Utc>, Instant)>,
}

impl Pulse {
    /// Nodes without a new heartbeat for too long, during which it could have been seen.
    fn dead(&mut self, others: &[Alive], now: Instant) -> Vec<Alive> {
        if self.last.is_none_or(|last| now - last > GAP) {
            self.told.clear();
        }
        self.last = Some(now);
        self.told.retain(|node, _| others.iter().any(|(other, _)| other == node));
        let mut dead = Vec::new();
        for (node, told) in others {
            let known = self.told.entry(*node).or_insert((*told, now));
            if known.0 != *told {
                *known = (*told, now);
            }
            if now - known.1 >= DEAD_AFTER {
                dead.push((*node, *told));
            }
        }
        dead
    }
}

/// Whether the database's clock went back recently, by this node's monotonic clock. It may have done so
/// before the start, too.
#[derive(Default)]
struct Backwards {
    last: Option<(DateTime<Utc>, Instant)>,
    until: Option<Instant>,
}

impl Backwards {
    fn has_gone_back(&mut self, told: DateTime<Utc>, asked: Instant) -> bool {
        let is_back = self.last.is_none_or(|(last, since)| {
            let passed = TimeDelta::from_std(asked.saturating_duration_since(since)).unwrap_or(TimeDelta::MAX);
            last.checked_add_signed(passed - STEP).is_some_and(|expected| told < expected)
        });
        self.last = Some((told, asked));
        if is_back {
            self.until = Some(asked + SET_RIGHT_FOR);
        }
        self.until.is_some_and(|until| asked <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_back_is_noticed_for_a_while_and_one_that_goes_on_is_not() {
        let (mut clock, start) = (Backwards::default(), Instant::now());
        let mut at = |told: i64, second| {
            clock.has_gone_back(DateTime::from_timestamp(told, 0).unwrap(), start + Duration::from_secs(second))
        };
        // Before the start, the clock may have gone back.
        assert!(at(1_000, 0) && at(1_015, 15));
        assert!(!at(1_016, 16));
        // Forward, and an outage.
        assert!(!at(1_617, 17) && !at(1_718, 118));
        // Back, also during an outage.
        assert!(at(1_117, 119) && at(1_132, 134) && !at(1_133, 135));
        assert!(at(1_233, 735));
    }

    #[test]
    fn a_node_is_dead_that_is_silent_while_it_could_be_heard() {
        let (mut pulse, start, node) = (Pulse::default(), Instant::now(), Uuid::from_u128(1));
        let at = |seconds| start + Duration::from_secs(seconds);
        let told = |seconds| [(node, DateTime::from_timestamp(seconds, 0).unwrap())];
        // The node's and the database's clocks may show any time.
        for (second, clock) in (0..20).zip((0..20).rev()) {
            assert_eq!(pulse.dead(&told(clock), at(second)), []);
        }
        for second in 20..29 {
            assert_eq!(pulse.dead(&told(0), at(second)), [], "{second}");
        }
        assert_eq!(pulse.dead(&told(0), at(29)), told(0));
    }

    #[test]
    fn silence_while_the_database_was_away_does_not_count() {
        let (mut pulse, start, node) = (Pulse::default(), Instant::now(), Uuid::from_u128(1));
        let told = [(node, DateTime::UNIX_EPOCH)];
        assert_eq!(pulse.dead(&told, start), []);
        assert_eq!(pulse.dead(&told, start + Duration::from_secs(600)), []);
        assert_eq!(pulse.dead(&told, start + Duration::from_secs(602)), []);
    }
}
