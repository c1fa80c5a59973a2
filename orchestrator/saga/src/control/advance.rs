//! Advancing: what a saga does next by itself, one event at a time, until it must wait for an input.

use super::react::turn_back;
use super::{Contradiction, Control, ControlEvent, ControlInput, Course, Forward, Outcome, Reaction, Undo, WaitState};
use super::{apply, react};
use crate::plan::{EvalError, Mismatch, Plan, Refused};
use endstate_events::Direction;

/// What the definition's expressions say about this saga, asked only when it matters. In the model check they are
/// fixed by the sample.
pub trait Conditions {
    /// A stage's `when`.
    fn stage_applies(&self, stage: usize) -> Result<bool, EvalError>;
    /// How many runs a step has now; 0 skips it. Not asked for an `of:` step.
    fn items(&self, step: usize) -> Result<u8, EvalError>;
    /// The `when` of an `of:` step.
    fn step_applies(&self, step: usize) -> Result<bool, EvalError>;
    /// Whether one of the events kept for a stage's wait satisfies its `where`.
    fn kept_matches(&self, stage: usize) -> Result<bool, EvalError>;
}

/// One input and all that follows from it, on control alone: the reaction with its events completed, and the state
/// after them. `decide` does the same with data in between.
pub fn step(
    plan: &Plan,
    control: &Control,
    input: ControlInput,
    conditions: &impl Conditions,
) -> Result<(Reaction, Control), EvalError> {
    let mut events = match react(plan, control, input) {
        Reaction::Events(events) => events,
        quiet @ (Reaction::Ignored(_) | Reaction::Rejected(_) | Reaction::Discrepant) => return Ok((quiet, *control)),
    };
    let mut after = events.iter().fold(*control, apply);
    while let Some(event) = advance(plan, &after, conditions)? {
        after = apply(after, &event);
        events.push(event);
    }
    Ok((Reaction::Events(events), after))
}

/// The next event that follows by itself; none when the saga must wait. To be applied before asking again.
pub fn advance(
    plan: &Plan,
    control: &Control,
    conditions: &impl Conditions,
) -> Result<Option<ControlEvent>, EvalError> {
    let contradicted = control.runs().iter().any(|run| run.contradiction == Contradiction::Open);
    if control.faulted || (contradicted && !control.forced) {
        return Ok(None);
    }
    match control.course {
        Course::Forward => match turns_back(plan, control) {
            Some(event) => Ok(Some(event)),
            None => through_stages(plan, control, plan.forward_stages, conditions),
        },
        Course::Settling => Ok(settle(plan, control)),
        Course::Reversing => through_stages(plan, control, plan.stages.len(), conditions),
        Course::Compensating => Ok(Some(undo(plan, control, Outcome::Cancelled)).flatten()),
        Course::Returning => Ok(undo(plan, control, Outcome::Reversed)),
        Course::Ended(_) => Ok(None),
    }
}

/// Forward: a refusal that is not skipped, or an exhausted step before the pivot, turns the saga back.
fn turns_back(plan: &Plan, control: &Control) -> Option<ControlEvent> {
    let reversal = control.is_pivot_passed(plan);
    let turns = control.runs().iter().any(|run| {
        let step = &plan.steps[usize::from(run.step)];
        !step.best_effort
            && match run.forward {
                Forward::InFlight | Forward::Done | Forward::Abandoned => false,
                Forward::Exhausted => !reversal,
                Forward::Refused => match step.refused {
                    Refused::Compensate | Refused::Reverse => true,
                    Refused::Park | Refused::Skip => false,
                },
            }
    });
    if !turns {
        return None;
    }
    let mut events = Vec::new();
    turn_back(plan, control, reversal, &mut events);
    events.into_iter().next()
}

/// Forward and reversal stages, up to (not including) stage `end`.
fn through_stages(
    plan: &Plan,
    control: &Control,
    end: usize,
    conditions: &impl Conditions,
) -> Result<Option<ControlEvent>, EvalError> {
    let reversal = control.course == Course::Reversing;
    let begin = if reversal { plan.forward_stages } else { 0 };
    if let Some(run) = lets_go(plan, control) {
        return Ok(Some(ControlEvent::RunAbandoned { run }));
    }
    let next = usize::from(control.next);
    if next > begin && !control.is_stage_complete(plan, next - 1) {
        return open_wait(plan, control, next - 1, conditions);
    }
    if next == end {
        return Ok(Some(if reversal {
            ControlEvent::ReturnBegan
        } else {
            ControlEvent::Ended { outcome: Outcome::Completed }
        }));
    }
    enter(plan, control, next, conditions).map(Some)
}

/// An exhausted step that the saga does without: best effort, or under force.
fn lets_go(plan: &Plan, control: &Control) -> Option<u8> {
    let goes = |run: &super::Run| {
        run.forward == Forward::Exhausted && (control.forced || plan.steps[usize::from(run.step)].best_effort)
    };
    control.runs().iter().position(goes).map(|run| run as u8)
}

fn open_wait(
    plan: &Plan,
    control: &Control,
    index: usize,
    conditions: &impl Conditions,
) -> Result<Option<ControlEvent>, EvalError> {
    let stage = index as u8;
    let Some(wait) = &plan.stages[index].wait else { return Ok(None) };
    if !control.are_steps_settled(plan, index) {
        return Ok(None);
    }
    Ok(match control.wait(index) {
        WaitState::NotOpen => Some(ControlEvent::WaitOpened { stage }),
        WaitState::Kept => Some(match (conditions.kept_matches(index)?, wait.mismatch) {
            (true, Mismatch::Late | Mismatch::Park) => ControlEvent::EventTaken { stage },
            (false, Mismatch::Late) => ControlEvent::KeptLate { stage },
            // Under force nobody looks.
            (false, Mismatch::Park) if control.forced => ControlEvent::KeptLate { stage },
            (false, Mismatch::Park) => ControlEvent::EventMismatched { stage },
        }),
        WaitState::Open
        | WaitState::Asked
        | WaitState::Taken
        | WaitState::Passed
        | WaitState::Skipped
        | WaitState::ParkedDeadline
        | WaitState::ParkedMismatch => None,
    })
}

fn enter(
    plan: &Plan,
    control: &Control,
    index: usize,
    conditions: &impl Conditions,
) -> Result<ControlEvent, EvalError> {
    let stage = index as u8;
    // A kept event of a stage to be skipped becomes late first.
    if plan.stages[index].conditional && !conditions.stage_applies(index)? {
        return Ok(match control.wait(index) {
            WaitState::Kept => ControlEvent::KeptLate { stage },
            WaitState::NotOpen
            | WaitState::Open
            | WaitState::Asked
            | WaitState::Taken
            | WaitState::Passed
            | WaitState::Skipped
            | WaitState::ParkedDeadline
            | WaitState::ParkedMismatch => ControlEvent::StageSkipped { stage },
        });
    }
    let mut counts = Vec::new();
    for step in plan.stages[index].steps.clone() {
        let count = match plan.steps[step].of {
            None => conditions.items(step)?,
            Some(of) if conditions.step_applies(step)? => {
                let concerned = |run: &&super::Run| usize::from(run.step) == of && refers_to(run);
                control.runs().iter().filter(concerned).count() as u8
            }
            Some(_) => 0,
        };
        if count > 0 {
            counts.push((step as u8, count));
        }
    }
    Ok(ControlEvent::StageEntered { stage, counts })
}

/// Whether an `of:` step runs for this run: done or unknown, and not taken back.
#[must_use]
pub fn refers_to(run: &super::Run) -> bool {
    run.is_done_or_unknown() && run.undo == Undo::None
}

/// Settling: steps in flight are given their ladder; what exhausts is unknown, and the undos will cover it.
fn settle(plan: &Plan, control: &Control) -> Option<ControlEvent> {
    let mut in_flight = false;
    for (index, run) in control.runs().iter().enumerate() {
        match run.forward {
            Forward::Exhausted => return Some(ControlEvent::RunAbandoned { run: index as u8 }),
            Forward::InFlight => in_flight |= control.awaits(index) == Some(Direction::Do),
            Forward::Done | Forward::Refused | Forward::Abandoned => {}
        }
    }
    (!in_flight).then_some(ControlEvent::ReversalBegan { stage: plan.forward_stages as u8 })
}

/// Compensating and returning: the latest stage with something to undo, its undos in parallel.
fn undo(plan: &Plan, control: &Control, outcome: Outcome) -> Option<ControlEvent> {
    let open = || {
        let due = |run: &&super::Run| control.needs_undo(plan, run) && !control.is_undo_settled(run);
        control.runs().iter().filter(due)
    };
    let stage_of = |run: &super::Run| plan.steps[usize::from(run.step)].stage;
    let Some(stage) = open().map(stage_of).max() else {
        let outcome = if control.forced { Outcome::Forced } else { outcome };
        return Some(ControlEvent::Ended { outcome });
    };
    let unsent = |(_, run): &(usize, &super::Run)| {
        control.needs_undo(plan, run) && run.undo == Undo::None && stage_of(run) == stage
    };
    let runs: Vec<u8> = control.runs().iter().enumerate().filter(unsent).map(|(index, _)| index as u8).collect();
    (!runs.is_empty()).then_some(ControlEvent::UndosSent { runs })
}
