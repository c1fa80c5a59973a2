//! The model check: everything that can happen to a saga of a definition, explored to the end.
//!
//! It calls production's transition ([`crate::control::step`]) over the definition's samples, with participants that do
//! as they like, a network that repeats and reorders without bound, timers, events at any moment, customers and
//! operators. What is left out, and why that is sound, stands in `docs/model-check.md`.
//!
//! - [`sample`]: what a sample fixes: which stages apply, over how many items steps run
//! - `state`, `shape`: a state, its packed form, and its normal form under swaps of equal chains
//! - `moves`, `follow`: what can happen, and where it leads
//! - `property`, `participant`: what must hold
//! - `search`: breadth first, with the shortest way to a violation

pub mod sample;
mod follow;
mod moves;
mod participant;
mod property;
mod rules;
mod search;
mod shape;
mod state;
mod trace;

pub use property::Property;
pub use sample::Sample;
pub use trace::Trace;

#[cfg(test)]
mod mutants;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unreduced;

use crate::control::Outcome;
use crate::definition::Definition;
use crate::plan::{EvalError, Pivot, Plan};
use follow::World;
use rules::{Production, Rules};
use search::{Search, Seen};
use shape::Shape;
use std::fmt;

/// What is explored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// States at which a sample is given up.
    pub limit: u64,
    /// Events kept for one wait at the same time.
    pub kept: u8,
    /// Whether participants keep to what they said.
    pub participants: Participants,
    /// Whether rounds are told apart.
    pub rounds: Rounds,
    /// Whether expressions may fail at any moment.
    pub faults: bool,
    /// Whether inputs may go to the dead letters at any moment.
    pub dead_letters: bool,
    /// Whether equal chains count as one.
    pub symmetry: bool,
}

/// What participants know, and whether they keep to what they said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Participants {
    /// What they answered they answer again.
    Honest,
    /// Any answer at any time.
    Contradictory,
    /// Honest, and ahead of the saga: in a history that is lost they may have undone what it has not had undone yet (Z14).
    Ahead,
}

/// Whether rounds are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounds {
    /// Replies of earlier rounds are proved inert, then their number is forgotten.
    Forgotten,
    /// Up to this round, at most 3.
    Kept {
        /// The last round.
        most: u8,
    },
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limit: 10_000_000,
            kept: 2,
            participants: Participants::Honest,
            rounds: Rounds::Forgotten,
            faults: false,
            dead_letters: true,
            symmetry: true,
        }
    }
}

/// What was explored and found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The samples.
    pub samples: Vec<SampleReport>,
    /// The first violation of each property in each sample.
    pub violations: Vec<Violation>,
    /// Ends that no sample reaches.
    pub unreached_ends: Vec<Outcome>,
    /// Stages that no sample enters, steps that none does or undoes, in words.
    pub unreached: Vec<String>,
}

/// What was explored of one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleReport {
    /// The sample's name.
    pub name: String,
    /// States, up to swaps of equal chains.
    pub states: u64,
    /// Moves that change something.
    pub edges: u64,
    /// Moves from the start to the farthest state.
    pub depth: u32,
    /// Ended states.
    pub ends: u64,
    /// Time taken.
    pub millis: u64,
    /// Memory held at most.
    pub bytes: u64,
}

impl fmt::Display for SampleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, states, edges, depth, ends, millis, bytes } = self;
        let seconds = *millis as f64 / 1000.0;
        let megabytes = *bytes as f64 / 1e6;
        write!(
            f,
            "{name}: {states} states, {edges} moves, depth {depth}, {ends} ends, {seconds:.1} s, {megabytes:.0} MB"
        )
    }
}

/// A property that does not hold, with the shortest way there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property.
    pub property: Property,
    /// The sample.
    pub sample: String,
    /// How it comes about.
    pub trace: Trace,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "does not hold in sample {}: {}", self.sample, self.property)?;
        write!(f, "{}", self.trace)
    }
}

/// Why a check gave up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The sample has too many states.
    #[error("sample {sample} has more than {limit} states")]
    TooManyStates {
        /// The sample.
        sample: String,
        /// The limit.
        limit: u64,
    },
    /// An expression fails.
    #[error(transparent)]
    Evaluation(#[from] EvalError),
}

/// Explores a definition on each of its samples; samples that fix the same are explored once.
///
/// # Errors
/// An expression fails on a sample, or a sample exceeds the limit of states.
pub fn check_definition(definition: &Definition, options: &Options) -> Result<Report, CheckError> {
    let mut samples: Vec<Sample> = Vec::new();
    for sample in definition.samples() {
        let sample = Sample::of(definition, sample)?;
        let alike = |known: &&mut Sample| {
            (&known.stages, &known.runs, &known.applies) == (&sample.stages, &sample.runs, &sample.applies)
        };
        match samples.iter_mut().find(alike) {
            Some(known) => known.name = format!("{}, {}", known.name, sample.name),
            None => samples.push(sample),
        }
    }
    check(definition.plan(), &samples, options)
}

/// Explores every sample of a definition's plan.
///
/// # Errors
/// A sample exceeds the limit of states.
pub fn check(plan: &Plan, samples: &[Sample], options: &Options) -> Result<Report, CheckError> {
    check_rules(plan, samples, options, &Production)
}

fn check_rules(plan: &Plan, samples: &[Sample], options: &Options, rules: &dyn Rules) -> Result<Report, CheckError> {
    let mut report = Report::default();
    let mut seen: Vec<Seen> = Vec::new();
    for sample in samples {
        let shape = Shape::of(plan, sample, options.symmetry);
        let found = Search::run(&World { plan, sample, shape: &shape, options, rules })?;
        report.samples.push(found.report);
        report.violations.extend(found.violations);
        seen.push(found.seen);
    }
    unreached(plan, &seen, &mut report);
    Ok(report)
}

/// What no sample reaches.
fn unreached(plan: &Plan, seen: &[Seen], report: &mut Report) {
    let ends = match plan.pivot {
        Pivot::Never => &[Outcome::Completed, Outcome::Cancelled, Outcome::Forced][..],
        Pivot::Start => &[Outcome::Completed, Outcome::Forced],
        Pivot::Stage(_) => &[Outcome::Completed, Outcome::Cancelled, Outcome::Reversed, Outcome::Forced],
    };
    let missing = |end: &&Outcome| !seen.iter().any(|seen| seen.outcomes.contains(end));
    report.unreached_ends = ends.iter().filter(missing).copied().collect();
    for (index, stage) in plan.stages.iter().enumerate() {
        if !seen.iter().any(|seen| seen.stages[index]) {
            report.unreached.push(format!("no sample enters stage {}", stage.name));
        }
    }
    for (index, step) in plan.steps.iter().enumerate() {
        if !seen.iter().any(|seen| seen.done[index]) {
            report.unreached.push(format!("no sample does step {}", step.name));
        } else if step.undo.is_some() && !plan.is_reversal(step.stage) && !seen.iter().any(|seen| seen.undone[index]) {
            report.unreached.push(format!("no sample undoes step {}", step.name));
        }
    }
}
