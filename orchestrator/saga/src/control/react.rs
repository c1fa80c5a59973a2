//! Reacting: one input to what it makes happen at once. Total: every combination is a row, duplicates, late and
//! out-of-order inputs too; those of replies are in [`answers`]. What then follows by itself is [`super::advance`]'s.

use super::answers;
use super::{Contradiction, Control, ControlEvent, Course, Forward, Outcome, Run, Undo, WaitState};
use crate::plan::{AfterPivot, AtDeadline, Mismatch, Plan};
use endstate_events::Direction;

/// An input as control sees it: who and what, without contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlInput {
    /// A participant answered.
    Reply {
        /// The run.
        run: u8,
        /// Step or undo.
        direction: Direction,
        /// The round answered.
        round: u8,
        /// What it says.
        answer: Answer,
    },
    /// The ladder of the command that a run awaits is used up.
    Exhausted {
        /// The run.
        run: u8,
    },
    /// An event came, for the first time.
    Event {
        /// Index into the plan's events.
        event: u8,
        /// Whether it satisfies the `where` of the wait it meets ([`Control::meets`]); without one, true.
        matches: bool,
    },
    /// The time of a stage's wait is up.
    Deadline {
        /// The stage.
        stage: u8,
    },
    /// The ask of a stage's wait brought nothing.
    Unanswered {
        /// The stage.
        stage: u8,
    },
    /// Somebody who may wants it stopped.
    Cancel {
        /// Index into the plan's reasons.
        reason: u8,
    },
    /// An operator wakes everything that is parked.
    Retry,
    /// An operator wakes what is parked on one step.
    Wake {
        /// The step.
        step: u8,
    },
    /// An operator has it give back, or reversed after the pivot.
    Compensate,
    /// An operator ends it as it is.
    ForceCompleted,
    /// An operator ends it by giving everything back as far as it goes.
    ForceCancelled,
    /// An expression failed while its last events were carried out.
    Fault,
    /// An input went to the dead letters; nobody knows what it meant.
    DeadLetter,
}

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It happened.
    Done,
    /// The participant vouches: no effect under this id.
    Refused,
    /// Nobody knows.
    Unknown,
    /// To an ask: never met.
    NeverSeen,
}

/// What an input does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// These events, to be applied in order.
    Events(Vec<ControlEvent>),
    /// Nothing, and that is right.
    Ignored(Ignored),
    /// Nothing, and the asker is told why.
    Rejected(Rejection),
    /// Nothing (the saga has ended, or is being forced), but two books differ, or may.
    Discrepant,
}

/// Why an input rightly does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// It says what is known.
    Duplicate,
    /// It answers a round that is over.
    OldRound,
    /// It answers what was never sent, and changes nothing.
    NeverSent,
    /// The saga gives this back or went on without it; the answer changes nothing.
    Overtaken,
    /// It says that nobody knows; the ladder goes on.
    Inconclusive,
    /// An undo keeps trying at its last interval; somebody is alerted.
    KeepsTrying,
    /// Nobody waits for it and no rule is about it.
    NotAwaited,
    /// The saga is parked; it is done when it wakes.
    Parked,
    /// The saga has ended.
    Ended,
}

/// Why an input is turned down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// The saga has ended.
    Ended(Outcome),
    /// The reason does not hold after the pivot.
    AfterPivot,
    /// It is giving back already.
    TurnedBack,
    /// Nothing is parked there.
    NotParked,
    /// It is being forced already.
    Forced,
    /// Retried 255 times.
    RoundsUsedUp,
}

/// What `input` makes happen at once.
#[must_use]
pub fn react(plan: &Plan, control: &Control, input: ControlInput) -> Reaction {
    match input {
        ControlInput::Reply { run, direction, round, answer } => match control.runs().get(usize::from(run)) {
            None => Reaction::Ignored(Ignored::NeverSent),
            Some(state) => match direction {
                Direction::Do => answers::forward(control, run, state, round, answer),
                Direction::Undo if state.undo == Undo::None => answers::unasked(plan, control, state, round, answer),
                Direction::Undo => answers::undo(control, run, state, round, answer),
            },
        },
        ControlInput::Exhausted { run } => exhausted(control, run),
        ControlInput::Event { event, matches } => arrived(plan, control, event, matches),
        ControlInput::Deadline { .. } | ControlInput::Unanswered { .. } if control.is_ended() => {
            Reaction::Ignored(Ignored::Ended)
        }
        ControlInput::Deadline { stage } => deadline(plan, control, stage),
        ControlInput::Unanswered { stage } => match control.wait(usize::from(stage)) {
            WaitState::Asked if control.is_parked(plan) => Reaction::Ignored(Ignored::Parked),
            WaitState::Asked => time_is_up(plan, control, stage),
            WaitState::NotOpen
            | WaitState::Kept
            | WaitState::Open
            | WaitState::Taken
            | WaitState::Passed
            | WaitState::Skipped
            | WaitState::ParkedDeadline
            | WaitState::ParkedMismatch => Reaction::Ignored(Ignored::NotAwaited),
        },
        ControlInput::Cancel { reason } => cancel(plan, control, reason),
        ControlInput::Retry => retry(plan, control, None),
        ControlInput::Wake { step } => retry(plan, control, Some(step)),
        ControlInput::Compensate => compensate(plan, control),
        ControlInput::ForceCompleted => force_completed(plan, control),
        ControlInput::ForceCancelled => force_cancelled(plan, control),
        ControlInput::Fault if control.is_ended() => Reaction::Ignored(Ignored::Ended),
        ControlInput::Fault if control.faulted => Reaction::Ignored(Ignored::Duplicate),
        ControlInput::Fault => one(ControlEvent::Faulted),
        ControlInput::DeadLetter if control.is_ended() || control.forced => Reaction::Discrepant,
        // Each one is a fact, also when the saga is parked already.
        ControlInput::DeadLetter => one(ControlEvent::Faulted),
    }
}

pub(super) fn one(event: ControlEvent) -> Reaction {
    Reaction::Events(vec![event])
}

fn exhausted(control: &Control, run: u8) -> Reaction {
    if usize::from(run) >= control.runs().len() {
        return Reaction::Ignored(Ignored::NeverSent);
    }
    match control.awaits(usize::from(run)) {
        None => Reaction::Ignored(Ignored::Duplicate),
        Some(Direction::Do) => one(ControlEvent::RunExhausted { run }),
        Some(Direction::Undo) if control.forced => one(ControlEvent::UndoAbandoned { run }),
        Some(Direction::Undo) => Reaction::Ignored(Ignored::KeepsTrying),
    }
}

impl Control {
    /// The wait that an event with this index meets now, if any: the first one that is not behind the saga, in the
    /// part of the stages that the saga goes through.
    #[must_use]
    pub fn meets(&self, plan: &Plan, event: u8) -> Option<usize> {
        let stages = match self.course {
            Course::Forward => 0..plan.forward_stages,
            Course::Reversing => plan.forward_stages..plan.stages.len(),
            Course::Compensating | Course::Settling | Course::Returning | Course::Ended(_) => return None,
        };
        let awaits = |stage: &usize| plan.stages[*stage].wait.as_ref().is_some_and(|w| w.event == usize::from(event));
        stages.filter(awaits).find(|stage| match self.wait(*stage) {
            WaitState::NotOpen
            | WaitState::Kept
            | WaitState::Open
            | WaitState::Asked
            | WaitState::ParkedDeadline
            | WaitState::ParkedMismatch => true,
            WaitState::Taken | WaitState::Passed | WaitState::Skipped => false,
        })
    }
}

fn arrived(plan: &Plan, control: &Control, event: u8, matches: bool) -> Reaction {
    let late = || {
        if plan.events[usize::from(event)].late {
            one(ControlEvent::EventLate { event })
        } else {
            Reaction::Ignored(Ignored::NotAwaited)
        }
    };
    let Some(index) = control.meets(plan, event) else { return late() };
    let stage = index as u8;
    let mismatch = plan.stages[index].wait.as_ref().map_or(Mismatch::Late, |wait| wait.mismatch);
    match control.wait(index) {
        WaitState::NotOpen | WaitState::Kept => one(ControlEvent::EventKept { stage }),
        WaitState::Open | WaitState::Asked | WaitState::ParkedDeadline if matches => {
            one(ControlEvent::EventTaken { stage })
        }
        WaitState::ParkedMismatch if matches => {
            Reaction::Events(vec![ControlEvent::KeptLate { stage }, ControlEvent::EventTaken { stage }])
        }
        WaitState::Open | WaitState::Asked | WaitState::ParkedDeadline | WaitState::ParkedMismatch => match mismatch {
            Mismatch::Late => late(),
            Mismatch::Park if control.forced => late(), // nobody looks
            Mismatch::Park => one(ControlEvent::EventMismatched { stage }),
        },
        WaitState::Taken | WaitState::Passed | WaitState::Skipped => late(),
    }
}

fn deadline(plan: &Plan, control: &Control, stage: u8) -> Reaction {
    let asks = plan.stages[usize::from(stage)].wait.as_ref().is_some_and(|wait| wait.ask.is_some());
    match control.wait(usize::from(stage)) {
        WaitState::Open if control.is_parked(plan) => Reaction::Ignored(Ignored::Parked),
        WaitState::Open if asks => one(ControlEvent::WaitAsked { stage }),
        WaitState::Open => time_is_up(plan, control, stage),
        WaitState::Asked => Reaction::Ignored(Ignored::Duplicate),
        WaitState::NotOpen
        | WaitState::Kept
        | WaitState::Taken
        | WaitState::Passed
        | WaitState::Skipped
        | WaitState::ParkedDeadline
        | WaitState::ParkedMismatch => Reaction::Ignored(Ignored::NotAwaited),
    }
}

fn time_is_up(plan: &Plan, control: &Control, stage: u8) -> Reaction {
    let at_deadline = plan.stages[usize::from(stage)].wait.as_ref().map_or(AtDeadline::Next, |wait| wait.at_deadline);
    match at_deadline {
        AtDeadline::Next => one(ControlEvent::DeadlinePassed { stage }),
        // What does not come is let go.
        AtDeadline::Park | AtDeadline::Cancel { .. } | AtDeadline::Reverse if control.forced => {
            one(ControlEvent::DeadlinePassed { stage })
        }
        AtDeadline::Park => one(ControlEvent::DeadlineParked { stage }),
        // A reversal cannot turn back again.
        AtDeadline::Cancel { .. } | AtDeadline::Reverse if control.course != Course::Forward => {
            one(ControlEvent::DeadlineParked { stage })
        }
        AtDeadline::Cancel { .. } | AtDeadline::Reverse => {
            // Asked before the wait is marked as passed: a wait that is the pivot has not been passed by its deadline.
            let reversal = control.is_pivot_passed(plan);
            let mut events = vec![ControlEvent::DeadlinePassed { stage }];
            turn_back(plan, control, reversal, &mut events);
            Reaction::Events(events)
        }
    }
}

/// Adds what turning back takes: kept events become late, then the course changes.
pub(super) fn turn_back(plan: &Plan, control: &Control, reversal: bool, events: &mut Vec<ControlEvent>) {
    keep_nothing(plan, control, events);
    events.push(ControlEvent::TurnedBack { reversal });
}

fn keep_nothing(plan: &Plan, control: &Control, events: &mut Vec<ControlEvent>) {
    for stage in 0..plan.stages.len() {
        if matches!(control.wait(stage), WaitState::Kept | WaitState::ParkedMismatch) {
            events.push(ControlEvent::KeptLate { stage: stage as u8 });
        }
    }
}

fn cancel(plan: &Plan, control: &Control, reason: u8) -> Reaction {
    match control.course {
        Course::Ended(outcome) => Reaction::Rejected(Rejection::Ended(outcome)),
        Course::Compensating | Course::Settling | Course::Reversing | Course::Returning => {
            Reaction::Rejected(Rejection::TurnedBack)
        }
        Course::Forward => {
            let reversal = control.is_pivot_passed(plan);
            match plan.reasons[usize::from(reason)].after_pivot {
                AfterPivot::Refuse if reversal => Reaction::Rejected(Rejection::AfterPivot),
                AfterPivot::Refuse | AfterPivot::Reverse => {
                    let mut events = Vec::new();
                    turn_back(plan, control, reversal, &mut events);
                    Reaction::Events(events)
                }
            }
        }
    }
}

fn retry(plan: &Plan, control: &Control, step: Option<u8>) -> Reaction {
    if let Course::Ended(outcome) = control.course {
        return Reaction::Rejected(Rejection::Ended(outcome));
    }
    let mut events = Vec::new();
    for (index, run) in control.runs().iter().enumerate() {
        let named = step.is_none_or(|step| step == run.step);
        if named && control.is_run_parked(plan, index) && !wake(control, index as u8, run, &mut events) {
            return Reaction::Rejected(Rejection::RoundsUsedUp);
        }
    }
    if step.is_none() {
        if control.faulted {
            events.push(ControlEvent::FaultCleared);
        }
        for stage in 0..plan.stages.len() as u8 {
            match control.wait(usize::from(stage)) {
                WaitState::ParkedMismatch => events.push(ControlEvent::KeptLate { stage }),
                WaitState::ParkedDeadline => events.push(ControlEvent::WaitReset { stage }),
                WaitState::NotOpen
                | WaitState::Kept
                | WaitState::Open
                | WaitState::Asked
                | WaitState::Taken
                | WaitState::Passed
                | WaitState::Skipped => {}
            }
        }
    }
    if events.is_empty() { Reaction::Rejected(Rejection::NotParked) } else { Reaction::Events(events) }
}

/// Wakes one parked run; false when its rounds are used up.
fn wake(control: &Control, index: u8, run: &Run, events: &mut Vec<ControlEvent>) -> bool {
    let contradicted = run.contradiction == Contradiction::Open;
    if contradicted {
        events.push(ControlEvent::ContradictionAccepted { run: index });
    }
    match run.undo {
        // The step's two answers: taken as done from here on.
        Undo::None if contradicted => true,
        Undo::None => {
            events.push(ControlEvent::RunRetried { run: index, direction: Direction::Do });
            run.forward != Forward::Refused || run.round < u8::MAX
        }
        // The undo's two answers: undone once more, under a new id.
        Undo::InFlight | Undo::Done | Undo::Refused | Undo::Abandoned => {
            debug_assert!(!control.is_ended());
            events.push(ControlEvent::RunRetried { run: index, direction: Direction::Undo });
            run.undo_round < u8::MAX
        }
    }
}

fn compensate(plan: &Plan, control: &Control) -> Reaction {
    match control.course {
        Course::Ended(outcome) => Reaction::Rejected(Rejection::Ended(outcome)),
        Course::Compensating | Course::Settling | Course::Reversing | Course::Returning => {
            Reaction::Rejected(Rejection::TurnedBack)
        }
        Course::Forward => {
            let mut events = accept_contradictions(control);
            turn_back(plan, control, control.is_pivot_passed(plan), &mut events);
            Reaction::Events(events)
        }
    }
}

fn accept_contradictions(control: &Control) -> Vec<ControlEvent> {
    let open = |(_, run): &(usize, &Run)| run.contradiction == Contradiction::Open;
    let accepted = |(index, _): (usize, &Run)| ControlEvent::ContradictionAccepted { run: index as u8 };
    control.runs().iter().enumerate().filter(open).map(accepted).collect()
}

fn force_completed(plan: &Plan, control: &Control) -> Reaction {
    if let Course::Ended(outcome) = control.course {
        return Reaction::Rejected(Rejection::Ended(outcome));
    }
    let mut events = Vec::new();
    keep_nothing(plan, control, &mut events);
    events.push(ControlEvent::Ended { outcome: Outcome::Forced });
    Reaction::Events(events)
}

fn force_cancelled(plan: &Plan, control: &Control) -> Reaction {
    match control.course {
        Course::Ended(outcome) => Reaction::Rejected(Rejection::Ended(outcome)),
        Course::Forward | Course::Compensating | Course::Settling | Course::Reversing | Course::Returning
            if control.forced =>
        {
            Reaction::Rejected(Rejection::Forced)
        }
        Course::Forward => {
            let mut events = accept_contradictions(control);
            events.push(ControlEvent::ForceBegan);
            turn_back(plan, control, control.is_pivot_passed(plan), &mut events);
            Reaction::Events(events)
        }
        Course::Compensating | Course::Settling | Course::Reversing | Course::Returning => {
            let mut events = accept_contradictions(control);
            events.push(ControlEvent::ForceBegan);
            for stage in 0..plan.stages.len() as u8 {
                // A wait of the reversal has nobody left to wait for.
                match control.wait(usize::from(stage)) {
                    WaitState::ParkedDeadline => events.push(ControlEvent::DeadlinePassed { stage }),
                    WaitState::ParkedMismatch => {
                        events.extend([ControlEvent::KeptLate { stage }, ControlEvent::DeadlinePassed { stage }]);
                    }
                    WaitState::NotOpen
                    | WaitState::Kept
                    | WaitState::Open
                    | WaitState::Asked
                    | WaitState::Taken
                    | WaitState::Passed
                    | WaitState::Skipped => {}
                }
            }
            Reaction::Events(events)
        }
    }
}
