//! What no compiler checks: who may import whom and the shape of files; in [`documents`], that everything a document
//! names exists; in [`metrics`], that dashboards, rules and runbooks fit the table of metrics.

mod documents;
mod metrics;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Which of our crates each crate may depend on. The program at the root joins them all.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("events", &[]),
    ("events/outbox", &["endstate-events"]),
    ("http", &["endstate-events", "endstate-outbox"]),
    ("orchestrator/saga", &["endstate-events"]),
    ("orchestrator", &["endstate-events", "endstate-outbox", "endstate-http", "endstate-saga"]),
    ("participants", &["endstate-events", "endstate-outbox", "endstate-http"]),
];

/// Crates that decide and never do: no runtime, no driver, no randomness, no log.
const PURE: &[&str] = &["events", "orchestrator/saga"];
const IMPURE: &[&str] = &["tokio", "sqlx", "rusqlite", "rand", "reqwest", "axum", "tracing", "metrics"];

/// A stopwatch for a report decides nothing.
const STOPWATCHES: &[&str] = &["orchestrator/saga/src/model/search.rs"];

/// Drivers, and the one crate that may name each. No entry: nobody yet.
const DRIVERS: &[(&str, &[&str])] = &[
    ("sqlx", &["events/outbox"]),
    ("rusqlite", &["events/outbox"]),
    ("rdkafka", &["events/outbox"]),
    ("redis", &["events/outbox"]),
    // The table of metrics speaks to it, and nobody else.
    ("metrics", &["events/outbox"]),
    ("metrics-exporter-prometheus", &["."]),
];

/// Where inside its crate a driver may be named.
const ROOMS: &[(&str, &[&str])] = &[
    ("rdkafka", &["events/outbox/src/kafka/", "events/outbox/tests/kafka/"]),
    ("redis", &["events/outbox/src/redis_examine.rs"]),
    ("metrics", &["events/outbox/src/metric.rs"]),
];

/// Lines above its tests that a file may have.
const LONGEST: usize = 400;

/// Files that may be longer, up to how much, and why they are one subject.
const LONGER: &[(&str, usize, &str)] = &[
    ("events/outbox/src/shard.rs", 480, "the loop of a shard, and every way in which it can fail"),
    ("orchestrator/src/decide.rs", 500, "a batch while it is decided, from its first input to its rows"),
    ("orchestrator/saga/src/control.rs", 480, "the control state and everything that is computed from it"),
    ("orchestrator/saga/src/control/react.rs", 510, "the table of transitions, to be read in one piece"),
    ("orchestrator/saga/src/event.rs", 410, "every kind of event, and what each means for control"),
    ("orchestrator/saga/src/toy.rs", 440, "definitions by hand and one saga on them, for the tests of the core"),
    ("orchestrator/saga/src/definition/link.rs", 500, "names to indices, one function per construct of the language"),
    ("participants/src/storage.rs", 450, "all SQL of the participants, beside what decodes it"),
    ("participants/tests/it/store.rs", 510, "one real store, and every way in which it is left and taken up again"),
    ("src/cli/args.rs", 630, "what can be typed, one declaration per command"),
];

/// A tracked text file.
struct File {
    path: String,
    text: String,
}

impl File {
    /// What stands above the file's own tests.
    fn code(&self) -> &str {
        self.text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of the tree with one of the endings, this one left out.
fn files(endings: &[&str]) -> Vec<File> {
    fn walk(folder: &Path, endings: &[&str], found: &mut Vec<File>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            let built = name == "target" || name == "data" || name.ends_with(".endstate");
            if path.is_dir() {
                if !built && (!name.starts_with('.') || name == ".ci") {
                    walk(&path, endings, found);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
                found.push(File { path: relative, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), endings, &mut found);
    found.retain(|file| !file.path.starts_with("tests/tidy/"));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn manifest(folder: &str) -> toml::Table {
    read(&format!("{folder}/Cargo.toml")).parse().unwrap()
}

/// Names of a manifest's dependencies, those for tests included when `tests` is set.
fn dependencies(folder: &str, tests: bool) -> BTreeSet<String> {
    let manifest = manifest(folder);
    let sections = if tests { &["dependencies", "dev-dependencies"][..] } else { &["dependencies"][..] };
    let tables = sections.iter().filter_map(|section| manifest.get(*section)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).collect()
}

/// Fails with all findings at once; one at a time would be a slow conversation.
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn crates_import_only_what_they_may() {
    let members = manifest(".")["workspace"]["members"].clone();
    let members: Vec<String> = members.try_into().unwrap();
    let known: Vec<&str> = MAY_IMPORT.iter().map(|(folder, _)| *folder).collect();
    let mut findings: Vec<String> = Vec::new();
    for member in &members {
        if !known.contains(&member.as_str()) {
            findings.push(format!("{member}: not in MAY_IMPORT; say what it may import"));
        }
        if manifest(member).get("lints").is_none() {
            findings.push(format!("{member}: lacks `[lints] workspace = true`"));
        }
    }
    for (folder, may) in MAY_IMPORT {
        for name in dependencies(folder, true).iter().filter(|name| name.starts_with("endstate")) {
            if !may.contains(&name.as_str()) {
                findings.push(format!("{folder} may not import {name}"));
            }
        }
    }
    none(findings);
}

/// Whether a path in the text begins with the crate's name.
fn names_crate(text: &str, name: &str) -> bool {
    let within = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    text.match_indices(&format!("{name}::")).any(|(at, _)| !text[..at].ends_with(within))
}

#[test]
fn drivers_stay_in_their_crates() {
    let mut findings = Vec::new();
    for (driver, homes) in DRIVERS {
        for folder in MAY_IMPORT.iter().map(|(folder, _)| *folder).chain(["."]) {
            if !homes.contains(&folder) && dependencies(folder, true).contains(*driver) {
                findings.push(format!("{folder} may not import {driver}"));
            }
        }
    }
    for (driver, rooms) in ROOMS {
        let named = |file: &&File| names_crate(&file.text, driver);
        for file in files(&[".rs"]).iter().filter(named) {
            if !rooms.iter().any(|room| file.path.starts_with(room)) {
                findings.push(format!("{} may not name {driver}", file.path));
            }
        }
    }
    none(findings);
}

#[test]
fn pure_crates_know_no_clock_and_do_nothing() {
    let clocks = ["SystemTime", "Instant", "std::thread", "std::net", "std::env"];
    let mut findings = Vec::new();
    for folder in PURE {
        for name in dependencies(folder, false).iter().filter(|name| IMPURE.contains(&name.as_str())) {
            findings.push(format!("{folder} is pure and may not import {name}"));
        }
        let inside = |file: &&File| {
            file.path.starts_with(&format!("{folder}/src/")) && !STOPWATCHES.contains(&file.path.as_str())
        };
        for file in files(&[".rs"]).iter().filter(inside) {
            for word in clocks.iter().filter(|word| file.code().contains(**word)) {
                findings.push(format!("{} is pure and may not name {word}", file.path));
            }
        }
    }
    none(findings);
}

#[test]
fn every_dependency_is_explained() {
    let changelog = read("CHANGELOG.md");
    let folders = MAY_IMPORT.iter().map(|(folder, _)| *folder).chain(["."]);
    let names: BTreeSet<String> = folders.flat_map(|folder| dependencies(folder, true)).collect();
    let foreign = names.into_iter().filter(|name| !name.starts_with("endstate"));
    let silent = foreign.filter(|name| !changelog.contains(&format!("`{name}`")));
    none(silent.map(|name| format!("CHANGELOG.md does not say what {name} is for")).collect());
}

/// The crate that a file belongs to: the deepest one above it.
fn crate_of(path: &str) -> &'static str {
    let above = MAY_IMPORT.iter().map(|(folder, _)| *folder).filter(|folder| path.starts_with(&format!("{folder}/")));
    above.max_by_key(|folder| folder.len()).unwrap_or(".")
}

#[test]
fn every_dependency_is_used() {
    let rust = files(&[".rs"]);
    let mut findings = Vec::new();
    for folder in MAY_IMPORT.iter().map(|(folder, _)| *folder).chain(["."]) {
        // This test is the one that reads manifests.
        for name in dependencies(folder, true).iter().filter(|name| *name != "toml") {
            let word = name.replace('-', "_");
            if !rust.iter().any(|file| crate_of(&file.path) == folder && file.text.contains(&word)) {
                findings.push(format!("{folder}/Cargo.toml: nothing uses {name}"));
            }
        }
    }
    none(findings);
}

#[test]
fn files_say_what_they_are_and_stay_short() {
    let mut findings = Vec::new();
    for file in files(&[".rs"]) {
        if !file.text.starts_with("//! ") {
            findings.push(format!("{}: begins without `//!`, its place in the flow", file.path));
        }
        let longest = LONGER.iter().find(|(path, ..)| *path == file.path).map_or(LONGEST, |(_, most, _)| *most);
        let lines = file.code().lines().count();
        if lines > longest {
            findings.push(format!("{}: {lines} lines above its tests, {longest} at most", file.path));
        }
    }
    for file in files(&[".sql"]).iter().filter(|file| !file.text.starts_with("-- ")) {
        findings.push(format!("{}: begins without a comment that says what it is", file.path));
    }
    none(findings);
}

#[test]
fn nothing_is_left_for_later_or_tied_to_a_machine() {
    let words = ["TODO", "FIXME", "XXX", "unimplemented!", "todo!", "/home/", "/root/", "/work/", "/Users/"];
    let mut findings = Vec::new();
    for file in files(&[".rs", ".sql", ".yaml", ".toml", ".md", ".json", ".py", "run"]) {
        for (number, line) in file.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                findings.push(format!("{}:{}: {word}", file.path, number + 1));
            }
        }
    }
    none(findings);
}
