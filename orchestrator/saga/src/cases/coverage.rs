//! Which ways of a definition its cases took.

use crate::control::Outcome;
use crate::definition::Definition;
use crate::event::{Event, Fact};
use crate::plan::Plan;
use crate::saga::Saga;
use std::collections::BTreeSet;

/// Ways seen, in words.
#[derive(Default)]
pub(super) struct Coverage(BTreeSet<String>);

impl Coverage {
    /// Notes what happened.
    pub(super) fn facts(&mut self, plan: &Plan, saga: &Saga, events: &[Event]) {
        let step = |run: &u8| &*plan.steps[usize::from(saga.data.runs[usize::from(*run)].step)].name;
        let stage = |stage: &u8| &*plan.stages[usize::from(*stage)].name;
        for event in events {
            let way = match &event.fact {
                Fact::RunDone { run, .. } => format!("step {} is done", step(run)),
                Fact::RunRefused { run, .. } => format!("step {} is refused", step(run)),
                Fact::UndoDone { run } => format!("step {} is undone", step(run)),
                Fact::EventTaken { stage: index, .. } => format!("stage {} gets its event", stage(index)),
                Fact::DeadlinePassed { stage: index } | Fact::DeadlineParked { stage: index } => {
                    format!("stage {} reaches its deadline", stage(index))
                }
                Fact::CancelRequested { reason, .. } => format!("it is cancelled: {reason}"),
                Fact::EventLate { event, .. } => format!("event {} is late", plan.events[usize::from(*event)].name),
                Fact::TurnedBack { reason, .. } => format!("it is cancelled: {reason}"),
                _ => continue,
            };
            self.0.insert(way);
        }
    }

    /// Notes the end.
    pub(super) fn ended(&mut self, outcome: Option<Outcome>) {
        if let Some(outcome) = outcome {
            self.0.insert(format!("it ends {}", outcome.label()));
        }
    }

    /// What was not seen.
    pub(super) fn missing(&self, definition: &Definition) -> Vec<String> {
        all_ways(definition).into_iter().filter(|way| !self.0.contains(way)).collect()
    }
}

/// Every way that a case could take. Operators' ways are the same for all definitions and belong to the core's tests.
fn all_ways(definition: &Definition) -> Vec<String> {
    let plan = definition.plan();
    let mut ways = Vec::new();
    for (index, step) in plan.steps.iter().enumerate() {
        ways.push(format!("step {} is done", step.name));
        let refusals = definition.steps[index].action.as_ref().is_none_or(|action| !action.refusals.is_empty());
        if refusals {
            ways.push(format!("step {} is refused", step.name));
        }
        if step.undo.is_some() {
            ways.push(format!("step {} is undone", step.name));
        }
    }
    for stage in plan.stages.iter().filter(|stage| stage.wait.is_some()) {
        ways.push(format!("stage {} gets its event", stage.name));
        ways.push(format!("stage {} reaches its deadline", stage.name));
    }
    ways.extend(plan.reasons.iter().map(|reason| format!("it is cancelled: {}", reason.name)));
    ways.extend(plan.events.iter().filter(|event| event.late).map(|event| format!("event {} is late", event.name)));
    ways.push("it ends completed".to_owned());
    ways
}
