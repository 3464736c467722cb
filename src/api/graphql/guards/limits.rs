//! Limits that are checked before validation: the library's own checks run during validation, which follows
//! fragments anywhere, and its parser recurses.

use std::collections::HashMap;

use async_graphql::parser::types::{ExecutableDocument, Field, Selection, SelectionSet, VariableDefinition};
use async_graphql::{Name, Pos, Positioned, Value as ConstValue, Variables};
use async_graphql_value::Value;

use crate::api::graphql::types::paging::{DEFAULT_ROWS, MAX_ROWS};

/// Maximum size of a query in bytes.
const MAX_BYTES: usize = 32 << 10;
/// Maximum nesting of brackets.
const MAX_NESTING: usize = 64;
/// Maximum number of fragment spreads in the text.
const MAX_SPREADS: usize = 60;
/// Maximum number of names in the text: parsing costs as much as there are.
const MAX_NAMES: usize = 6_000;
/// Maximum number of aliases in the text.
const MAX_ALIASES: usize = 100;
/// Maximum number of fields and fragments after expanding every fragment.
const MAX_SELECTIONS: usize = 5_000;
/// Maximum number of fields in an answer, computed from its page sizes.
const MAX_FIELDS: usize = 50_000;
/// Lists without pages, and their approximate maximum number of rows.
const LISTS: &[(&str, usize)] = &[
    // These two read many events for one answer.
    ("asOf", 40),
    ("stateAt", 100),
    ("attempts", 4),
    ("buckets", 100),
    ("conservation", 100),
    ("events", 10),
    ("groups", 50),
    ("names", 10),
    ("pastMonths", 24),
    ("platformLedgers", 17),
    ("providers", 5),
    ("secrets", 5),
    ("secretVersions", 5),
    ("sessions", 10),
    ("users", 50),
];

/// Whether a query may be parsed at all: one pass over its bytes. The error is the exceeded limit.
pub fn check_source(query: &str) -> Result<(), String> {
    if query.len() > MAX_BYTES {
        return Err(format!("A query can be at most {MAX_BYTES} bytes."));
    }
    let (mut depth, mut arguments, mut spreads, mut aliases) = (0_usize, 0_usize, 0_usize, 0_usize);
    let (mut names, mut is_in_name) = (0_usize, false);
    let mut rest = query.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let was_in_name = std::mem::replace(&mut is_in_name, byte == b'_' || byte.is_ascii_alphanumeric());
        names += usize::from(is_in_name && !was_in_name);
        match byte {
            b'(' => (depth, arguments) = (depth + 1, arguments + 1),
            b')' => (depth, arguments) = (depth.saturating_sub(1), arguments.saturating_sub(1)),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            // Within parentheses a colon belongs to an argument, a variable or an object.
            b':' if arguments == 0 => aliases += 1,
            b'.' if tail.starts_with(b"..") => {
                spreads += 1;
                rest = &tail[2..];
            }
            b'"' => rest = after_string(tail),
            b'#' => rest = tail.iter().position(|b| matches!(b, b'\n' | b'\r')).map_or(&[], |end| &tail[end..]),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(format!("A query can nest at most {MAX_NESTING} brackets."));
        }
    }
    if names > MAX_NAMES {
        return Err(format!("A query can have at most {MAX_NAMES} names."));
    }
    if spreads > MAX_SPREADS {
        return Err(format!("A query can spread at most {MAX_SPREADS} fragments."));
    }
    if aliases > MAX_ALIASES {
        return Err(format!("A query can have at most {MAX_ALIASES} aliases."));
    }
    Ok(())
}

/// The rest after a string whose first quote was read; includes block strings.
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

/// Whether a query is small enough after expanding its fragments (two spreads in each of 30 fragments would
/// expand to 1,000 million), and its answer according to its page sizes. Looks at each fragment once. The
/// error is the problem and its location.
pub fn check_document(document: &ExecutableDocument, variables: &Variables) -> Result<(), (String, Pos)> {
    let mut total = 0_usize;
    for (_, operation) in document.operations.iter() {
        let definitions = &operation.node.variable_definitions;
        let mut costs = Costs { document, variables, definitions, known: HashMap::new() };
        let cost = costs.of(&operation.node.selection_set)?;
        total = total.saturating_add(cost.selections);
        if total > MAX_SELECTIONS {
            let limit = format!("A query can select at most {MAX_SELECTIONS} fields, with its fragments expanded.");
            return Err((limit, operation.pos));
        }
        if cost.fields > MAX_FIELDS {
            let limit =
                format!("A response can have at most {MAX_FIELDS} fields. Ask for fewer, or for smaller pages.");
            return Err((limit, operation.pos));
        }
    }
    Ok(())
}

/// Cost of a selection.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// Selections, with every fragment expanded.
    selections: usize,
    /// Maximum number of fields in the answer.
    fields: usize,
    /// Whether it selects the rows of a list.
    has_rows: bool,
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.selections = self.selections.saturating_add(other.selections);
        self.fields = self.fields.saturating_add(other.fields);
        self.has_rows |= other.has_rows;
    }
}

struct Costs<'a> {
    document: &'a ExecutableDocument,
    variables: &'a Variables,
    definitions: &'a [Positioned<VariableDefinition>],
    /// The cost of each fragment; `None` while it is being computed.
    known: HashMap<&'a Name, Option<Cost>>,
}

impl<'a> Costs<'a> {
    fn of(&mut self, set: &'a Positioned<SelectionSet>) -> Result<Cost, (String, Pos)> {
        let mut cost = Cost::default();
        for selection in &set.node.items {
            let mut within = match &selection.node {
                Selection::Field(field) => self.of_field(&field.node)?,
                Selection::InlineFragment(fragment) => self.of(&fragment.node.selection_set)?,
                Selection::FragmentSpread(spread) => {
                    self.of_fragment(&spread.node.fragment_name.node, selection.pos)?
                }
            };
            within.selections = within.selections.saturating_add(1);
            cost.add(within);
        }
        Ok(cost)
    }

    /// A connection costs its page size times its selection per row; so does a list named in [`LISTS`].
    fn of_field(&mut self, field: &'a Field) -> Result<Cost, (String, Pos)> {
        let name = field.name.node.as_str();
        let within = self.of(&field.selection_set)?;
        let rows = if within.has_rows {
            self.page_size(field)
        } else {
            LISTS.iter().find(|(list, _)| *list == name).map_or(1, |(_, rows)| *rows)
        };
        let fields = within.fields.saturating_mul(rows).saturating_add(1);
        Ok(Cost { fields, has_rows: matches!(name, "edges" | "nodes"), ..within })
    }

    fn page_size(&self, field: &Field) -> usize {
        let most = usize::try_from(MAX_ROWS).unwrap_or(usize::MAX);
        let asked = field.arguments.iter().find(|(name, _)| matches!(name.node.as_str(), "first" | "last"));
        let rows = match asked.map(|(_, value)| &value.node) {
            None => Some(i64::from(DEFAULT_ROWS)),
            Some(Value::Variable(name)) => self.variable(name),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::Null) => Some(i64::from(DEFAULT_ROWS)),
            Some(_) => None,
        };
        // An invalid page size is refused later, and counts as the largest until then.
        rows.and_then(|rows| usize::try_from(rows).ok()).map_or(most, |rows| rows.clamp(1, most))
    }

    fn variable(&self, name: &Name) -> Option<i64> {
        let definition = self.definitions.iter().find(|definition| definition.node.name.node == *name);
        let default = definition.and_then(|definition| definition.node.default_value.as_ref());
        match self.variables.get(name).or(default.map(|default| &default.node)) {
            None | Some(ConstValue::Null) => Some(i64::from(DEFAULT_ROWS)),
            Some(ConstValue::Number(number)) => number.as_i64(),
            Some(_) => None,
        }
    }

    fn of_fragment(&mut self, name: &'a Name, at: Pos) -> Result<Cost, (String, Pos)> {
        match self.known.get(name) {
            Some(Some(cost)) => return Ok(*cost),
            Some(None) => return Err((format!("The fragment {name} spreads itself."), at)),
            None => {}
        }
        // Validation reports unknown fragments.
        let Some(fragment) = self.document.fragments.get(name) else { return Ok(Cost::default()) };
        self.known.insert(name, None);
        let cost = self.of(&fragment.node.selection_set)?;
        self.known.insert(name, Some(cost));
        Ok(cost)
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    fn check(query: &str, variables: serde_json::Value) -> Result<(), (String, Pos)> {
        check_document(&parse_query(query).unwrap(), &Variables::from_json(variables))
    }

    #[test]
    fn a_page_costs_its_rows() {
        let none = || serde_json::json!({});
        let pages = |rows: &str| {
            format!(
                "query($n: Int, $d: Int = 1000) {{ os({rows}) {{ ...F }} }} fragment F on C {{ nodes {{ ws(first: 100) {{ edges {{ a b }} }} }} }}"
            )
        };
        assert!(check(&pages("first: 10"), none()).is_ok());
        assert!(check(&pages("last: 1000"), none()).is_err());
        assert!(check(&pages("first: $d"), none()).is_err());
        assert!(check(&pages("first: $d"), serde_json::json!({ "d": 10 })).is_ok());
        // The default is 50.
        assert!(check(&pages("first: $n"), none()).is_ok());
        for large in [serde_json::json!(1000), serde_json::json!(-1), serde_json::json!("x")] {
            assert!(check(&pages("first: $n"), serde_json::json!({ "n": large })).is_err());
        }
        let whole = format!("{{ o {{ ws(first: 1000) {{ nodes {{ {} }} }} }} }}", "a ".repeat(40));
        assert!(check(&whole, none()).is_ok());
    }

    #[test]
    fn bombs_are_refused_before_they_are_parsed() {
        assert!(check_source(&"{".repeat(65)).is_err());
        assert!(check_source(&"...F ".repeat(61)).is_err());
        assert!(check_source(&"a".repeat(33 << 10)).is_err());
        assert!(check_source(&"a ".repeat(6_001)).is_err());
        assert_eq!(check_source(&"a ".repeat(6_000)), Ok(()));
        assert!(check_source(&format!("{{ {} }}", "a:b ".repeat(101))).is_err());
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
    fn strings_comments_and_arguments_are_neither_brackets_nor_aliases() {
        let noise = "{".repeat(100) + &"...F ".repeat(100) + &"a:b ".repeat(110);
        let query = format!("# {noise}\n{{ a(b: \"{noise}\", c: \"\"\"{noise}\"\"\", d: \"\\\"{noise}\") }}");
        assert_eq!(check_source(&query), Ok(()));
        let arguments = "a(b: 1, c: {d: 2, e: [3]}) ".repeat(60);
        assert_eq!(check_source(&format!("query($x: Int = 1) {{ {arguments} }}")), Ok(()));
    }

    #[test]
    fn few_spreads_that_multiply_are_refused() {
        let fragments: Vec<_> =
            (0..25).map(|n| format!("fragment F{n} on Query {{ ...F{0} ...F{0} }} ", n + 1)).collect();
        let fragments = fragments.concat();
        let bomb = format!("{{ ...F0 }} {fragments} fragment F25 on Query {{ viewer {{ isSuperAdmin }} }}");
        assert_eq!(check_source(&bomb), Ok(()));
        // The cost is computed, not incurred: refusing takes no longer than accepting.
        let best = |query: &str, is_fine: bool| {
            let took = (0..20).map(|_| {
                let started = std::time::Instant::now();
                assert_eq!(check(query, serde_json::json!({})).is_ok(), is_fine);
                started.elapsed()
            });
            took.min().unwrap_or_default()
        };
        let allowed = format!("{{ {} }}", "__typename ".repeat(2_500));
        let (cost, usual) = (best(&bomb, false), best(&allowed, true));
        assert!(cost < usual * 20, "{cost:?}, where {usual:?} are usual");
        let circle = "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }";
        assert!(check(circle, serde_json::json!({})).unwrap_err().0.contains("spreads itself"));
        let fine = "{ ...A ...A } fragment A on Query { viewer { isSuperAdmin } }";
        assert_eq!(check(fine, serde_json::json!({})), Ok(()));
    }
}
