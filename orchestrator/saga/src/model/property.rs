//! The properties: of every state, of every transition, of every end, and of the whole.

use super::Participants;
use super::follow::World;
use super::participant::{Remains, remains};
use super::state::State;
use crate::control::{Answer, ControlInput, Forward, Outcome, Reaction, Run, Undo};
use crate::invariant;
use crate::plan::Refused;
use endstate_events::Direction;
use std::fmt;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Property {
    /// One of [`invariant::ALL`], by its id.
    Invariant(&'static str),
    /// No expression fails on the sample.
    Evaluates,
    /// What is ignored changes nothing.
    IgnoredChangesNothing,
    /// A reply of an earlier round changes nothing.
    OldRoundsAreInert,
    /// A repeated, overtaken or inconclusive reply changes nothing.
    RepliesAreInert,
    /// An undo that was never sent and is done all the same is not ignored while the saga counts on its step.
    UndoneIsHeard,
    /// An event is taken, kept, late, or of no concern: exactly one of them.
    EventHasOneFate,
    /// A wait takes one event, once.
    TakenOnce,
    /// A wait keeps an event exactly when there is one, and none at the end.
    KeptAgrees,
    /// A forced end that gives back has tried every undo.
    ForceLeavesNothingOpen,
    /// Reversed: every step of the reversal (the refund) is done; otherwise none was sent.
    MoneyGoesBack,
    /// In the end participants hold what the saga says they hold.
    NothingIsLeft,
    /// Whatever is awaited has a timer that moves it.
    AwaitedHasTimer,
    /// By participants and timers alone it comes to an end or is parked.
    ComesToRest,
    /// With an operator who helps and the events awaited it comes to an end; force is not needed.
    CanEnd,
}

impl Property {
    /// The rule in words.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::Invariant(id) => {
                invariant::ALL.iter().find(|invariant| invariant.id == id).map_or(id, |invariant| invariant.says)
            }
            Self::Evaluates => "No expression fails on the sample.",
            Self::IgnoredChangesNothing => "What is ignored changes nothing.",
            Self::OldRoundsAreInert => "A reply of an earlier round changes nothing.",
            Self::RepliesAreInert => "A repeated, overtaken or inconclusive reply changes nothing.",
            Self::UndoneIsHeard => "What was undone in a lost history is not counted on.",
            Self::EventHasOneFate => "An event is taken, kept, late or of no concern: exactly one of them.",
            Self::TakenOnce => "A wait takes one event, once.",
            Self::KeptAgrees => "A wait keeps an event exactly when there is one, and none at the end.",
            Self::ForceLeavesNothingOpen => "A forced end that gives back has tried every undo.",
            Self::MoneyGoesBack => "Reversed: every step of the reversal is done; otherwise none was sent.",
            Self::NothingIsLeft => "In the end participants hold what the saga says they hold.",
            Self::AwaitedHasTimer => "Whatever is awaited has a timer that moves it.",
            Self::ComesToRest => "By participants and timers alone it comes to an end or is parked.",
            Self::CanEnd => "With an operator who helps and the events awaited, without force, it comes to an end.",
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invariant(id) => write!(f, "{id}: {}", self.rule()),
            _ => f.write_str(self.rule()),
        }
    }
}

impl World<'_> {
    /// The properties that a state breaks.
    pub(super) fn examine(&self, state: &State, broken: &mut Vec<Property>) {
        let (plan, control) = (self.plan, &state.control);
        if !(0..plan.stages.len()).all(|stage| state.kept_agrees(stage)) {
            broken.push(Property::KeptAgrees);
        }
        if let Some(invariant) = invariant::broken_at_rest(plan, control) {
            broken.push(Property::Invariant(invariant.id));
        }
        self.inert(state, broken);
        if let Some(outcome) = control.outcome() {
            self.end(state, outcome, broken);
        }
    }

    /// Replies of earlier rounds, proved inert before the numbers of rounds are forgotten.
    pub(super) fn old_rounds(&self, state: &State, broken: &mut Vec<Property>) {
        for (index, run) in state.control.runs().iter().enumerate() {
            let rounds = (0..run.round).map(|round| (Direction::Do, round));
            let undos = (0..run.undo_round).map(|round| (Direction::Undo, round)).filter(|_| run.undo != Undo::None);
            for (direction, round) in rounds.chain(undos) {
                for answer in [Answer::Done, Answer::Refused] {
                    if !self.is_inert(state, index, direction, round, answer) {
                        broken.push(Property::OldRoundsAreInert);
                    }
                }
            }
        }
    }

    /// Replies that can arrive again at any moment, and those that say nothing.
    fn inert(&self, state: &State, broken: &mut Vec<Property>) {
        let mut check = |run, direction, round, answer| {
            if !self.is_inert(state, run, direction, round, answer) {
                broken.push(Property::RepliesAreInert);
            }
        };
        for (index, run) in state.control.runs().iter().enumerate() {
            for answer in [Answer::Unknown, Answer::NeverSeen] {
                check(index, Direction::Do, run.round, answer);
                check(index, Direction::Undo, run.undo_round, answer);
            }
            if run.undo == Undo::None {
                match run.forward {
                    Forward::Done => check(index, Direction::Do, run.round, Answer::Done),
                    Forward::Refused => check(index, Direction::Do, run.round, Answer::Refused),
                    Forward::InFlight | Forward::Exhausted | Forward::Abandoned => {}
                }
            } else {
                // The undo holds for done and unknown alike.
                check(index, Direction::Do, run.round, Answer::Done);
                check(index, Direction::Do, run.round, Answer::Refused);
            }
            match run.undo {
                Undo::Done => check(index, Direction::Undo, run.undo_round, Answer::Done),
                Undo::Refused => check(index, Direction::Undo, run.undo_round, Answer::Refused),
                Undo::None | Undo::InFlight | Undo::Abandoned => {}
            }
        }
    }

    fn is_inert(&self, state: &State, run: usize, direction: Direction, round: u8, answer: Answer) -> bool {
        let input = ControlInput::Reply { run: run as u8, direction, round, answer };
        match self.rules.react(self.plan, &state.control, input) {
            Reaction::Ignored(_) => true,
            Reaction::Events(_) | Reaction::Rejected(_) | Reaction::Discrepant => false,
        }
    }

    fn end(&self, state: &State, outcome: Outcome, broken: &mut Vec<Property>) {
        let (plan, control) = (self.plan, &state.control);
        if state.kept.iter().any(|kept| kept.total() > 0) {
            broken.push(Property::KeptAgrees);
        }
        let reversal = |run: &&Run| plan.is_reversal(plan.steps[usize::from(run.step)].stage);
        let done = |run: &Run| {
            let step = &plan.steps[usize::from(run.step)];
            match run.forward {
                Forward::Done => true,
                Forward::Refused => step.best_effort || step.refused == Refused::Skip,
                Forward::Abandoned => step.best_effort,
                Forward::InFlight | Forward::Exhausted => false,
            }
        };
        let mut reversal = control.runs().iter().filter(reversal);
        let goes_back = match outcome {
            Outcome::Reversed => reversal.all(done),
            Outcome::Completed | Outcome::Cancelled => reversal.next().is_none(),
            Outcome::Forced => true,
        };
        if !goes_back {
            broken.push(Property::MoneyGoesBack);
        }
        let honest = self.options.participants == Participants::Honest;
        if honest && !control.runs().iter().all(|run| self.holds(run, outcome)) {
            broken.push(Property::NothingIsLeft);
        }
    }

    /// Whether the participant of a run holds what the saga says, whatever still arrives.
    fn holds(&self, run: &Run, outcome: Outcome) -> bool {
        let step = &self.plan.steps[usize::from(run.step)];
        let Remains { present, .. } = remains(self.rules, run);
        let can_be_undone = step.undo.is_some() && !self.plan.is_reversal(step.stage);
        match outcome {
            // Best effort may be either; the others were answered.
            Outcome::Completed => run.forward != Forward::Refused || !present,
            Outcome::Cancelled | Outcome::Reversed => !present || !can_be_undone,
            // What is left under force, and was not said to be undone, is a discrepancy.
            Outcome::Forced => !present || run.undo != Undo::Done,
        }
    }
}
