//! Shows strangers' JSON with its original digits and order of keys, and without a tree in memory, which
//! would take many times its bytes.

use std::fmt;

use async_graphql::Json;
use serde::Deserializer;
use serde::de::{Deserialize, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The body, if it is JSON that every reader accepts: nested at most 128 deep, with numbers that fit into a
/// double, and without lone surrogates.
pub(crate) fn shown(body: &[u8]) -> Option<Json<Box<RawValue>>> {
    serde_json::from_slice::<Readable>(body).ok()?;
    let text = std::str::from_utf8(body).ok()?;
    RawValue::from_string(text.trim_ascii().to_owned()).ok().map(Json)
}

/// Visits everything, and keeps nothing.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Look)
    }
}

struct Look;

impl<'de> Visitor<'de> for Look {
    type Value = Readable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Readable, E> {
        Ok(Readable)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Readable, E> {
        Ok(Readable)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Readable, E> {
        Ok(Readable)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Readable, E> {
        Ok(Readable)
    }
    fn visit_str<E>(self, _: &str) -> Result<Readable, E> {
        Ok(Readable)
    }
    fn visit_unit<E>(self) -> Result<Readable, E> {
        Ok(Readable)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Readable, A::Error> {
        while items.next_element::<Readable>()?.is_some() {}
        Ok(Readable)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Readable, A::Error> {
        while entries.next_entry::<Readable, Readable>()?.is_some() {}
        Ok(Readable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_shown_as_it_was_written() {
        for (body, expected) in [
            (
                " {\"id\": 12345678901234567890123, \"money\": 1.10, \"b\": 1, \"a\": [null, true, \"\\u0000\"]}\r\n",
                true,
            ),
            ("1e999", false),
            ("\"\\ud800\"", false),
            ("{\"a\":1", false),
            ("a=b", false),
            ("", false),
            (&"[".repeat(200), false),
            (&("[".repeat(200) + &"]".repeat(200)), false),
        ] {
            let value: Option<serde_json::Value> = serde_json::from_str(body).ok();
            assert_eq!(value.is_some(), expected, "{body}");
            assert_eq!(
                shown(body.as_bytes()).map(|json| json.0.get().to_owned()),
                expected.then(|| body.trim().to_owned())
            );
        }
        assert!(shown(b"\"\xff\"").is_none());
    }
}
