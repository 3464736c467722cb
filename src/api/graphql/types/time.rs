//! Times in arguments: only those that the store can represent.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use chrono::{DateTime, Datelike as _, Utc};

/// A time in an argument. A separate type, so that no resolver has to check it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Time(pub(crate) DateTime<Utc>);

// The text is the library's own description of the type, which the schema combines with this one.
#[expect(clippy::doc_markdown, reason = "they are the schema's")]
/// Implement the DateTime<Utc> scalar
///
/// The input/output is a string in RFC3339 format.
#[Scalar(name = "DateTime")]
impl ScalarType for Time {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::expected_type(value)) };
        let time: DateTime<Utc> = text.parse().map_err(|_| InputValueError::custom(NO_TIME))?;
        if (1..=9999).contains(&time.year()) { Ok(Self(time)) } else { Err(InputValueError::custom(OUT_OF_RANGE)) }
    }

    fn to_value(&self) -> Value {
        Value::from(self.0.to_rfc3339())
    }
}

const NO_TIME: &str = "a time must be written like 2026-01-31T00:00:00Z";
const OUT_OF_RANGE: &str = "a time must be in the years 1 to 9999";
