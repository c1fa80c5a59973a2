//! One move followed: production's transition, what it means for the events that are kept and for the chains, and the
//! properties of a transition.

use super::moves::Move;
use super::property::Property;
use super::rules::Rules;
use super::shape::Shape;
use super::state::{Kept, State};
use super::{Options, Rounds, Sample};
use crate::control::advance::refers_to;
use crate::control::{
    Answer, Conditions, Control, ControlEvent, ControlInput, Course, Ignored, Outcome, Reaction, Undo, WaitState,
};
use crate::invariant;
use crate::plan::{EvalError, Plan};
use endstate_events::Direction;

/// A sample's conditions, and those that hang on the events kept.
pub(crate) struct Fixed<'a> {
    sample: &'a Sample,
    kept: &'a [Kept],
}

impl<'a> Fixed<'a> {
    pub(super) fn of(sample: &'a Sample, kept: &'a [Kept]) -> Self {
        Self { sample, kept }
    }
}

impl Conditions for Fixed<'_> {
    fn stage_applies(&self, stage: usize) -> Result<bool, EvalError> {
        Ok(self.sample.stages[stage])
    }

    fn items(&self, step: usize) -> Result<u8, EvalError> {
        Ok(self.sample.runs[step])
    }

    fn step_applies(&self, step: usize) -> Result<bool, EvalError> {
        Ok(self.sample.applies[step])
    }

    fn kept_matches(&self, stage: usize) -> Result<bool, EvalError> {
        Ok(self.kept[stage].right > 0)
    }
}

/// What is explored: a sample of a plan under some rules.
pub(super) struct World<'a> {
    pub(super) plan: &'a Plan,
    pub(super) sample: &'a Sample,
    pub(super) shape: &'a Shape,
    pub(super) options: &'a Options,
    pub(super) rules: &'a dyn Rules,
}

/// Where a move leads.
pub(super) struct Followed {
    /// The state after, in its normal form.
    pub(super) state: State,
    /// What happened.
    pub(super) events: Vec<ControlEvent>,
    /// The properties that the transition breaks.
    pub(super) broken: Vec<Property>,
}

impl World<'_> {
    /// The state in which a saga begins: what follows from nothing.
    pub(super) fn initial(&self) -> (State, Vec<ControlEvent>) {
        let mut state = State::default();
        let mut events = Vec::new();
        loop {
            let conditions = Fixed::of(self.sample, &state.kept);
            let Ok(Some(event)) = crate::control::advance(self.plan, &state.control, &conditions) else { break };
            let mut broken = Vec::new();
            self.happen(&mut state, &event, None, &mut broken);
            events.push(event);
        }
        state.sort_chains(self.shape);
        (state, events)
    }

    /// Follows one move; none when it changes nothing, or leads beyond the bounds of the model.
    pub(super) fn follow(&self, from: &State, mv: &Move) -> Option<Followed> {
        let rearranged;
        let from = match (mv.chosen, mv.input) {
            (Some(chosen), ControlInput::Wake { step }) => {
                rearranged = from.rearranged(self.shape, usize::from(step), chosen);
                &rearranged
            }
            _ => from,
        };
        let conditions = Fixed::of(self.sample, &from.kept);
        let mut broken = Vec::new();
        let (reaction, after) = match self.rules.step(self.plan, &from.control, mv.input, &conditions) {
            Ok(step) => step,
            Err(_) => return Some(Followed { state: *from, events: Vec::new(), broken: vec![Property::Evaluates] }),
        };
        let events = match reaction {
            Reaction::Events(events) => events,
            Reaction::Ignored(ignored) => {
                if after != from.control {
                    broken.push(Property::IgnoredChangesNothing);
                }
                self.quiet(from, mv, ignored, &mut broken);
                Vec::new()
            }
            Reaction::Rejected(_) | Reaction::Discrepant => Vec::new(),
        };
        let mut state = *from;
        let mut fates = 0;
        for event in &events {
            fates += u8::from(self.happen(&mut state, event, Some(mv.input), &mut broken));
        }
        if let ControlInput::Event { .. } = mv.input
            && !events.is_empty()
            && fates != 1
        {
            broken.push(Property::EventHasOneFate);
        }
        // A broken rule may leave another state than its events say; the check follows the state.
        state.control = after;
        self.old_rounds(&state, &mut broken);
        if self.options.rounds == Rounds::Forgotten {
            state.forget(self.plan);
        }
        state.sort_chains(self.shape);
        (state != *from || !broken.is_empty() || !events.is_empty()).then_some(Followed { state, events, broken })
    }

    /// True when a move leads beyond the bounds of the model.
    pub(super) fn is_out_of_bounds(&self, state: &State) -> bool {
        let rounds = match self.options.rounds {
            Rounds::Forgotten => 15,
            Rounds::Kept { most } => most,
        };
        state.kept.iter().any(|kept| kept.total() > self.options.kept)
            || state.control.runs().iter().any(|run| run.undo_round > rounds || run.round > rounds)
    }

    /// An input that does nothing: rightly?
    fn quiet(&self, from: &State, mv: &Move, ignored: Ignored, broken: &mut Vec<Property>) {
        match mv.input {
            ControlInput::Event { event, .. } => {
                if ignored != Ignored::NotAwaited || self.plan.events[usize::from(event)].late {
                    broken.push(Property::EventHasOneFate);
                }
            }
            ControlInput::Exhausted { run } => {
                // Undos keep trying; whatever else is awaited must move when its ladder is used up.
                let awaits = from.control.awaits(usize::from(run));
                if awaits == Some(Direction::Do) || ignored != Ignored::KeepsTrying {
                    broken.push(Property::AwaitedHasTimer);
                }
            }
            ControlInput::Deadline { .. } | ControlInput::Unanswered { .. } => {
                if !from.control.is_parked(self.plan) && !from.control.is_ended() {
                    broken.push(Property::AwaitedHasTimer);
                }
            }
            ControlInput::Reply { run, direction: Direction::Undo, round, answer: Answer::Done } => {
                let (control, run) = (&from.control, from.control.runs()[usize::from(run)]);
                let counts = match control.course {
                    Course::Forward | Course::Ended(Outcome::Completed) => control.needs_undo(self.plan, &run),
                    Course::Compensating
                    | Course::Settling
                    | Course::Reversing
                    | Course::Returning
                    | Course::Ended(Outcome::Cancelled | Outcome::Reversed | Outcome::Forced) => false,
                };
                if run.undo == Undo::None && round == run.round && counts {
                    broken.push(Property::UndoneIsHeard);
                }
            }
            ControlInput::Reply { .. }
            | ControlInput::Cancel { .. }
            | ControlInput::Retry
            | ControlInput::Wake { .. }
            | ControlInput::Compensate
            | ControlInput::ForceCompleted
            | ControlInput::ForceCancelled
            | ControlInput::Fault
            | ControlInput::DeadLetter => {}
        }
    }

    /// Lets one event happen; true when it settles what becomes of the event that came in.
    fn happen(
        &self,
        state: &mut State,
        event: &ControlEvent,
        input: Option<ControlInput>,
        broken: &mut Vec<Property>,
    ) -> bool {
        let before = state.control;
        let (arrived, right) = match input {
            Some(ControlInput::Event { matches, .. }) => (true, matches),
            _ => (false, false),
        };
        let mut fate = false;
        match event {
            ControlEvent::StageEntered { counts, .. } => self.link(state, counts),
            ControlEvent::EventKept { stage } => {
                let kept = &mut state.kept[usize::from(*stage)];
                if right {
                    kept.right += 1
                } else {
                    kept.wrong += 1
                }
                fate = arrived;
            }
            ControlEvent::EventMismatched { stage } => {
                // One that was kept stays kept; one that came in is kept from now on.
                if before.wait(usize::from(*stage)) != WaitState::Kept {
                    state.kept[usize::from(*stage)].wrong += 1;
                    fate = arrived;
                }
            }
            ControlEvent::EventTaken { stage } => {
                fate = self.taken(state, &before, usize::from(*stage), arrived && right, broken);
            }
            ControlEvent::KeptLate { stage } => state.kept[usize::from(*stage)] = Kept::default(),
            ControlEvent::EventLate { .. } => fate = arrived,
            ControlEvent::Ended { outcome } => {
                let named = input == Some(ControlInput::ForceCompleted);
                if *outcome == Outcome::Forced && !named && !is_given_back(self.plan, &before) {
                    broken.push(Property::ForceLeavesNothingOpen);
                }
            }
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
            | ControlEvent::RunRetried { .. }
            | ControlEvent::WaitOpened { .. }
            | ControlEvent::WaitAsked { .. }
            | ControlEvent::DeadlinePassed { .. }
            | ControlEvent::DeadlineParked { .. }
            | ControlEvent::WaitReset { .. }
            | ControlEvent::TurnedBack { .. }
            | ControlEvent::UndosSent { .. }
            | ControlEvent::ReversalBegan { .. }
            | ControlEvent::ReturnBegan
            | ControlEvent::ForceBegan
            | ControlEvent::Faulted
            | ControlEvent::FaultCleared => {}
        }
        self.rules.apply(self.plan, &mut state.control, event);
        if let Some(invariant) = invariant::broken_by(self.plan, &before, event, &state.control) {
            broken.push(Property::Invariant(invariant.id));
        }
        fate
    }

    /// A wait takes its event: the one that came in, or the first of the kept, whose others are late then (as `decide`
    /// has it).
    fn taken(
        &self,
        state: &mut State,
        before: &Control,
        stage: usize,
        came_in: bool,
        broken: &mut Vec<Property>,
    ) -> bool {
        match before.wait(stage) {
            WaitState::Kept => {
                if state.kept[stage].right == 0 {
                    broken.push(Property::TakenOnce);
                }
                state.kept[stage] = Kept::default();
                false
            }
            WaitState::Open | WaitState::Asked | WaitState::ParkedDeadline => came_in,
            // What parked it has just become late.
            WaitState::NotOpen => came_in,
            WaitState::Taken | WaitState::Passed | WaitState::Skipped | WaitState::ParkedMismatch => {
                broken.push(Property::TakenOnce);
                came_in
            }
        }
    }

    /// Notes of each new run what it refers to: the k-th run of an `of:` step to the k-th run that is concerned.
    fn link(&self, state: &mut State, counts: &[(u8, u8)]) {
        let mut position = state.control.runs().len();
        for (step, count) in counts {
            let of = self.plan.steps[usize::from(*step)].of;
            let mut concerned = state
                .control
                .runs()
                .iter()
                .enumerate()
                .filter(|(_, run)| of == Some(usize::from(run.step)) && refers_to(run));
            for _ in 0..*count {
                let root = concerned.next().map_or(position as u8, |(index, _)| state.roots[index]);
                state.roots[position] = root;
                position += 1;
            }
        }
    }
}

/// True when every run that may have an effect was undone, or was let go after it was tried.
fn is_given_back(plan: &Plan, control: &Control) -> bool {
    control.runs().iter().all(|run| !control.needs_undo(plan, run) || control.is_undo_settled(run))
}
