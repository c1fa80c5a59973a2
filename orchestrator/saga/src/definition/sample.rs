//! Samples: realistic inputs on which expressions, payloads and the model check run.

use super::diagnostic::{Code, Diagnostic};
use super::node::Position;
use super::reader::Complaints;
use endstate_events::Json;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One sample: a JSON file in `samples/NAME/`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The file's name without its ending.
    #[serde(skip)]
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// The saga's input.
    pub input: Json,
    /// `input`, `steps` and `waits` of the order that the saga belongs to.
    #[serde(default)]
    pub order: Json,
    /// Data of replies by step, where the catalogue's example does not do; a list under `each`.
    #[serde(default)]
    pub replies: BTreeMap<String, Json>,
    /// Events by the stage whose wait they meet, in the order of their coming.
    #[serde(default)]
    pub events: BTreeMap<String, Vec<Json>>,
}

/// Reads the sample files of a definition.
pub(super) fn read_samples(files: &BTreeMap<String, String>, complaints: &Complaints) -> Vec<Sample> {
    let read = |(file, text): (&String, &String)| match serde_json::from_str::<Sample>(text) {
        Ok(sample) => Some(Sample { name: file.trim_end_matches(".json").to_owned(), ..sample }),
        Err(error) => {
            complaints.push(json_error(Code::BadSample, file, &error));
            None
        }
    };
    files.iter().filter_map(read).collect()
}

/// A complaint about a JSON file, at the parser's place.
pub(super) fn json_error(code: Code, file: &str, error: &serde_json::Error) -> Diagnostic {
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).max(1);
    let at = Position { file: Arc::from(file), line: narrow(error.line()), column: narrow(error.column()) };
    let message = error.to_string();
    let reason = message.split(" at line ").next().unwrap_or(&message).to_owned();
    Diagnostic::new(code, &at, reason)
}
