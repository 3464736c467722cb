//! Admission control: admits a request only if it can expect an answer in time.
//!
//! A webhook waits for the writer's queue and for a thread. A burst is tolerated, because it passes. When the
//! wait lasts, the load exceeds the capacity, and only a short queue is allowed: a longer one would delay
//! everybody without admitting more. GitHub never retries, so its webhooks are refused last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Longest expected wait of an admitted webhook: of GitHub's, and of providers that retry.
#[derive(Clone, Copy, Debug)]
struct Patience {
    most: Duration,
    github: Duration,
}

/// During a burst.
const BURST: Patience = Patience { most: Duration::from_millis(500), github: Duration::from_millis(750) };
/// During an overload.
const OVERLOAD: Patience = Patience { most: Duration::from_millis(100), github: Duration::from_millis(250) };
/// A longer burst is an overload.
const LONGEST_BURST: Duration = Duration::from_millis(500);
/// An overload ends when the expected wait falls below this.
const OVER: Duration = Duration::from_millis(25);
/// A refusal is delayed by this multiple of the threads' lateness, up to a limit, so that a sender that
/// repeats it at once does not take time from admitted requests.
const HOLD_BACK: u32 = 8;
const LONGEST_HOLD: Duration = Duration::from_secs(1);
/// Interval of measuring the threads' lateness and of logging refusals.
const PROBE: Duration = Duration::from_millis(10);
const TELL: Duration = Duration::from_secs(1);

/// Decides which requests are admitted. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admission {
    since: Instant,
    shared: Arc<Shared>,
}

/// Times are in microseconds after `since`; 0 is never.
#[derive(Debug, Default)]
struct Shared {
    /// Recent lateness of threads in running ready tasks.
    late: AtomicU64,
    /// Start of the running measurement.
    probing_since: AtomicU64,
    /// Since when there has been a wait without interruption.
    waiting_since: AtomicU64,
    refused: AtomicU64,
}

impl Default for Admission {
    fn default() -> Self {
        Self { since: Instant::now(), shared: Arc::default() }
    }
}

impl Admission {
    /// Whether to admit a webhook with this expected wait for the writer.
    pub(super) fn admits(&self, for_writer: Duration, is_github: bool) -> bool {
        let wait = for_writer + self.lateness();
        let patience = self.patience(wait, self.now());
        let is_admitted = wait <= if is_github { patience.github } else { patience.most };
        if !is_admitted {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        is_admitted
    }

    /// How long to delay a refusal.
    #[must_use]
    pub fn hold_back(&self) -> Duration {
        (self.lateness() * HOLD_BACK).min(LONGEST_HOLD)
    }

    fn patience(&self, wait: Duration, now: u64) -> Patience {
        let waiting_since = self.shared.waiting_since.load(Ordering::Relaxed);
        if waiting_since == 0 {
            if wait > OVERLOAD.most {
                self.shared.waiting_since.store(now, Ordering::Relaxed);
            }
            return BURST;
        }
        if wait < OVER {
            self.shared.waiting_since.store(0, Ordering::Relaxed);
            return BURST;
        }
        if now.saturating_sub(waiting_since) > micros(LONGEST_BURST) { OVERLOAD } else { BURST }
    }

    /// Lateness of threads in running ready tasks.
    fn lateness(&self) -> Duration {
        let late = self.shared.late.load(Ordering::Relaxed);
        let probing = match self.shared.probing_since.load(Ordering::Relaxed) {
            0 => 0,
            since => self.now().saturating_sub(since),
        };
        Duration::from_micros(late.max(probing))
    }

    /// Measures the lateness of the threads of `serving`, from its own thread, until stopped. Tasks that are
    /// woken from outside run last there, as the writer's answers do.
    pub async fn run(self, serving: Handle, stop: CancellationToken) {
        let mut tell_at = Instant::now() + TELL;
        while !stop.is_cancelled() {
            let began = self.now();
            self.shared.probing_since.store(began, Ordering::Relaxed);
            let clock = self.clone();
            let Ok(came) = serving.spawn(async move { clock.now() }).await else { break };
            // The maximum of recent measurements, which decays.
            let faded = self.shared.late.load(Ordering::Relaxed) * 7 / 8;
            self.shared.late.store(faded.max(came.saturating_sub(began)), Ordering::Relaxed);
            self.shared.probing_since.store(0, Ordering::Relaxed);
            if Instant::now() >= tell_at {
                tell_at = Instant::now() + TELL;
                self.tell();
            }
            let _ = stop.run_until_cancelled(tokio::time::sleep(PROBE)).await;
        }
    }

    /// Logs many refusals in one line: a line for each would cost more than the refusal.
    fn tell(&self) {
        let late = self.lateness();
        metrics::gauge!("hookledger_threads_late_seconds").set(late.as_secs_f64());
        let count = self.shared.refused.swap(0, Ordering::Relaxed);
        if count > 0 {
            metrics::counter!("hookledger_overload_refusals_total").increment(count);
            let late_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(webhook.refused = count, late_ms, "overloaded; refusing webhooks");
        }
    }

    fn now(&self) -> u64 {
        micros(self.since.elapsed()).max(1)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_burst_is_borne_and_an_overload_is_not() {
        let admission = Admission::default();
        // (at, wait) → patience with most, in milliseconds.
        for (at, wait, patience) in [
            (1, 0, 500),
            (2, 400, 500),
            (400, 300, 500),
            // The wait lasts.
            (510, 110, 100),
            (600, 90, 100),
            (700, 26, 100),
            // The overload is over, and the next wait is a burst again.
            (800, 24, 500),
            (1_400, 300, 500),
            (1_500, 300, 500),
            (1_901, 300, 100),
        ] {
            assert_eq!(admission.patience(ms(wait), at * MS).most, ms(patience), "at {at} ms");
        }
    }

    #[test]
    fn github_is_refused_last() {
        let admission = Admission::default();
        assert!(admission.admits(ms(499), false) && !admission.admits(ms(501), false));
        assert!(admission.admits(ms(749), true) && !admission.admits(ms(751), true));
    }

    #[test]
    fn threads_that_are_late_count_and_hold_refusals_back() {
        let admission = Admission::default();
        admission.shared.late.store(60 * MS, Ordering::Relaxed);
        assert!(admission.admits(ms(440), false) && !admission.admits(ms(441), false));
        assert_eq!(admission.hold_back(), ms(480));
        admission.shared.late.store(600 * MS, Ordering::Relaxed);
        assert!(!admission.admits(Duration::ZERO, false) && admission.admits(Duration::ZERO, true));
        assert_eq!(admission.hold_back(), LONGEST_HOLD);
    }

    #[test]
    fn a_thread_that_is_busy_is_late() {
        let serving = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let probing = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (admission, stop) = (Admission::default(), CancellationToken::new());
        let running = probing.spawn(admission.clone().run(serving.handle().clone(), stop.clone()));
        let late_within = |wished: &dyn Fn(Duration) -> bool| {
            probing.block_on(async {
                let deadline = Instant::now() + Duration::from_secs(300);
                while !wished(admission.lateness()) {
                    assert!(Instant::now() < deadline, "{:?}", admission.lateness());
                    tokio::time::sleep(ms(5)).await;
                }
            });
        };
        let (hold, released) = std::sync::mpsc::channel::<()>();
        serving.spawn(async move { released.recv().unwrap_err() });
        late_within(&|late| late > ms(200));
        drop(hold);
        late_within(&|late| late < ms(50));
        stop.cancel();
        probing.block_on(running).unwrap();
    }
}
