//! A circuit breaker: a destination that keeps failing is left alone for a while, then tried with
//! one attempt at a time. Pure: time is an argument, and monotonic, so that no clock that is set moves it.
//!
//! What opens it is silence (no connection, no answer in time), since each such attempt holds a place
//! for the whole timeout. An answer, even a bad one, is quick, and whoever looks for the reason of a 500
//! wants to see every retry when it is due. A person's retry is a probe at once: it may be that
//! everything is repaired.

use std::time::Duration;

use tokio::time::Instant;

/// So many silent failures in a row open the circuit.
const SILENT_FAILURES: u32 = 20;
/// How long it is open at first; twice as long after each probe that failed, up to a limit.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// How an attempt ended, as far as a circuit cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Good,
    /// It answered that it failed.
    Bad,
    /// It did not answer.
    Silent,
    /// It was sent nothing, for a reason of ours.
    Untried,
}

/// Where a circuit stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Everything goes through.
    #[default]
    Closed,
    /// Nothing goes through before `probe_at`, then one attempt.
    Open { since: Instant, probe_at: Instant },
    /// One attempt goes through, and decides.
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
    /// How many more attempts it lets through, of `free` that there is room for. `requested` are those
    /// that a person asked for.
    #[must_use]
    pub fn admits(&self, free: u32, in_flight: u32, requested: bool, now: Instant) -> u32 {
        match self.state {
            State::Closed => free,
            State::Open { probe_at, .. } if now < probe_at && !requested => 0,
            State::Open { .. } | State::HalfOpen { .. } => u32::from(in_flight == 0 && free > 0),
        }
    }

    /// An attempt begins that was admitted; true where that moves the circuit.
    pub fn begin(&mut self) -> bool {
        match self.state {
            State::Open { since, .. } => {
                self.state = State::HalfOpen { since };
                true
            }
            State::HalfOpen { .. } | State::Closed => false,
        }
    }

    /// An attempt ended; true where that moves the circuit.
    pub fn note(&mut self, health: Health, now: Instant) -> bool {
        match health {
            // Where one attempt decides, the next one does.
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
            // An attempt that had begun before it opened.
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

    /// Attempts in a row that failed.
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
