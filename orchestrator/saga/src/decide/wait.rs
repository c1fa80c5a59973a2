//! Events and waits: taken, kept, late; the ask at the deadline; the linked sagas that late events start.

use super::Denied;
use super::turn::{Carried, Turn};
use crate::control::{ControlEvent, ControlInput, WaitState};
use crate::effect::{self, DiscrepancyKind, Effect, LinkedStart};
use crate::event::Fact;
use crate::plan::Program;
use crate::saga::{Ask, Kept};
use endstate_events::{Json, Link, Reply, Verdict};
use std::sync::Arc;

impl<P: Program + ?Sized> Turn<'_, P> {
    /// Something happened outside. An event that was consumed before is a no-op, even after the end.
    pub(super) fn occurred(&mut self, name: &str, id: &str, data: &Json) {
        let Some(event) = self.plan().event(name) else { return self.deny(Denied::UnknownEvent(name.to_owned())) };
        if self.saga.data.consumed.iter().any(|consumed| **consumed == *id) {
            return;
        }
        let event = event as u8;
        let carried = Carried::Event { id, data };
        match self.matches(event, data) {
            Ok(matches) => {
                self.react(ControlInput::Event { event, matches }, carried);
            }
            // Nobody can say whether it matches: it is kept and a person looks; under force nobody does.
            Err(_) if self.saga.control.forced => {
                self.react(ControlInput::Event { event, matches: false }, carried);
            }
            Err(stage) => self.carry_out(&ControlEvent::EventMismatched { stage }, &carried),
        }
    }

    /// Whether an event satisfies the wait it meets; the stage whose `where` failed otherwise.
    fn matches(&self, event: u8, data: &Json) -> Result<bool, u8> {
        let Some(stage) = self.saga.control.meets(self.plan(), event) else { return Ok(true) };
        match self.saga.control.wait(stage) {
            WaitState::Open | WaitState::Asked | WaitState::ParkedDeadline | WaitState::ParkedMismatch
                if self.plan().stages[stage].wait.as_ref().is_some_and(|wait| wait.conditional) =>
            {
                self.program.event_matches(stage, data, &self.saga).map_err(|_| stage as u8)
            }
            WaitState::Open
            | WaitState::Asked
            | WaitState::ParkedDeadline
            | WaitState::ParkedMismatch
            | WaitState::NotOpen
            | WaitState::Kept
            | WaitState::Taken
            | WaitState::Passed
            | WaitState::Skipped => Ok(true),
        }
    }

    pub(super) fn take_kept(&mut self, stage: u8, kept: Option<usize>) {
        let Some(id) = kept.map(|kept| self.saga.data.kept[kept].id.clone()) else { return };
        self.record(Fact::EventTaken { stage, id, data: Arc::new(Json::Null) });
        if self.saga.data.kept.iter().any(|kept| kept.stage == stage) {
            self.kept_late(stage);
        }
    }

    pub(super) fn kept(&self, stage: u8, carried: &Carried<'_>) -> Option<Kept> {
        let Carried::Event { id, data } = carried else { return None };
        let event = self.plan().stages[usize::from(stage)].wait.as_ref()?.event as u8;
        Some(Kept { stage, event, id: (*id).into(), data: Arc::new((*data).clone()) })
    }

    pub(super) fn kept_late(&mut self, stage: u8) {
        let kept: Vec<Kept> = self.saga.data.kept.iter().filter(|kept| kept.stage == stage).cloned().collect();
        self.record(Fact::KeptLate { stage });
        for Kept { event, id, data, .. } in kept {
            if self.plan().events[usize::from(event)].late {
                self.link(event, &id, &data);
            }
        }
    }

    /// A late event. An ended saga never changes: only its linked saga starts, which its number makes unique.
    pub(super) fn late(&mut self, event: u8, id: &str, data: &Json) {
        if !self.saga.control.is_ended() {
            self.record(Fact::EventLate { event, id: id.into() });
        }
        self.link(event, id, data);
    }

    fn link(&mut self, event: u8, id: &str, data: &Json) {
        match self.program.late(usize::from(event), data, &self.saga) {
            Ok(start) => {
                let link = Link { order: self.saga.id, snapshot: self.saga.snapshot(self.plan()), caller: None };
                self.effects.push(Effect::Start(Box::new(LinkedStart {
                    id: effect::linked_id(&self.saga, id),
                    definition: start.definition,
                    number: start.number,
                    key: self.saga.key.clone(),
                    input: start.input,
                    link,
                })));
            }
            Err(error) => self.discrepancy(DiscrepancyKind::LateUnhandled, None, format!("event {id}: {error}")),
        }
    }

    pub(super) fn ask(&mut self, stage: u8) {
        let Some(wait) = &self.plan().stages[usize::from(stage)].wait else { return };
        match self.program.ask(usize::from(stage), &self.saga) {
            Err(error) => self.fault(&error),
            Ok(payload) => {
                let round = self.saga.data.ask.as_ref().map_or(0, |ask| ask.round.saturating_add(1));
                let due_ms = wait.retry.next_timer_ms(0) as i64;
                let (with, key) = (Arc::new(payload.with), payload.key);
                self.record(Fact::WaitAsked(Ask { stage, round, with, key, attempt: 0, due_ms }));
                self.effects.extend(effect::asking(self.plan(), &self.saga, self.setting.partitions));
            }
        }
    }

    /// The answer to a wait's ask. What the participant found comes as an event of its own, before its answer; so an
    /// answer means that there is nothing more to wait for.
    pub(super) fn ask_answered(&mut self, stage: Option<usize>, reply: &Reply) {
        let (Some(stage), Some(ask)) = (stage, &self.saga.data.ask) else { return };
        if usize::from(ask.stage) != stage || ask.round != reply.effect_id.round {
            return;
        }
        match reply.verdict {
            Verdict::Done { .. } | Verdict::Refused { .. } => {
                self.react(ControlInput::Unanswered { stage: stage as u8 }, Carried::Nothing);
            }
            // The ladder goes on.
            Verdict::Unknown { .. } | Verdict::NeverSeen => {}
        }
    }
}
