//! What is checked: production's transition, and participants that keep their contract. Tests put a broken rule in its
//! place and see that the check finds it; production code knows nothing of them.

use super::follow::Fixed;
use super::participant::{self, Effect, Meeting};
use crate::control::{self, Control, ControlEvent, ControlInput, Reaction, Run};
use crate::plan::{EvalError, Plan};
use endstate_events::Direction;

/// The rules under check.
pub(crate) trait Rules {
    /// One input and all that follows from it.
    fn step(
        &self,
        plan: &Plan,
        control: &Control,
        input: ControlInput,
        conditions: &Fixed<'_>,
    ) -> Result<(Reaction, Control), EvalError>;

    /// What the control becomes by an event.
    fn apply(&self, plan: &Plan, control: &mut Control, event: &ControlEvent);

    /// What an input makes happen at once.
    fn react(&self, plan: &Plan, control: &Control, input: ControlInput) -> Reaction;

    /// The forward round that the undo of a run names.
    fn round_undone(&self, run: &Run) -> u8;

    /// What a participant may do with a command.
    fn meet(&self, effect: Effect, direction: Direction) -> Vec<Meeting>;
}

/// The rules as they are.
pub(crate) struct Production;

impl Rules for Production {
    fn step(
        &self,
        plan: &Plan,
        control: &Control,
        input: ControlInput,
        conditions: &Fixed<'_>,
    ) -> Result<(Reaction, Control), EvalError> {
        control::step(plan, control, input, conditions)
    }

    fn apply(&self, _: &Plan, control: &mut Control, event: &ControlEvent) {
        control::apply_to(control, event);
    }

    fn react(&self, plan: &Plan, control: &Control, input: ControlInput) -> Reaction {
        control::react(plan, control, input)
    }

    fn round_undone(&self, run: &Run) -> u8 {
        run.round
    }

    fn meet(&self, effect: Effect, direction: Direction) -> Vec<Meeting> {
        participant::meet(effect, direction)
    }
}
