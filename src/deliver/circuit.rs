//! A circuit breaker: a destination that keeps failing gets no attempts for a while, and then one at a time.
//! Pure: time is an argument, and monotonic, so that changing a clock has no effect.
//!
//! Only silence opens it (no connection, or no answer in time), because each such attempt occupies a place
//! for the whole timeout. An answer, even a bad one, is quick, and a person who investigates a 500 wants to
//! see every retry on time. A retry requested by a person is a probe at once, because the destination may be
//! repaired.

use std::time::Duration;

use tokio::time::Instant;

/// Consecutive silent failures that open the circuit.
const SILENT_FAILURES: u32 = 20;
/// How long it is open at first; doubles after each failed probe, up to a limit.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Outcome of an attempt, as far as the circuit is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Good,
    /// It answered with a failure.
    Bad,
    /// It did not answer.
    Silent,
    /// Nothing was sent, for a reason on our side.
    Untried,
}

/// State of a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// All attempts are made.
    #[default]
    Closed,
    /// No attempts before `probe_at`, then a single one.
    Open { since: Instant, probe_at: Instant },
    /// A single attempt is made, and decides.
    HalfOpen { since: Instant },
}

impl State {
    /// Its name in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen { .. } => "half_open",
        }
    }
}

/// The circuit of one destination on one node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circuit {
    state: State,
    failures: u32,
    silent: u32,
    pause: Option<Duration>,
}

impl Circuit {
    /// How many more attempts it admits, of `free` places. `requested` is for attempts that a person
    /// requested.
    #[must_use]
    pub fn admits(&self, free: u32, in_flight: u32, requested: bool, now: Instant) -> u32 {
        match self.state {
            State::Closed => free,
            State::Open { probe_at, .. } if now < probe_at && !requested => 0,
            State::Open { .. } | State::HalfOpen { .. } => u32::from(in_flight == 0 && free > 0),
        }
    }

    /// Notes the start of an admitted attempt; returns whether the state changed.
    pub fn begin(&mut self) -> bool {
        match self.state {
            State::Open { since, .. } => {
                self.state = State::HalfOpen { since };
                true
            }
            State::HalfOpen { .. } | State::Closed => false,
        }
    }

    /// Notes the end of an attempt; returns whether the state changed.
    pub fn note(&mut self, health: Health, now: Instant) -> bool {
        match health {
            // The next attempt decides instead.
            Health::Untried => return false,
            Health::Good => {
                let moved = self.state != State::Closed;
                *self = Self::default();
                return moved;
            }
            Health::Bad => self.silent = 0,
            Health::Silent => self.silent = self.silent.saturating_add(1),
        }
        self.failures = self.failures.saturating_add(1);
        let opens = match self.state {
            State::Closed => self.silent >= SILENT_FAILURES,
            State::HalfOpen { .. } => true,
            // The attempt began before the circuit opened.
            State::Open { .. } => false,
        };
        if opens {
            let pause = self.pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
            let since = match self.state {
                State::HalfOpen { since } | State::Open { since, .. } => since,
                State::Closed => now,
            };
            self.pause = Some(pause);
            self.state = State::Open { since, probe_at: now + pause };
        }
        opens
    }

    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Number of consecutive failures.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_secs(seconds)
    }

    fn opened() -> Circuit {
        let mut circuit = Circuit::default();
        (0..SILENT_FAILURES).for_each(|_| _ = circuit.note(Health::Silent, at(0)));
        circuit
    }

    #[test]
    fn silence_opens_it_and_bad_answers_do_not() {
        assert_eq!(opened().admits(9, 0, false, at(1)), 0);
        let mut circuit = Circuit::default();
        (0..10_000).for_each(|_| _ = circuit.note(Health::Bad, at(0)));
        assert_eq!(circuit.admits(9, 0, false, at(1)), 9);
    }

    #[test]
    fn a_persons_retry_is_a_probe_at_once() {
        let mut circuit = opened();
        assert_eq!(circuit.admits(9, 0, true, at(1)), 1);
        assert!(circuit.begin());
        assert_eq!(circuit.admits(9, 1, true, at(1)), 0);
    }

    #[test]
    fn what_was_not_sent_decides_nothing() {
        let mut circuit = opened();
        assert!(circuit.begin());
        assert!(!circuit.note(Health::Untried, at(6)));
        assert_eq!(circuit.state(), State::HalfOpen { since: at(0) });
        assert_eq!(circuit.admits(9, 0, false, at(6)), 1);
    }

    #[test]
    fn one_success_in_between_starts_the_count_anew() {
        let mut circuit = Circuit::default();
        for _ in 0..3 {
            (0..SILENT_FAILURES - 1).for_each(|_| _ = circuit.note(Health::Silent, at(0)));
            assert!(!circuit.note(Health::Good, at(0)));
        }
        assert_eq!(circuit.state(), State::Closed);
    }

    #[test]
    fn after_a_pause_one_probe_goes_through_and_decides() {
        let mut circuit = opened();
        assert_eq!(circuit.admits(9, 0, false, at(5)), 1);
        assert!(circuit.begin());
        assert_eq!(circuit.admits(9, 1, true, at(5)), 0);
        assert!(circuit.note(Health::Silent, at(6)));
        assert_eq!(circuit.state(), State::Open { since: at(0), probe_at: at(16) });
        assert!(circuit.begin());
        assert!(circuit.note(Health::Good, at(17)));
        assert_eq!(circuit.admits(9, 0, false, at(17)), 9);
    }
}
