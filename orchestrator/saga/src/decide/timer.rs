//! Timers: silence of a participant, and the deadline of a wait.
//!
//! A command without a reply is asked about once, then sent again at growing intervals; used up, control decides. What
//! must not give up (an undo, a called saga) goes on at the last interval.

use super::turn::{Carried, Turn, kind_of};
use super::{Decision, Setting};
use crate::control::{Answer, ControlInput, WaitState};
use crate::effect::{self, AlertKind, Effect};
use crate::event::Fact;
use crate::plan::Program;
use crate::saga::Saga;
use endstate_events::{CommandKind, Direction};

/// What follows when time has passed: what was due by `until_ms` happens, now. Does nothing when nothing was, so an early
/// call is harmless.
#[must_use]
pub fn decide_due<P: Program + ?Sized>(program: &P, saga: Saga, until_ms: i64, setting: Setting) -> Decision {
    let mut turn = Turn::new(program, saga, setting);
    for run in 0..turn.saga.data.runs.len() {
        let data = &turn.saga.data.runs[run];
        if data.due_ms <= until_ms
            && !data.put_aside
            && let Some(direction) = turn.saga.control.awaits(run)
        {
            turn.silent(run, direction);
        }
    }
    turn.wait_due(until_ms);
    turn.finish()
}

/// The asks of a saga for which another saga's stood, now that the participant has answered that one. What was sent again
/// since has asked already. Nothing happens to the saga.
#[must_use]
pub fn asks_of<P: Program + ?Sized>(program: &P, saga: &Saga, participant: &str, partitions: u16) -> Vec<Effect> {
    let plan = program.plan();
    let ask = |run: usize| {
        let data = &saga.data.runs[run];
        let direction = saga.control.awaits(run).filter(|_| data.asked && data.attempt == 0 && !data.put_aside)?;
        let step = &plan.steps[usize::from(data.step)];
        let call = match direction {
            Direction::Do => &step.call,
            Direction::Undo => step.undo.as_ref().unwrap_or(&step.call),
        };
        let silent = *call.participant == *participant;
        silent.then(|| effect::sending(plan, saga, run, direction, CommandKind::Ask, partitions)).flatten()
    };
    (0..saga.data.runs.len()).filter_map(ask).collect()
}

impl<P: Program + ?Sized> Turn<'_, P> {
    /// The command that a run awaits was not answered in time.
    fn silent(&mut self, run: usize, direction: Direction) {
        let step = self.step_of(run as u8);
        let call = match direction {
            Direction::Do => &step.call,
            Direction::Undo => step.undo.as_ref().unwrap_or(&step.call),
        };
        let (asked, attempt) = (self.saga.data.runs[run].asked, self.saga.data.runs[run].attempt);
        if !asked && attempt == 0 {
            self.record(Fact::RunAsked { run: run as u8, in_ms: step.retry.next_timer_ms(0) });
            // One ask for the oldest effect of each silent participant; the others take the ladder. The runtime keeps to
            // the same across sagas, see [`asks_of`].
            if !self.asked.contains(&call.participant) {
                self.asked.push(call.participant.clone());
                self.send(run, direction, CommandKind::Ask);
            }
            return;
        }
        if step.retry.wait_ms(attempt).is_some() {
            return self.resend(run, direction, attempt + 1, step.retry.next_timer_ms(attempt + 1));
        }
        let patient = direction == Direction::Undo || call.is_saga();
        if patient && !self.saga.control.forced {
            return self.persist(run, direction, attempt);
        }
        self.react(ControlInput::Exhausted { run: run as u8 }, Carried::Nothing);
    }

    /// Never gives up: people are told once, and it goes on.
    fn persist(&mut self, run: usize, direction: Direction, attempt: u16) {
        let step = self.step_of(run as u8);
        let used_up = step.retry.waits_ms.len() as u16;
        if attempt == used_up {
            let (definition, number, kind) = (&self.saga.definition, &self.saga.number, direction.label());
            let text = format!("{definition} {number}: {kind} of {} is not answered", step.name);
            self.effects.push(Effect::Alert { kind: AlertKind::Silent, step: Some(step.name.clone()), text });
        }
        self.resend(run, direction, used_up + 1, step.retry.last_interval_ms());
    }

    pub(super) fn resend(&mut self, run: usize, direction: Direction, attempt: u16, in_ms: u64) {
        self.record(Fact::RunResent { run: run as u8, attempt, in_ms });
        self.send(run, direction, kind_of(direction));
    }

    /// A reply that decides nothing. Never seen: the command was lost, so it is sent again. Unknown: the next try comes
    /// as soon as the ladder allows.
    pub(super) fn inconclusive(&mut self, run: usize, direction: Direction, answer: Answer) {
        if self.saga.control.awaits(run) != Some(direction) || self.saga.data.runs[run].put_aside {
            return;
        }
        let step = self.step_of(run as u8);
        let (attempt, due_ms) = (self.saga.data.runs[run].attempt, self.saga.data.runs[run].due_ms);
        match answer {
            Answer::NeverSeen => {
                // Counts as an attempt, so that a participant that forgets everything is not flooded.
                let attempt = attempt.saturating_add(1).min(step.retry.waits_ms.len() as u16);
                self.resend(run, direction, attempt, step.retry.next_timer_ms(attempt));
            }
            Answer::Unknown => {
                let in_ms = step.retry.wait_ms(attempt).unwrap_or(0);
                let patient = direction == Direction::Undo || step.call.is_saga();
                let sooner = self.setting.now_ms.saturating_add_unsigned(in_ms) < due_ms;
                let used_up = step.retry.wait_ms(attempt).is_none();
                if sooner && !(patient && used_up) {
                    self.record(Fact::RunDelayed { run: run as u8, in_ms });
                }
            }
            Answer::Done | Answer::Refused => {}
        }
    }

    /// An operator's retry of what is silent: everything awaited, with a fresh ladder.
    pub(super) fn send_again(&mut self) {
        for run in 0..self.saga.data.runs.len() {
            if let Some(direction) = self.saga.control.awaits(run) {
                let in_ms = self.step_of(run as u8).retry.first_timer_ms();
                self.resend(run, direction, 0, in_ms);
            }
        }
    }

    fn wait_due(&mut self, until_ms: i64) {
        let plan = self.plan();
        let control = &self.saga.control;
        // An end that was forced leaves its wait as it was; the timer may have been due in the same batch.
        let moves = !control.is_ended() && !control.is_parked(plan);
        let Some(stage) = control.open_wait().filter(|_| moves) else { return };
        let reached = |due_ms: Option<i64>| due_ms.is_some_and(|due_ms| due_ms <= until_ms);
        let ask = self.saga.data.ask.as_ref().map(|ask| (ask.attempt, ask.due_ms));
        match (self.saga.control.wait(stage), ask) {
            (WaitState::Open, _) if reached(self.saga.data.deadline_ms) => {
                self.react(ControlInput::Deadline { stage: stage as u8 }, Carried::Nothing);
            }
            (WaitState::Asked, Some((attempt, due_ms))) if reached(Some(due_ms)) => self.ask_silent(stage, attempt),
            (
                WaitState::Open
                | WaitState::Asked
                | WaitState::NotOpen
                | WaitState::Kept
                | WaitState::Taken
                | WaitState::Passed
                | WaitState::Skipped
                | WaitState::ParkedDeadline
                | WaitState::ParkedMismatch,
                _,
            ) => {}
        }
    }

    fn ask_silent(&mut self, stage: usize, attempt: u16) {
        let Some(wait) = &self.plan().stages[stage].wait else { return };
        if wait.retry.wait_ms(attempt).is_none() {
            self.react(ControlInput::Unanswered { stage: stage as u8 }, Carried::Nothing);
            return;
        }
        let attempt = attempt + 1;
        self.record(Fact::WaitAskedAgain { attempt, in_ms: wait.retry.next_timer_ms(attempt) });
        self.effects.extend(effect::asking(self.plan(), &self.saga, self.setting.partitions));
    }
}
