//! Pictures of a definition: Mermaid text for documents, and an SVG that needs no other program.

mod mermaid;
mod svg;

pub use mermaid::mermaid;
pub use svg::svg;

use crate::definition::Definition;
use crate::plan::{AtDeadline, Pivot, Plan, Stage, Step};

/// One stage as both pictures show it.
struct Box {
    name: String,
    /// Status, condition.
    notes: Vec<String>,
    /// Each step: its name, then what there is to say about it.
    steps: Vec<Vec<String>>,
    wait: Option<Vec<String>>,
    pivot_after: bool,
    /// Something in it can be undone.
    undone: bool,
}

/// The parts of a picture.
struct Sketch {
    title: String,
    pivot_at_start: bool,
    forward: Vec<Box>,
    reverse: Vec<Box>,
    completed: String,
    /// Absent when the saga only goes forward.
    cancelled: Option<String>,
    /// Absent without a pivot.
    reversed: Option<String>,
    reasons: Vec<String>,
    late: Vec<String>,
}

impl Sketch {
    fn of(definition: &Definition) -> Self {
        let plan = definition.plan();
        let boxes = |range: std::ops::Range<usize>| range.map(|stage| sketch_stage(definition, stage)).collect();
        let late = definition.events.iter().zip(&plan.events);
        Self {
            title: format!("{} version {}", plan.definition, plan.version),
            pivot_at_start: plan.pivot == Pivot::Start,
            forward: boxes(0..plan.forward_stages),
            reverse: boxes(plan.forward_stages..plan.stages.len()),
            completed: plan.ends.completed.to_string(),
            cancelled: (plan.pivot != Pivot::Start).then(|| plan.ends.cancelled.to_string()),
            reversed: (plan.pivot != Pivot::Never).then(|| plan.ends.reversed.to_string()),
            reasons: plan.reasons.iter().map(|reason| format!("{} ({})", reason.name, reason.role)).collect(),
            late: late
                .filter_map(|(rules, event)| Some(format!("{} starts {}", event.name, rules.late.as_ref()?.start)))
                .collect(),
        }
    }
}

fn sketch_stage(definition: &Definition, index: usize) -> Box {
    let plan = definition.plan();
    let stage = &plan.stages[index];
    let mut notes: Vec<String> = stage.status.iter().map(|status| format!("status {status}")).collect();
    notes.extend(definition.stages[index].when.as_ref().map(|when| format!("when {}", when.text)));
    Box {
        name: stage.name.to_string(),
        notes,
        steps: stage.steps.clone().map(|step| sketch_step(definition, step, &plan.steps[step])).collect(),
        wait: sketch_wait(plan, stage),
        pivot_after: plan.pivot == Pivot::Stage(index),
        undone: plan.steps[stage.steps.clone()].iter().any(|step| step.undo.is_some()),
    }
}

fn sketch_step(definition: &Definition, index: usize, step: &Step) -> Vec<String> {
    let rules = &definition.steps[index];
    let mut lines = vec![step.name.to_string(), format!("{}.{}", step.call.participant, step.call.action)];
    lines.extend(rules.each.as_ref().map(|each| format!("each {}", each.text)));
    lines.extend(step.of.map(|of| format!("of {}", definition.plan().steps[of].name)));
    lines.extend(rules.when.as_ref().map(|when| format!("when {}", when.text)));
    lines.extend(step.undo.as_ref().map(|undo| format!("undo {}.{}", undo.participant, undo.action)));
    if step.best_effort {
        lines.push("best effort".to_owned());
    }
    lines
}

fn sketch_wait(plan: &Plan, stage: &Stage) -> Option<Vec<String>> {
    let wait = stage.wait.as_ref()?;
    let deadline = match wait.at_deadline {
        AtDeadline::Next => "go on".to_owned(),
        AtDeadline::Cancel { reason } => format!("cancel: {}", plan.reasons[reason].name),
        AtDeadline::Reverse => "reverse".to_owned(),
        AtDeadline::Park => "park".to_owned(),
    };
    Some(vec![format!("wait for {}", plan.events[wait.event].name), format!("at the deadline: {deadline}")])
}

#[cfg(test)]
mod tests;
