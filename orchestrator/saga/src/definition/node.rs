//! A YAML document as a tree in which every key and value knows its line and column, so that every later complaint can
//! point at the text it is about.

use super::diagnostic::{Code, Diagnostic};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;
use std::fmt;
use std::sync::Arc;

/// A place in a file; lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The file's name, as it was given.
    pub file: Arc<str>,
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

impl Position {
    /// The first character of a file.
    #[must_use]
    pub fn start_of(file: &Arc<str>) -> Self {
        Self { file: Arc::clone(file), line: 1, column: 1 }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where.
    pub at: Position,
    /// What.
    pub kind: Kind,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Nothing.
    Null,
    /// `true` or `false`; YAML 1.1's other spellings are text.
    Bool(bool),
    /// A number.
    Number(serde_json::Number),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Its text.
    pub name: String,
    /// Where it stands.
    pub at: Position,
}

impl Node {
    /// Reads one YAML document. Strict: no duplicate keys, no YAML 1.1 booleans.
    ///
    /// # Errors
    /// When the text is not YAML; the parser bounds depth, size and aliases.
    pub fn parse(file: &Arc<str>, text: &str) -> Result<Self, Diagnostic> {
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let raw: Raw = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let (line, column) = error.location().map_or((1, 1), |at| (narrow(at.line()), narrow(at.column())));
            let at = Position { file: Arc::clone(file), line, column };
            Diagnostic::new(Code::NotYaml, &at, strip_location(&error.without_snippet().to_string()))
        })?;
        Ok(raw.place(file))
    }

    /// What the node is, for messages.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "a boolean",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// The text, if the node is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// The value under `name`, if the node is a mapping that has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::List(_) => None,
        }
    }

    /// The node as JSON, positions forgotten.
    #[must_use]
    pub fn json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(flag) => Value::Bool(*flag),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Self::json).collect()),
            Kind::Map(entries) => Value::Object(
                entries.iter().map(|(key, value)| (key.name.clone(), value.json())).collect::<Map<_, _>>(),
            ),
        }
    }
}

/// The parser puts the position into its message; ours stands in front.
fn strip_location(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    let message =
        message.rsplit_once(": ").filter(|(before, _)| before.starts_with("error: line")).map_or(message, |(_, m)| m);
    message.trim().trim_end_matches(':').to_owned()
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX).max(1)
}

/// The tree as the parser yields it, before the file's name is known.
struct Raw(Spanned<RawKind>);

enum RawKind {
    Leaf(Kind),
    List(Vec<Raw>),
    Map(Vec<(Spanned<String>, Raw)>),
}

impl Raw {
    fn place(self, file: &Arc<str>) -> Node {
        let at = position(file, self.0.referenced);
        let kind = match self.0.value {
            RawKind::Leaf(kind) => kind,
            RawKind::List(items) => Kind::List(items.into_iter().map(|item| item.place(file)).collect()),
            RawKind::Map(entries) => Kind::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        (Key { at: position(file, key.referenced), name: key.value }, value.place(file))
                    })
                    .collect(),
            ),
        };
        Node { at, kind }
    }
}

fn position(file: &Arc<str>, at: serde_saphyr::Location) -> Position {
    Position { file: Arc::clone(file), line: narrow(at.line()), column: narrow(at.column()) }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for RawKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = RawKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<RawKind, E> {
        Ok(RawKind::Leaf(Kind::Null))
    }

    fn visit_none<E>(self) -> Result<RawKind, E> {
        Ok(RawKind::Leaf(Kind::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawKind, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawKind, E> {
        Ok(RawKind::Leaf(Kind::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawKind, E> {
        Ok(RawKind::Leaf(Kind::Number(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawKind, E> {
        Ok(RawKind::Leaf(Kind::Number(value.into())))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<RawKind, E> {
        let number = serde_json::Number::from_f64(value).ok_or_else(|| E::custom("not a finite number"))?;
        Ok(RawKind::Leaf(Kind::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<RawKind, E> {
        Ok(RawKind::Leaf(Kind::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RawKind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(RawKind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<RawKind, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(RawKind::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Node, Diagnostic> {
        Node::parse(&Arc::from("a.yaml"), text)
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let node = parse("saga: x\nsteps:\n  - { call: a.b,\n      with: { on: yes, n: 3 } }\n").unwrap();
        let Kind::List(items) = &node.get("steps").unwrap().kind else { panic!() };
        let with = items[0].get("with").unwrap();
        assert_eq!((with.at.line, with.at.column), (4, 13));
        let Kind::Map(entries) = &with.kind else { panic!() };
        assert_eq!((entries[1].0.at.line, entries[1].0.at.column), (4, 24));
        assert_eq!(with.json(), serde_json::json!({ "on": "yes", "n": 3 }));
    }

    #[test]
    fn anchors_and_merges_work() {
        let node = parse("a: &a { x: 1, y: 2 }\nb: { <<: *a, y: 3 }\n").unwrap();
        assert_eq!(node.get("b").unwrap().json(), serde_json::json!({ "x": 1, "y": 3 }));
    }

    #[test]
    fn what_is_not_yaml_is_refused_with_its_place() {
        let error = parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert_eq!(error.code, Code::NotYaml);
        assert!(error.at.line >= 2, "{error}");
        let error = parse("a: 1\na: 2\n").unwrap_err();
        assert_eq!(error.at.line, 2, "{error}");
        let deep = "[".repeat(100_000);
        assert!(parse(&deep).is_err());
    }
}
