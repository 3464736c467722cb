//! Extracts two top-level string fields of a JSON body without building the rest.
//!
//! Reads bodies of any depth without recursion, and tolerates strings that are not valid Unicode (lone
//! surrogates): this runs before the answer, on strangers' bytes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, de::DeserializeSeed};

/// The top-level fields with the ID and the type, if they are strings. Of repeated fields the last one
/// counts, as in every common parser.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IdAndType {
    pub id: Option<String>,
    pub kind: Option<String>,
}

/// Reads `id` and `type`; finds nothing if the body is not a JSON object.
pub fn id_and_type(body: &[u8]) -> IdAndType {
    id_and("type", body)
}

/// Like [`id_and_type`], for providers with another name for the type.
pub fn id_and(type_name: &'static str, body: &[u8]) -> IdAndType {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut json = serde_json::Deserializer::from_slice(body);
    match json.deserialize_map(TopLevel { type_name }) {
        Ok(found) if json.end().is_ok() => found,
        _ => IdAndType::default(),
    }
}

struct TopLevel {
    type_name: &'static str,
}

impl<'de> Visitor<'de> for TopLevel {
    type Value = IdAndType;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found = IdAndType::default();
        while let Some(key) = map.next_key_seed(Bytes)? {
            match key.as_ref() {
                b"id" => found.id = map.next_value::<Text>()?.0,
                key if key == self.type_name.as_bytes() => found.kind = map.next_value::<Text>()?.0,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// A key as bytes: `deserialize_bytes` accepts lone surrogates, `deserialize_str` does not.
struct Bytes;

impl<'de> DeserializeSeed<'de> for Bytes {
    type Value = Cow<'de, [u8]>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for Bytes {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(bytes))
    }
    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(bytes.to_vec()))
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text.as_bytes()))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.as_bytes().to_vec()))
    }
}

/// A string, or `None` for any other value.
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: &serde_json::value::RawValue = Deserialize::deserialize(deserializer)?;
        let is_string = raw.get().starts_with('"');
        Ok(Self(is_string.then(|| serde_json::from_str(raw.get()).ok()).flatten()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(id: Option<&str>, kind: Option<&str>) -> IdAndType {
        IdAndType { id: id.map(str::to_owned), kind: kind.map(str::to_owned) }
    }

    #[test]
    fn finds_top_level_fields_only() {
        let body = br#"{"data":{"id":"inner","type":"x"},"id":"evt_1","type":"charge.succeeded"}"#;
        assert_eq!(id_and_type(body), found(Some("evt_1"), Some("charge.succeeded")));
    }

    #[test]
    fn survives_what_strangers_send() {
        let deep = format!("{{\"a\":{}{},\"id\":\"evt_1\"}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(id_and_type(deep.as_bytes()), found(Some("evt_1"), None));
        assert_eq!(id_and_type(br#"{"\ud800":1,"x":"\ud800","id":"a"}"#), found(Some("a"), None));
        assert_eq!(id_and_type(br#"{"x":1e999,"id":"a"}"#), found(Some("a"), None));
        assert_eq!(id_and_type(b"\xef\xbb\xbf{\"id\":\"a\"}"), found(Some("a"), None));
        assert_eq!(id_and_type(br#"{"id":"a","id":"b"}"#), found(Some("b"), None));
        for nothing in
            [&b""[..], b"[]", b"\"id\"", b"{\"id\":1}", b"{\"id\":\"a\"", b"\xff\xff", b"{\"id\":\"\\ud800\"}"]
        {
            assert_eq!(id_and_type(nothing), found(None, None), "{nothing:?}");
        }
    }
}
