//! Formats a comparison of read models.

use crate::reads::rebuild::{Comparison, Difference, TableComparison};

/// A line per table, and the first differences. `copy` is the name of the rows that the live ones are
/// compared with.
pub(super) fn told(comparison: &Comparison, copy: &str) -> String {
    let only = format!("only {copy}");
    let mut lines = vec![format!("{:<28} {:>10} {:>10} {:>10} {only:>14}", "table", "same", "different", "only live")];
    for TableComparison { table, same, different, only_live, only_copy, examples } in &comparison.tables {
        lines.push(format!("{table:<28} {same:>10} {different:>10} {only_live:>10} {only_copy:>14}"));
        lines.extend(examples.iter().map(|example| format!("  {}", of_row(example, copy))));
    }
    lines.join("\n")
}

fn of_row(Difference { key, columns, in_live, in_copy }: &Difference, copy: &str) -> String {
    let key: Vec<String> = key.iter().map(|(column, value)| format!("{column}={value}")).collect();
    let key = key.join(" ");
    match (in_live, in_copy) {
        (true, false) => format!("only live: {key}"),
        (false, true) => format!("only {copy}: {key}"),
        _ => {
            let of_column =
                |(column, live, other): &(String, String, String)| format!("{column}: live {live:?}, {copy} {other:?}");
            format!("{key}: {}", columns.iter().map(of_column).collect::<Vec<_>>().join("; "))
        }
    }
}
