//! The check of a loaded definition: its expressions and payloads run on its samples, and its samples cover it.

mod samples;
pub(crate) mod paths;

pub(crate) use samples::saga_of;

use crate::definition::{Complaints, Definition, Diagnostic};

/// Runs every expression and payload on every sample, and reports conditions that the samples take only one way. Empty
/// when all is well. The model check comes after this.
#[must_use]
pub fn check(definition: &Definition) -> Vec<Diagnostic> {
    let complaints = Complaints::default();
    samples::check(definition, &complaints);
    complaints.into_sorted()
}

#[cfg(test)]
mod tests;
