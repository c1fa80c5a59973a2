//! The shortest way to a violation, in words.

use super::follow::World;
use super::moves::{Move, moves};
use crate::control::{Answer, Control, ControlInput};
use crate::plan::Plan;
use endstate_events::Direction;
use std::fmt;

/// What happened, move by move. Equal chains (two items, a coupon and points) are interchangeable: a name stands for
/// any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The moves.
    pub moves: Vec<String>,
    /// The control state at the end.
    pub last: String,
}

impl Trace {
    /// Follows the moves by their numbers once more.
    pub(super) fn replay(world: &World<'_>, numbers: &[u16], last: Option<&Move>) -> Self {
        let (mut state, _) = world.initial();
        let (mut words, mut possible) = (Vec::new(), Vec::new());
        for number in numbers {
            moves(world.plan, world.shape, world.options, &state, &mut possible);
            let Some(mv) = possible.get(usize::from(*number)) else { break };
            words.push(describe(world.plan, &state.control, mv));
            if let Some(followed) = world.follow(&state, mv) {
                state = followed.state;
            }
        }
        if let Some(mv) = last {
            words.push(describe(world.plan, &state.control, mv));
            if let Some(followed) = world.follow(&state, mv) {
                state = followed.state;
            }
        }
        Self { moves: words, last: format!("{:?}", state.control) }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, mv) in self.moves.iter().enumerate() {
            writeln!(f, "{:3}. {mv}", number + 1)?;
        }
        write!(f, "  => {}", self.last)
    }
}

/// A move in words.
fn describe(plan: &Plan, control: &Control, mv: &Move) -> String {
    let step = |run: u8| {
        let name = |step: u8| &plan.steps[usize::from(step)].name;
        match control.runs().get(usize::from(run)) {
            Some(state) => format!("{} (run {run})", name(state.step)),
            None => format!("run {run}"),
        }
    };
    let stage = |stage: u8| &plan.stages[usize::from(stage)].name;
    match mv.input {
        ControlInput::Reply { run, direction, answer, .. } => {
            let what = match direction {
                Direction::Do => "",
                Direction::Undo => "undo of ",
            };
            let says = match answer {
                Answer::Done => "done",
                Answer::Refused => "refused",
                Answer::Unknown => "unknown",
                Answer::NeverSeen => "never seen",
            };
            format!("{what}{} answers {says}", step(run))
        }
        ControlInput::Exhausted { run } => format!("{} is exhausted", step(run)),
        ControlInput::Event { event, matches } => {
            let fits = if matches { "" } else { ", which does not match" };
            format!("event {}{fits}", plan.events[usize::from(event)].name)
        }
        ControlInput::Deadline { stage: at } => format!("deadline of {}", stage(at)),
        ControlInput::Unanswered { stage: at } => format!("the ask of {} brings nothing", stage(at)),
        ControlInput::Cancel { reason } => format!("cancel {}", plan.reasons[usize::from(reason)].name),
        ControlInput::Retry => "operator: retry".into(),
        ControlInput::Wake { step } => format!("operator: wake {}", plan.steps[usize::from(step)].name),
        ControlInput::Compensate => "operator: compensate".into(),
        ControlInput::ForceCompleted => "operator: force completed".into(),
        ControlInput::ForceCancelled => "operator: force cancelled".into(),
        ControlInput::Fault => "an expression fails".into(),
        ControlInput::DeadLetter => "an input goes to the dead letters".into(),
    }
}
