//! Every code of a participant (E5) has a page.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_code_has_its_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    let mut codes = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        codes.extend(text.match_indices("E5").filter_map(|(at, _)| {
            let code = text.get(at..at + 5)?;
            code[1..].bytes().all(|byte| byte.is_ascii_digit()).then(|| code.to_owned())
        }));
    }
    assert!(codes.len() > 10, "{codes:?}");
    for code in codes {
        let page = root.join(format!("../docs/errors/{code}.md"));
        let text = std::fs::read_to_string(&page).unwrap_or_default();
        assert!(text.starts_with(&format!("# {code}: ")), "{} is missing", page.display());
    }
}
