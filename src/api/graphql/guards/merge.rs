//! Merges repeated fields before execution, as the specification merges answers: a field under the same key
//! would otherwise be executed again. Repetitions that cannot be merged without expanding fragments are
//! counted, and refused if there are too many.

use std::collections::HashMap;

use async_graphql::parser::types::{DocumentOperations, ExecutableDocument, Field, Selection, SelectionSet};
use async_graphql::{Name, Pos, Positioned};

/// Maximum number of repetitions of a key in a selection, with expanded fragments: as many as a query may
/// have spreads, and the field itself.
const MAX_REPEATS: usize = 61;

/// Merges verbatim repetitions in every selection of the document.
pub(crate) fn merge_repeated(document: &mut ExecutableDocument) {
    match &mut document.operations {
        DocumentOperations::Single(operation) => merge(&mut operation.node.selection_set.node),
        DocumentOperations::Multiple(operations) => {
            operations.values_mut().for_each(|operation| merge(&mut operation.node.selection_set.node));
        }
    }
    for fragment in document.fragments.values_mut() {
        merge(&mut fragment.node.selection_set.node);
    }
}

fn merge(set: &mut SelectionSet) {
    let mut merged: Vec<Positioned<Selection>> = Vec::with_capacity(set.items.len());
    let mut fields: HashMap<Name, Vec<usize>> = HashMap::new();
    let mut spreads: HashMap<Name, Vec<usize>> = HashMap::new();
    for selection in set.items.drain(..) {
        let place = merged.len();
        let before = match &selection.node {
            Selection::Field(field) => fields.entry(field.node.response_key().node.clone()).or_default(),
            Selection::FragmentSpread(spread) => spreads.entry(spread.node.fragment_name.node.clone()).or_default(),
            Selection::InlineFragment(_) => {
                merged.push(selection);
                continue;
            }
        };
        let same = before.iter().copied().find(|place| is_repeated(&merged[*place].node, &selection.node));
        match (same, selection.node) {
            (None, node) => {
                // The number of distinct selections under one key that are compared is limited.
                if before.len() < MAX_REPEATS {
                    before.push(place);
                }
                merged.push(Positioned::new(node, selection.pos));
            }
            (Some(first), Selection::Field(again)) => {
                if let Selection::Field(field) = &mut merged[first].node {
                    field.node.selection_set.node.items.extend(again.node.selection_set.node.items);
                }
            }
            (Some(_), _) => {}
        }
    }
    for selection in &mut merged {
        match &mut selection.node {
            Selection::Field(field) => merge(&mut field.node.selection_set.node),
            Selection::InlineFragment(fragment) => merge(&mut fragment.node.selection_set.node),
            Selection::FragmentSpread(_) => {}
        }
    }
    set.items = merged;
}

/// Whether it selects the same field again, with any selection below it.
fn is_repeated(first: &Selection, again: &Selection) -> bool {
    match (first, again) {
        (Selection::Field(first), Selection::Field(again)) => {
            let (first, again) = (&first.node, &again.node);
            first.name.node == again.name.node
                && has_selection(first) == has_selection(again)
                && first.arguments.len() == again.arguments.len()
                && first
                    .arguments
                    .iter()
                    .zip(&again.arguments)
                    .all(|(a, b)| a.0.node == b.0.node && a.1.node == b.1.node)
                && first.directives.is_empty()
                && again.directives.is_empty()
        }
        (Selection::FragmentSpread(first), Selection::FragmentSpread(again)) => {
            first.node.directives.is_empty() && again.node.directives.is_empty()
        }
        _ => false,
    }
}

fn has_selection(field: &Field) -> bool {
    !field.selection_set.node.items.is_empty()
}

/// Whether no key is repeated too often in any selection, including through fragments. The error is the key
/// and its location.
pub(crate) fn check_repeats(document: &ExecutableDocument) -> Result<(), (String, Pos)> {
    let mut repeats = Repeats { document, known: HashMap::new() };
    for (_, operation) in document.operations.iter() {
        repeats.of(&operation.node.selection_set)?;
    }
    Ok(())
}

type Counts<'a> = HashMap<&'a Name, usize>;

struct Repeats<'a> {
    document: &'a ExecutableDocument,
    /// The counts of each fragment. Recursive fragments were refused before.
    known: HashMap<&'a Name, Counts<'a>>,
}

impl<'a> Repeats<'a> {
    fn of(&mut self, set: &'a Positioned<SelectionSet>) -> Result<Counts<'a>, (String, Pos)> {
        let mut counts = Counts::new();
        for selection in &set.node.items {
            let within = match &selection.node {
                Selection::Field(field) => {
                    self.of(&field.node.selection_set)?;
                    Counts::from([(&field.node.response_key().node, 1)])
                }
                Selection::InlineFragment(fragment) => self.of(&fragment.node.selection_set)?,
                Selection::FragmentSpread(spread) => self.of_fragment(&spread.node.fragment_name.node)?,
            };
            for (key, count) in within {
                let total = counts.entry(key).or_default();
                *total += count;
                if *total > MAX_REPEATS {
                    let limit = format!("The field {key} is selected more than {MAX_REPEATS} times in one place.");
                    return Err((limit, selection.pos));
                }
            }
        }
        Ok(counts)
    }

    fn of_fragment(&mut self, name: &'a Name) -> Result<Counts<'a>, (String, Pos)> {
        if let Some(counts) = self.known.get(name) {
            return Ok(counts.clone());
        }
        // Validation reports unknown fragments.
        let Some(fragment) = self.document.fragments.get(name) else { return Ok(Counts::new()) };
        let counts = self.of(&fragment.node.selection_set)?;
        self.known.insert(name, counts.clone());
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    fn merged(query: &str) -> ExecutableDocument {
        let mut document = parse_query(query).unwrap();
        merge_repeated(&mut document);
        document
    }

    fn fields(set: &SelectionSet) -> Vec<String> {
        let of = |selection: &Positioned<Selection>| match &selection.node {
            Selection::Field(field) => {
                let within = fields(&field.node.selection_set.node);
                let key = &field.node.response_key().node;
                if within.is_empty() { key.to_string() } else { format!("{key}({})", within.join(" ")) }
            }
            Selection::FragmentSpread(spread) => format!("...{}", spread.node.fragment_name.node),
            Selection::InlineFragment(fragment) => {
                format!("...({})", fields(&fragment.node.selection_set.node).join(" "))
            }
        };
        set.items.iter().map(of).collect()
    }

    #[test]
    fn what_is_repeated_is_asked_once() {
        for (query, expected) in [
            ("{ a a a }", "a"),
            ("{ a { b } a { c b } a { c { d } } }", "a(b c c(d))"),
            ("{ a(x: 1) { b } a(x: 1) { b } }", "a(b)"),
            ("{ x: a { b } x: a { b } y: a { b } }", "x(b) y(b)"),
            ("{ ...F ...F ... { a { b b } } } fragment F on Q { a a }", "...F ...(a(b))"),
            // Differences are for validation, or depend on variables.
            ("{ a(x: 1) a(x: 2) }", "a a"),
            ("query($v: Boolean!) { a @skip(if: $v) a }", "a a"),
            ("{ a { b } a }", "a(b) a"),
        ] {
            let document = merged(query);
            let (_, operation) = document.operations.iter().next().unwrap();
            assert_eq!(fields(&operation.node.selection_set.node).join(" "), expected, "{query}");
            assert!(document.fragments.values().all(|fragment| fields(&fragment.node.selection_set.node) == ["a"]));
        }
    }

    #[test]
    fn what_fragments_repeat_is_counted() {
        let check = |query: &str| check_repeats(&merged(query));
        let spreads = |count: usize| {
            let fragments: Vec<String> = (0..count).map(|n| format!("fragment F{n} on Q {{ a {{ b }} }} ")).collect();
            let spread: Vec<String> = (0..count).map(|n| format!("...F{n} ")).collect();
            format!("{{ a {{ b }} {} }} {}", spread.concat(), fragments.concat())
        };
        assert!(check(&spreads(60)).is_ok());
        // Each level contains the next one twice.
        let levels: Vec<String> = (0..7)
            .map(|n| {
                format!("fragment A{n} on Q {{ ...A{0} ...B{0} }} fragment B{n} on Q {{ ...A{0} ...B{0} }} ", n + 1)
            })
            .collect();
        let levels = levels.concat();
        let ends = "fragment A7 on Q { a } fragment B7 on Q { a }";
        assert!(check(&format!("{{ ...A0 }} {levels} {ends}")).is_err());
        assert!(check(&format!("{{ x {{ ...A3 }} }} {levels} {ends}")).is_ok());
        let conditions: Vec<String> = (0..62).map(|n| format!("a @include(if: $v{n}) ")).collect();
        assert!(check(&format!("{{ {} }}", conditions.concat())).is_err());
        let inline = "... { a } ".repeat(62);
        assert!(check(&format!("{{ {inline} }}")).is_err());
    }
}
