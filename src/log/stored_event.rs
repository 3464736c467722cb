//! The bytes of one event as a leaf of the ledger: every column of the log, exactly as stored.
//!
//! Version 1, in this order; numbers are big-endian, and a text is its length in bytes (u32) and its UTF-8:
//!
//! | field | bytes |
//! | --- | --- |
//! | version of this encoding, 1 | 1 |
//! | organization | 16 |
//! | partition | i32 |
//! | position | i64 |
//! | sequence | i64 |
//! | recorded at, microseconds since 1970 | i64 |
//! | aggregate type, aggregate ID, event type, event version, payload, metadata | texts |
//!
//! Nothing follows. Every field has a fixed or a stated length, so two events never have the same bytes.
//! Texts are those of the columns, including spaces and the order of JSON keys. Nothing is parsed, so even an
//! event that no release understands has a leaf. A webhook's body is not part of it; the payload of its first
//! event contains the body's SHA-256 and size.

use tlog_tiles::tlog::{Hash, record_hash};
use uuid::Uuid;

/// Version of the encoding that is written today.
pub const VERSION: u8 = 1;

/// An event exactly as the columns of the log hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredEvent<T = String> {
    pub organization: Uuid,
    pub partition: i32,
    pub position: i64,
    pub sequence: i64,
    /// Microseconds since 1970.
    pub recorded_at: i64,
    pub aggregate_type: T,
    pub aggregate_id: T,
    pub event_type: T,
    pub event_version: T,
    /// JSON text.
    pub payload: T,
    /// JSON text.
    pub metadata: T,
}

/// The bytes are not a leaf.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    #[error("the leaf has version {0}, but this release knows only version {VERSION}")]
    Version(u8),
    #[error("the leaf is too short or too long")]
    Length,
    #[error("a text in the leaf is not valid UTF-8")]
    Text,
}

impl<T: AsRef<str>> StoredEvent<T> {
    /// The leaf's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size());
        self.encode_into(&mut bytes);
        bytes
    }

    /// Appends the leaf's bytes to others.
    pub fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.push(VERSION);
        bytes.extend_from_slice(self.organization.as_bytes());
        bytes.extend_from_slice(&self.partition.to_be_bytes());
        for number in [self.position, self.sequence, self.recorded_at] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for text in self.texts() {
            // A text in PostgreSQL is always shorter than 1 GiB.
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }

    /// The leaf's hash according to RFC 6962.
    #[must_use]
    pub fn leaf_hash(&self) -> Hash {
        record_hash(&self.encode())
    }

    /// Bytes of the leaf.
    #[must_use]
    pub fn size(&self) -> usize {
        1 + 16 + 4 + 3 * 8 + self.texts().iter().map(|text| 4 + text.len()).sum::<usize>()
    }

    fn texts(&self) -> [&str; 6] {
        [
            self.aggregate_type.as_ref(),
            self.aggregate_id.as_ref(),
            self.event_type.as_ref(),
            self.event_version.as_ref(),
            self.payload.as_ref(),
            self.metadata.as_ref(),
        ]
    }
}

impl StoredEvent {
    /// Reads a leaf: exactly one, of a known version.
    pub fn decode(bytes: &[u8]) -> Result<Self, LeafError> {
        let mut rest = Rest(bytes);
        let [version] = rest.take()?;
        if version != VERSION {
            return Err(LeafError::Version(version));
        }
        let event = Self {
            organization: Uuid::from_bytes(rest.take()?),
            partition: i32::from_be_bytes(rest.take()?),
            position: i64::from_be_bytes(rest.take()?),
            sequence: i64::from_be_bytes(rest.take()?),
            recorded_at: i64::from_be_bytes(rest.take()?),
            aggregate_type: rest.text()?,
            aggregate_id: rest.text()?,
            event_type: rest.text()?,
            event_version: rest.text()?,
            payload: rest.text()?,
            metadata: rest.text()?,
        };
        if rest.0.is_empty() { Ok(event) } else { Err(LeafError::Length) }
    }
}

impl StoredEvent<&str> {
    /// A copy that owns its texts.
    #[must_use]
    pub fn to_owned(&self) -> StoredEvent {
        StoredEvent {
            organization: self.organization,
            partition: self.partition,
            position: self.position,
            sequence: self.sequence,
            recorded_at: self.recorded_at,
            aggregate_type: self.aggregate_type.to_owned(),
            aggregate_id: self.aggregate_id.to_owned(),
            event_type: self.event_type.to_owned(),
            event_version: self.event_version.to_owned(),
            payload: self.payload.to_owned(),
            metadata: self.metadata.to_owned(),
        }
    }
}

/// The unread rest of a leaf.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], LeafError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(LeafError::Length)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn text(&mut self) -> Result<String, LeafError> {
        let length = u32::from_be_bytes(self.take()?) as usize;
        let (text, rest) = self.0.split_at_checked(length).ok_or(LeafError::Length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| LeafError::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> StoredEvent {
        StoredEvent {
            organization: Uuid::from_u128(0xacce),
            partition: 3,
            position: 258,
            sequence: 2,
            recorded_at: 1_764_072_245_123_456,
            aggregate_type: "webhook".into(),
            aggregate_id: "00000000-0000-0000-0000-00000000000a".into(),
            event_type: "webhook.signature_verified".into(),
            event_version: "1".into(),
            payload: r#"{"secretVersion": 1}"#.into(),
            metadata: r#"{"actor":"sender"}"#.into(),
        }
    }

    /// Existing signatures must verify forever, so these bytes never change.
    #[test]
    fn the_encoding_never_changes() {
        assert_eq!(
            hex::encode(event().encode()),
            concat!(
                "01",
                "0000000000000000000000000000acce",
                "00000003",
                "0000000000000102",
                "0000000000000002",
                "0006446a13875980",
                "00000007776562686f6f6b",
                "0000002430303030303030302d303030302d303030302d303030302d303030303030303030303061",
                "0000001a776562686f6f6b2e7369676e61747572655f7665726966696564",
                "0000000131",
                "000000147b2273656372657456657273696f6e223a20317d",
                "000000127b226163746f72223a2273656e646572227d",
            )
        );
    }

    #[test]
    fn a_leaf_is_read_as_it_was_written_and_nothing_else_is() {
        let (event, bytes) = (event(), event().encode());
        assert_eq!(bytes.len(), event.size());
        assert_eq!(StoredEvent::decode(&bytes), Ok(event));
        for end in 0..bytes.len() {
            assert_eq!(StoredEvent::decode(&bytes[..end]), Err(LeafError::Length));
        }
        assert_eq!(StoredEvent::decode(&[&bytes[..], b"x"].concat()), Err(LeafError::Length));
        assert_eq!(StoredEvent::decode(&[&[2], &bytes[1..]].concat()), Err(LeafError::Version(2)));
    }

    #[test]
    fn every_field_is_in_the_hash() {
        let edits: [fn(&mut StoredEvent); 11] = [
            |e| e.organization = Uuid::from_u128(1),
            |e| e.partition = 4,
            |e| e.position += 1,
            |e| e.sequence += 1,
            |e| e.recorded_at += 1,
            |e| e.aggregate_type.push('s'),
            |e| e.aggregate_id.make_ascii_uppercase(),
            |e| e.event_type.push('s'),
            |e| e.event_version = "01".into(),
            // The same JSON in another notation.
            |e| e.payload = r#"{"secretVersion":1}"#.into(),
            |e| e.metadata.push(' '),
        ];
        for edit in edits {
            let mut changed = event();
            edit(&mut changed);
            assert_ne!(changed.leaf_hash(), event().leaf_hash(), "{changed:?}");
        }
    }

    #[test]
    fn what_ends_one_text_cannot_begin_the_next() {
        let (mut one, mut other) = (event(), event());
        (one.event_version, one.payload) = ("1{".into(), "}".into());
        (other.event_version, other.payload) = ("1".into(), "{}".into());
        assert_ne!(one.leaf_hash(), other.leaf_hash());
    }
}
