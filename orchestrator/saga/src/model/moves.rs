//! Everything that can happen to a saga in a state: what participants answer, timers, events, customers, operators.

use super::shape::Shape;
use super::state::State;
use super::{Options, Participants};
use crate::control::{Answer, Control, ControlInput, Course, Forward, Undo, WaitState};
use crate::plan::{AfterPivot, Plan};
use endstate_events::Direction;

/// One thing that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// The input.
    pub(super) input: ControlInput,
    /// Whose doing it is.
    pub(super) mover: Mover,
    /// For an operator who wakes one step among equal chains: which of them are that step's; a bit each.
    pub(super) chosen: Option<u32>,
}

/// Whose doing a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mover {
    /// A participant answers or a timer fires: it will happen if nothing else does.
    World,
    /// An operator helps (retries, wakes, has it give back), or what is awaited comes.
    Help,
    /// Other events, cancels, force, failures: may or may not happen.
    Chance,
}

/// The role of reasons that nobody but a wait uses.
const DEADLINE: &str = "deadline";

/// Writes all moves of a state into `moves`, always in the same order.
pub(super) fn moves(plan: &Plan, shape: &Shape, options: &Options, state: &State, moves: &mut Vec<Move>) {
    moves.clear();
    let mut add = |mover, input| moves.push(Move { input, mover, chosen: None });
    let control = &state.control;
    for run in 0..control.runs().len() {
        replies(control, run, options, &mut |input| add(Mover::World, input));
        if control.awaits(run).is_some() {
            add(Mover::World, ControlInput::Exhausted { run: run as u8 });
        }
    }
    if let Some(stage) = control.open_wait() {
        let stage = stage as u8;
        add(
            Mover::World,
            match control.wait(usize::from(stage)) {
                WaitState::Asked => ControlInput::Unanswered { stage },
                WaitState::Open
                | WaitState::NotOpen
                | WaitState::Kept
                | WaitState::Taken
                | WaitState::Passed
                | WaitState::Skipped
                | WaitState::ParkedDeadline
                | WaitState::ParkedMismatch => ControlInput::Deadline { stage },
            },
        );
    }
    for event in 0..plan.events.len() as u8 {
        for input in events(plan, control, event) {
            let awaited = input == ControlInput::Event { event, matches: true } && control.meets(plan, event).is_some();
            add(if awaited { Mover::Help } else { Mover::Chance }, input);
        }
    }
    for after_pivot in [AfterPivot::Refuse, AfterPivot::Reverse] {
        // Reasons that do the same are the same to control.
        let reason = plan.reasons.iter().position(|r| r.after_pivot == after_pivot && &*r.role != DEADLINE);
        if let Some(reason) = reason {
            add(Mover::Chance, ControlInput::Cancel { reason: reason as u8 });
        }
    }
    let evaluates = match control.course {
        Course::Forward | Course::Reversing => !control.forced,
        Course::Compensating | Course::Settling | Course::Returning | Course::Ended(_) => false,
    };
    if options.faults && evaluates {
        add(Mover::Chance, ControlInput::Fault);
    }
    if options.dead_letters {
        add(Mover::Chance, ControlInput::DeadLetter);
    }
    if control.is_parked(plan) {
        operators(plan, shape, state, moves);
    }
}

/// The replies that can arrive: those that the participant may give, whatever it has met. Repetitions of what is known
/// and answers that were overtaken change nothing; the properties prove it instead.
fn replies(control: &Control, index: usize, options: &Options, add: &mut impl FnMut(ControlInput)) {
    let run = &control.runs()[index];
    let mut reply = |direction, round, answer| {
        add(ControlInput::Reply { run: index as u8, direction, round, answer });
    };
    let lies = options.participants == Participants::Contradictory;
    let unknown = match run.forward {
        Forward::InFlight | Forward::Exhausted | Forward::Abandoned => true,
        Forward::Done | Forward::Refused => false,
    };
    if run.undo == Undo::None {
        if unknown || lies {
            reply(Direction::Do, run.round, Answer::Done);
            reply(Direction::Do, run.round, Answer::Refused);
        }
        if options.participants == Participants::Ahead {
            reply(Direction::Undo, run.round, Answer::Done);
        }
        return;
    }
    let unknown = match run.undo {
        Undo::InFlight | Undo::Abandoned => true,
        Undo::None | Undo::Done | Undo::Refused => false,
    };
    if unknown || lies {
        reply(Direction::Undo, run.undo_round, Answer::Done);
        reply(Direction::Undo, run.undo_round, Answer::Refused);
    }
}

/// An event that comes now, for the first time: right, and wrong where that makes a difference.
pub(super) fn events(plan: &Plan, control: &Control, event: u8) -> impl Iterator<Item = ControlInput> {
    let conditional = control
        .meets(plan, event)
        .is_some_and(|stage| plan.stages[stage].wait.as_ref().is_some_and(|wait| wait.conditional));
    let input = move |matches| ControlInput::Event { event, matches };
    [true, false].into_iter().filter(move |matches| *matches || conditional).map(input)
}

fn operators(plan: &Plan, shape: &Shape, state: &State, moves: &mut Vec<Move>) {
    let control = &state.control;
    let mut add = |mover, input, chosen| moves.push(Move { input, mover, chosen });
    add(Mover::Help, ControlInput::Retry, None);
    add(Mover::Help, ControlInput::Compensate, None);
    add(Mover::Chance, ControlInput::ForceCompleted, None);
    add(Mover::Chance, ControlInput::ForceCancelled, None);
    for step in 0..plan.steps.len() {
        let input = ControlInput::Wake { step: step as u8 };
        let alike = |run: &usize| shape.class(usize::from(control.runs()[*run].step)) == shape.class(step);
        let parked = (0..control.runs().len()).filter(alike).filter(|run| control.is_run_parked(plan, *run)).count();
        let (all, own) = state.chains_like(shape, step);
        if parked == 0 {
            continue;
        }
        if !shape.is_symmetric() || own == all {
            add(Mover::Help, input, None);
            continue;
        }
        // Sorting has forgotten which of the equal chains are this step's: any of them may be.
        for chosen in (0..1u32 << all).filter(|chosen| chosen.count_ones() == own) {
            add(Mover::Help, input, Some(chosen));
        }
    }
}
