//! Flushing, until it is known what became of it: a database that restarts, a connection that turns out
//! dead, an answer that never came are bridged while somebody waits.

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

/// Under this name `/readyz` tells of it.
const NAME: &str = "append";
/// How long one try may take beside the time for its bytes: then it is tried again beside the first,
/// and waits for that one in the database.
const TRY_LIMIT: Duration = Duration::from_millis(1_500);
/// Bytes a second that the way to the database carries at least.
const PACE: usize = 2 << 20;
/// How long a connection may take: most come at once, and one that was asked for while the network was
/// cut would be waited for long after that. Every other time it may take longer.
const CONNECT_LIMITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1_500)];
/// Pauses before the second try and so on; the last one repeats.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
];
/// Flushes that are checked after one met a conflict: conflicts come in bursts.
const CAREFUL_FLUSHES: u32 = 4;
/// SQLSTATE where nothing agrees with the database's clock; nothing was appended.
const WRONG_CLOCK: &str = "HL002";

const TROUBLE: &str = "the log cannot commit: the last flush failed; see the server's log";
const TROUBLE_WITH_CLOCK: &str = "nothing is appended: the database's clock is minutes away from the last event and from this node's \
     clock; set it right";

/// A time that is told, which is the node's own clock but in tests.
pub(super) type Now = fn() -> DateTime<Utc>;

/// The writer's connection, and what it takes to use it.
pub(super) struct Flusher {
    pool: PgPool,
    heads: Heads,
    vitals: Vitals,
    connection: Option<Connected>,
    careful: u32,
    now: Now,
    /// What the database's clock said when it was last agreed with, and when that was.
    agreed: Option<(DateTime<Utc>, Instant)>,
    ails: bool,
}

/// A connection, and which history of the log it leads to.
struct Connected {
    connection: PoolConnection<Postgres>,
    epoch: Epoch,
}

/// What a flush came to.
pub(super) struct Flushed {
    pub(super) verdicts: Result<Verdicts, AppendError>,
    /// Whether it says nothing of how long flushes take.
    pub(super) is_unusual: bool,
    /// Which history of the log was appended to.
    pub(super) epoch: Epoch,
}

/// Whether somebody still waits.
type IsWorthWhile<'a> = &'a (dyn Fn() -> bool + Send + Sync);

/// What a try came to.
struct Tried {
    epoch: Epoch,
    /// Nothing where some units are void in this epoch, and nothing was committed.
    committed: Option<(DateTime<Utc>, Verdicts)>,
}

/// Whether it was decided on another history of the log.
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

    /// Whether the log commits again.
    pub(super) async fn probe(&mut self) {
        self.flush(&[], &|| false).await;
    }

    /// Flushes, again and again while that is worth while.
    pub(super) async fn flush(&mut self, units: &[Unit], is_worth_while: IsWorthWhile<'_>) -> Flushed {
        let mut flush = Flush { id: Uuid::now_v7(), clocks: Vec::new() };
        for tries in 0.. {
            flush.clocks = self.clocks();
            let (told, is_late) = match self.attempt(&flush, units, CONNECT_LIMITS[tries % 2]).await {
                Ok(Tried { epoch, committed: Some((recorded_at, verdicts)) }) => {
                    self.agreed = Some((recorded_at, Instant::now()));
                    self.recover();
                    return Flushed { verdicts: Ok(verdicts), is_unusual: tries > 0, epoch };
                }
                Ok(Tried { epoch, committed: None }) => return self.flush_valid(units, epoch, is_worth_while).await,
                Err(Failure::Database(error)) if has_code(&error, WRONG_CLOCK) => {
                    tracing::error!(%error, "nothing is appended until the clock is right");
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
            // A first failure is most likely that of a connection that was idle.
            if is_late || tries > 0 {
                self.fall_ill(TROUBLE);
            }
            if !is_worth_while() {
                tracing::error!(error = told, log.units = units.len(), "the log could not commit");
                break;
            }
            tracing::warn!(error = told, log.units = units.len(), "the log did not commit; trying again");
            tokio::time::sleep(PAUSES[tries.min(PAUSES.len() - 1)]).await;
        }
        metrics::counter!("hookledger_append_failures_total").increment(1);
        self.abandon_connection();
        self.fall_ill(TROUBLE);
        self.failed(AppendError::Failed)
    }

    fn failed(&self, error: AppendError) -> Flushed {
        Flushed { verdicts: Err(error), is_unusual: true, epoch: self.heads.epoch() }
    }

    /// Flushes what was not decided on another history of the log; the rest is decided again, as after any
    /// other conflict. It is another flush, with an id of its own: a record says what became of all units.
    async fn flush_valid(&mut self, units: &[Unit], epoch: Epoch, is_worth_while: IsWorthWhile<'_>) -> Flushed {
        let valid: Vec<Unit> = units.iter().filter(|unit| !is_void(unit, epoch)).cloned().collect();
        let Flushed { verdicts, epoch: last, .. } = Box::pin(self.flush(&valid, is_worth_while)).await;
        let verdicts = verdicts.map(|verdicts| {
            let mut verdicts = verdicts.into_iter();
            let verdict = |unit| if is_void(unit, epoch) { None } else { verdicts.next() };
            units.iter().map(verdict).map(|verdict| verdict.unwrap_or(Verdict::Conflict)).collect()
        });
        Flushed { verdicts, is_unusual: true, epoch: last }
    }

    /// Closes the connection, whatever state it is in, and waits for nobody.
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
                // An earlier try may have been committed, in this history too.
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

    /// The node's clock, and what the database's should say by how much time has passed since it was
    /// agreed with, whatever the node's says.
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

/// A conflict or a limit that not all of the batch fits in.
fn needs_care(error: &sqlx::Error) -> bool {
    has_code(error, limits::REACHED) || error.as_database_error().is_some_and(DatabaseError::is_unique_violation)
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|its| its == code)
}

/// Whether trying again would end the same way: what is wrong are the data (classes 22 and 23), the
/// schema or the rights (42), or what is said to the database and read from it. Everything else
/// passes: a restart, a connection that breaks, a full disk, a server that only reads for now.
fn lasts(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["22", "23", "42"].iter().any(|class| code.starts_with(class)))
        }
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => false,
        _ => true,
    }
}
