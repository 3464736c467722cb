//! Watches the bytes of a connection for requests with two lengths.
//!
//! hyper reads a request with both `content-length` and `transfer-encoding` in one way and drops the former;
//! a proxy in front may read it the other way, so that the body of one is the next request of the other.
//! hyper does not report this, so the heads are examined separately.

/// How much of a line is examined: the longest relevant name, its colon, a length, and padding. A longer
/// padded length counts as unknown.
const LINE: usize = 256;

/// Result of following a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// A head had two lengths.
    TwoLengths,
    /// The beginning of the next head is unknown, so no other may follow on this connection.
    NoEnd,
}

#[derive(Debug)]
enum State {
    /// In a head: the beginning of the current line.
    Head { line: Vec<u8>, begun: bool },
    /// In a body, with that many bytes to come.
    Body(u64),
    /// No head follows, or its beginning is unknown.
    Done,
}

/// Follows one connection.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    length: Option<u64>,
    chunked: bool,
}

impl Default for Framing {
    fn default() -> Self {
        let state = State::Head { line: Vec::with_capacity(LINE), begun: false };
        Self { state, length: None, chunked: false }
    }
}

impl Framing {
    /// Follows the bytes that were read.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Found {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Done => return Found::NoEnd,
                State::Body(rest) => {
                    let taken = (*rest).min(bytes.len() as u64);
                    *rest -= taken;
                    bytes = &bytes[usize::try_from(taken).unwrap_or(bytes.len())..];
                    if *rest == 0 {
                        self.begin();
                    }
                }
                State::Head { line, begun } => {
                    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                        keep(line, bytes);
                        return Found::Nothing;
                    };
                    keep(line, &bytes[..end]);
                    bytes = &bytes[end + 1..];
                    let text = line.strip_suffix(b"\r").unwrap_or(line);
                    if text.is_empty() && *begun {
                        match self.end_of_head() {
                            Found::Nothing => continue,
                            found => return found,
                        }
                    }
                    *begun |= !text.is_empty();
                    let (name, value) = split(text);
                    // hyper refuses padding around a name today; a proxy may not.
                    let name = name.trim_ascii();
                    if name.eq_ignore_ascii_case(b"content-length") {
                        // hyper refuses an invalid number, and two different ones.
                        self.length = std::str::from_utf8(value).ok().and_then(|value| value.trim().parse().ok());
                        if self.length.is_none() || line.len() >= LINE {
                            self.state = State::Done;
                            return Found::NoEnd;
                        }
                    } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                        self.chunked = true;
                    }
                    if let State::Head { line, .. } = &mut self.state {
                        line.clear();
                    }
                }
            }
        }
        Found::Nothing
    }

    fn begin(&mut self) {
        *self = Self::default();
    }

    fn end_of_head(&mut self) -> Found {
        match (self.length, self.chunked) {
            (Some(_), true) => {
                self.state = State::Done;
                return Found::TwoLengths;
            }
            // Its chunks are not followed.
            (None, true) => {
                self.state = State::Done;
                return Found::NoEnd;
            }
            (Some(length), false) if length > 0 => self.state = State::Body(length),
            // A client whose upgrade is refused continues with heads.
            (Some(_) | None, false) => self.begin(),
        }
        Found::Nothing
    }
}

fn keep(line: &mut Vec<u8>, bytes: &[u8]) {
    let room = LINE.saturating_sub(line.len());
    line.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn split(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == b':') {
        Some(colon) => (&line[..colon], &line[colon + 1..]),
        None => (line, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result is the same for pieces of every size.
    fn found(text: &str) -> bool {
        let results = (1..=text.len()).map(|size| {
            let mut framing = Framing::default();
            text.as_bytes().chunks(size).any(|chunk| framing.read(chunk) == Found::TwoLengths)
        });
        let results: Vec<bool> = results.collect();
        assert!(results.iter().all(|result| *result == results[0]), "{text:?}: {results:?}");
        results[0]
    }

    #[test]
    fn a_head_that_says_its_length_twice_is_found() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\n";
        assert!(found(&format!("{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")));
        assert!(found(&format!("{head}transfer-encoding:chunked\r\ncontent-length:5\r\n\r\n")));
        assert!(found(&format!("{head}transfer-encoding:identity\ncontent-length: 5\n\n")));
        assert!(found(&format!(
            "\r\n{head}Content-Length: 2\r\n\r\nab{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        )));
    }

    #[test]
    fn no_padding_and_no_upgrade_hides_a_length() {
        let two = "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        let head = "POST / HTTP/1.1\r\n";
        assert!(found(&format!("{head}Content-Length : 5\r\nTransfer-Encoding\t: chunked\r\n\r\n")));
        assert!(found(&format!("{head}Upgrade: h2c\r\nConnection: upgrade\r\n\r\n{two}")));
        assert!(found(&format!("{head}Upgrade: h2c\r\nContent-Length: 2\r\n\r\nab{two}")));
        assert!(found(&format!("{head}Content-Length: {}2\r\n\r\nab{two}", " ".repeat(100))));
    }

    #[test]
    fn a_connection_ends_where_the_next_head_is_not_known() {
        let ends = |text: &str| {
            let mut framing = Framing::default();
            text.as_bytes().chunks(7).any(|chunk| framing.read(chunk) == Found::NoEnd)
        };
        let head = "POST / HTTP/1.1\r\n";
        assert!(ends(&format!("{head}Content-Length: {}2\r\n\r\nab", " ".repeat(300))));
        assert!(ends(&format!("{head}Content-Length: two\r\n\r\nab")));
        assert!(ends(&format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")));
        assert!(!ends(&format!("{head}Content-Length: 2\r\n\r\nab{head}\r\n")));
    }

    #[test]
    fn bodies_are_not_taken_for_heads() {
        let smuggled = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        let length = smuggled.len();
        assert!(!found(&format!(
            "POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{smuggled}GET / HTTP/1.1\r\n\r\n"
        )));
        assert!(!found(&format!(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{smuggled}\r\n0\r\n\r\n"
        )));
        assert!(!found(&format!(
            "GET / HTTP/1.1\r\nX: {}\r\n\r\n",
            "content-length: 5 transfer-encoding: x".repeat(9)
        )));
    }
}
