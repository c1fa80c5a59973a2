//! Invariants: what must hold of every saga, each with an id. The model check, the tests and, as counters, production
//! use the same functions.
//!
//! They are about states that a saga rests in (after it has gone on by itself) and about single events.

use crate::control::{Contradiction, Control, ControlEvent, Course, Outcome, Run, Undo, WaitState};
use crate::plan::{Pivot, Plan};
use endstate_events::Direction;

/// One invariant.
#[derive(Clone, Copy, Debug)]
pub struct Invariant {
    /// `INV-1` and so on; never reused.
    pub id: &'static str,
    /// What must hold.
    pub says: &'static str,
    /// The check.
    pub check: Check,
}

/// What an invariant is about.
#[derive(Clone, Copy, Debug)]
pub enum Check {
    /// A state that a saga rests in.
    Rest(fn(&Plan, &Control) -> bool),
    /// An event: the state before, the event, the state after.
    Event(fn(&Plan, &Control, &ControlEvent, &Control) -> bool),
}

/// All invariants.
pub const ALL: [Invariant; 15] = [
    Invariant {
        id: "INV-1",
        says: "An ended saga never changes.",
        check: Check::Event(|_, before, _, after| !before.is_ended() || before == after),
    },
    Invariant {
        id: "INV-2",
        says: "Completed: every forward stage is behind, and nothing was undone.",
        check: Check::Rest(completed_is_complete),
    },
    Invariant {
        id: "INV-3",
        says: "Cancelled or reversed: every forward effect that may exist and has an undo is undone.",
        check: Check::Rest(given_back_is_undone),
    },
    Invariant {
        id: "INV-4",
        says: "Only forward steps that are done or unknown and have an undo are undone.",
        check: Check::Rest(only_effects_are_undone),
    },
    Invariant {
        id: "INV-5",
        says: "Undos go in reverse order of the stages.",
        check: Check::Event(undos_in_reverse_order),
    },
    Invariant {
        id: "INV-6",
        says: "Before the pivot a saga compensates, after it it reverses.",
        check: Check::Event(turns_back_by_the_pivot),
    },
    Invariant {
        id: "INV-7",
        says: "A reversal undoes only after its own stages are behind.",
        check: Check::Rest(reversal_comes_before_undos),
    },
    Invariant {
        id: "INV-8",
        says: "Runs are only added, their rounds only rise, and an undo's round is never below its step's.",
        check: Check::Event(rounds_only_rise),
    },
    Invariant { id: "INV-9", says: "A wait that has its event keeps it.", check: Check::Event(taken_stays_taken) },
    Invariant {
        id: "INV-10",
        says: "A saga at rest has ended, awaits a reply or an event, or is parked.",
        check: Check::Rest(rest_has_a_reason),
    },
    Invariant {
        id: "INV-11",
        says: "No step is sent once the saga gives back, but those of the reversal.",
        check: Check::Event(no_steps_while_giving_back),
    },
    Invariant {
        id: "INV-12",
        says: "A forced saga never parks.",
        check: Check::Rest(|plan, control| !control.forced || !control.is_parked(plan)),
    },
    Invariant {
        id: "INV-13",
        says: "No event is kept for a wait that will not open.",
        check: Check::Rest(nothing_is_kept_in_vain),
    },
    Invariant {
        id: "INV-14",
        says: "While answers contradict each other, nothing new is begun.",
        check: Check::Event(contradictions_halt),
    },
    Invariant {
        id: "INV-15",
        says: "From a failed expression or a dead letter until a person acts, nothing new is begun.",
        check: Check::Event(faults_halt),
    },
];

/// The first invariant that a state at rest breaks.
#[must_use]
pub fn broken_at_rest(plan: &Plan, control: &Control) -> Option<&'static Invariant> {
    ALL.iter().find(|invariant| match invariant.check {
        Check::Rest(holds) => !holds(plan, control),
        Check::Event(_) => false,
    })
}

/// The first invariant that an event breaks.
#[must_use]
pub fn broken_by(plan: &Plan, before: &Control, event: &ControlEvent, after: &Control) -> Option<&'static Invariant> {
    ALL.iter().find(|invariant| match invariant.check {
        Check::Rest(_) => false,
        Check::Event(holds) => !holds(plan, before, event, after),
    })
}

fn stage_of(plan: &Plan, run: &Run) -> usize {
    plan.steps[usize::from(run.step)].stage
}

fn completed_is_complete(plan: &Plan, control: &Control) -> bool {
    control.course != Course::Ended(Outcome::Completed)
        || (usize::from(control.next) == plan.forward_stages
            && (0..plan.forward_stages).all(|stage| control.is_stage_complete(plan, stage))
            && control.runs().iter().all(|run| run.undo == Undo::None))
}

fn given_back_is_undone(plan: &Plan, control: &Control) -> bool {
    match control.course {
        Course::Ended(Outcome::Cancelled | Outcome::Reversed) => {
            control.runs().iter().all(|run| !control.needs_undo(plan, run) || run.undo == Undo::Done)
        }
        Course::Ended(Outcome::Completed | Outcome::Forced)
        | Course::Forward
        | Course::Compensating
        | Course::Settling
        | Course::Reversing
        | Course::Returning => true,
    }
}

fn only_effects_are_undone(plan: &Plan, control: &Control) -> bool {
    control.runs().iter().all(|run| run.undo == Undo::None || control.needs_undo(plan, run))
}

fn undos_in_reverse_order(plan: &Plan, before: &Control, event: &ControlEvent, _: &Control) -> bool {
    let ControlEvent::UndosSent { runs } = event else { return true };
    let first = runs.iter().map(|run| stage_of(plan, &before.runs()[usize::from(*run)])).min().unwrap_or(0);
    let open = |run: &&Run| is_undo_open(plan, before, run);
    before.runs().iter().filter(open).all(|run| stage_of(plan, run) <= first)
}

fn is_undo_open(plan: &Plan, control: &Control, run: &Run) -> bool {
    control.needs_undo(plan, run) && !control.is_undo_settled(run)
}

fn turns_back_by_the_pivot(plan: &Plan, before: &Control, event: &ControlEvent, _: &Control) -> bool {
    let ControlEvent::TurnedBack { reversal } = event else { return true };
    // A wait that has just been passed by its deadline is no passed pivot: what counts is that its event never came.
    let by_deadline = |pivot: usize| before.wait(pivot) == WaitState::Passed;
    let passed = match plan.pivot {
        Pivot::Stage(pivot) if usize::from(before.next) == pivot + 1 && by_deadline(pivot) => false,
        Pivot::Stage(_) | Pivot::Never | Pivot::Start => before.is_pivot_passed(plan),
    };
    *reversal == passed && before.course == Course::Forward
}

fn reversal_comes_before_undos(plan: &Plan, control: &Control) -> bool {
    match control.course {
        Course::Returning | Course::Ended(Outcome::Reversed) => {
            usize::from(control.next) == plan.stages.len()
                && (plan.forward_stages..plan.stages.len()).all(|stage| control.is_stage_complete(plan, stage))
        }
        Course::Settling | Course::Reversing => control.runs().iter().all(|run| run.undo == Undo::None),
        Course::Forward
        | Course::Compensating
        | Course::Ended(Outcome::Completed | Outcome::Cancelled | Outcome::Forced) => true,
    }
}

fn rounds_only_rise(_: &Plan, before: &Control, _: &ControlEvent, after: &Control) -> bool {
    let kept = before.runs().iter().zip(after.runs()).all(|(before, after)| {
        after.step == before.step
            && after.round >= before.round
            && after.undo_round >= before.undo_round
            && (after.undo == Undo::None || after.undo_round >= after.round)
    });
    kept && after.runs().len() >= before.runs().len()
}

fn taken_stays_taken(_: &Plan, before: &Control, _: &ControlEvent, after: &Control) -> bool {
    before.waits().iter().zip(after.waits()).all(|(before, after)| *before != WaitState::Taken || before == after)
}

fn rest_has_a_reason(plan: &Plan, control: &Control) -> bool {
    control.is_ended() || control.is_in_motion() || control.open_wait().is_some() || control.is_parked(plan)
}

fn no_steps_while_giving_back(plan: &Plan, before: &Control, event: &ControlEvent, _: &Control) -> bool {
    match event {
        ControlEvent::StageEntered { stage, .. } => match before.course {
            Course::Forward => !plan.is_reversal(usize::from(*stage)),
            Course::Reversing => plan.is_reversal(usize::from(*stage)),
            Course::Compensating | Course::Settling | Course::Returning | Course::Ended(_) => false,
        },
        ControlEvent::RunRetried { run, direction: Direction::Do } => match before.course {
            Course::Forward | Course::Reversing => before.runs()[usize::from(*run)].undo == Undo::None,
            Course::Compensating | Course::Settling | Course::Returning | Course::Ended(_) => false,
        },
        ControlEvent::UndosSent { .. } => match before.course {
            Course::Compensating | Course::Returning => true,
            Course::Forward | Course::Settling | Course::Reversing | Course::Ended(_) => false,
        },
        ControlEvent::StageSkipped { .. }
        | ControlEvent::RunDone { .. }
        | ControlEvent::RunRefused { .. }
        | ControlEvent::RunExhausted { .. }
        | ControlEvent::RunAbandoned { .. }
        | ControlEvent::UndoDone { .. }
        | ControlEvent::UndoRefused { .. }
        | ControlEvent::UndoAbandoned { .. }
        | ControlEvent::Contradicted { .. }
        | ControlEvent::ContradictionAccepted { .. }
        | ControlEvent::RunRetried { direction: Direction::Undo, .. }
        | ControlEvent::WaitOpened { .. }
        | ControlEvent::EventKept { .. }
        | ControlEvent::EventTaken { .. }
        | ControlEvent::EventMismatched { .. }
        | ControlEvent::KeptLate { .. }
        | ControlEvent::EventLate { .. }
        | ControlEvent::WaitAsked { .. }
        | ControlEvent::DeadlinePassed { .. }
        | ControlEvent::DeadlineParked { .. }
        | ControlEvent::WaitReset { .. }
        | ControlEvent::TurnedBack { .. }
        | ControlEvent::ReversalBegan { .. }
        | ControlEvent::ReturnBegan
        | ControlEvent::ForceBegan
        | ControlEvent::Faulted
        | ControlEvent::FaultCleared
        | ControlEvent::Ended { .. } => true,
    }
}

fn nothing_is_kept_in_vain(plan: &Plan, control: &Control) -> bool {
    let will_open = |stage: usize| match control.course {
        Course::Forward => stage < plan.forward_stages,
        Course::Settling | Course::Reversing => stage >= plan.forward_stages,
        Course::Compensating | Course::Returning | Course::Ended(_) => false,
    };
    (0..plan.stages.len()).all(|stage| control.wait(stage) != WaitState::Kept || will_open(stage))
}

fn contradictions_halt(_: &Plan, before: &Control, event: &ControlEvent, _: &Control) -> bool {
    let open = before.runs().iter().any(|run| run.contradiction == Contradiction::Open);
    !open || before.forced || !begins(event)
}

fn faults_halt(_: &Plan, before: &Control, event: &ControlEvent, _: &Control) -> bool {
    !before.faulted || !begins(event)
}

/// What a saga does by itself to go on; an end that a person names is not among it.
fn begins(event: &ControlEvent) -> bool {
    matches!(
        event,
        ControlEvent::StageEntered { .. }
            | ControlEvent::WaitOpened { .. }
            | ControlEvent::UndosSent { .. }
            | ControlEvent::ReversalBegan { .. }
            | ControlEvent::ReturnBegan
            | ControlEvent::Ended { outcome: Outcome::Completed | Outcome::Cancelled | Outcome::Reversed }
    )
}

#[cfg(test)]
mod tests;
