//! Commits: the consecutive events that one unit appends to one stream, as a row of `commits` holds them.
//!
//! `data` has a line for each event: type, version, payload, and metadata where it is not that of the commit, separated
//! by tabs. JSON needs neither tabs nor line breaks, so nothing is escaped, and the view `events` splits what is here.

use std::borrow::Cow;
use std::collections::HashMap;

use chrono::{DateTime, Utc};
use hookledger_aggregates::event::DecodeError;
use hookledger_aggregates::{Event, Metadata, OrganizationId, Partition, RecordedEvent};
use serde_json::value::RawValue;
use sqlx::Row as _;
use sqlx::postgres::{PgRow, PgValueFormat};
use uuid::Uuid;

use super::read::ReadError;
use super::stored_event::StoredEvent;
use super::unit::{LogPosition, NewEvent, Sequence, Unit};

/// Events of one commit at most; `commits.events` has the same limit. Readers that look for the commit that holds a
/// position look back by as much.
pub(super) const MOST: usize = 100;

/// The columns of a row `c` of `commits` that [`Commit::of`] reads.
pub(super) const COLUMNS: &str = "c.partition, c.position, c.events, c.organization_id, c.aggregate_type, c.stream_id, \
                                  c.first_sequence, c.recorded_at, c.metadata, c.data";

/// Microseconds from 1970 to 2000, where the timestamps of PostgreSQL begin.
const EPOCH: i64 = 946_684_800_000_000;

/// A commit to append.
pub(super) struct NewCommit<'a> {
    /// The commit is where its first event is, and has its metadata.
    pub(super) first: &'a NewEvent,
    /// How many.
    pub(super) events: i16,
    pub(super) data: String,
}

impl<'a> NewCommit<'a> {
    /// The commits of a unit, in order.
    pub(super) fn all_of(unit: &'a Unit) -> impl Iterator<Item = Self> {
        let runs = unit.events.chunk_by(goes_on).flat_map(|run| run.chunks(MOST));
        runs.filter_map(|events| {
            Some(Self { first: events.first()?, events: events.len().try_into().ok()?, data: data_of(events) })
        })
    }
}

/// Whether one event is in the same commit as the one before it. Administrative events have commits of their own,
/// which an index finds by their first event.
fn goes_on(before: &NewEvent, event: &NewEvent) -> bool {
    let follows = match (before.sequence, event.sequence) {
        (Sequence::At(before), Sequence::At(sequence)) => sequence == before + 1,
        (Sequence::End, Sequence::End) => true,
        _ => false,
    };
    follows
        && before.aggregate_id == event.aggregate_id
        && before.aggregate_type == event.aggregate_type
        && before.partition == event.partition
        && before.organization == event.organization
        && before.is_administrative() == event.is_administrative()
}

fn data_of(events: &[NewEvent]) -> String {
    let size: usize = events.iter().map(|event| event.payload.len() + event.event_type.len() + 16).sum();
    let mut data = String::with_capacity(size);
    for event in events {
        if !data.is_empty() {
            data.push('\n');
        }
        data.extend([event.event_type.as_str(), "\t", event.event_version.as_str(), "\t"]);
        data.push_str(&on_one_line(&event.payload));
        if events.first().is_some_and(|first| first.metadata != event.metadata) {
            data.push('\t');
            data.push_str(&on_one_line(&event.metadata));
        }
    }
    data
}

/// JSON without the tabs and line breaks that may be between its tokens: within a string they are escaped.
fn on_one_line(json: &str) -> Cow<'_, str> {
    if json.bytes().any(|byte| byte == b'\t' || byte == b'\n') {
        json.replace(['\t', '\n'], " ").into()
    } else {
        json.into()
    }
}

/// A commit as its row holds it.
pub(super) struct Commit<'r> {
    partition: i32,
    /// Of its first event.
    pub(super) position: i64,
    /// How many events it should have.
    pub(super) events: i16,
    pub(super) organization: Uuid,
    pub(super) aggregate_type: &'r str,
    pub(super) stream: Uuid,
    aggregate_id: String,
    first_sequence: i64,
    /// Microseconds since 1970.
    recorded_at: i64,
    metadata: &'r str,
    data: &'r str,
}

/// An event within its commit.
#[derive(Clone, Copy)]
pub(super) struct Line<'r> {
    pub(super) position: i64,
    pub(super) sequence: i64,
    pub(super) event_type: &'r str,
    event_version: &'r str,
    payload: &'r str,
    metadata: &'r str,
    /// There is text after its metadata, which no unit writes.
    pub(super) goes_on: bool,
}

impl<'r> Commit<'r> {
    pub(super) fn of(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        let stream: Uuid = row.try_get("stream_id")?;
        let first_sequence: i32 = row.try_get("first_sequence")?;
        Ok(Self {
            partition: row.try_get("partition")?,
            position: row.try_get("position")?,
            events: row.try_get("events")?,
            organization: row.try_get("organization_id")?,
            aggregate_type: row.try_get("aggregate_type")?,
            stream,
            aggregate_id: stream.to_string(),
            first_sequence: first_sequence.into(),
            recorded_at: microseconds(row, "recorded_at")?,
            metadata: row.try_get("metadata")?,
            data: row.try_get("data")?,
        })
    }

    /// Orders commits as the log does.
    pub(super) fn key(&self) -> (i32, i64) {
        (self.partition, self.position)
    }

    pub(super) fn partition(&self) -> Result<Partition, sqlx::Error> {
        Partition::new(self.partition).ok_or_else(|| column_error("partition", &self.partition.to_string()))
    }

    /// Its events in order. What a superuser has put there is read as far as it goes: a part that is missing is empty.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line<'r>> + use<'r> {
        let (position, sequence, metadata) = (self.position, self.first_sequence, self.metadata);
        (0..).zip(self.data.split('\n')).map(move |(number, line)| {
            let mut parts = line.split('\t');
            let mut part = || parts.next().unwrap_or_default();
            let (event_type, event_version, payload, own) = (part(), part(), part(), part());
            Line {
                position: position.saturating_add(number),
                sequence: sequence.saturating_add(number),
                event_type,
                event_version,
                payload,
                metadata: if own.is_empty() { metadata } else { own },
                goes_on: parts.next().is_some(),
            }
        })
    }

    /// The events after a position.
    pub(super) fn after(&self, position: i64) -> impl Iterator<Item = Line<'r>> + use<'r> {
        self.lines().filter(move |line| line.position > position)
    }

    /// As a leaf of the ledger has it.
    pub(super) fn stored<'a>(&'a self, line: &Line<'a>) -> StoredEvent<&'a str> {
        StoredEvent {
            organization: self.organization,
            partition: self.partition,
            position: line.position,
            sequence: line.sequence,
            recorded_at: self.recorded_at,
            aggregate_type: self.aggregate_type,
            aggregate_id: &self.aggregate_id,
            event_type: line.event_type,
            event_version: line.event_version,
            payload: line.payload,
            metadata: line.metadata,
        }
    }

    /// The decoded event.
    pub(super) fn decode(&self, line: &Line<'_>) -> Result<RecordedEvent, ReadError> {
        decode(self.partition()?, self.stream, &self.stored(line))
    }

    /// Where one of its events is.
    pub(super) fn place(&self, line: &Line<'_>) -> Result<LogPosition, sqlx::Error> {
        Ok(LogPosition { partition: self.partition()?, position: line.position })
    }
}

/// The events of rows of `commits`, in the order of the rows; those that are wanted.
pub(super) fn events(
    rows: &[PgRow],
    is_wanted: impl Fn(&Commit<'_>, &Line<'_>) -> bool,
) -> Result<Vec<RecordedEvent>, ReadError> {
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        let commit = Commit::of(row)?;
        for line in commit.lines().filter(|line| is_wanted(&commit, line)) {
            events.push(commit.decode(&line)?);
        }
    }
    Ok(events)
}

pub(super) fn column_error(column: &'static str, value: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("commits.{column} has the invalid value {value:?}").into())
}

/// A superuser can put `infinity` into a time: it must be read all the same.
fn microseconds(row: &PgRow, column: &str) -> Result<i64, sqlx::Error> {
    let value = row.try_get_raw(column)?;
    let wrong = || sqlx::Error::Decode("commits.recorded_at is not a time in PostgreSQL's binary form".into());
    if value.format() != PgValueFormat::Binary {
        return Err(wrong());
    }
    let bytes = value.as_bytes().map_err(sqlx::Error::Decode)?;
    let since_2000 = i64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?);
    Ok(since_2000.saturating_add(EPOCH))
}

/// The decoded form of a stored event.
pub(super) fn decode(
    partition: Partition,
    stream: Uuid,
    stored: &StoredEvent<&str>,
) -> Result<RecordedEvent, ReadError> {
    let broken = |source| ReadError::Decode { partition, position: stored.position, source };
    let unread = |source| broken(DecodeError::Payload { event_type: stored.event_type.to_owned(), source });
    let payload: &RawValue = serde_json::from_str(stored.payload).map_err(unread)?;
    let event =
        Event::decode(stored.aggregate_type, stored.event_type, stored.event_version, payload).map_err(broken)?;
    let metadata: HashMap<String, String> = serde_json::from_str(stored.metadata).map_err(unread)?;
    Ok(RecordedEvent {
        partition,
        position: stored.position,
        organization: OrganizationId::new(stored.organization),
        aggregate_id: stream,
        sequence: stored.sequence,
        event,
        metadata: Metadata::from_map(&metadata),
        recorded_at: DateTime::<Utc>::from_timestamp_micros(stored.recorded_at).ok_or_else(|| {
            broken(DecodeError::Column {
                table: "commits",
                column: "recorded_at",
                value: stored.recorded_at.to_string(),
            })
        })?,
    })
}

#[cfg(test)]
mod tests {
    use hookledger_aggregates::WebhookId;

    use super::*;

    fn event(sequence: Sequence, event_type: &str, metadata: &str) -> NewEvent {
        let organization = OrganizationId::new(Uuid::from_u128(1));
        NewEvent {
            partition: organization.partition(),
            organization,
            aggregate_type: "webhook",
            aggregate_id: WebhookId::new(Uuid::from_u128(2)).uuid(),
            sequence,
            event_type: event_type.to_owned(),
            event_version: "1".to_owned(),
            payload: "{\n\t\"a\": \"\\n\"\n}".to_owned(),
            metadata: metadata.to_owned(),
        }
    }

    fn commits(events: Vec<NewEvent>) -> Vec<(Sequence, i16, String)> {
        let unit = Unit::new(events);
        NewCommit::all_of(&unit).map(|commit| (commit.first.sequence, commit.events, commit.data)).collect()
    }

    #[test]
    fn a_commit_is_a_line_for_each_event_and_repeats_no_metadata() {
        let events = vec![event(Sequence::At(1), "a.b", "{}"), event(Sequence::At(2), "a.c", r#"{"x":"y"}"#)];
        let data = "a.b\t1\t{  \"a\": \"\\n\" }\na.c\t1\t{  \"a\": \"\\n\" }\t{\"x\":\"y\"}";
        assert_eq!(commits(events), [(Sequence::At(1), 2, data.to_owned())]);
    }

    #[test]
    fn only_consecutive_events_of_one_stream_and_kind_share_a_commit() {
        let other = NewEvent { aggregate_id: Uuid::from_u128(3), ..event(Sequence::At(1), "a", "{}") };
        let sizes = |events| commits(events).into_iter().map(|(first, events, _)| (first, events)).collect::<Vec<_>>();
        let at = |sequence| event(Sequence::At(sequence), "a", "{}");
        let end = || event(Sequence::End, "a", "{}");
        assert_eq!(sizes(vec![at(3), at(4), at(6)]), [(Sequence::At(3), 2), (Sequence::At(6), 1)]);
        assert_eq!(
            sizes(vec![at(1), other, at(2)]),
            [(Sequence::At(1), 1), (Sequence::At(1), 1), (Sequence::At(2), 1)]
        );
        assert_eq!(sizes(vec![at(1), end(), end()]), [(Sequence::At(1), 1), (Sequence::End, 2)]);
        let asked = event(Sequence::At(2), "delivery.retry_requested", "{}");
        assert_eq!(sizes(vec![at(1), asked, at(3)]).len(), 3);
        assert_eq!(sizes((1..=150).map(at).collect()), [(Sequence::At(1), 100), (Sequence::At(101), 50)]);
    }
}
