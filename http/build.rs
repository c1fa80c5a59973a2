//! Collects the pages of docs/errors and docs/runbook, so that a server can show each code that the program prints, and
//! what to do about each alert.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    collect("errors");
    collect("runbook");
}

/// Writes the names and texts of a folder's pages.
fn collect(name: &str) {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../docs").join(name);
    println!("cargo::rerun-if-changed={}", folder.display());
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files.filter_map(|file| Some(file.strip_suffix(".md")?.to_owned())).collect();
    names.sort();
    let page = |name: &String| {
        let file = folder.join(format!("{name}.md"));
        println!("cargo::rerun-if-changed={}", file.display());
        format!("    ({name:?}, include_str!({file:?})),\n")
    };
    let pages: String = names.iter().map(page).collect();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap()).join(format!("{name}.rs"));
    fs::write(out, format!("[\n{pages}]\n")).unwrap();
}
