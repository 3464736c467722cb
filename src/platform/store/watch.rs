//! The watch: whether the store answers, the offset between its clock and this node's, and an end for every
//! connection whose answer will never come.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::outage::is_unreachable;
use super::sockets::{Silence, Sockets};
use crate::platform::vitals::Vitals;

/// Name in `/readyz` and in metrics.
const NAME: &str = "store";
const CLOCK: &str = "clock";

/// Interval of queries to the store.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long it may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long a connection may be silent while the store answers no query.
const OUTAGE_LIMIT: Duration = Duration::from_secs(5);
/// The same if the waiting connections are unknown, as for a local socket.
const UNTOLD_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may wait while the store answers others: longer than any statement timeout.
const STATEMENT_LIMIT: Duration = Duration::from_secs(75);
/// Interval of looks at the sockets while the store answers.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// If the last look is older than this, the watch itself hangs.
const SEEN_LIMIT: Duration = Duration::from_secs(10);
/// A larger difference between the clocks causes a warning.
const CLOCK_LIMIT: TimeDelta = TimeDelta::seconds(2);
/// A measurement with a longer round trip is discarded.
const ROUND_TRIP_LIMIT: TimeDelta = TimeDelta::milliseconds(500);

/// How far this node's clock is ahead of the database's. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<Mutex<Option<TimeDelta>>>);

/// Queries the store for as long as the node runs.
#[derive(Debug)]
pub struct StoreWatch {
    options: PgConnectOptions,
    sockets: Sockets,
    clock: Clock,
    connection: Option<PgConnection>,
    /// Since when the store has not answered; `None` if it does.
    away_since: Option<Instant>,
    looked: Instant,
}

/// Why the store does not answer.
enum Failure {
    Late,
    Error(sqlx::Error),
}

impl Clock {
    /// How far this node's clock is ahead, or behind if negative; `None` until measured.
    #[must_use]
    pub fn difference(&self) -> Option<TimeDelta> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, difference: TimeDelta) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(difference);
    }
}

impl StoreWatch {
    pub(super) fn new(options: PgConnectOptions, sockets: Sockets) -> Self {
        Self { options, sockets, clock: Clock::default(), connection: None, away_since: None, looked: Instant::now() }
    }

    /// The measured clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Watches until stopped.
    pub async fn run(mut self, vitals: Vitals, stop: CancellationToken) {
        vitals.expect_looks(NAME, SEEN_LIMIT);
        let watching = async {
            loop {
                self.look(&vitals).await;
                vitals.seen(NAME);
                tokio::time::sleep(INTERVAL).await;
            }
        };
        stop.run_until_cancelled(watching).await;
    }

    async fn look(&mut self, vitals: &Vitals) {
        let begun = Instant::now();
        let asked = tokio::time::timeout(ANSWER_LIMIT, self.ask()).await;
        match asked.map_err(|_| Failure::Late).and_then(|asked| asked.map_err(Failure::Error)) {
            Ok(difference) => {
                self.back(vitals);
                self.tell_clock(vitals, difference);
            }
            Err(failure) => self.away(vitals, begun, &failure),
        }
    }

    /// The difference of the clocks at the middle of the round trip; `None` if the round trip was too long.
    async fn ask(&mut self) -> Result<Option<TimeDelta>, sqlx::Error> {
        // If no answer comes, the connection is dropped with this future.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        let sent = (Utc::now(), Instant::now());
        let told: DateTime<Utc> = sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut connection).await?;
        self.connection = Some(connection);
        let round_trip = TimeDelta::from_std(sent.1.elapsed()).unwrap_or(TimeDelta::MAX);
        Ok((round_trip <= ROUND_TRIP_LIMIT).then(|| sent.0 + round_trip / 2 - told))
    }

    fn away(&mut self, vitals: &Vitals, begun: Instant, failure: &Failure) {
        let since = *self.away_since.get_or_insert(begun);
        let elapsed = since.elapsed();
        let (reason, is_silent) = match failure {
            Failure::Late => ("no answer in time".to_owned(), true),
            Failure::Error(error) => {
                // A server that refuses is reachable, and closes unanswered connections itself.
                (error.to_string(), is_unreachable(error) && error.as_database_error().is_none())
            }
        };
        if since == begun {
            tracing::error!(reason, "the database does not answer");
        }
        metrics::gauge!("hookledger_store_available").set(0.0);
        vitals.trouble(NAME, format!("the database has not answered for {} s: {reason}", elapsed.as_secs()));
        if is_silent && elapsed >= OUTAGE_LIMIT {
            self.cut(|silence| silence.silent >= OUTAGE_LIMIT, elapsed >= UNTOLD_LIMIT);
        }
    }

    fn back(&mut self, vitals: &Vitals) {
        metrics::gauge!("hookledger_store_available").set(1.0);
        if let Some(since) = self.away_since.take() {
            let outage = since.elapsed();
            tracing::info!(outage_s = outage.as_secs_f64(), "the database answers again");
            vitals.fine(NAME);
            // A connection that was silent all the while may stay so forever, and would be found dead at its
            // next use.
            self.cut(|silence| silence.silent >= outage, false);
        } else if self.looked.elapsed() >= LOOK_INTERVAL || self.sockets.has_closed() {
            self.cut(|silence| silence.waiting.is_some_and(|waiting| waiting >= STATEMENT_LIMIT), false);
        }
    }

    fn cut(&mut self, is_cut: impl Fn(Silence) -> bool, untold: bool) {
        self.looked = Instant::now();
        let cut = self.sockets.cut(is_cut, untold);
        if cut > 0 {
            metrics::counter!("hookledger_store_connections_cut_total").increment(cut as u64);
            tracing::warn!(connections = cut, "closed connections to the database that got no answer");
        }
    }

    fn tell_clock(&self, vitals: &Vitals, difference: Option<TimeDelta>) {
        let Some(difference) = difference else { return };
        let was_apart = self.clock.difference().is_some_and(|earlier| earlier.abs() > CLOCK_LIMIT);
        self.clock.set(difference);
        #[expect(clippy::cast_precision_loss, reason = "for a graph")]
        let seconds = difference.num_milliseconds() as f64 / 1_000.0;
        metrics::gauge!("hookledger_clock_difference_seconds").set(seconds);
        if difference.abs() <= CLOCK_LIMIT {
            vitals.unwarn(CLOCK);
            return;
        }
        let direction = if seconds > 0.0 { "ahead of" } else { "behind" };
        let sentence = format!("this node's clock is {:.1} s {direction} the database's", seconds.abs());
        if !was_apart {
            tracing::error!(clock.difference_s = seconds, "{sentence}; synchronize both with NTP");
        }
        vitals.warn(CLOCK, sentence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_warned_about_until_they_do_not() {
        let (options, vitals) = (PgConnectOptions::new_without_pgpass(), Vitals::default());
        let watch = StoreWatch::new(options.clone(), Sockets::to(&options));
        let clock = watch.clock();
        watch.tell_clock(&vitals, None);
        assert_eq!(clock.difference(), None);
        watch.tell_clock(&vitals, Some(TimeDelta::milliseconds(-2_500)));
        assert_eq!(vitals.warnings(), ["this node's clock is 2.5 s behind the database's"]);
        watch.tell_clock(&vitals, None);
        assert_eq!(clock.difference(), Some(TimeDelta::milliseconds(-2_500)));
        watch.tell_clock(&vitals, Some(TimeDelta::minutes(10)));
        assert_eq!(vitals.warnings(), ["this node's clock is 600.0 s ahead of the database's"]);
        assert!(vitals.reasons().is_empty());
        watch.tell_clock(&vitals, Some(TimeDelta::milliseconds(3)));
        assert!(vitals.warnings().is_empty());
    }
}
