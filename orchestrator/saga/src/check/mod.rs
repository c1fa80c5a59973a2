//! The check of a loaded definition: its expressions and payloads run on its samples, and its samples cover it.

mod samples;
pub(crate) mod paths;

pub(crate) use samples::saga_of;

use crate::definition::{Code, Complaints, Definition, Diagnostic};
use crate::model::{self, CheckError, Options, Report};

/// Runs every expression and payload on every sample, and reports conditions that the samples take only one way. Empty
/// when all is well. The model check comes after this.
#[must_use]
pub fn check(definition: &Definition) -> Vec<Diagnostic> {
    let complaints = Complaints::default();
    samples::check(definition, &complaints);
    complaints.into_sorted()
}

/// Explores everything that can happen on each sample of a definition that passed [`check`].
///
/// # Errors
/// What must hold and does not, with the shortest way there; an end that no sample reaches; too many states.
pub fn explore(definition: &Definition, options: &Options) -> Result<Report, Vec<Diagnostic>> {
    let complain = |code, reason| Diagnostic::new(code, &definition.at, reason);
    let report = model::check_definition(definition, options).map_err(|error| {
        let code = match error {
            CheckError::TooManyStates { .. } => Code::ModelTooLarge,
            CheckError::Evaluation(_) => Code::SampleFails,
        };
        vec![complain(code, error.to_string())]
    })?;
    let violations = report.violations.iter().map(|found| complain(Code::ModelViolation, found.to_string()));
    let unreached = report.unreached_ends.iter().map(|end| {
        complain(Code::EndNotReached, format!("no sample reaches the end `{}`", end.label()))
            .fix("add a sample in which the saga can end like that")
    });
    let complaints: Vec<_> = violations.chain(unreached).collect();
    if complaints.is_empty() { Ok(report) } else { Err(complaints) }
}

#[cfg(test)]
mod tests;
