//! What the documents say of the tests.

use std::path::Path;

const THREATS: &str = include_str!("../../docs/threat-model.md");
const ARCHITECTURE: &str = include_str!("../../ARCHITECTURE.md");

/// What stands between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The last cell of a table's row.
fn last_cell(row: &str) -> &str {
    row.trim_end_matches('|').rsplit('|').next().unwrap()
}

fn sources(directory: &Path, all: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_table_of_invariants_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    for directory in ["tests/it", "src", "aggregates/src", "aggregates/tests", "projections/src"] {
        let directory = root.join(directory);
        if directory.exists() {
            sources(&directory, &mut all);
        }
    }
    let rows = ARCHITECTURE.lines().filter(|line| line.starts_with("| ") && line.split('|').count() == 5);
    // Shorter ones are functions and modules.
    let names = rows.flat_map(|row| code(last_cell(row))).filter(|name| {
        name.matches('_').count() > 2 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    let missing: Vec<&str> = names.filter(|name| !all.contains(&format!("fn {name}("))).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let is_test = |name: &str| {
        let (module, function) = name.split_once("::")?;
        let source = std::fs::read_to_string(directory.join(format!("{module}.rs"))).ok()?;
        let head = format!("fn {function}()");
        let at = source.find(&head)?;
        // The attribute is right above it.
        source[..at].trim_end().trim_end_matches("async").trim_end().lines().last().map(|line| line.contains("test"))
    };
    let rows = THREATS
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| threat") && !line.starts_with("| ---"));
    let mut named = 0;
    for row in rows {
        let tests = last_cell(row);
        for name in code(tests).filter(|name| !name.starts_with("deliver::")) {
            assert_eq!(is_test(name), Some(true), "the threat model names the test {name}, which does not exist");
            named += 1;
        }
        assert!(code(tests).next().is_some() || tests.contains("none"), "no test is named for: {row}");
    }
    assert!(named > 30, "{named}");
}
