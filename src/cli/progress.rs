//! Progress of a command on stderr: a bar on a terminal, a line from time to time elsewhere.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

/// Interval of output on a terminal, and elsewhere.
const ON_TERMINAL: Duration = Duration::from_millis(100);
const ELSEWHERE: Duration = Duration::from_secs(5);
/// Width of the bar in characters.
const WIDTH: u64 = 30;

/// Shows progress.
pub struct Progress {
    what: String,
    /// The counted things, in the plural: `events`.
    unit: &'static str,
    started: Instant,
    /// Amount done earlier, by an interrupted run.
    first: Option<u64>,
    told: Option<Instant>,
    terminal: bool,
}

impl Progress {
    #[must_use]
    pub fn new(what: impl Into<String>, unit: &'static str) -> Self {
        let terminal = stderr().is_terminal();
        Self { what: what.into(), unit, started: Instant::now(), first: None, told: None, terminal }
    }

    /// Shows the progress. Cheap to call often.
    pub fn set(&mut self, done: u64, of: u64) {
        let first = *self.first.get_or_insert(done);
        let pause = if self.terminal { ON_TERMINAL } else { ELSEWHERE };
        if done < of && self.told.is_some_and(|told| told.elapsed() < pause) {
            return;
        }
        self.told = Some(Instant::now());
        let line = line(&self.what, self.unit, (first, done, of), self.started.elapsed());
        let mut out = stderr().lock();
        // A closed stderr only loses this line.
        let _ = if self.terminal { write!(out, "\r\x1b[K{} {line}", bar(done, of)) } else { writeln!(out, "{line}") };
        let _ = out.flush();
    }

    /// Shows a step without a measure.
    pub fn step(&mut self, text: &str) {
        let mut out = stderr().lock();
        let _ = if self.terminal {
            write!(out, "\r\x1b[K{}: {text}", self.what)
        } else {
            writeln!(out, "{}: {text}", self.what)
        };
        let _ = out.flush();
    }

    /// Frees the line for further output.
    pub fn end(&self) {
        if self.terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

fn bar(done: u64, of: u64) -> String {
    let filled = usize::try_from(done.min(of) * WIDTH / of.max(1)).unwrap_or_default();
    format!("[{}{}]", "#".repeat(filled), "-".repeat(usize::try_from(WIDTH).unwrap_or_default() - filled))
}

fn line(what: &str, unit: &str, (first, done, of): (u64, u64, u64), took: Duration) -> String {
    let percent = done.saturating_mul(100).checked_div(of).unwrap_or(100);
    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = done.saturating_sub(first).saturating_mul(1_000) / milliseconds;
    let left = match of.saturating_sub(done).checked_div(rate) {
        Some(seconds) if done < of => format!(", {seconds} s left"),
        _ => String::new(),
    };
    format!("{what}: {percent} %, {done} of {of} {unit}, {rate}/s{left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let told = line("users", "events", (100, 600, 2_100), Duration::from_secs(5));
        assert_eq!(told, "users: 28 %, 600 of 2100 events, 100/s, 15 s left");
        assert_eq!(line("users", "events", (0, 0, 0), Duration::ZERO), "users: 100 %, 0 of 0 events, 0/s");
        assert_eq!(bar(1, 2), "[###############---------------]");
        assert_eq!(bar(0, 0), format!("[{}]", "-".repeat(30)));
    }
}
