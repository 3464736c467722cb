//! Limits that hold before a query is parsed: the library's own run at validation, and its parser
//! recurses.

/// Bytes of a query.
const MAX_BYTES: usize = 32 << 10;
/// Brackets within brackets.
const MAX_NESTING: usize = 64;
/// Fragment spreads: each may multiply what the others spread.
const MAX_SPREADS: usize = 60;

/// Whether a query may be parsed at all.
///
/// # Errors
/// Which limit it exceeds.
pub fn check_source(query: &str) -> Result<(), String> {
    if query.len() > MAX_BYTES {
        return Err(format!("a query has at most {MAX_BYTES} bytes"));
    }
    let (mut depth, mut spreads) = (0_usize, 0_usize);
    let mut rest = query.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            b'.' if tail.starts_with(b"..") => {
                spreads += 1;
                rest = &tail[2..];
            }
            b'"' => rest = after_string(tail),
            b'#' => rest = tail.iter().position(|b| matches!(b, b'\n' | b'\r')).map_or(&[], |end| &tail[end..]),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(format!("a query nests at most {MAX_NESTING} brackets"));
        }
    }
    if spreads > MAX_SPREADS {
        return Err(format!("a query spreads at most {MAX_SPREADS} fragments"));
    }
    Ok(())
}

/// What follows a string whose first quote was read, block strings among them.
fn after_string(rest: &[u8]) -> &[u8] {
    if let Some(block) = rest.strip_prefix(b"\"\"") {
        let mut from = 0;
        while let Some(end) = block[from..].windows(3).position(|window| window == b"\"\"\"").map(|end| from + end) {
            // `\"""` is text within the block.
            if end == 0 || block[end - 1] != b'\\' {
                return &block[end + 3..];
            }
            from = end + 3;
        }
        return &[];
    }
    let mut escaped = false;
    for (index, byte) in rest.iter().enumerate() {
        match byte {
            b'\n' | b'\r' => return &rest[index..],
            b'"' if !escaped => return &rest[index + 1..],
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::check_source;

    #[test]
    fn bombs_are_refused_before_they_are_parsed() {
        assert!(check_source(&"{".repeat(65)).is_err());
        assert!(check_source(&"...F ".repeat(61)).is_err());
        assert!(check_source(&"a".repeat(33 << 10)).is_err());
    }

    #[test]
    fn nothing_hides_brackets_from_the_count() {
        let deep = "[".repeat(65);
        for hidden in
            [format!("#\r{deep}"), format!("{{ a(b: \"\"\" \\\"\"\" \"\"\" c: {deep}"), format!("{{ a(b: \"x\r{deep}")]
        {
            assert!(check_source(&hidden).is_err(), "{hidden:?}");
        }
    }

    #[test]
    fn strings_and_comments_are_not_brackets() {
        let query = format!("# {0}\n{{ a(b: \"{0}\", c: \"\"\"{0}\"\"\", d: \"\\\"{0}\") }}", "{".repeat(100));
        assert_eq!(check_source(&query), Ok(()));
    }
}
