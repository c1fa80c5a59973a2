//! From text to a compiled expression, with its limits.

use super::path::{Findings, Root};
use super::{Expression, fast, interpret};
use crate::definition::Position;
use std::sync::Arc;

/// Longest text of an expression, in characters.
pub const MAX_LENGTH: usize = 2_000;

/// Deepest nesting of an expression. The interpreter recurses: an unbounded depth exhausts the stack.
pub const MAX_DEPTH: usize = 32;

/// Names that CEL itself gives a meaning.
const WORDS: [&str; 12] =
    ["int", "uint", "double", "string", "bool", "bytes", "list", "map", "type", "null_type", "dyn", "timestamp"];

/// Functions that expressions may call.
const FUNCTIONS: [&str; 15] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "type",
    "dyn",
    "min",
    "max",
    "sum",
    "share",
];

/// Why an expression does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Longer than [`MAX_LENGTH`] or deeper than [`MAX_DEPTH`].
    #[error("{0}")]
    TooLarge(String),
    /// Not CEL.
    #[error("{0}")]
    Syntax(String),
    /// It names something unknown; the second value is the list of what is known.
    #[error("unknown name `{0}`")]
    Unknown(String, Vec<&'static str>),
}

pub(super) fn compile(text: &str, at: &Position) -> Result<Expression, CompileError> {
    let length = text.chars().count();
    if length > MAX_LENGTH {
        return Err(CompileError::TooLarge(format!("{length} characters, at most {MAX_LENGTH} are allowed")));
    }
    if nesting(text) > MAX_DEPTH {
        return Err(CompileError::TooLarge(format!("nested deeper than {MAX_DEPTH} levels")));
    }
    let program = interpret::parse(text).map_err(CompileError::Syntax)?;
    let findings = Findings::of(&program.expression().expr);
    // Macros expand to a few levels each, and a sum of n terms is n levels deep.
    if findings.depth > 2 * MAX_DEPTH {
        return Err(CompileError::TooLarge(format!(
            "{} operations inside each other, at most {}",
            findings.depth,
            2 * MAX_DEPTH
        )));
    }
    if let Some(stranger) = findings.strangers.iter().find(|name| !WORDS.contains(&name.as_str())) {
        return Err(CompileError::Unknown(stranger.clone(), Root::ALL.iter().map(|root| root.label()).collect()));
    }
    if let Some(stranger) = findings.functions.iter().find(|name| !FUNCTIONS.contains(&name.as_str())) {
        return Err(CompileError::Unknown(stranger.clone(), FUNCTIONS.to_vec()));
    }
    let fast = fast::Fast::of(&program.expression().expr).map(Arc::new);
    let mut paths = findings.paths;
    paths.sort();
    paths.dedup();
    Ok(Expression {
        text: Arc::from(text),
        at: at.clone(),
        paths: paths.into(),
        list: Findings::list_of(&program.expression().expr),
        fast,
        program: Arc::new(program),
        roots: findings.roots,
    })
}

/// How deep brackets, prefix operators and conditionals go: an upper bound, before a parser that recurses sees them.
fn nesting(text: &str) -> usize {
    let (mut open, mut prefixes, mut conditionals, mut deepest) = (0usize, 0usize, 0usize, 0usize);
    let mut quote = None;
    let mut escaped = false;
    for c in text.chars() {
        if let Some(end) = quote {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if c == end => quote = None,
                _ => {}
            }
            continue;
        }
        match c {
            '!' | '-' => prefixes += 1,
            _ if c.is_whitespace() => {}
            _ => prefixes = 0,
        }
        match c {
            '"' | '\'' => quote = Some(c),
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            '?' => conditionals += 1,
            _ => {}
        }
        deepest = deepest.max(open + prefixes + conditionals);
    }
    deepest
}
