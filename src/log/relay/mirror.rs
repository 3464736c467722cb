//! The loop of the relay: ask the server how far the mirror goes, append the next events.

use std::time::Duration;

use hookledger_aggregates::Partition;
use hookledger_aggregates::ids::PARTITIONS;
use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::NAME;
use super::event::{event_id, is_same, proposed, stream_name};
use super::session::{CallError, Session, Target};
use crate::log::follow::{Checkpoints, Leases, READ_LIMIT, STATEMENT_LIMIT, within};
use crate::log::{Epoch, Heads, LogPosition, ReadError, Reader, Scope, stored_at};

/// Events per append, and their bytes: a server accepts 1 MiB at once unless configured to less.
const BATCH: i64 = 500;
const BATCH_BYTES: usize = 512 << 10;
/// Without a wake-up the relay looks at the heads this often.
const IDLE: Duration = Duration::from_millis(250);
/// Pause between rounds while acknowledgements need the machine.
const REST_UNDER_PRESSURE: Duration = Duration::from_millis(200);
/// Pause after a failure; doubled with each consecutive failure.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(250);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Interval of retries for a partition whose stream is not its mirror, because somebody may have repaired it.
const RETRY_STOPPED: Duration = Duration::from_secs(30);
/// Pause before the relay restarts.
const PAUSE: Duration = Duration::from_secs(1);
/// Interval of the progress notes for people.
const NOTE_PACE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum MirrorError {
    #[error("EventStoreDB: {0}")]
    Call(#[from] CallError),
    #[error("could not read the log: {0}")]
    Read(#[from] ReadError),
    /// The stream is not the mirror of its partition, so nothing is appended to it.
    #[error("{0}")]
    Mismatch(String),
}

impl From<sqlx::Error> for MirrorError {
    fn from(error: sqlx::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Mirrors the log, on one node at a time.
pub struct Relay {
    pub target: Target,
    pub pool: PgPool,
    pub heads: Heads,
    pub leases: Leases,
}

/// Knowledge of the mirror of one partition.
struct Mirrored {
    partition: Partition,
    /// Number of events in the stream. Certain if `verified`, otherwise the last known number.
    position: i64,
    /// This session compared the server's last event with the log, or wrote it.
    verified: bool,
    stopped: Option<Stopped>,
}

struct Stopped {
    until: Instant,
    reason: String,
}

impl Mirrored {
    fn waits(&self) -> bool {
        self.stopped.as_ref().is_some_and(|stopped| Instant::now() < stopped.until)
    }
}

/// A node's knowledge while it holds the lease.
struct Progress {
    /// Epoch of the lease.
    epoch: i64,
    /// Epoch of the log in which the mirror was compared with it.
    log_epoch: Epoch,
    mirrored: Vec<Mirrored>,
    session: Option<Session>,
    /// The partition that the next round begins with, so that a failing one does not starve the others.
    first: usize,
    noted_at: Option<Instant>,
}

impl Relay {
    /// Mirrors until stopped, whenever it holds the lease.
    pub async fn run(self, stop: CancellationToken) {
        while let Some(lease) = stop.run_until_cancelled(self.leases.want(NAME)).await {
            // Safe to interrupt anywhere: the server knows how far the mirror goes.
            tokio::select! {
                () = stop.cancelled() => {}
                () = lease.lost() => {}
                error = self.mirror(lease.epoch) => tracing::warn!(%error, "the relay failed; restarting it"),
            }
            metrics::gauge!("hookledger_relay_lag_events").set(0);
            lease.release().await;
            let _ = stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
        }
    }

    /// Mirrors forever, unless PostgreSQL fails at the beginning.
    async fn mirror(&self, epoch: i64) -> sqlx::Error {
        let mut progress = match self.start(epoch).await {
            Ok(progress) => progress,
            Err(error) => return error,
        };
        let mut wake = self.heads.wake(Scope::All);
        let mut failures = 0;
        loop {
            let round = self.round(&mut progress).await;
            self.tell(&mut progress).await;
            match round {
                Ok(0) => wake.wait(IDLE).await,
                Ok(_) => {
                    failures = 0;
                    if self.heads.pressure.is_high() {
                        tokio::time::sleep(REST_UNDER_PRESSURE).await;
                    }
                }
                Err((copied, error)) => {
                    // The client's state is unknown, so the next session gets a new client and asks the
                    // server again.
                    progress.session = None;
                    for mirrored in &mut progress.mirrored {
                        mirrored.verified = false;
                    }
                    failures = if copied == 0 { failures + 1 } else { 1 };
                    let pause = backoff(failures);
                    metrics::counter!("hookledger_relay_failures_total").increment(1);
                    tracing::warn!(
                        %error, relay.again_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                        "the relay failed; retrying"
                    );
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn start(&self, epoch: i64) -> Result<Progress, sqlx::Error> {
        let checkpoints = Checkpoints::new(self.pool.clone());
        let checkpoints = within(STATEMENT_LIMIT, checkpoints.load(NAME)).await?;
        within(STATEMENT_LIMIT, self.heads.refresh(&self.pool)).await?;
        let known = |partition| checkpoints.iter().find(|place| place.partition == partition);
        let mirrored = Partition::all()
            .map(|partition| Mirrored {
                partition,
                position: known(partition).map_or(0, |place| place.position),
                verified: false,
                stopped: None,
            })
            .collect();
        Ok(Progress { epoch, log_epoch: self.heads.epoch(), mirrored, session: None, first: 0, noted_at: None })
    }

    /// Copies a batch of every partition with new events. Returns the number of copied events, also in the
    /// error.
    async fn round(&self, progress: &mut Progress) -> Result<usize, (usize, MirrorError)> {
        let log_epoch = self.heads.epoch();
        if log_epoch != progress.log_epoch {
            progress.log_epoch = log_epoch;
            progress.mirrored.iter_mut().for_each(|mirrored| mirrored.verified = false);
        }
        let heads = self.heads.now();
        let (first, mut copied) = (progress.first, 0);
        for offset in 0..usize::from(PARTITIONS) {
            let index = (first + offset) % usize::from(PARTITIONS);
            let mirrored = &mut progress.mirrored[index];
            let is_behind = !mirrored.verified || heads[mirrored.partition.index()] > mirrored.position;
            if !is_behind || mirrored.waits() {
                continue;
            }
            let done = match &progress.session {
                Some(session) => self.copy(session, mirrored).await,
                None => match Session::open(&self.target).await {
                    Ok(session) => self.copy(progress.session.insert(session), mirrored).await,
                    Err(error) => Err(error.into()),
                },
            };
            match done {
                Ok(count) => {
                    mirrored.stopped = None;
                    copied += count;
                    metrics::counter!("hookledger_relay_events_total").increment(count as u64);
                }
                Err(MirrorError::Mismatch(reason)) => stop(mirrored, reason),
                Err(error) => {
                    progress.first = (index + 1) % usize::from(PARTITIONS);
                    return Err((copied, error));
                }
            }
        }
        Ok(copied)
    }

    /// Appends the next events of a partition to its mirror, up to a batch.
    async fn copy(&self, session: &Session, mirrored: &mut Mirrored) -> Result<usize, MirrorError> {
        let partition = mirrored.partition;
        if !mirrored.verified {
            mirrored.position = self.verify(session, partition).await?;
            mirrored.verified = true;
        }
        let position = mirrored.position;
        let events = self.next(LogPosition { partition, position }).await?;
        let Some(count) = i64::try_from(events.len()).ok().filter(|count| *count > 0) else { return Ok(0) };
        // Nothing is certain until the answer confirms it.
        mirrored.verified = false;
        match session.append(stream_name(partition), revision(position), events).await {
            Ok(last) if Some(last) == revision(position + count) => {
                mirrored.position += count;
                mirrored.verified = true;
                Ok(usize::try_from(count).unwrap_or_default())
            }
            Ok(last) => Err(MirrorError::Mismatch(format!(
                "the server appended events at another revision than {position} and after: the last is {last}"
            ))),
            // The stream has grown if an append that was given up succeeded after all.
            Err(CallError::Refused(refusal)) => match self.verify(session, partition).await? {
                there if there == position => Err(MirrorError::Mismatch(format!(
                    "the server refuses the next event, at position {}: {refusal}",
                    position + 1
                ))),
                there => {
                    mirrored.position = there;
                    mirrored.verified = true;
                    Ok(0)
                }
            },
            Err(CallError::Deleted) => Err(deleted()),
            Err(error) => Err(error.into()),
        }
    }

    /// Compares the stream's last event with the log; returns the number of events in the stream.
    async fn verify(&self, session: &Session, partition: Partition) -> Result<i64, MirrorError> {
        let last = match session.last(stream_name(partition)).await {
            Ok(Some(last)) => last,
            Ok(None) => return Ok(0),
            Err(CallError::Deleted) => return Err(deleted()),
            Err(error) => return Err(error.into()),
        };
        let position = i64::try_from(last.revision).unwrap_or(i64::MAX).saturating_add(1);
        let ours = within(STATEMENT_LIMIT, stored_at(&self.pool, None, partition, &[position])).await?;
        let Some(ours) = ours.first() else {
            return Err(MirrorError::Mismatch(format!(
                "the stream goes up to revision {}, and the log has no event at position {position}: the log was \
                 restored to an earlier state, or the stream belongs to another log",
                last.revision
            )));
        };
        if is_same(partition, ours, &last) {
            return Ok(position);
        }
        Err(MirrorError::Mismatch(format!(
            "the last event of the stream, revision {} with id {}, is not the event at position {position} of the log, \
             which has id {}",
            last.revision,
            last.id,
            event_id(partition, position)
        )))
    }

    /// The events after a log position, as many as the server accepts at once.
    async fn next(&self, after: LogPosition) -> Result<Vec<eventstore::EventData>, MirrorError> {
        let partition = after.partition;
        let reader = Reader::new(self.pool.clone());
        let cursors = [after];
        let read = reader.stored_after(&cursors, BATCH, |_, event| proposed(partition, &event));
        let read = within(READ_LIMIT, read).await?;
        let (mut events, mut bytes) = (Vec::with_capacity(read.events.len()), 0);
        for event in read.events {
            let (event, size) = event.map_err(|error| {
                let position = after.position + 1;
                MirrorError::Mismatch(format!("an event at position {position} or after is not JSON: {error}"))
            })?;
            bytes += size;
            if bytes > BATCH_BYTES && !events.is_empty() {
                break;
            }
            events.push(event);
        }
        Ok(events)
    }

    /// Updates metrics and the rows that people see.
    async fn tell(&self, progress: &mut Progress) {
        let heads = self.heads.now();
        let lag: i64 = progress.mirrored.iter().map(|m| (heads[m.partition.index()] - m.position).max(0)).sum();
        let stopped = progress.mirrored.iter().filter(|m| m.stopped.is_some()).count();
        #[expect(clippy::cast_precision_loss, reason = "for a graph")]
        metrics::gauge!("hookledger_relay_lag_events").set(lag as f64);
        metrics::gauge!("hookledger_relay_stopped_partitions").set(u32::try_from(stopped).unwrap_or(u32::MAX));
        if progress.noted_at.is_some_and(|at| at.elapsed() < NOTE_PACE) {
            return;
        }
        progress.noted_at = Some(Instant::now());
        let places: Vec<LogPosition> =
            progress.mirrored.iter().map(|m| LogPosition { partition: m.partition, position: m.position }).collect();
        let reasons: Vec<Option<String>> =
            progress.mirrored.iter().map(|m| m.stopped.as_ref().map(|stopped| stopped.reason.clone())).collect();
        let checkpoints = Checkpoints::new(self.pool.clone());
        let note = checkpoints.note(NAME, progress.epoch, &places, &reasons);
        if let Err(error) = within(STATEMENT_LIMIT, note).await {
            tracing::warn!(%error, "could not record the relay's progress");
        }
    }
}

/// The revision of the event at a position; none before the first.
fn revision(position: i64) -> Option<u64> {
    u64::try_from(position).ok()?.checked_sub(1)
}

fn deleted() -> MirrorError {
    MirrorError::Mismatch("the stream was deleted permanently and accepts no more events".to_owned())
}

fn stop(mirrored: &mut Mirrored, reason: String) {
    tracing::error!(
        log.partition = %mirrored.partition, relay.stream = stream_name(mirrored.partition), reason,
        "the relay stopped at a stream that does not mirror its partition; it wrote nothing to the stream"
    );
    metrics::counter!("hookledger_relay_stops_total").increment(1);
    mirrored.verified = false;
    mirrored.stopped = Some(Stopped { until: Instant::now() + RETRY_STOPPED, reason });
}

fn backoff(failures: u32) -> Duration {
    (SHORTEST_BACKOFF * 2_u32.saturating_pow(failures.saturating_sub(1).min(10))).min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end_at_half_a_minute() {
        let waits = [1, 2, 3, 9, 1_000].map(|n| backoff(n).as_millis());
        assert_eq!(waits, [250, 500, 1_000, 30_000, 30_000]);
    }

    #[test]
    fn a_position_is_one_more_than_its_revision() {
        assert_eq!([0, 1, 2].map(revision), [None, Some(0), Some(1)]);
    }
}
