//! What is wrong with a definition and where: one type for every complaint of loading, checking and testing.

use super::node::Position;
use std::fmt;

pub use super::code::Code;

/// One complaint, printed as `FILE:LINE:COLUMN: error[E1xxx]: reason`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its kind, with a page under docs/errors.
    pub code: Code,
    /// Where.
    pub at: Position,
    /// What is wrong, for people.
    pub reason: String,
    /// The likely fix, where there is one.
    pub fix: Option<String>,
}

impl Diagnostic {
    /// A complaint without a fix.
    #[must_use]
    pub fn new(code: Code, at: &Position, reason: impl Into<String>) -> Self {
        Self { code, at: at.clone(), reason: reason.into(), fix: None }
    }

    /// Adds the likely fix.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Adds `did you mean` when one of the known names is close to what was written.
    #[must_use]
    pub fn suggest<'a>(self, written: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match closest(written, known) {
            Some(name) => self.fix(format!("did you mean `{name}`?")),
            None => self,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { file, line, column } = &self.at;
        write!(f, "{file}:{line}:{column}: error[{}]: {}", self.code.label(), self.reason)?;
        match &self.fix {
            Some(fix) => write!(f, "\n  help: {fix}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// The known name nearest to the written one, if it is near enough to be meant.
fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 1 + written.chars().count() / 4;
    known
        .into_iter()
        .map(|name| (distance(written, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance, one row at a time. Names are short; anything longer than 64 is far from everything.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (above + 1).min(row[j] + 1).min(diagonal + usize::from(x != y));
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        assert_eq!(closest("stagse", ["saga", "stages", "steps"]), Some("stages"));
        assert_eq!(closest("colour", ["saga", "stages", "steps"]), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!((distance("ab", ""), distance("", "ab"), distance("abc", "c")), (2, 2, 2));
        // The longer a name, the more of it may be wrong.
        assert_eq!(closest("reserxxx", ["reserved"]), Some("reserved"));
        assert_eq!(closest("paxxx", ["pay"]), None);
        let long = "n".repeat(64);
        assert_eq!(closest(&long.replacen('n', "m", 1), [&*long]), Some(&*long));
        let longer = "n".repeat(65);
        assert_eq!((closest(&longer, [&*long]), closest(&long, [&*longer])), (None, None), "too long to be compared");
    }
}
