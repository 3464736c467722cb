//! The direction of imports: each module of `src/` uses only modules of lower layers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the lowest to the highest. Modules of one layer do not use each other.
const LAYERS: &[&[&str]] = &[
    &["platform"],
    &["log"],
    &["directory", "identity", "reads"],
    &["audit", "receive", "deliver"],
    &["providers"],
    &["demo"],
    &["retention"],
    &["api"],
    &["node"],
    &["cli"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Names that follow `crate::`, those of `use crate::{a, b}` included.
fn used(source: &str) -> BTreeSet<&str> {
    let name = |text: &'_ str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut modules = BTreeSet::new();
    for (at, found) in source.match_indices("crate::") {
        let rest = &source[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = &list[..list.find('}').unwrap_or(list.len())];
                modules.extend(list.split(',').map(str::trim_start).map(|item| &item[..name(item)]));
            }
            None => {
                modules.insert(&rest[..name(rest)]);
            }
        }
    }
    modules
}

#[test]
fn modules_use_lower_layers_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let entries: Vec<_> = fs::read_dir(&root).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(entries.len() <= 16, "src/ has {} entries: a new module belongs into one of them", entries.len());
    let mut wrong = Vec::new();
    for module in entries.iter().filter_map(|name| name.to_str()).filter(|name| root.join(name).is_dir()) {
        let own = layer(module).unwrap_or_else(|| panic!("src/{module} is in no layer: add it to this list"));
        let mut files = Vec::new();
        sources(&root.join(module), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for other in used(&text).into_iter().filter(|other| *other != module) {
                if layer(other).is_some_and(|other| other >= own) {
                    wrong.push(format!("{} uses {other}", file.strip_prefix(&root).unwrap().display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports point upwards:\n{}", wrong.join("\n"));
}

/// Calls that a resolver leaves to a use case: appending, deciding, folding a stream, storing a secret.
const NOT_IN_RESOLVERS: [&str; 6] = ["NewEvent", "Unit::", "append_all", "vault::", ".decide(", ".evolve("];
const LINES_OF_A_RESOLVER: usize = 25;

#[test]
fn resolvers_read_their_arguments_call_one_function_and_answer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/graphql");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(&root).unwrap().display();
        wrong
            .extend(NOT_IN_RESOLVERS.iter().filter(|word| text.contains(**word)).map(|word| format!("{name}: {word}")));
        let lines: Vec<&str> = text.lines().collect();
        let begins = |line: &str| line.starts_with("    async fn ") || line.starts_with("    fn ");
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| begins(line)) {
            let length = lines[at..].iter().position(|line| *line == "    }").map_or(0, |end| end + 1);
            if length > LINES_OF_A_RESOLVER && line.contains("async") {
                wrong.push(format!("{name}: {} has {length} lines", line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "resolvers do too much:\n{}", wrong.join("\n"));
}
