//! Which steps hang together by `of:`, and which of those chains are declared alike, so that swapping them changes
//! nothing that the model checks.

use super::Sample;
use super::state::MAX_MEMBERS;
use crate::plan::{Plan, Refused};
use std::ops::Range;

/// Chains and their classes, for one sample of a plan.
#[derive(Debug)]
pub(super) struct Shape {
    stages: Vec<Range<usize>>,
    steps: Vec<Place>,
    symmetric: bool,
}

/// Where a step stands.
#[derive(Debug)]
struct Place {
    stage: usize,
    root: usize,
    member: usize,
    class: usize,
}

/// What makes two chains alike: of each member its stage, its member number, the one it refers to, and its declaration.
type Likeness = Vec<(usize, usize, usize, bool, Refused, bool, bool)>;

impl Shape {
    pub(super) fn of(plan: &Plan, sample: &Sample, symmetry: bool) -> Self {
        let root_of = |mut step: usize| {
            while let Some(of) = plan.steps[step].of {
                step = of;
            }
            step
        };
        let roots: Vec<usize> = (0..plan.steps.len()).map(root_of).collect();
        let member = |step: usize| (0..step).filter(|other| roots[*other] == roots[step]).count();
        let likeness = |root: usize| -> Likeness {
            let members = (0..plan.steps.len()).filter(|step| roots[*step] == root);
            members
                .map(|index| {
                    let step = &plan.steps[index];
                    let of = step.of.map_or(0, member);
                    let applies = step.of.is_none() || sample.applies[index];
                    (step.stage, member(index), of, step.undo.is_some(), step.refused, step.best_effort, applies)
                })
                .collect()
        };
        let class = |step: usize| {
            let mine = likeness(roots[step]);
            let alike = |other: &usize| roots[*other] == *other && likeness(*other) == mine;
            // A chain too long to be followed, or no symmetry wanted: alike to itself alone.
            if symmetry && mine.len() <= MAX_MEMBERS {
                (0..plan.steps.len()).find(alike).unwrap_or(roots[step])
            } else {
                roots[step]
            }
        };
        let place = |step: usize| Place {
            stage: plan.steps[step].stage,
            root: roots[step],
            member: member(step),
            class: class(step),
        };
        Self {
            stages: plan.stages.iter().map(|stage| stage.steps.clone()).collect(),
            steps: (0..plan.steps.len()).map(place).collect(),
            symmetric: symmetry && (0..plan.steps.len()).all(|step| member(step) < MAX_MEMBERS),
        }
    }

    /// True when chains are to be sorted.
    pub(super) fn is_symmetric(&self) -> bool {
        self.symmetric
    }

    /// The step at the root of a step's chain.
    pub(super) fn root(&self, step: usize) -> usize {
        self.steps[step].root
    }

    /// Which part of its chain a step is; its root is 0.
    pub(super) fn member(&self, step: usize) -> usize {
        self.steps[step].member
    }

    /// The class of a step's chain: the first root that is declared alike.
    pub(super) fn class(&self, step: usize) -> usize {
        self.steps[step].class
    }

    /// A step's stage.
    pub(super) fn stage(&self, step: usize) -> usize {
        self.steps[step].stage
    }

    /// A stage's steps.
    pub(super) fn steps(&self, stage: usize) -> Range<usize> {
        self.stages[stage].clone()
    }
}
