//! Expressions: CEL, compiled when a definition loads, evaluated over one saga.
//!
//! A value of a definition that starts with `=` is one expression. What most of them are (a path, a comparison, a sum) is
//! evaluated straight over the saga's JSON; the rest goes to the CEL interpreter. Both give the same results: whatever
//! the short way does not know, it leaves to the interpreter, errors included.

mod compile;
mod fast;
mod interpret;
mod path;
mod scope;
mod template;

pub use compile::{CompileError, MAX_DEPTH, MAX_LENGTH};
pub use path::{Path, Root, Segment};
pub use scope::Scope;
pub use template::Template;

use crate::definition::Position;
use endstate_events::Json;
use std::borrow::Cow;
use std::sync::Arc;

/// One compiled expression.
#[derive(Clone, Debug)]
pub struct Expression {
    /// The text after `=`.
    pub text: Arc<str>,
    /// Where it stands.
    pub at: Position,
    /// Every path that it reads, as far as it can be known without running it.
    pub paths: Arc<[Path]>,
    /// The list that bounds how many elements its value has, if that can be told.
    pub list: Option<Path>,
    fast: Option<Arc<fast::Fast>>,
    program: Arc<cel::Program>,
    roots: path::Roots,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Why an expression gave no value: the text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

impl Expression {
    /// Compiles the text after `=`.
    ///
    /// # Errors
    /// When the text is too long or too deep, is not CEL, or names what no expression can see.
    pub fn compile(text: &str, at: &Position) -> Result<Self, CompileError> {
        compile::compile(text, at)
    }

    /// Evaluates over what `scope` holds.
    ///
    /// # Errors
    /// A missing field, an overflow, operands that do not fit: in flight they park the saga.
    pub fn evaluate<'s>(&'s self, scope: &'s Scope<'_>) -> Result<Cow<'s, Json>, Failure> {
        if let Some(value) = self.fast.as_ref().and_then(|fast| fast.evaluate(scope)) {
            return Ok(value);
        }
        interpret::run(&self.program, self.roots, scope).map(Cow::Owned)
    }

    /// Evaluates to a condition.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], and when the value is not true or false.
    pub fn condition(&self, scope: &Scope<'_>) -> Result<bool, Failure> {
        let value = self.evaluate(scope)?;
        value.as_bool().ok_or_else(|| Failure(format!("expected true or false, got {}", brief(&value))))
    }

    /// Evaluates to a name: text, or a whole number written as text.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], and when the value is neither, or empty.
    pub fn name(&self, scope: &Scope<'_>) -> Result<String, Failure> {
        let value = self.evaluate(scope)?;
        match &*value {
            Json::String(text) if !text.is_empty() => Ok(text.clone()),
            Json::Number(number) if number.is_i64() => Ok(number.to_string()),
            other => Err(Failure(format!("expected text or a whole number, got {}", brief(other)))),
        }
    }
}

/// A value shortened for a message.
#[must_use]
pub fn brief(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
