//! The file: JSON lines, each an object whose only key is the kind of the line.
//!
//! ```text
//! {"export":{"version":1,"organization":"acme","origin":"hooks.example.com/ledger/c5f5…","exported_at":"…","public_keys":["…"]}}
//! {"event":{"position":1,"sequence":1,"recorded_at":"2026-11-25T12:00:05.123456Z","aggregate_type":"organization",…,"leaf":"…"}}
//! {"request":{"position":7,"headers":"content-type:application/json\n…","text":"{\"id\":1}"}}
//! {"checkpoint":"hooks.example.com/ledger/c5f5…\n1234\n…"}
//! {"signed":"hookledger export 1\nhooks.example.com/ledger/c5f5…\nevents 1234\n…\nsha256 …\n\n— …"}
//! ```
//!
//! - Events are in the order of their positions. Payload and metadata are the log's JSON unchanged, or a
//!   string of that text if it has line breaks. `leaf` is the hash of the event's leaf in base64.
//! - A request follows its event if it is still stored. A body that is not plain text or longer than 64 KiB
//!   is in base64, in pieces, of which all but the last have `"more":true`.
//! - A checkpoint follows the last of its leaves. The last one covers all events of the file.
//! - The last line is a signed note (C2SP) over the numbers of lines and the SHA-256 of all bytes before it.
//!
//! Each line has exactly one valid form, so every byte read must equal what would be written.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use hookledger_aggregates::OrganizationId;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::audit::checkpoint::Origin;
use crate::audit::tree::Hash;
use crate::log::stored_event::StoredEvent;

/// The version of the format that is written today.
pub const VERSION: u32 = 1;
/// Longest line that is written or read.
pub const LONGEST_LINE: usize = 16 << 20;
/// Longer bodies are in base64, in pieces.
const LONGEST_TEXT: usize = 64 << 10;
/// Bytes per piece: a whole number of base64 groups.
const PIECE: usize = 768 << 10;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line<'a> {
    Export(Header),
    #[serde(borrow)]
    Event(EventLine<'a>),
    #[serde(borrow)]
    Request(RequestLine<'a>),
    /// A signed note.
    #[serde(borrow)]
    Checkpoint(Cow<'a, str>),
    /// A signed note over everything before it.
    #[serde(borrow)]
    Signed(Cow<'a, str>),
}

/// Describes the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub version: u32,
    /// Slug of the organization.
    pub organization: String,
    /// First line of its checkpoints.
    pub origin: String,
    pub exported_at: String,
    /// Keys that signed the file and its checkpoints, base64.
    pub public_keys: Vec<String>,
}

/// An event.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventLine<'a> {
    pub position: i64,
    pub sequence: i64,
    #[serde(borrow)]
    recorded_at: Cow<'a, str>,
    #[serde(borrow)]
    aggregate_type: Cow<'a, str>,
    #[serde(borrow)]
    aggregate_id: Cow<'a, str>,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    event_version: Cow<'a, str>,
    #[serde(borrow)]
    payload: Json<'a>,
    #[serde(borrow)]
    metadata: Json<'a>,
    #[serde(borrow)]
    leaf: Cow<'a, str>,
}

/// JSON text unchanged, or as a string.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Json<'a> {
    #[serde(borrow)]
    raw: Cow<'a, RawValue>,
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}

impl<'a> Json<'a> {
    fn of(text: &'a str) -> Result<Self, serde_json::Error> {
        let raw = serde_json::from_str::<&RawValue>(text).ok();
        let plain = raw.filter(|raw| raw.get() == text && text.starts_with('{') && !text.contains(['\n', '\r']));
        let raw = match plain {
            Some(raw) => Cow::Borrowed(raw),
            None => Cow::Owned(serde_json::value::to_raw_value(text)?),
        };
        Ok(Self { raw })
    }

    fn text(&self) -> Result<Cow<'_, str>, serde_json::Error> {
        let text = self.raw.get();
        if text.starts_with('"') { serde_json::from_str(text).map(Cow::Owned) } else { Ok(Cow::Borrowed(text)) }
    }
}

impl<'a> EventLine<'a> {
    pub fn new(event: &'a StoredEvent<&'a str>, leaf: Hash) -> Result<Self, serde_json::Error> {
        Ok(Self {
            position: event.position,
            sequence: event.sequence,
            recorded_at: written_time(event.recorded_at).into(),
            aggregate_type: event.aggregate_type.into(),
            aggregate_id: event.aggregate_id.into(),
            event_type: event.event_type.into(),
            event_version: event.event_version.into(),
            payload: Json::of(event.payload)?,
            metadata: Json::of(event.metadata)?,
            leaf: STANDARD.encode(leaf.0).into(),
        })
    }

    /// The event, and the leaf that the file states. `None` if the line contains no valid event.
    #[must_use]
    pub fn event(&self, organization: OrganizationId) -> Option<(StoredEvent, Hash)> {
        let leaf = STANDARD.decode(&*self.leaf).ok()?.try_into().ok().map(Hash)?;
        let event = StoredEvent {
            organization: organization.uuid(),
            partition: organization.partition().number(),
            position: self.position,
            sequence: self.sequence,
            recorded_at: read_time(&self.recorded_at)?,
            aggregate_type: self.aggregate_type.to_string(),
            aggregate_id: self.aggregate_id.to_string(),
            event_type: self.event_type.to_string(),
            event_version: self.event_version.to_string(),
            payload: self.payload.text().ok()?.into_owned(),
            metadata: self.metadata.text().ok()?.into_owned(),
        };
        Some((event, leaf))
    }
}

/// A time that cannot be represented is written as its number.
fn written_time(microseconds: i64) -> String {
    match DateTime::<Utc>::from_timestamp_micros(microseconds) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Micros, true),
        None => microseconds.to_string(),
    }
}

fn read_time(text: &str) -> Option<i64> {
    let time = text.parse::<DateTime<Utc>>().map(|time| time.timestamp_micros());
    let microseconds = time.ok().or_else(|| text.parse().ok())?;
    (written_time(microseconds) == text).then_some(microseconds)
}

/// Headers, in the first line of a request, and a piece of the body.
type Piece<'a> = (Option<Cow<'a, [u8]>>, Cow<'a, [u8]>);

/// A request, or a piece of one.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestLine<'a> {
    /// Position of its event.
    pub position: i64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    headers: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    headers_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    base64: Option<Cow<'a, str>>,
    /// The body continues in the next line.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

impl<'a> RequestLine<'a> {
    /// The lines of a request.
    pub fn of(position: i64, headers: &'a [u8], body: &'a [u8]) -> impl Iterator<Item = Self> {
        let plain = plain(body).filter(|_| body.len() <= LONGEST_TEXT);
        let pieces = body.len().div_ceil(PIECE).max(1);
        let count = if plain.is_some() { 1 } else { pieces };
        (0..count).map(move |index| {
            let mut line = Self { position, more: index + 1 < count, ..Self::default() };
            if index == 0 {
                match self::plain(headers) {
                    Some(text) => line.headers = Some(text.into()),
                    None => line.headers_base64 = Some(STANDARD.encode(headers).into()),
                }
            }
            if let Some(text) = plain {
                line.text = Some(text.into());
            } else {
                let piece = &body[index * PIECE..body.len().min((index + 1) * PIECE)];
                line.base64 = Some(STANDARD.encode(piece).into());
            }
            line
        })
    }

    /// Headers, in the first line of a request, and a piece of the body. `None` unless they are in their only
    /// valid form.
    #[must_use]
    pub fn bytes(&self) -> Option<Piece<'_>> {
        let headers = match (&self.headers, &self.headers_base64) {
            (Some(_), Some(_)) => return None,
            (None, None) => None,
            (Some(text), None) => Some(Cow::Borrowed(text.as_bytes())),
            (None, Some(base64)) => Some(Cow::Owned(STANDARD.decode(&**base64).ok()?)),
        };
        let body = match (&self.text, &self.base64) {
            (Some(text), None) => Cow::Borrowed(text.as_bytes()),
            (None, Some(base64)) => Cow::Owned(STANDARD.decode(&**base64).ok()?),
            _ => return None,
        };
        Some((headers, body))
    }
}

/// Readable text: UTF-8 without control characters except line breaks and tabs.
fn plain(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))).then_some(text)
}

/// Content of the last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    pub origin: String,
    pub events: u64,
    pub requests: u64,
    pub checkpoints: u64,
    /// Of all bytes before the last line, in hex.
    pub sha256: String,
}

impl Trailer {
    /// The signed text. Its second line is no number, so it cannot be mistaken for a checkpoint.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { origin, events, requests, checkpoints, sha256 } = self;
        format!(
            "hookledger export {VERSION}\n{origin}\nevents {events}\nrequests {requests}\ncheckpoints {checkpoints}\nsha256 {sha256}\n"
        )
    }
}

/// The tree whose leaves are the file's events.
#[must_use]
pub fn origin_of(header: &Header) -> Option<Origin> {
    let origin: Origin = header.origin.parse().ok()?;
    let organization = OrganizationId::from_slug(&header.organization);
    (origin.ledger == crate::audit::LedgerId::organization(organization)).then_some(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event<'a>(payload: &'a str, metadata: &'a str) -> StoredEvent<&'a str> {
        let organization = OrganizationId::from_slug("acme");
        StoredEvent {
            organization: organization.uuid(),
            partition: organization.partition().number(),
            position: 7,
            sequence: 1,
            recorded_at: 1_764_072_245_123_456,
            aggregate_type: "webhook",
            aggregate_id: "a",
            event_type: "webhook.received",
            event_version: "2",
            payload,
            metadata,
        }
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        for payload in ["{}", r#"{"a": 1.50, "b":"\u0000"}"#, "{\n}", "[1]", "not json", "\"text\"", "", " {}"] {
            let event = event(payload, "{\"actor\":\"sender\"}");
            let line = Line::Event(EventLine::new(&event, event.leaf_hash()).unwrap());
            let text = serde_json::to_string(&line).unwrap();
            assert!(!text.contains('\n'), "{text}");
            let read: Line<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
            let Line::Event(line) = read else { panic!("{text}") };
            assert_eq!(line.event(OrganizationId::from_slug("acme")), Some((event.to_owned(), event.leaf_hash())));
        }
    }

    #[test]
    fn times_are_written_in_one_way() {
        for at in [0, -1, 1_764_072_245_123_456, i64::MAX, i64::MIN] {
            assert_eq!(read_time(&written_time(at)), Some(at));
        }
        for bad in ["", "2025-11-25T12:04:05Z", "2025-11-25T12:04:05.123456+00:00", "+1", "x"] {
            assert_eq!(read_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let large = vec![b'x'; 2 * PIECE + 1];
        for body in [&b""[..], b"{\"a\":\"\xc3\xa9\"}\n", b"\xff\x00", b"\x00", &large, &large[..PIECE]] {
            for headers in [&b"a:1\n"[..], b"", b"a:\xff\n"] {
                let (mut read, mut read_headers) = (Vec::new(), None);
                let lines: Vec<String> =
                    RequestLine::of(7, headers, body).map(|line| serde_json::to_string(&line).unwrap()).collect();
                for (index, text) in lines.iter().enumerate() {
                    assert!(text.len() < LONGEST_LINE);
                    let line: RequestLine<'_> = serde_json::from_str(text).unwrap();
                    assert_eq!(
                        (line.more, serde_json::to_string(&line).unwrap()),
                        (index + 1 < lines.len(), text.clone())
                    );
                    let (headers, piece) = line.bytes().unwrap();
                    read.extend_from_slice(&piece);
                    read_headers = read_headers.or(headers.map(Cow::into_owned));
                }
                assert_eq!((read.as_slice(), read_headers.as_deref()), (body, Some(headers)));
            }
        }
    }
}
