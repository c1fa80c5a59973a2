//! Cases: given / when / then stories in YAML, played on the pure core. No clock, no participants: the case scripts
//! every reply, every event and the passing of time, and says what it expects.

mod coverage;
mod play;
mod read;

use crate::definition::{Code, Complaints, Definition, Diagnostic, paths_of};
use coverage::Coverage;
use std::path::Path;

/// The text of a case file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseFile {
    /// Its name, for messages.
    pub file: String,
    /// Its text.
    pub text: String,
}

impl CaseFile {
    /// The case files of the definition in a file: `cases/NAME/*.yaml` beside it.
    #[must_use]
    pub fn beside(definition: &Path, name: &str) -> Vec<Self> {
        let folder = definition.parent().unwrap_or(Path::new(".")).join("cases").join(name);
        let read = |path: std::path::PathBuf| {
            let text = std::fs::read_to_string(&path).ok()?;
            Some(Self { file: path.display().to_string(), text })
        };
        paths_of(&folder, "yaml").into_iter().filter_map(read).collect()
    }
}

/// What playing cases gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Names of the cases that did what they say.
    pub passed: Vec<String>,
    /// Cases that did not, or could not be read: at the line of the expectation that failed.
    pub failures: Vec<Diagnostic>,
    /// Ways of the definition that no case took.
    pub uncovered: Vec<String>,
}

/// Plays all cases of a definition.
#[must_use]
pub fn run_cases(definition: &Definition, files: &[CaseFile]) -> Report {
    let mut report = Report::default();
    let mut coverage = Coverage::default();
    let complaints = Complaints::default();
    for case in files.iter().flat_map(|file| read::read_cases(file, definition, &complaints)) {
        match play::play(definition, &case, &mut coverage) {
            Ok(()) => report.passed.push(case.name.to_string()),
            Err(failure) => {
                let reason = format!("{}: {}", case.name, failure.reason);
                report.failures.push(Diagnostic::new(Code::CaseFailed, &failure.at, reason));
            }
        }
    }
    report.failures.extend(complaints.into_sorted());
    report.uncovered = coverage.missing(definition);
    report
}

#[cfg(test)]
mod tests;
