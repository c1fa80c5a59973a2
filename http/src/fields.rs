//! Members of a body taken one by one, so that a refusal lists every wrong one with its pointer, unknown ones included.

use crate::{Code, FieldError, Problem};
use endstate_events::Json;
use serde_json::Map;
use std::ops::RangeInclusive;

/// A JSON object being read.
#[derive(Debug)]
pub struct Fields {
    members: Map<String, Json>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// Starts to read; anything but an object is refused.
    pub fn of(body: Json) -> Result<Self, Problem> {
        match body {
            Json::Object(members) => Ok(Self { members, errors: Vec::new() }),
            _ => Err(Problem::field(Code::InvalidFields, "", "expected a JSON object")),
        }
    }

    fn wrong(&mut self, name: &str, detail: impl Into<String>) {
        self.errors.push(FieldError { pointer: format!("/{name}"), detail: detail.into() });
    }

    /// A text that must be there, with its length in characters.
    pub fn text(&mut self, name: &str, length: RangeInclusive<usize>) -> String {
        if !self.members.contains_key(name) {
            self.wrong(name, format!("missing: expected a text of {} to {} characters", length.start(), length.end()));
        }
        self.optional_text(name, length).unwrap_or_default()
    }

    /// A text that may be left out.
    pub fn optional_text(&mut self, name: &str, length: RangeInclusive<usize>) -> Option<String> {
        match self.members.remove(name)? {
            Json::String(text) if length.contains(&text.chars().count()) => Some(text),
            _ => {
                self.wrong(name, format!("expected a text of {} to {} characters", length.start(), length.end()));
                None
            }
        }
    }

    /// An integer that may be left out.
    pub fn optional_integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        match self.members.remove(name)?.as_i64() {
            Some(number) if range.contains(&number) => Some(number),
            _ => {
                self.wrong(name, format!("expected an integer from {} to {}", range.start(), range.end()));
                None
            }
        }
    }

    /// An integer that must be there.
    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> i64 {
        if !self.members.contains_key(name) {
            self.wrong(name, format!("missing: expected an integer from {} to {}", range.start(), range.end()));
        }
        self.optional_integer(name, range).unwrap_or_default()
    }

    /// True or false; false when left out.
    pub fn flag(&mut self, name: &str) -> bool {
        match self.members.remove(name) {
            None => false,
            Some(Json::Bool(flag)) => flag,
            Some(_) => {
                self.wrong(name, "expected true or false");
                false
            }
        }
    }

    /// Any JSON; null when left out.
    pub fn json(&mut self, name: &str) -> Json {
        self.members.remove(name).unwrap_or(Json::Null)
    }

    /// A list of texts; empty when left out.
    pub fn texts(&mut self, name: &str) -> Vec<String> {
        let Some(value) = self.members.remove(name) else { return Vec::new() };
        let list = value
            .as_array()
            .and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>());
        list.unwrap_or_else(|| {
            self.wrong(name, "expected a list of texts");
            Vec::new()
        })
    }

    /// One of a few words.
    pub fn one_of<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let found = match self.members.remove(name) {
            Some(Json::String(text)) => words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value),
            _ => None,
        };
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(name, format!("expected one of {}", known.join(", ")));
        }
        found
    }

    /// Lets unknown members pass, for bodies that others extend (CloudEvents' extension attributes).
    pub fn ignore_rest(&mut self) {
        self.members.clear();
    }

    /// Refuses what was wrong, and members that nobody took.
    pub fn finish(mut self) -> Result<(), Problem> {
        for name in std::mem::take(&mut self.members).keys().take(8) {
            let short: String = name.chars().take(64).collect();
            self.wrong(&short.replace('~', "~0").replace('/', "~1"), "unknown member");
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::fields(Code::InvalidFields, self.errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_wrong_members_are_listed() {
        let mut fields = Fields::of(json!({"reason": "", "n": 1.5, "dry": 1, "extra/": 1, "end": "x"})).unwrap();
        assert_eq!(fields.text("reason", 1..=10), "");
        fields.text("absent", 1..=10);
        fields.integer("n", 0..=10);
        assert!(!fields.flag("dry") && !fields.flag("left_out"));
        assert_eq!(fields.one_of("end", &[("completed", 1)]), None);
        let problem = fields.finish().unwrap_err();
        let pointers: Vec<_> = problem.errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/reason", "/absent", "/n", "/dry", "/end", "/extra~1"]);
        assert_eq!(Fields::of(json!([])).unwrap_err().code, Code::InvalidFields);
    }
}
