//! Short text from a stranger: an event ID, an event type, a content type.

use serde::{Deserialize, Serialize};

/// Text that is safe to store in JSON columns and to show on one line: at most 255 characters, no control
/// characters. PostgreSQL's `json` functions refuse U+0000, so a single such ID would otherwise stop every
/// projection that reads it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Label(String);

impl Label {
    /// Maximum number of characters.
    pub const MAX_CHARS: usize = 255;

    /// Replaces control characters and invalid UTF-8 with U+FFFD, and truncates.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self::new(&String::from_utf8_lossy(bytes))
    }

    /// Like [`Label::from_bytes`], for text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::cut(text, Self::MAX_CHARS)
    }

    /// Like [`Label::new`] with another limit, for signatures and error messages.
    #[must_use]
    pub fn cut(text: &str, max_chars: usize) -> Self {
        let clean = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        Self(text.chars().take(max_chars).map(clean).collect())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Label;

    #[test]
    fn control_characters_and_length_are_bounded() {
        assert_eq!(Label::new("a\u{0}b\n").as_str(), "a\u{fffd}b\u{fffd}");
        assert_eq!(Label::from_bytes(b"\xff").as_str(), "\u{fffd}");
        assert_eq!(Label::new(&"é".repeat(300)).as_str().chars().count(), 255);
    }
}
