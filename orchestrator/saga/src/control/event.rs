//! What can happen to a saga's control, and what it becomes by it.

use super::{Contradiction, Control, Course, Forward, Outcome, Run, Undo, WaitState};
use crate::plan::MAX_RUNS;
use endstate_events::Direction;

/// A fact about a saga's control.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ControlEvent {
    /// A stage began: its runs, as (step, how many), were sent.
    StageEntered {
        /// The stage.
        stage: u8,
        /// Steps with at least one run, in plan order, and their number of runs.
        counts: Vec<(u8, u8)>,
    },
    /// A stage's `when` did not hold.
    StageSkipped {
        /// The stage.
        stage: u8,
    },
    /// A run is done.
    RunDone {
        /// The run.
        run: u8,
    },
    /// A run was refused.
    RunRefused {
        /// The run.
        run: u8,
    },
    /// A run's ladder is used up.
    RunExhausted {
        /// The run.
        run: u8,
    },
    /// The saga goes on without a run's answer.
    RunAbandoned {
        /// The run.
        run: u8,
    },
    /// The undos of these runs were sent.
    UndosSent {
        /// The runs.
        runs: Vec<u8>,
    },
    /// A run is undone.
    UndoDone {
        /// The run.
        run: u8,
    },
    /// A run's undo was refused.
    UndoRefused {
        /// The run.
        run: u8,
    },
    /// Under force: the saga goes on without an undo's answer.
    UndoAbandoned {
        /// The run.
        run: u8,
    },
    /// A reply contradicts an earlier one.
    Contradicted {
        /// The run.
        run: u8,
    },
    /// A person has looked at a contradiction: the effect counts as done.
    ContradictionAccepted {
        /// The run.
        run: u8,
    },
    /// An operator had a parked run sent again, in a new round if it had been refused.
    RunRetried {
        /// The run.
        run: u8,
        /// Step or undo.
        direction: Direction,
    },
    /// A stage's wait began.
    WaitOpened {
        /// The stage.
        stage: u8,
    },
    /// An event came before its wait and is kept.
    EventKept {
        /// The stage of the wait.
        stage: u8,
    },
    /// A wait has its event.
    EventTaken {
        /// The stage of the wait.
        stage: u8,
    },
    /// An event did not match and the wait parks; the event is kept.
    EventMismatched {
        /// The stage of the wait.
        stage: u8,
    },
    /// The kept events of a wait are late.
    KeptLate {
        /// The stage of the wait.
        stage: u8,
    },
    /// An event is late: it starts a linked saga.
    EventLate {
        /// Index into the plan's events.
        event: u8,
    },
    /// Time was up and the ask was sent.
    WaitAsked {
        /// The stage of the wait.
        stage: u8,
    },
    /// Time was up and the saga goes on without the event.
    DeadlinePassed {
        /// The stage of the wait.
        stage: u8,
    },
    /// Time was up and the wait parks.
    DeadlineParked {
        /// The stage of the wait.
        stage: u8,
    },
    /// An operator lets a parked wait begin anew.
    WaitReset {
        /// The stage of the wait.
        stage: u8,
    },
    /// The saga gives back (before the pivot) or is to be reversed (after it).
    TurnedBack {
        /// True after the pivot.
        reversal: bool,
    },
    /// What was in flight has settled; the reversal stages follow.
    ReversalBegan {
        /// The first reversal stage.
        stage: u8,
    },
    /// The reversal stages are behind; the undos follow.
    ReturnBegan,
    /// An operator forces the end that gives everything back.
    ForceBegan,
    /// An expression failed, or an input went to the dead letters.
    Faulted,
    /// An operator has looked at it.
    FaultCleared,
    /// The saga is final.
    Ended {
        /// How.
        outcome: Outcome,
    },
}

/// What the control becomes by an event. Events come from [`super::react`] and [`super::advance`] on this very state;
/// others are not expected here.
#[must_use]
pub fn apply(mut control: Control, event: &ControlEvent) -> Control {
    apply_to(&mut control, event);
    control
}

/// [`apply`] in place.
pub fn apply_to(control: &mut Control, event: &ControlEvent) {
    match event {
        ControlEvent::StageEntered { stage, counts } => {
            control.next = stage + 1;
            for (step, count) in counts {
                for _ in 0..*count {
                    control.push_run(*step);
                }
            }
        }
        ControlEvent::StageSkipped { stage } => {
            control.next = stage + 1;
            control.set_wait(*stage, WaitState::Skipped);
        }
        ControlEvent::RunDone { run } => control.run_mut(*run).forward = Forward::Done,
        ControlEvent::RunRefused { run } => control.run_mut(*run).forward = Forward::Refused,
        ControlEvent::RunExhausted { run } => control.run_mut(*run).forward = Forward::Exhausted,
        ControlEvent::RunAbandoned { run } => control.run_mut(*run).forward = Forward::Abandoned,
        ControlEvent::UndosSent { runs } => {
            for run in runs {
                let run = control.run_mut(*run);
                run.undo = Undo::InFlight;
                run.undo_round = run.round;
            }
        }
        ControlEvent::UndoDone { run } => control.run_mut(*run).undo = Undo::Done,
        ControlEvent::UndoRefused { run } => control.run_mut(*run).undo = Undo::Refused,
        ControlEvent::UndoAbandoned { run } => control.run_mut(*run).undo = Undo::Abandoned,
        ControlEvent::Contradicted { run } => control.run_mut(*run).contradiction = Contradiction::Open,
        ControlEvent::ContradictionAccepted { run } => {
            let run = control.run_mut(*run);
            run.contradiction = Contradiction::Accepted;
            if run.undo == Undo::None {
                run.forward = Forward::Done;
            }
        }
        ControlEvent::RunRetried { run, direction } => retry(control.run_mut(*run), *direction),
        ControlEvent::WaitOpened { stage } => control.set_wait(*stage, WaitState::Open),
        ControlEvent::EventKept { stage } => {
            if control.wait(usize::from(*stage)) == WaitState::NotOpen {
                control.set_wait(*stage, WaitState::Kept);
            }
        }
        ControlEvent::EventTaken { stage } => control.set_wait(*stage, WaitState::Taken),
        ControlEvent::EventMismatched { stage } => control.set_wait(*stage, WaitState::ParkedMismatch),
        ControlEvent::KeptLate { stage } => {
            if matches!(control.wait(usize::from(*stage)), WaitState::Kept | WaitState::ParkedMismatch) {
                control.set_wait(*stage, WaitState::NotOpen);
            }
        }
        ControlEvent::WaitAsked { stage } => control.set_wait(*stage, WaitState::Asked),
        ControlEvent::DeadlinePassed { stage } => control.set_wait(*stage, WaitState::Passed),
        ControlEvent::DeadlineParked { stage } => control.set_wait(*stage, WaitState::ParkedDeadline),
        ControlEvent::WaitReset { stage } => control.set_wait(*stage, WaitState::NotOpen),
        ControlEvent::TurnedBack { reversal } => turn_back(control, *reversal),
        ControlEvent::ReversalBegan { stage } => {
            control.course = Course::Reversing;
            control.next = *stage;
        }
        ControlEvent::ReturnBegan => control.course = Course::Returning,
        ControlEvent::ForceBegan => {
            control.forced = true;
            control.faulted = false;
        }
        ControlEvent::Faulted => control.faulted = true,
        ControlEvent::FaultCleared => control.faulted = false,
        ControlEvent::Ended { outcome } => control.course = Course::Ended(*outcome),
        // The linked saga lives elsewhere.
        ControlEvent::EventLate { .. } => {}
    }
}

/// An id that was refused is refused for ever, so it needs a new round; one that is unknown is sent again as it was.
fn retry(run: &mut Run, direction: Direction) {
    match direction {
        Direction::Do => {
            if run.forward == Forward::Refused {
                run.round += 1;
            }
            run.forward = Forward::InFlight;
        }
        Direction::Undo => {
            run.undo_round += 1;
            run.undo = Undo::InFlight;
        }
    }
}

fn turn_back(control: &mut Control, reversal: bool) {
    control.course = if reversal { Course::Settling } else { Course::Compensating };
    // What failed to be evaluated is not needed any more; what a dead letter said comes late, if it is replayed.
    control.faulted = false;
    for wait in &mut control.waits[..usize::from(control.next)] {
        match wait {
            WaitState::NotOpen
            | WaitState::Kept
            | WaitState::Open
            | WaitState::Asked
            | WaitState::ParkedDeadline
            | WaitState::ParkedMismatch => *wait = WaitState::Passed,
            WaitState::Taken | WaitState::Passed | WaitState::Skipped => {}
        }
    }
}

impl Control {
    fn run_mut(&mut self, run: u8) -> &mut Run {
        &mut self.runs_mut()[usize::from(run)]
    }

    fn set_wait(&mut self, stage: u8, wait: WaitState) {
        self.waits[usize::from(stage)] = wait;
    }

    fn push_run(&mut self, step: u8) {
        // Loading refuses definitions that can exceed the limit, and decide faults before it; see `MAX_RUNS`.
        if usize::from(self.len) < MAX_RUNS {
            self.runs[usize::from(self.len)] = Run { step, ..Run::FREE };
            self.len += 1;
        }
    }
}
