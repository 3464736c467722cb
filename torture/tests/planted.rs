//! The planted defects must stay plantable: a patch that no longer applies finds nothing, silently.

use std::path::Path;
use std::{fs, io};

/// A hunk's lines as they have to be in the source.
fn before(hunk: &str) -> Vec<&str> {
    hunk.lines().skip(1).filter(|line| !line.starts_with('+')).map(|line| line.get(1..).unwrap_or_default()).collect()
}

#[test]
fn every_planted_defect_fits_the_source() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut patches = 0;
    for entry in fs::read_dir(root.join("torture/planted"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "patch") {
            continue;
        }
        patches += 1;
        for of_file in fs::read_to_string(&path)?.split("\ndiff --git ") {
            let (head, hunks) =
                of_file.split_once("\n@@").unwrap_or_else(|| panic!("{path:?} has a file without a hunk"));
            let file = head.lines().find_map(|line| line.strip_prefix("+++ b/")).unwrap_or_default();
            let source =
                fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{path:?}: {file}: {error}"));
            let source: Vec<_> = source.lines().collect();
            for hunk in hunks.split("\n@@") {
                let before = before(hunk);
                let fits = source.windows(before.len()).any(|lines| lines == before);
                assert!(fits, "{path:?} does not fit {file} any more; make it again:\n{}", before.join("\n"));
            }
        }
    }
    assert_eq!(patches, 5);
    Ok(())
}
