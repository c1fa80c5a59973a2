//! Reading mappings strictly: every key is known, every value is of its kind, and every complaint is kept, so that one
//! run shows them all.

use super::diagnostic::{Code, Diagnostic};
use super::duration;
use super::node::{Kind, Node, Position};
use crate::expression::{CompileError, Expression, Template};
use crate::plan::Call;
use std::cell::RefCell;
use std::sync::Arc;

/// Longest name of a saga, stage, step, value or reason.
const MAX_NAME: usize = 64;

/// Complaints so far.
#[derive(Debug, Default)]
pub struct Complaints(RefCell<Vec<Diagnostic>>);

impl Complaints {
    /// Adds one.
    pub fn push(&self, diagnostic: Diagnostic) {
        self.0.borrow_mut().push(diagnostic);
    }

    /// Adds one without a fix.
    pub fn add(&self, code: Code, at: &Position, reason: impl Into<String>) {
        self.push(Diagnostic::new(code, at, reason));
    }

    /// All, in the order of the file.
    #[must_use]
    pub fn into_sorted(self) -> Vec<Diagnostic> {
        let mut all = self.0.into_inner();
        all.sort_by(|a, b| {
            let key = |d: &Diagnostic| (Arc::clone(&d.at.file), d.at.line, d.at.column, d.code);
            key(a).cmp(&key(b))
        });
        all.dedup();
        all
    }
}

/// A mapping being read.
pub(crate) struct Fields<'a> {
    pub(crate) node: &'a Node,
    what: &'static str,
    complaints: &'a Complaints,
}

impl<'a> Fields<'a> {
    /// Checks that the node is a mapping with known keys only.
    pub(crate) fn of(node: &'a Node, what: &'static str, known: &[&str], complaints: &'a Complaints) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            complaints.add(Code::WrongValue, &node.at, format!("{what} is a mapping, this is {}", node.describe()));
            return None;
        };
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.name.as_str())) {
            let diagnostic = Diagnostic::new(Code::UnknownKey, &key.at, format!("{what} has no key `{}`", key.name));
            let suggested = diagnostic.suggest(&key.name, known.iter().copied());
            complaints.push(match suggested.fix {
                Some(_) => suggested,
                None => suggested.fix(format!("known keys: {}", known.join(", "))),
            });
        }
        Some(Self { node, what, complaints })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Node> {
        self.node.get(key).filter(|node| node.kind != Kind::Null)
    }

    pub(crate) fn require(&self, key: &str) -> Option<&'a Node> {
        let found = self.get(key);
        if found.is_none() {
            self.complaints.add(Code::MissingKey, &self.node.at, format!("{} needs `{key}`", self.what));
        }
        found
    }

    pub(crate) fn text(&self, key: &str) -> Option<Arc<str>> {
        self.get(key).and_then(|node| text(node, key, self.complaints))
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        match self.get(key).map(|node| (&node.kind, node)) {
            None => false,
            Some((Kind::Bool(flag), _)) => *flag,
            Some((_, node)) => {
                let reason = format!("`{key}` is true or false, this is {}", node.describe());
                self.complaints.add(Code::WrongValue, &node.at, reason);
                false
            }
        }
    }

    /// One of some words.
    pub(crate) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        self.get(key).and_then(|node| word(node, key, words, self.complaints))
    }

    pub(crate) fn expression(&self, key: &str) -> Option<Expression> {
        self.get(key).and_then(|node| expression(node, key, self.complaints))
    }

    pub(crate) fn template(&self, key: &str) -> Option<Template> {
        self.get(key).and_then(|node| template(node, self.complaints))
    }

    pub(crate) fn call(&self, key: &str) -> Option<Placed<Call>> {
        self.get(key).and_then(|node| call(node, key, self.complaints))
    }

    pub(crate) fn duration(&self, key: &str) -> Option<u64> {
        let node = self.get(key)?;
        let written = text(node, key, self.complaints)?;
        placed_duration(&written, node, self.complaints)
    }

    /// The entries of a mapping of names, in order; names are checked.
    pub(crate) fn named(&self, key: &str) -> Vec<(Placed<Arc<str>>, &'a Node)> {
        self.get(key).map(|node| entries(node, key, true, self.complaints)).unwrap_or_default()
    }

    /// The entries of a mapping with free keys.
    pub(crate) fn entries(&self, key: &str) -> Vec<(Placed<Arc<str>>, &'a Node)> {
        self.get(key).map(|node| entries(node, key, false, self.complaints)).unwrap_or_default()
    }

    /// The items of a list.
    pub(crate) fn list(&self, key: &str) -> &'a [Node] {
        match self.get(key).map(|node| (&node.kind, node)) {
            None => &[],
            Some((Kind::List(items), _)) => items,
            Some((_, node)) => {
                let reason = format!("`{key}` is a list, this is {}", node.describe());
                self.complaints.add(Code::WrongValue, &node.at, reason);
                &[]
            }
        }
    }
}

/// Something and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed<T> {
    /// What.
    pub value: T,
    /// Where.
    pub at: Position,
}

fn entries<'a>(node: &'a Node, key: &str, names: bool, complaints: &Complaints) -> Vec<(Placed<Arc<str>>, &'a Node)> {
    let Kind::Map(entries) = &node.kind else {
        complaints.add(Code::WrongValue, &node.at, format!("`{key}` is a mapping, this is {}", node.describe()));
        return Vec::new();
    };
    let placed = entries.iter().map(|(key, value)| {
        if names {
            check_name(&key.name, &key.at, complaints);
        }
        (Placed { value: Arc::from(key.name.as_str()), at: key.at.clone() }, value)
    });
    placed.collect()
}

/// Names become parts of ids and of expressions.
pub(super) fn check_name(name: &str, at: &Position, complaints: &Complaints) {
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !fits {
        let reason =
            format!("`{name}` is not a name: expected 1 to {MAX_NAME} of a-z, 0-9 and `_`, starting with a letter");
        complaints.add(Code::BadName, at, reason);
    }
}

pub(super) fn text(node: &Node, key: &str, complaints: &Complaints) -> Option<Arc<str>> {
    if node.text().is_none() {
        complaints.add(Code::WrongValue, &node.at, format!("`{key}` is text, this is {}", node.describe()));
    }
    node.text().map(Arc::from)
}

pub(super) fn word<T: Copy>(node: &Node, key: &str, words: &[(&str, T)], complaints: &Complaints) -> Option<T> {
    let written = text(node, key, complaints)?;
    let found = words.iter().find(|(word, _)| *word == &*written).map(|(_, value)| *value);
    if found.is_none() {
        let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let reason = format!("`{key}` is one of {}, not `{written}`", names.join(", "));
        complaints.push(Diagnostic::new(Code::WrongValue, &node.at, reason).suggest(&written, names));
    }
    found
}

pub(super) fn expression(node: &Node, key: &str, complaints: &Complaints) -> Option<Expression> {
    let written = text(node, key, complaints)?;
    let Some(expression) = written.strip_prefix('=') else {
        let diagnostic = Diagnostic::new(Code::WrongValue, &node.at, format!("`{key}` is an expression"));
        complaints.push(diagnostic.fix(format!("write `={written}`")));
        return None;
    };
    match Expression::compile(expression.trim(), &node.at) {
        Ok(expression) => Some(expression),
        Err(error) => {
            complain(node, &error, complaints);
            None
        }
    }
}

pub(super) fn template(node: &Node, complaints: &Complaints) -> Option<Template> {
    match Template::compile(node) {
        Ok(template) => Some(template),
        Err((node, error)) => {
            complain(&node, &error, complaints);
            None
        }
    }
}

fn complain(node: &Node, error: &CompileError, complaints: &Complaints) {
    let code = match error {
        CompileError::TooLarge(_) => Code::ExpressionTooLarge,
        CompileError::Syntax(_) => Code::BadExpression,
        CompileError::Unknown(..) => Code::UnknownReference,
    };
    let diagnostic = Diagnostic::new(code, &node.at, error.to_string());
    complaints.push(match error {
        CompileError::Unknown(name, known) => diagnostic.suggest(name, known.iter().copied()),
        CompileError::TooLarge(_) | CompileError::Syntax(_) => diagnostic,
    });
}

fn call(node: &Node, key: &str, complaints: &Complaints) -> Option<Placed<Call>> {
    let written = text(node, key, complaints)?;
    let Some((participant, action)) = written.split_once('.') else {
        complaints.add(Code::WrongValue, &node.at, format!("`{key}` is PARTICIPANT.ACTION, not `{written}`"));
        return None;
    };
    let value = Call { participant: Arc::from(participant), action: Arc::from(action) };
    Some(Placed { value, at: node.at.clone() })
}

pub(super) fn placed_duration(written: &str, node: &Node, complaints: &Complaints) -> Option<u64> {
    let parsed = duration::parse(written);
    if let Err(reason) = &parsed {
        complaints.add(Code::BadDuration, &node.at, reason.clone());
    }
    parsed.ok()
}
