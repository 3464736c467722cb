//! Flushing until the outcome is known. While somebody waits, it bridges a restart of the database, a dead
//! connection and an answer that never came.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::error::DatabaseError;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};
use uuid::Uuid;

use super::batch::{Flush, Verdict, Verdicts, append, append_checked, recorded};
use super::heads::{Epoch, Heads};
use super::limits;
use super::unit::Unit;
use super::writer::AppendError;
use crate::platform::vitals::Vitals;

/// Name under which `/readyz` reports it.
const NAME: &str = "append";
/// How long one try may take, plus the time for its bytes. A second try then starts beside it, and waits for
/// the first one in the database.
const TRY_LIMIT: Duration = Duration::from_millis(1_500);
/// Bytes per second that the connection to the database is assumed to carry.
const PACE: usize = 2 << 20;
/// How long connecting may take. Most connections come at once, and one that was requested while the network
/// was cut off would otherwise hold up the flush for long. Every second try may take longer.
const CONNECT_LIMITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1_500)];
/// Pauses before the second and later tries; the last one repeats.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
];
/// Number of flushes that are checked after a conflict, because conflicts come in bursts.
const CAREFUL_FLUSHES: u32 = 4;
/// SQLSTATE when no reading of the time agrees with the database's clock; nothing was appended.
const WRONG_CLOCK: &str = "HL002";

const TROUBLE: &str = "the log cannot commit: the last flush failed; see the server's log";
const TROUBLE_WITH_CLOCK: &str = "nothing is appended: the database's clock is minutes away from the last event and from this node's \
     clock; set it right";

/// The current time; the node's own clock except in tests.
pub(super) type Now = fn() -> DateTime<Utc>;

/// The writer's connection and its state.
pub(super) struct Flusher {
    pool: PgPool,
    heads: Heads,
    vitals: Vitals,
    connection: Option<Connected>,
    careful: u32,
    now: Now,
    /// Time of the database's clock when the clocks last agreed, and the moment of that agreement.
    agreed: Option<(DateTime<Utc>, Instant)>,
    ails: bool,
}

/// A connection and the epoch of the log that it leads to.
struct Connected {
    connection: PoolConnection<Postgres>,
    epoch: Epoch,
}

/// Outcome of a flush.
pub(super) struct Flushed {
    pub(super) verdicts: Result<Verdicts, AppendError>,
    /// Whether its duration says nothing about how long flushes take.
    pub(super) is_unusual: bool,
    /// Epoch of the log that was appended to.
    pub(super) epoch: Epoch,
    /// The database's clock as the flush read it; nothing where the verdicts are of several.
    pub(super) clock: Option<DateTime<Utc>>,
}

/// Whether somebody still waits.
type IsWorthWhile<'a> = &'a (dyn Fn() -> bool + Send + Sync);

/// Outcome of one try.
struct Tried {
    epoch: Epoch,
    /// `None` if some units are void in this epoch, and so nothing was committed.
    committed: Option<(DateTime<Utc>, Verdicts)>,
}

/// Whether the unit was decided in another epoch.
fn is_void(unit: &Unit, epoch: Epoch) -> bool {
    unit.epoch.is_some_and(|decided| decided != epoch)
}

impl Flusher {
    pub(super) fn new(pool: PgPool, heads: Heads, vitals: Vitals, now: Now) -> Self {
        Self { pool, heads, vitals, connection: None, careful: 0, now, agreed: None, ails: false }
    }

    /// Whether the last flush failed.
    pub(super) fn ails(&self) -> bool {
        self.ails
    }

    /// Checks whether the log commits again.
    pub(super) async fn probe(&mut self) {
        self.flush(&[], &|| false).await;
    }

    /// Flushes, with retries for as long as somebody waits.
    pub(super) async fn flush(&mut self, units: &[Unit], is_worth_while: IsWorthWhile<'_>) -> Flushed {
        let mut flush = Flush { id: Uuid::now_v7(), clocks: Vec::new() };
        for tries in 0.. {
            flush.clocks = self.clocks();
            let (told, is_late) = match self.attempt(&flush, units, CONNECT_LIMITS[tries % 2]).await {
                Ok(Tried { epoch, committed: Some((recorded_at, verdicts)) }) => {
                    self.agreed = Some((recorded_at, Instant::now()));
                    self.recover();
                    return Flushed { verdicts: Ok(verdicts), is_unusual: tries > 0, epoch, clock: Some(recorded_at) };
                }
                Ok(Tried { epoch, committed: None }) => return self.flush_valid(units, epoch, is_worth_while).await,
                Err(Failure::Database(error)) if has_code(&error, WRONG_CLOCK) => {
                    tracing::error!(%error, "nothing is appended until the clock is corrected");
                    self.fall_ill(TROUBLE_WITH_CLOCK);
                    return self.failed(AppendError::Overloaded);
                }
                Err(Failure::Database(error)) if lasts(&error) => {
                    tracing::error!(%error, log.units = units.len(), "the log could not commit");
                    break;
                }
                Err(Failure::Database(error)) => (error.to_string(), false),
                Err(Failure::Late) => ("no answer in time".to_owned(), true),
            };
            self.abandon_connection();
            // A first failure most likely comes from an idle connection.
            if is_late || tries > 0 {
                self.fall_ill(TROUBLE);
            }
            if !is_worth_while() {
                tracing::error!(error = told, log.units = units.len(), "the log could not commit");
                break;
            }
            tracing::warn!(error = told, log.units = units.len(), "the log did not commit; retrying");
            tokio::time::sleep(PAUSES[tries.min(PAUSES.len() - 1)]).await;
        }
        metrics::counter!("hookledger_append_failures_total").increment(1);
        self.abandon_connection();
        self.fall_ill(TROUBLE);
        self.failed(AppendError::Failed)
    }

    fn failed(&self, error: AppendError) -> Flushed {
        Flushed { verdicts: Err(error), is_unusual: true, epoch: self.heads.epoch(), clock: None }
    }

    /// Flushes the units that are valid in this epoch; the others are decided again, as after any other
    /// conflict. This is another flush with an ID of its own, because a record states the outcome of all its
    /// units.
    async fn flush_valid(&mut self, units: &[Unit], epoch: Epoch, is_worth_while: IsWorthWhile<'_>) -> Flushed {
        let valid: Vec<Unit> = units.iter().filter(|unit| !is_void(unit, epoch)).cloned().collect();
        let Flushed { verdicts, epoch: last, .. } = Box::pin(self.flush(&valid, is_worth_while)).await;
        let verdicts = verdicts.map(|verdicts| {
            let mut verdicts = verdicts.into_iter();
            let verdict = |unit| if is_void(unit, epoch) { None } else { verdicts.next() };
            units.iter().map(verdict).map(|verdict| verdict.unwrap_or(Verdict::Conflict)).collect()
        });
        Flushed { verdicts, is_unusual: true, epoch: last, clock: None }
    }

    /// Closes the connection whatever its state, without waiting.
    pub(super) fn abandon_connection(&mut self) {
        if let Some(Connected { connection, .. }) = self.connection.take() {
            drop(connection.detach());
        }
    }

    async fn attempt(&mut self, flush: &Flush, units: &[Unit], connect_limit: Duration) -> Result<Tried, Failure> {
        let now = self.heads.epoch();
        if self.connection.as_ref().is_some_and(|connected| connected.epoch != now) {
            self.abandon_connection();
        }
        let epoch = match &self.connection {
            Some(connected) => connected.epoch,
            None => tokio::time::timeout(connect_limit, self.connect()).await.map_err(|_| Failure::Late)??,
        };
        let weight: usize = units.iter().map(Unit::weight).sum();
        let limit = TRY_LIMIT + Duration::from_millis((weight / (PACE / 1_000)) as u64);
        let trying = async {
            if units.iter().any(|unit| is_void(unit, epoch)) {
                // An earlier try may have been committed in this epoch as well.
                recorded(self.connected()?, flush, units).await
            } else {
                self.try_flush(flush, units).await.map(Some)
            }
        };
        let committed = tokio::time::timeout(limit, trying).await.map_err(|_| Failure::Late)??;
        Ok(Tried { epoch, committed })
    }

    fn connected(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection.as_mut().map(|connected| &mut *connected.connection).ok_or(sqlx::Error::PoolClosed)
    }

    async fn connect(&mut self) -> Result<Epoch, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        match self.heads.refresh_on(&mut connection).await {
            Ok(epoch) => {
                self.connection = Some(Connected { connection, epoch });
                Ok(epoch)
            }
            Err(error) => {
                drop(connection.detach());
                Err(error.into())
            }
        }
    }

    async fn try_flush(&mut self, flush: &Flush, units: &[Unit]) -> Result<(DateTime<Utc>, Verdicts), sqlx::Error> {
        if self.careful == 0 && !units.iter().any(Unit::needs_placing) {
            match append(self.connected()?, flush, units).await {
                Err(error) if needs_care(&error) => self.careful = CAREFUL_FLUSHES,
                other => return other,
            }
        }
        self.careful = self.careful.saturating_sub(1);
        append_checked(self.connected()?, flush, units).await
    }

    /// The node's clock, and the database's clock as extrapolated from the last agreement by monotonic time.
    fn clocks(&self) -> Vec<DateTime<Utc>> {
        let expected =
            self.agreed.and_then(|(time, since)| time.checked_add_signed(TimeDelta::from_std(since.elapsed()).ok()?));
        std::iter::once((self.now)()).chain(expected).collect()
    }

    fn fall_ill(&mut self, sentence: &str) {
        self.ails = true;
        self.vitals.trouble(NAME, sentence);
    }

    fn recover(&mut self) {
        if std::mem::take(&mut self.ails) {
            tracing::info!("the log commits again");
            self.vitals.fine(NAME);
        }
    }
}

enum Failure {
    Database(sqlx::Error),
    Late,
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// Whether it is a conflict or a limit that the batch exceeds.
fn needs_care(error: &sqlx::Error) -> bool {
    has_code(error, limits::REACHED) || error.as_database_error().is_some_and(DatabaseError::is_unique_violation)
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|its| its == code)
}

/// Whether another try would fail in the same way: the data (classes 22 and 23), the schema or the privileges
/// (42) are wrong, or the protocol is. Everything else passes: a restart, a broken connection, a full disk, a
/// read-only server.
fn lasts(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["22", "23", "42"].iter().any(|class| code.starts_with(class)))
        }
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => false,
        _ => true,
    }
}
