//! Ends, statuses, and what people are told.

use super::Decision;
use super::turn::Turn;
use crate::control::{self, Forward, Outcome, Undo};
use crate::effect::{AlertKind, DiscrepancyKind, Effect};
use crate::event::{Event, Fact};
use crate::plan::Program;
use crate::saga::ParkedOn;
use crate::size;
use endstate_events::{Direction, DomainEvent, EffectId, Reply, Verdict};

impl<P: Program + ?Sized> Turn<'_, P> {
    pub(super) fn end(&mut self, outcome: Outcome) {
        if outcome == Outcome::Forced {
            let given_back = self.saga.control.forced;
            self.unsettled(given_back);
        }
        self.record(Fact::Ended { outcome });
        self.answer_caller();
    }

    pub(super) fn discrepancy(&mut self, kind: DiscrepancyKind, effect_id: Option<EffectId>, text: String) {
        let alert = Effect::Alert { kind: AlertKind::Discrepancy, step: None, text: text.clone() };
        self.effects.push(Effect::Discrepancy { kind, effect_id, text });
        self.effects.push(alert);
    }

    /// A contradiction after the end, or under force.
    pub(super) fn contradicted(&mut self, reply: &Reply) {
        let text = format!("{} now answers {}", reply.effect_id, reply.verdict.label());
        self.discrepancy(DiscrepancyKind::Contradiction, Some(reply.effect_id.clone()), text);
    }

    /// The status change and the alert of being parked, once for the whole turn.
    pub(super) fn finish(mut self) -> Decision {
        if !self.events.is_empty() {
            self.publish();
            if !self.was_parked {
                self.effects.extend(self.parked_alert());
            }
        }
        Decision { saga: Some(self.saga), events: self.events, effects: self.effects, denied: self.denied }
    }

    fn publish(&mut self) {
        let status = control::status(self.plan(), &self.saga.control, &self.saga.status);
        let ended = self.events.last().is_some_and(|event| matches!(event.fact, Fact::Ended { .. }));
        if *status == *self.saga.status && !ended {
            return;
        }
        let before = self.saga.status.to_string();
        if *status != *before {
            self.record(Fact::StatusChanged { status: status.clone() });
        }
        let saga = &self.saga;
        self.effects.push(Effect::Publish(Box::new(DomainEvent {
            saga: saga.id,
            definition: saga.definition.to_string(),
            number: saga.number.to_string(),
            version: saga.version,
            status: status.to_string(),
            before,
            outcome: saga.control.outcome().map(|outcome| outcome.label().to_owned()),
            reason: saga.reason.as_deref().map(str::to_owned),
        })));
    }

    /// Forced: what is not as the end says becomes a discrepancy.
    fn unsettled(&mut self, given_back: bool) {
        let plan = self.plan();
        let mut open = Vec::new();
        for (index, run) in self.saga.control.runs().iter().enumerate() {
            let forward_only = plan.is_reversal(plan.steps[usize::from(run.step)].stage) || !given_back;
            if forward_only && (run.forward != Forward::Done || run.undo != Undo::None) {
                open.push((DiscrepancyKind::NotDone, self.saga.effect_id(plan, index, Direction::Do)));
            } else if !forward_only && self.saga.control.needs_undo(plan, run) && run.undo != Undo::Done {
                open.push((DiscrepancyKind::NotUndone, self.saga.effect_id(plan, index, Direction::Undo)));
            }
        }
        for (kind, effect_id) in open {
            let text = format!("{effect_id} when the end was forced");
            self.discrepancy(kind, Some(effect_id), text);
        }
        let reached = usize::from(self.saga.control.next);
        if !given_back && reached < plan.forward_stages {
            let stages: Vec<_> = plan.stages[reached..plan.forward_stages].iter().map(|stage| &*stage.name).collect();
            let text = format!("stages not begun when the end was forced: {}", stages.join(", "));
            self.discrepancy(DiscrepancyKind::NotDone, None, text);
        }
    }

    /// For `call: saga.NAME`: tells the caller how this saga ended; again when it asks again.
    pub(super) fn answer_caller(&mut self) {
        let caller = self.saga.link.as_ref().and_then(|link| link.caller.clone());
        let (Some((effect_id, to)), Some(outcome)) = (caller, self.saga.control.outcome()) else { return };
        let verdict = match outcome {
            Outcome::Completed => {
                let data = self.saga.snapshot(self.plan());
                match size::check("the snapshot of the called saga", size::of(&data), size::SNAPSHOT_BYTES) {
                    Ok(()) => Verdict::Done { data },
                    // It is done, and cannot be told: people must look.
                    Err(reason) => Verdict::unknown(reason),
                }
            }
            Outcome::Cancelled | Outcome::Reversed => Verdict::Refused {
                code: format!("saga.{}", outcome.label()),
                detail: self.saga.reason.as_deref().unwrap_or_default().to_owned(),
            },
            // An operator's end vouches for nothing.
            Outcome::Forced => Verdict::unknown("the called saga was forced to its end"),
        };
        self.effects.push(Effect::Reply { to, reply: Reply { effect_id, verdict } });
    }

    fn parked_alert(&self) -> Option<Effect> {
        let (step, at) = match self.saga.parked_on(self.plan())? {
            ParkedOn::Step(step) => (Some(step.clone()), format!("on step {step}")),
            ParkedOn::Fault => (None, self.last_fault()),
            ParkedOn::Wait => (None, "on a wait".to_owned()),
        };
        let text = format!("{} {} is parked {at}", self.saga.definition, self.saga.number);
        Some(Effect::Alert { kind: AlertKind::Parked, step, text })
    }

    /// What failed in this turn, in words.
    fn last_fault(&self) -> String {
        let words = |event: &Event| {
            if let Fact::Faulted { place, reason } = &event.fact {
                Some(format!("because {place} failed: {reason}"))
            } else if let Fact::DeadLettered { input, reason, run } = &event.fact {
                Some(format!("because {}", dead_letter_text(input, reason, *run)))
            } else {
                None
            }
        };
        self.events.iter().rev().find_map(words).unwrap_or_else(|| "by a fault".to_owned())
    }
}

/// A dead letter in words, for alerts and discrepancies.
pub(super) fn dead_letter_text(input: &str, reason: &str, run: Option<u8>) -> String {
    let what = if run.is_some() { "command" } else { "input" };
    format!("{what} {input} went to the dead letters: {reason}")
}
