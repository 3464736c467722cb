//! The documents are true: their links, commands, settings, names of tests, sizes and generated pages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::vendors::script;

/// The longest that the front pages may be, in bytes.
const LONGEST: [(&str, usize); 2] = [("README.md", 8_192), ("ARCHITECTURE.md", 14_336)];
/// Variables of tests and of other programs.
const OTHER_VARIABLES: [&str; 1] = ["HOOKLEDGER_TEST_POSTGRES"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
}

/// Every document, by its path from the root.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&root().join("docs"), "md", &mut found);
    for entry in std::fs::read_dir(root()).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found.sort();
    found
}

/// A document's prose, and its code blocks with their languages.
fn split(text: &str) -> (String, Vec<(String, String)>) {
    let (mut prose, mut blocks) = (String::new(), Vec::new());
    for (index, part) in text.split("\n```").enumerate() {
        if index % 2 == 0 {
            prose.push_str(part);
            prose.push('\n');
        } else {
            let (language, code) = part.split_once('\n').unwrap_or((part, ""));
            blocks.push((language.to_owned(), code.to_owned()));
        }
    }
    (prose, blocks)
}

/// The texts between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Text without what is between backticks.
fn without_code(text: &str) -> String {
    text.split('`').step_by(2).collect()
}

/// The last cell of a table's row.
fn last_cell(row: &str) -> &str {
    row.trim_end_matches('|').rsplit('|').next().unwrap()
}

/// The anchors of a document's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let (prose, _) = split(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let words = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// The targets of a document's links, except those to other sites.
fn links(text: &str) -> Vec<String> {
    let (prose, _) = split(text);
    let prose = without_code(&prose);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned);
    targets.filter(|target| !target.contains("://")).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for document in documents() {
        let text = read(&document);
        for link in links(&text) {
            seen += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            let is_there = root().join(&target).exists();
            let has_anchor =
                || anchor.is_empty() || (target.extension().is_some() && anchors(&read(&target)).contains(anchor));
            if !(is_there && has_anchor()) {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
    assert!(seen > 50, "{seen}");
}

#[test]
fn every_path_that_the_documents_name_exists() {
    let roots: BTreeSet<String> =
        std::fs::read_dir(root()).unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let mut missing = Vec::new();
    let mut seen = 0;
    for document in documents() {
        let (prose, _) = split(&read(&document));
        for name in code(&prose) {
            let is_path = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
            let Some((first, _)) = name.split_once('/') else { continue };
            // Built and stored files come and go.
            if !is_path || !roots.contains(first) || ["target", "data"].contains(&first) {
                continue;
            }
            seen += 1;
            if !root().join(name).exists() {
                missing.push(format!("{}: {name}", document.display()));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
    assert!(seen > 50, "{seen}");
}

#[test]
fn every_page_is_in_the_book_and_stays_in_it() {
    let summary: BTreeSet<String> = links(&read("docs/SUMMARY.md")).into_iter().collect();
    for document in documents() {
        let Ok(page) = document.strip_prefix("docs") else { continue };
        let name = page.to_str().unwrap().to_owned();
        assert!(name == "SUMMARY.md" || summary.contains(&name), "docs/SUMMARY.md does not list {name}");
        for link in links(&read(&document)) {
            let up = page.parent().unwrap().components().count();
            assert!(link.matches("../").count() <= up, "{name} links out of the book: {link}");
        }
    }
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hookledger")).args(arguments).arg("--help").env_clear().output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// The subcommands of a command.
fn subcommands(arguments: &[&str]) -> BTreeSet<String> {
    let help = help(arguments);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') && !word.starts_with('-')
}

#[test]
fn every_command_that_the_documents_name_exists() {
    let makefile = read("Makefile");
    let commands = subcommands(&[]);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for document in documents() {
        let text = read(&document);
        let (prose, blocks) = split(&text);
        // SQL has roles and databases of that name.
        let blocks = blocks.iter().filter(|(language, _)| language != "sql").flat_map(|(_, code)| code.lines());
        let lines = code(&prose).chain(blocks);
        for line in lines {
            let words: Vec<&str> = line.split(|c: char| c.is_whitespace() || "$()\"';`".contains(c)).collect();
            for (index, word) in words.iter().enumerate() {
                let next = words.get(index + 1).copied().filter(|next| is_name(next));
                let is_there = match (*word, next) {
                    ("make", Some(target)) => makefile.contains(&format!("\n{target}:")),
                    ("hookledger" | "target/release/hookledger", Some(command)) => {
                        let below = words.get(index + 2).copied().filter(|next| is_name(next));
                        let inner = subcommands(&[command]);
                        commands.contains(command)
                            && (inner.is_empty() || below.is_none_or(|below| inner.contains(below)))
                    }
                    (script, _) if script.starts_with("scripts/") => root().join(script).exists(),
                    _ => continue,
                };
                seen += 1;
                if !is_there {
                    wrong.push(format!("{}: {line}", document.display()));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(seen > 40, "{seen}");
}

#[test]
fn every_setting_that_the_documents_name_exists() {
    let help = help(&["serve"]);
    for document in documents() {
        let text = read(&document);
        let names = text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
        for name in names.filter(|name| name.starts_with("HOOKLEDGER_") && name.len() > "HOOKLEDGER_".len()) {
            let is_there = help.contains(&format!("[env: {name}")) || OTHER_VARIABLES.contains(&name);
            assert!(is_there, "{}: there is no setting {name}", document.display());
        }
    }
}

#[test]
fn the_command_line_reference_is_what_the_binary_says() {
    let mut reference = Command::new("python3");
    reference.arg("scripts/reference").arg(env!("CARGO_BIN_EXE_hookledger")).current_dir(root());
    let output = reference.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page == read("docs/reference/command-line.md"), "the binary's help has changed: run `make reference`");
}

#[tokio::test]
async fn every_example_works() {
    let result = script("docs.mjs", Vec::new()).await;
    assert!(result["operations"].as_u64().unwrap() > 8, "{result}");
    assert_eq!(result["answers"], json!([204, 204, 400]));
}

#[test]
fn the_front_pages_are_short() {
    for (page, longest) in LONGEST {
        let length = read(page).len();
        assert!(length <= longest, "{page} has {length} bytes, and may have {longest}");
    }
}

/// All source code that contains tests.
fn sources() -> String {
    let mut found = Vec::new();
    for directory in ["tests/it", "src", "aggregates/src", "projections/src", "torture"] {
        files(&root().join(directory), "rs", &mut found);
    }
    found.iter().map(read).collect()
}

#[test]
fn every_test_that_the_invariants_name_exists() {
    let sources = sources();
    let mut count = 0;
    for page in ["ARCHITECTURE.md", "docs/development/invariants.md"] {
        let text = read(page);
        let rows = text.lines().filter(|line| line.starts_with("| ") && line.split('|').count() == 5);
        // Shorter names are functions and modules.
        let names = rows.flat_map(|row| code(last_cell(row))).filter(|name| {
            name.matches('_').count() > 2 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        });
        for name in names {
            assert!(sources.contains(&format!("fn {name}(")), "{page} names the test {name}, which does not exist");
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let directory = root().join("tests/it");
    let is_test = |name: &str| {
        let (module, function) = name.split_once("::")?;
        let source = std::fs::read_to_string(directory.join(format!("{module}.rs"))).ok()?;
        let head = format!("fn {function}()");
        let at = source.find(&head)?;
        // The attribute is right above it.
        source[..at].trim_end().trim_end_matches("async").trim_end().lines().last().map(|line| line.contains("test"))
    };
    let threats = read("docs/threat-model.md");
    let rows = threats
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| threat") && !line.starts_with("| ---"));
    let mut named = 0;
    for row in rows {
        let tests = last_cell(row);
        for name in code(tests) {
            assert_eq!(is_test(name), Some(true), "the threat model names the test {name}, which does not exist");
            named += 1;
        }
        assert!(code(tests).next().is_some() || tests.contains("none"), "no test is named for: {row}");
    }
    assert!(named > 30, "{named}");
}

#[test]
fn decisions_are_numbered_without_gaps_and_listed() {
    let mut found = Vec::new();
    files(&root().join("docs/decisions"), "md", &mut found);
    let index = read("docs/decisions/index.md");
    let mut names: Vec<String> =
        found.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    names.retain(|name| name != "index.md");
    names.sort();
    for (number, name) in (1..).zip(&names) {
        assert!(name.starts_with(&format!("{number:04}-")), "{name} is not number {number}");
        assert!(index.contains(&format!("({name})")), "docs/decisions/index.md does not list {name}");
        let text = read(Path::new("docs/decisions").join(name));
        for part in ["## Context", "## Decision", "## Consequences"] {
            assert!(text.contains(part), "{name} lacks {part}");
        }
    }
    assert!(names.len() > 20, "{names:?}");
}
