//! Reacting to replies: what a participant says of a step or of its undo, against what is known of the run.

use super::react::{Answer, Ignored, Reaction, one, turn_back};
use super::{Contradiction, Control, ControlEvent, Course, Forward, Run, Undo};
use crate::plan::Plan;

/// The answer to a step.
pub(super) fn forward(control: &Control, run: u8, state: &Run, round: u8, answer: Answer) -> Reaction {
    if round != state.round {
        return Reaction::Ignored(if round < state.round { Ignored::OldRound } else { Ignored::NeverSent });
    }
    // Once its undo was sent, nothing hangs on the answer: the undo holds for done and unknown alike.
    if state.undo != Undo::None {
        return Reaction::Ignored(Ignored::Overtaken);
    }
    match (state.forward, answer) {
        (_, Answer::Unknown | Answer::NeverSeen) => Reaction::Ignored(Ignored::Inconclusive),
        (Forward::Done, Answer::Done) | (Forward::Refused, Answer::Refused) => Reaction::Ignored(Ignored::Duplicate),
        (Forward::Done, Answer::Refused) | (Forward::Refused, Answer::Done) => contradiction(control, run, state),
        (Forward::InFlight | Forward::Exhausted | Forward::Abandoned, Answer::Done | Answer::Refused)
            if control.is_ended() =>
        {
            Reaction::Ignored(Ignored::Ended)
        }
        (Forward::InFlight | Forward::Exhausted | Forward::Abandoned, Answer::Done) => {
            one(ControlEvent::RunDone { run })
        }
        (Forward::InFlight | Forward::Exhausted, Answer::Refused) => one(ControlEvent::RunRefused { run }),
        (Forward::Abandoned, Answer::Refused) => Reaction::Ignored(Ignored::Overtaken),
    }
}

/// The answer to an undo that was sent.
pub(super) fn undo(control: &Control, run: u8, state: &Run, round: u8, answer: Answer) -> Reaction {
    if round > state.undo_round {
        return Reaction::Ignored(Ignored::NeverSent);
    }
    if round < state.undo_round {
        return Reaction::Ignored(Ignored::OldRound);
    }
    match (state.undo, answer) {
        (Undo::None, Answer::Done | Answer::Refused | Answer::Unknown | Answer::NeverSeen) => {
            Reaction::Ignored(Ignored::NeverSent)
        }
        (Undo::InFlight | Undo::Done | Undo::Refused | Undo::Abandoned, Answer::Unknown | Answer::NeverSeen) => {
            Reaction::Ignored(Ignored::Inconclusive)
        }
        (Undo::Done, Answer::Done) | (Undo::Refused, Answer::Refused) => Reaction::Ignored(Ignored::Duplicate),
        (Undo::Done, Answer::Refused) | (Undo::Refused, Answer::Done) => contradiction(control, run, state),
        (Undo::InFlight | Undo::Abandoned, Answer::Done | Answer::Refused) if control.is_ended() => {
            Reaction::Ignored(Ignored::Ended)
        }
        (Undo::InFlight | Undo::Abandoned, Answer::Done) => one(ControlEvent::UndoDone { run }),
        (Undo::InFlight, Answer::Refused) => one(ControlEvent::UndoRefused { run }),
        (Undo::Abandoned, Answer::Refused) => Reaction::Ignored(Ignored::Overtaken),
    }
}

/// An undo that was never sent, as far as anybody knows, is done all the same: the saga had turned back in a history that is
/// lost (Z14). What it counts on is gone, so it turns back again.
pub(super) fn unasked(plan: &Plan, control: &Control, state: &Run, round: u8, answer: Answer) -> Reaction {
    if round < state.round {
        return Reaction::Ignored(Ignored::OldRound);
    }
    if round > state.round || answer != Answer::Done || !control.needs_undo(plan, state) {
        return Reaction::Ignored(Ignored::NeverSent);
    }
    match control.course {
        Course::Forward => {
            let mut events = Vec::new();
            turn_back(plan, control, control.is_pivot_passed(plan), &mut events);
            Reaction::Events(events)
        }
        // Its undo will be sent.
        Course::Compensating | Course::Settling | Course::Reversing | Course::Returning => {
            Reaction::Ignored(Ignored::NeverSent)
        }
        Course::Ended(_) => Reaction::Discrepant,
    }
}

/// The first answer stays; a person looks. Known contradictions are not raised again.
fn contradiction(control: &Control, run: u8, state: &Run) -> Reaction {
    match state.contradiction {
        Contradiction::Open | Contradiction::Accepted => Reaction::Ignored(Ignored::Duplicate),
        Contradiction::None if control.forced || control.is_ended() => Reaction::Discrepant,
        Contradiction::None => one(ControlEvent::Contradicted { run }),
    }
}
