//! A definition's texts: all that is needed to load it again without its files, as the database keeps them.

use super::catalogue::{BUILTIN, BUILTIN_NAME};
use super::diagnostic::{Code, Diagnostic};
use super::node::{Node, Position};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The texts of one definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The definition file's name, for messages.
    pub file: String,
    /// Its text.
    pub text: String,
    /// Schema files by the path that the definition names them by.
    #[serde(default)]
    pub schemas: BTreeMap<String, String>,
    /// Sample files by name.
    #[serde(default)]
    pub samples: BTreeMap<String, String>,
    /// Catalogue files by name, the built-in one among them.
    #[serde(default)]
    pub catalogues: BTreeMap<String, String>,
    /// Names of the definitions that lie beside this one; links to others are refused. Empty: not known.
    #[serde(default)]
    pub siblings: Vec<String>,
}

impl Source {
    /// Collects the texts of the definition in a file: its schema, `samples/NAME/*.json` and `catalogue/*.yaml` beside
    /// it.
    ///
    /// # Errors
    /// A file that cannot be read, or a definition whose name or schema cannot be told.
    pub fn read(path: &Path) -> Result<Self, Diagnostic> {
        let file = path.display().to_string();
        let at = Position::start_of(&Arc::from(file.as_str()));
        let text = read_text(path, &at)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let node = Node::parse(&at.file, &text)?;
        let mut source = Self { file, text, ..Self::default() };
        if let Some((schema, name)) = node.get("input").and_then(|node| Some((node, node.text()?))) {
            source.schemas.insert(name.to_owned(), read_text(&folder.join(name), &schema.at)?);
        }
        if let Some(name) = node.get("saga").and_then(Node::text) {
            source.samples = read_folder(&folder.join("samples").join(name), "", "json", &at)?;
        }
        source.catalogues = read_folder(&folder.join("catalogue"), "catalogue/", "yaml", &at)?;
        source.catalogues.entry(BUILTIN_NAME.to_owned()).or_insert_with(|| BUILTIN.to_owned());
        source.siblings = siblings(folder);
        Ok(source)
    }

    /// The catalogue files, the built-in one first so that others can replace its participants.
    pub fn catalogue_files(&self) -> impl Iterator<Item = (&str, &str)> {
        let builtin = self.catalogues.get_key_value(BUILTIN_NAME);
        let others = self.catalogues.iter().filter(|(name, _)| *name != BUILTIN_NAME);
        builtin.into_iter().chain(others).map(|(name, text)| (name.as_str(), text.as_str()))
    }
}

fn read_text(path: &Path, at: &Position) -> Result<String, Diagnostic> {
    std::fs::read_to_string(path)
        .map_err(|error| Diagnostic::new(Code::CannotRead, at, format!("cannot read {}: {error}", path.display())))
}

/// Files of a folder with one ending, by name; a folder that is not there is empty.
fn read_folder(
    folder: &Path,
    prefix: &str,
    ending: &str,
    at: &Position,
) -> Result<BTreeMap<String, String>, Diagnostic> {
    let mut files = BTreeMap::new();
    for path in paths_of(folder, ending) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        files.insert(format!("{prefix}{name}"), read_text(&path, at)?);
    }
    Ok(files)
}

/// The files of a folder with one ending.
pub(crate) fn paths_of(folder: &Path, ending: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|found| found == ending)).collect();
    paths.sort();
    paths
}

/// Names of the definitions in a folder.
fn siblings(folder: &Path) -> Vec<String> {
    let names = paths_of(folder, "yaml").into_iter().filter_map(|path| {
        let text = std::fs::read_to_string(&path).ok()?;
        let node = Node::parse(&Arc::from(path.display().to_string()), &text).ok()?;
        node.get("saga").and_then(Node::text).map(str::to_owned)
    });
    names.collect()
}
