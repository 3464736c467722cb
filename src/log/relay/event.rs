//! Converts events of the log into events of the mirror. Pure.

use chrono::{DateTime, Utc};
use eventstore::{EventData, RecordedEvent};
use hookledger_aggregates::Partition;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::log::stored_event::StoredEvent;

/// Namespace of the IDs in the mirror. It never changes, or events would be duplicated.
const NAMESPACE: Uuid = Uuid::from_u128(0x9d0c_51be_77f3_4c0a_8a52_1e6b_3f94_c7d8);

/// The stream that mirrors a partition.
#[must_use]
pub fn stream_name(partition: Partition) -> String {
    format!("hookledger-{partition}")
}

/// The ID of an event in the mirror.
#[must_use]
pub fn event_id(partition: Partition, position: i64) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{partition}/{position}").as_bytes())
}

/// The metadata of an event in the mirror: its envelope in the log.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    organization: Uuid,
    aggregate_type: &'a str,
    aggregate_id: &'a str,
    sequence: i64,
    partition: i32,
    position: i64,
    /// Absent if the column holds a time that cannot be written.
    recorded_at: Option<DateTime<Utc>>,
    version: &'a str,
    /// The cause of the event; see [`hookledger_aggregates::Metadata`].
    metadata: &'a RawValue,
}

/// Identifies an event in the mirror, even if metadata gets more fields later.
#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Identity {
    organization: Uuid,
    aggregate_id: String,
    sequence: i64,
    recorded_at: Option<DateTime<Utc>>,
}

/// The event to append to the mirror, and the number of bytes that the server will count.
///
/// # Errors
/// Fails if a JSON column does not hold JSON.
pub(super) fn proposed(
    partition: Partition,
    event: &StoredEvent<impl AsRef<str>>,
) -> serde_json::Result<(EventData, usize)> {
    let (payload, metadata) = (raw(&event.payload)?, raw(&event.metadata)?);
    let envelope = Envelope {
        organization: event.organization,
        aggregate_type: event.aggregate_type.as_ref(),
        aggregate_id: event.aggregate_id.as_ref(),
        sequence: event.sequence,
        partition: event.partition,
        position: event.position,
        recorded_at: DateTime::from_timestamp_micros(event.recorded_at),
        version: event.event_version.as_ref(),
        metadata,
    };
    let data = EventData::json(event.event_type.as_ref(), &payload)?
        .metadata_as_json(&envelope)?
        .id(event_id(partition, event.position));
    // The envelope itself takes about 300 bytes.
    Ok((data, payload.get().len() + metadata.get().len() + 512))
}

fn raw(text: &impl AsRef<str>) -> serde_json::Result<&RawValue> {
    serde_json::from_str(text.as_ref())
}

/// Whether an event of the server is this event of the log.
pub(super) fn is_same(partition: Partition, ours: &StoredEvent, theirs: &RecordedEvent) -> bool {
    let Ok(identity) = serde_json::from_slice::<Identity>(&theirs.custom_metadata) else { return false };
    let expected = Identity {
        organization: ours.organization,
        aggregate_id: ours.aggregate_id.clone(),
        sequence: ours.sequence,
        recorded_at: DateTime::from_timestamp_micros(ours.recorded_at),
    };
    theirs.id == event_id(partition, ours.position)
        && theirs.event_type == ours.event_type
        && theirs.data == ours.payload.trim()
        && identity == expected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> Partition {
        Partition::new(3).unwrap()
    }

    fn event() -> StoredEvent {
        StoredEvent {
            organization: Uuid::from_u128(1),
            partition: 3,
            position: 7,
            sequence: 2,
            recorded_at: 1_700_000_000_123_456,
            aggregate_type: "webhook".to_owned(),
            aggregate_id: Uuid::from_u128(2).to_string(),
            event_type: "webhook.received".to_owned(),
            event_version: "1".to_owned(),
            payload: r#"{"b": 1e999, "a":"\u0000"}"#.to_owned(),
            metadata: r#"{"actor":"sender"}"#.to_owned(),
        }
    }

    /// The event in the form that the server returns.
    fn mirrored(event: &StoredEvent) -> RecordedEvent {
        let (data, _) = proposed(partition(), event).unwrap();
        let text = format!("{data:?}");
        assert!(text.contains(&event_id(partition(), 7).to_string()), "{text}");
        RecordedEvent {
            stream_id: stream_name(partition()),
            id: event_id(partition(), event.position),
            revision: 6,
            event_type: event.event_type.clone(),
            data: event.payload.clone().into_bytes().into(),
            metadata: std::collections::HashMap::new(),
            custom_metadata: envelope(event).into_bytes().into(),
            is_json: true,
            position: eventstore::Position { commit: 0, prepare: 0 },
            created: DateTime::UNIX_EPOCH,
        }
    }

    fn envelope(event: &StoredEvent) -> String {
        format!(
            "{{\"organization\":\"{}\",\"aggregateType\":\"webhook\",\"aggregateId\":\"{}\",\"sequence\":2,\
             \"partition\":3,\"position\":7,\"recordedAt\":\"2023-11-14T22:13:20.123456Z\",\"version\":\"1\",\
             \"metadata\":{{\"actor\":\"sender\"}}}}",
            event.organization, event.aggregate_id
        )
    }

    #[test]
    fn ids_and_streams_never_change() {
        assert_eq!(stream_name(partition()), "hookledger-3");
        assert_eq!(event_id(partition(), 7).to_string(), "a42c0964-feba-5ec1-93fb-2c67d440277c");
    }

    #[test]
    fn an_event_is_told_from_one_of_another_log() {
        let event = event();
        let there = mirrored(&event);
        assert!(is_same(partition(), &event, &there));
        for change in [
            |e: &mut StoredEvent| e.organization = Uuid::from_u128(9),
            |e: &mut StoredEvent| e.recorded_at += 1,
            |e: &mut StoredEvent| e.payload.push(' '),
            |e: &mut StoredEvent| e.position = 8,
        ] {
            let mut other = event.clone();
            change(&mut other);
            let same = is_same(partition(), &other, &there);
            assert_eq!(same, other.payload != event.payload, "{other:?}");
        }
    }
}
