//! Reads events of earlier versions.
//!
//! History is never rewritten. When an event's fields change, its version in the aggregate's table is raised,
//! the old golden file stays, and an arm here converts the old fields whenever such an event is read.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::event::{DecodeError, Event};

/// Converts a payload to the version that is written today; `None` if it already is.
///
/// # Errors
/// [`DecodeError`] for a type or version that this release does not know, such as events of a later release.
pub fn upcast(event_type: &str, version: &str, payload: &RawValue) -> Result<Option<Box<RawValue>>, DecodeError> {
    let unknown = || DecodeError::UnknownVersion { event_type: event_type.to_owned(), version: version.to_owned() };
    let broken = |source| DecodeError::Payload { event_type: event_type.to_owned(), source };
    // Most events read are of the current version.
    let current = current_version(event_type).ok_or_else(unknown)?;
    let from: u32 = version.parse().map_err(|_| unknown())?;
    if from == current {
        return Ok(None);
    }
    let mut value: Value = serde_json::from_str(payload.get()).map_err(broken)?;
    for step in from..current {
        value = upcast_one(event_type, step, value).ok_or_else(unknown)?;
    }
    if from > current {
        return Err(unknown());
    }
    serde_json::value::to_raw_value(&value).map(Some).map_err(broken)
}

fn current_version(event_type: &str) -> Option<u32> {
    Event::types().find(|(name, _)| *name == event_type).map(|(_, version)| version)
}

/// One step: the fields of `version` become those of `version + 1`.
fn upcast_one(event_type: &str, version: u32, fields: Value) -> Option<Value> {
    match (event_type, version) {
        // Version 2 has a digest of the headers, which is unknown for earlier events.
        ("webhook.received" | "webhook.received_unverified" | "webhook.rejected", 1) => Some(fields),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn what_is_written_today_is_read_as_it_is() {
        assert!(upcast("user.signed_in", "1", &raw("{}")).unwrap().is_none());
    }

    #[test]
    fn unknown_types_and_versions_stop_the_reader() {
        for (event_type, version) in
            [("user.teleported", "1"), ("user.signed_in", "2"), ("user.signed_in", "0"), ("user.signed_in", "x")]
        {
            assert!(
                matches!(upcast(event_type, version, &raw("{}")), Err(DecodeError::UnknownVersion { .. })),
                "{event_type} {version}"
            );
        }
    }
}
