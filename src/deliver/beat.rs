//! A node's heartbeat: it tells that it is alive, notices who is not and when the database's clock went back, says
//! which destinations are busy, lets go what was held, and takes what nobody took in time.

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

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// A node that has not told for so long is taken for dead.
const DEAD_AFTER: Duration = Duration::from_secs(10);
/// After a longer silence of the database's, or of ours, nobody's silence counts that fell into it.
const GAP: Duration = Duration::from_secs(3);
/// A clock that goes back by less delays a delivery by less.
const STEP: TimeDelta = TimeDelta::seconds(1);
/// Transactions that began before the clock went back may write what it said then: for longer than a statement
/// of the queue may take.
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
    /// What was set by a clock that was ahead would be due only when the clock is there again.
    async fn set_times_right(&self) {
        match self.queue.set_times_right().await {
            Ok(0) => {}
            Ok(count) => {
                tracing::warn!(count, "the database's clock went back; due times of deliveries were set right");
            }
            Err(error) => log_failure("times", Err(error)),
        }
    }

    /// Deliveries whose reason to be held is over go on.
    async fn let_go(&self) {
        let held = match self.queue.held().await {
            Ok(held) => held,
            Err(error) => return log_failure("held", Err(error)),
        };
        for provider in held {
            if matches!(self.directory.standing(provider), Standing::Ready(_)) {
                match self.queue.let_go(provider).await {
                    Ok(count) => tracing::info!(provider.id = %provider, count, "deliveries that were held go on"),
                    Err(error) => log_failure("let go", Err(error)),
                }
            }
        }
    }

    /// Takes first attempts that nobody took in time, to record that.
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

/// When other nodes were last heard of, by this node's monotonic clock: neither a clock that is set nor a
/// database that was away makes anybody look dead.
#[derive(Default)]
struct Pulse {
    last: Option<Instant>,
    /// What each told last, and when this node first saw that.
    told: HashMap<Uuid, (DateTime<Utc>, Instant)>,
}

impl Pulse {
    /// Those that have told nothing new for too long, while they could have been heard.
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

/// Whether the database's clock went back not long ago, by this node's monotonic clock. It may have before the
/// start, too.
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
        // Before the start it may have gone anywhere.
        assert!(at(1_000, 0) && at(1_015, 15));
        assert!(!at(1_016, 16));
        // Forwards, and an outage.
        assert!(!at(1_617, 17) && !at(1_718, 118));
        // Backwards, also during an outage.
        assert!(at(1_117, 119) && at(1_132, 134) && !at(1_133, 135));
        assert!(at(1_233, 735));
    }

    #[test]
    fn a_node_is_dead_that_is_silent_while_it_could_be_heard() {
        let (mut pulse, start, node) = (Pulse::default(), Instant::now(), Uuid::from_u128(1));
        let at = |seconds| start + Duration::from_secs(seconds);
        let told = |seconds| [(node, DateTime::from_timestamp(seconds, 0).unwrap())];
        // Its own clock, and the database's, may say anything.
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
