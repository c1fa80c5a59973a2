//! Dead letters: an input of the saga that nobody could handle, or a command of its that its participant's shard put aside.
//! Nobody knows what the one said, and nobody will answer the other: the saga parks until a person has looked.

use super::ending::dead_letter_text;
use super::turn::{Carried, Turn};
use crate::control::{ControlInput, Course, Reaction};
use crate::effect::{AlertKind, DiscrepancyKind, Effect};
use crate::event::Fact;
use crate::plan::Program;
use endstate_events::{Direction, EffectId};

impl<P: Program + ?Sized> Turn<'_, P> {
    /// The command of a run lies in the dead letters. Nothing is known of its effect: the run stays as it is, and its answer
    /// is taken whenever it comes. It is one fact and one alert, and from then on the run is silent: each time it was asked
    /// or sent again would be another letter.
    pub(super) fn put_aside(&mut self, run: usize, effect_id: &EffectId, reason: &str) {
        let direction = effect_id.direction;
        let is_awaited = self.saga.control.awaits(run) == Some(direction)
            && self.saga.effect_id(self.plan(), run, direction).round == effect_id.round;
        if !is_awaited || self.saga.data.runs[run].put_aside {
            return;
        }
        if self.can_do_without(run, direction) {
            self.react(ControlInput::Exhausted { run: run as u8 }, Carried::Nothing);
            return;
        }
        self.dead_lettered(&effect_id.to_string(), reason, Some(run as u8));
    }

    /// Whether the saga goes on without an answer, as it does when its ladder is used up: under force, with a step that is
    /// best effort, and while it settles before it undoes what is unknown.
    fn can_do_without(&self, run: usize, direction: Direction) -> bool {
        let (step, control) = (self.step_of(run as u8), &self.saga.control);
        let let_go = step.best_effort || control.course == Course::Settling;
        control.forced || (direction == Direction::Do && let_go && !step.call.is_saga())
    }

    /// An input went to the dead letters, or the command of a run.
    pub(super) fn dead_lettered(&mut self, input: &str, reason: &str, run: Option<u8>) {
        let text = dead_letter_text(input, reason, run);
        match self.react(ControlInput::DeadLetter, Carried::DeadLetter { input, reason, run }) {
            Reaction::Discrepant => self.discrepancy(DiscrepancyKind::DeadLetter, None, text),
            Reaction::Events(_) if self.was_parked => {
                self.effects.push(Effect::Alert { kind: AlertKind::DeadLetter, step: None, text });
            }
            // The alert of being parked says it.
            Reaction::Events(_) | Reaction::Ignored(_) | Reaction::Rejected(_) => {}
        }
    }

    /// A person has looked: what was put aside is sent again, under its id.
    pub(super) fn clear_fault(&mut self) {
        let awaited = |run: usize| self.saga.control.awaits(run).filter(|_| self.saga.data.runs[run].put_aside);
        let aside: Vec<_> = (0..self.saga.data.runs.len()).filter_map(|run| Some((run, awaited(run)?))).collect();
        self.record(Fact::FaultCleared);
        for (run, direction) in aside {
            let in_ms = self.step_of(run as u8).retry.first_timer_ms();
            self.resend(run, direction, 0, in_ms);
        }
    }
}
