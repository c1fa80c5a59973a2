//! Collects the pages of docs/errors, so that a server can show each code that the program prints.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../docs/errors");
    println!("cargo::rerun-if-changed={}", folder.display());
    let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut codes: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".md")?.to_owned())).collect();
    codes.sort();
    let page = |code: &String| {
        let file = folder.join(format!("{code}.md"));
        println!("cargo::rerun-if-changed={}", file.display());
        format!("    ({code:?}, include_str!({file:?})),\n")
    };
    let pages: String = codes.iter().map(page).collect();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap()).join("pages.rs");
    fs::write(out, format!("[\n{pages}]\n")).unwrap();
}
