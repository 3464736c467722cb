//! A place in the log.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};

/// A position in the log, written `partition:position`.
#[derive(Clone, Copy)]
pub struct LogPosition {
    pub(crate) partition: i32,
    pub(crate) position: i64,
}

/// A position in the log, written `partition:position`.
#[Scalar]
impl ScalarType for LogPosition {
    fn parse(value: Value) -> InputValueResult<Self> {
        let parsed = match &value {
            Value::String(text) => text.split_once(':').and_then(|(partition, position)| {
                let place = Self { partition: partition.parse().ok()?, position: position.parse().ok()? };
                // No position is before the first, and the next position has to be a valid number.
                (place.position >= 0 && place.position < i64::MAX).then_some(place)
            }),
            _ => None,
        };
        parsed.ok_or_else(|| InputValueError::expected_type(value))
    }

    fn to_value(&self) -> Value {
        Value::from(self.to_string())
    }
}

impl std::fmt::Display for LogPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.partition, self.position)
    }
}
