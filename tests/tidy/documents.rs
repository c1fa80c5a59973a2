//! Documents: error pages, requirements, hazards, links, and the names of files and functions.

use crate::{File, files, none, read, root};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Codes such as `E1203` in a text.
fn codes(text: &str) -> BTreeSet<String> {
    let is_code = |word: &&str| {
        word.len() == 5
            && word.starts_with(['E'])
            && word[1..].bytes().all(|byte| byte.is_ascii_digit())
            && ('1'..='6').contains(&word.chars().nth(1).unwrap())
    };
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(is_code).map(str::to_owned).collect()
}

/// Families of codes, in the order of the index.
const FAMILIES: &[(&str, &str)] = &[
    ("E1", "definitions"),
    ("E20", "calls: the body and its surroundings"),
    ("E21", "calls: who may"),
    ("E22", "calls: what is not there"),
    ("E23", "calls: what is refused"),
    ("E24", "calls: payment callbacks"),
    ("E25", "calls: not now"),
    ("E29", "the sale file of the demo"),
    ("E3", "the engine"),
    ("E4", "store and bus"),
    ("E5", "participants"),
    ("E6", "the gate"),
];

const INDEX: &str = "# Error codes

Every refusal, and every line in the log that asks for somebody's attention, has a code. A code is never given another
meaning. A running server shows the pages at `/errors/CODE`. Refusal codes of participants, such as `stock.short`,
are data of a saga and not errors: the catalogue lists them.
";

/// `ENDSTATE_BLESS=1 cargo test --test tidy` writes the index.
#[test]
fn every_error_code_has_its_page() {
    let used: BTreeSet<String> = files(&[".rs"]).iter().flat_map(|file| codes(file.code())).collect();
    let mut pages: BTreeMap<String, String> = BTreeMap::new();
    let mut findings = Vec::new();
    for file in files(&[".md"]) {
        let name = file.path.strip_prefix("docs/errors/").and_then(|name| name.strip_suffix(".md"));
        let Some(code) = name.filter(|name| *name != "README") else { continue };
        match file.text.lines().next().unwrap_or_default().strip_prefix(&format!("# {code}: ")) {
            Some(title) => drop(pages.insert(code.to_owned(), title.to_owned())),
            None => findings.push(format!("{} must begin with `# {code}: TITLE`", file.path)),
        }
    }
    for code in used.iter().filter(|code| !pages.contains_key(*code)) {
        findings.push(format!("{code} has no page docs/errors/{code}.md"));
    }
    for (code, title) in &pages {
        // A code is never reused, so the page of one that is gone stays and says so.
        match (title.ends_with("(retired)"), used.contains(code)) {
            (false, false) => findings.push(format!("docs/errors/{code}.md: nothing raises {code}")),
            (true, true) => findings.push(format!("{code} is retired, and something raises it")),
            (true, false) | (false, true) => {}
        }
    }
    none(findings);
    let mut index = INDEX.to_owned();
    for (family, about) in FAMILIES {
        let lines = pages.iter().filter(|(code, _)| code.starts_with(family));
        let lines: String = lines.map(|(code, title)| format!("- [{code}]({code}.md) {title}\n")).collect();
        if !lines.is_empty() {
            index += &format!("\n## {family}: {about}\n\n{lines}");
        }
    }
    if std::env::var_os("ENDSTATE_BLESS").is_some() {
        fs::write(root().join("docs/errors/README.md"), &index).unwrap();
    }
    assert!(read("docs/errors/README.md") == index, "docs/errors/README.md is stale; ENDSTATE_BLESS=1 writes it");
}

/// Names of a file's functions.
fn functions_of(file: &File) -> Vec<String> {
    let name = |rest: &str| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().map(str::to_owned);
    file.text.split("fn ").skip(1).filter_map(name).collect()
}

/// Names of all functions, tests included.
fn functions() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = files(&[".rs"]).iter().flat_map(functions_of).collect();
    for path in ["tests/tidy/main.rs", "tests/tidy/documents.rs", "tests/tidy/metrics.rs"] {
        names.extend(functions_of(&File { path: path.to_owned(), text: read(path) }));
    }
    names
}

/// Rows of the tables in a document: the first cell and the last.
fn rows(document: &str) -> Vec<(String, String)> {
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let table = document.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| No.")).map(cells);
    table.filter_map(|cells| Some((cells.first()?.clone(), cells.last()?.clone()))).collect()
}

/// Tests named in a cell: the part of `file: name` or plain `name` that looks like a function.
fn named(cell: &str) -> Vec<String> {
    let code = cell.split('`').skip(1).step_by(2);
    let function = |word: &&str| word.contains('_') && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    code.filter(function).map(str::to_owned).collect()
}

/// Tests of a hazard: `z05_...` belongs to Z5.
fn tests_of<'f>(number: &str, functions: &'f BTreeSet<String>) -> Vec<&'f str> {
    let Some(number) = number.strip_prefix('Z').and_then(|number| number.parse::<u8>().ok()) else { return Vec::new() };
    let prefix = format!("z{number:02}_");
    functions.iter().map(String::as_str).filter(|name| name.starts_with(&prefix)).collect()
}

/// Cases of `endstate chaos` for a hazard: those whose help begins with its number.
fn cases_of(number: &str, cases: &str) -> Vec<String> {
    let lines: Vec<&str> = cases.lines().map(str::trim).collect();
    let about = format!("/// {number}: ");
    let of_it = lines.windows(2).filter(|pair| pair[0].starts_with(&about));
    let variants = of_it.filter_map(|pair| pair[1].strip_suffix(','));
    variants.map(|variant| format!("endstate chaos --case {}", variant.to_ascii_lowercase())).collect()
}

/// Folders whose tests need services.
const SERVICES: &[&str] = &["tests/services/", "/tests/postgres/", "/tests/kafka/"];

/// Where tests run that need services: each function's name and what the page of hazards says of it.
fn grounds() -> BTreeMap<String, &'static str> {
    let all = files(&[".rs"]);
    let needs = |file: &&File| SERVICES.iter().any(|folder| file.path.contains(folder));
    // A suite that a folder without services has as well is told on both grounds.
    let shared: BTreeSet<String> = all.iter().filter(needs).flat_map(included).collect();
    let mut grounds = BTreeMap::new();
    for file in &all {
        let ground = match (needs(&file), shared.contains(&file.path)) {
            (true, _) => " (services)",
            (false, true) => " (both)",
            (false, false) => continue,
        };
        grounds.extend(functions_of(file).into_iter().map(|name| (name, ground)));
    }
    grounds
}

/// Files of other folders that a file takes in as its modules.
fn included(file: &File) -> Vec<String> {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let whole = |path: &str| {
        let mut parts: Vec<&str> = folder.split('/').collect();
        for part in path.split('/') {
            if part == ".." { _ = parts.pop() } else { parts.push(part) }
        }
        parts.join("/")
    };
    file.text.split("#[path = \"").skip(1).filter_map(|rest| rest.split('"').next()).map(whole).collect()
}

/// The page of hazards with the tests and cases that there are, by name and by where they run.
fn hazards(page: &str, functions: &BTreeSet<String>, cases: &str) -> String {
    let grounds = grounds();
    let row = |line: &str| {
        let number = line.split(' ').nth(1).unwrap_or_default();
        let test = |name: &str| format!("`{name}`{}", grounds.get(name).copied().unwrap_or_default());
        let mut shown: Vec<String> = tests_of(number, functions).into_iter().map(test).collect();
        shown.extend(cases_of(number, cases).iter().map(|case| format!("`{case}`")));
        let Some((rest, _)) = line.trim_end_matches(" |").rsplit_once(" | ").filter(|_| !shown.is_empty()) else {
            return line.to_owned() + "\n";
        };
        format!("{rest} | {} |\n", shown.join(", "))
    };
    page.lines().map(row).collect()
}

/// `ENDSTATE_BLESS=1 cargo test --test tidy` enters new tests of hazards.
#[test]
fn requirements_and_hazards_name_tests_that_exist_or_say_not_yet() {
    let functions = functions();
    if std::env::var_os("ENDSTATE_BLESS").is_some() {
        let page = hazards(&read("docs/hazards.md"), &functions, &read("src/chaos/case.rs"));
        fs::write(root().join("docs/hazards.md"), page).unwrap();
    }
    let cases = read("src/chaos/case.rs");
    let mut findings = Vec::new();
    for path in ["docs/requirements.md", "docs/hazards.md"] {
        for (number, shown) in rows(&read(path)) {
            let tests = named(&shown);
            let case = shown.split("--case ").nth(1).and_then(|rest| rest.split('`').next());
            let number = number.trim();
            if let Some(case) = case.filter(|case| !cases_of(number, &cases).iter().any(|known| known.ends_with(case)))
            {
                findings.push(format!("{path}: {number} names the case {case}, which is none of it"));
            }
            if tests.is_empty() && case.is_none() && !shown.contains("not yet") {
                findings.push(format!("{path}: {number} has neither a test nor `not yet`"));
            }
            for test in tests.iter().filter(|test| !functions.contains(*test)) {
                findings.push(format!("{path}: {number} names `{test}`, which does not exist"));
            }
        }
    }
    none(findings);
}

/// Documents whose every `path/to/file.rs` and `Type::function` must exist. Changelog and plans may name what is gone.
const PRECISE: &[&str] = &["README.md", "CONTRIBUTING.md", "docs/ARCHITECTURE.md", "docs/guarantees.md", "docs/adr/"];

#[test]
fn documents_name_files_and_functions_that_exist() {
    let functions = functions();
    let mut findings = Vec::new();
    for file in files(&[".md"]).iter().filter(|file| PRECISE.iter().any(|path| file.path.starts_with(path))) {
        for code in file.text.split('`').skip(1).step_by(2) {
            let is_file = code.contains('/') && [".rs", ".yaml", ".sql"].iter().any(|ending| code.ends_with(ending));
            if is_file && !code.contains("N") && !root().join(code).exists() {
                findings.push(format!("{}: no file {code}", file.path));
            }
            let function = code.rsplit_once("::").map_or("", |(_, name)| name);
            let is_function = function.starts_with(|first: char| first.is_ascii_lowercase());
            if is_function && !functions.contains(function) {
                findings.push(format!("{}: no function {code}", file.path));
            }
        }
    }
    none(findings);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut findings = Vec::new();
    for file in files(&[".md"]) {
        let folder = root().join(&file.path).parent().unwrap().to_owned();
        for target in file.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            let outside = target.starts_with("http") || path.is_empty() || path.contains(' ');
            if !outside && !folder.join(path).exists() {
                findings.push(format!("{}: link to {target}, which is not there", file.path));
            }
        }
    }
    none(findings);
}

#[test]
fn the_readme_and_the_check_run_the_same_tests() {
    let command = "scripts/test\n";
    for path in ["README.md", "CONTRIBUTING.md", ".ci/run"] {
        assert!(read(path).contains(command), "{path} does not hold the line `{}`", command.trim());
    }
}
