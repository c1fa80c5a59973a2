//! A turn: one input carried out on one saga. Every fact passes through [`Turn::record`]; the effects are built from
//! what was recorded.

use super::stage::Evaluated;
use super::{Denied, Setting};
use crate::control::{self, ControlEvent, ControlInput, Reaction};
use crate::effect::{self, DiscrepancyKind, Effect};
use crate::event::{Event, Fact};
use crate::fold;
use crate::plan::{EvalError, Plan, Program, Step};
use crate::saga::Saga;
use endstate_events::{CommandKind, Direction, Json, Verdict};
use std::sync::Arc;

/// The reason of a saga that turns back because a participant has undone what the saga did not have undone.
const UNDONE: &str = "undone";

/// One input being carried out.
pub(super) struct Turn<'a, P: ?Sized> {
    pub(super) program: &'a P,
    pub(super) saga: Saga,
    pub(super) setting: Setting,
    pub(super) events: Vec<Event>,
    pub(super) effects: Vec<Effect>,
    pub(super) denied: Option<Denied>,
    pub(super) was_parked: bool,
    /// Participants asked in this turn.
    pub(super) asked: Vec<Arc<str>>,
    /// Why the saga would turn back now.
    reason: Option<Arc<str>>,
}

/// What an input carries beside its control part.
pub(super) enum Carried<'a> {
    Nothing,
    Reply(&'a Verdict),
    Event {
        id: &'a str,
        data: &'a Json,
    },
    Request {
        request: Fact,
        reason: Arc<str>,
    },
    /// An input that nobody could handle, or the command of a run, and why.
    DeadLetter {
        input: &'a str,
        reason: &'a str,
        run: Option<u8>,
    },
}

impl<'a, P: Program + ?Sized> Turn<'a, P> {
    pub(super) fn new(program: &'a P, saga: Saga, setting: Setting) -> Self {
        let was_parked = saga.control.is_parked(program.plan());
        Self {
            program,
            saga,
            setting,
            events: Vec::new(),
            effects: Vec::new(),
            denied: None,
            was_parked,
            asked: Vec::new(),
            reason: None,
        }
    }

    pub(super) fn plan(&self) -> &'a Plan {
        self.program.plan()
    }

    pub(super) fn deny(&mut self, denied: Denied) {
        self.denied = Some(denied);
    }

    /// Records a fact and applies it.
    pub(super) fn record(&mut self, fact: Fact) {
        let event = Event { at_ms: self.setting.now_ms, fact };
        fold::apply(&mut self.saga, &event);
        self.events.push(event);
    }

    /// Lets control react, records what happens with what the input carries, and goes on.
    pub(super) fn react(&mut self, input: ControlInput, carried: Carried<'_>) -> Reaction {
        let reaction = control::react(self.plan(), &self.saga.control, input);
        match &reaction {
            Reaction::Rejected(rejection) => self.deny((*rejection).into()),
            Reaction::Ignored(_) | Reaction::Discrepant => {}
            Reaction::Events(events) => {
                self.reason = self.reason_of(&input, &carried);
                if let Carried::Request { request, .. } = &carried {
                    self.record(request.clone());
                }
                for event in events {
                    self.carry_out(event, &carried);
                }
                self.follow();
            }
        }
        reaction
    }

    fn reason_of(&self, input: &ControlInput, carried: &Carried<'_>) -> Option<Arc<str>> {
        match (input, carried) {
            (_, Carried::Request { reason, .. }) => Some(reason.clone()),
            (_, Carried::Reply(Verdict::Refused { code, .. })) => Some(code.as_str().into()),
            // Only one that the saga does not know to have been sent turns it back.
            (ControlInput::Reply { direction: Direction::Undo, .. }, Carried::Reply(_)) => Some(UNDONE.into()),
            (ControlInput::Deadline { stage } | ControlInput::Unanswered { stage }, _) => {
                let plan = self.plan();
                let wait = plan.stages[usize::from(*stage)].wait.as_ref()?;
                Some(wait.at_deadline.reason().map_or_else(|| "deadline".into(), |r| plan.reasons[r].name.clone()))
            }
            (_, Carried::Nothing | Carried::Reply(_) | Carried::Event { .. } | Carried::DeadLetter { .. }) => None,
        }
    }

    /// Goes on by itself until the saga must wait.
    pub(super) fn follow(&mut self) {
        loop {
            let conditions = Evaluated::new(self.program, &self.saga);
            let next = control::advance(self.plan(), &self.saga.control, &conditions);
            let Evaluated { items, kept, .. } = conditions;
            match next {
                Ok(None) => return,
                Ok(Some(ControlEvent::StageEntered { stage, counts })) => {
                    self.enter(stage, &counts, items.into_inner());
                }
                Ok(Some(ControlEvent::EventTaken { stage })) => self.take_kept(stage, kept.get()),
                Ok(Some(event)) => self.carry_out(&event, &Carried::Nothing),
                Err(error) => self.fault(&error),
            }
        }
    }

    /// An expression failed: the saga parks; under force its stage is passed over.
    pub(super) fn fault(&mut self, error: &EvalError) {
        if self.saga.control.forced {
            self.discrepancy(DiscrepancyKind::NotDone, None, error.to_string());
            let next = self.saga.control.next;
            let opening = usize::from(next) > 0 && {
                let current = usize::from(next) - 1;
                !self.saga.control.is_stage_complete(self.plan(), current)
            };
            self.record(if opening {
                Fact::DeadlinePassed { stage: next - 1 }
            } else {
                Fact::StageSkipped { stage: next }
            });
        } else {
            self.record(Fact::Faulted { place: error.place.as_str().into(), reason: error.reason.as_str().into() });
        }
    }

    /// Records a control event as a fact with its data, and adds its effects.
    pub(super) fn carry_out(&mut self, event: &ControlEvent, carried: &Carried<'_>) {
        match *event {
            ControlEvent::StageEntered { .. } => {} // only `follow` enters stages, see `enter`
            ControlEvent::StageSkipped { stage } => self.record(Fact::StageSkipped { stage }),
            ControlEvent::RunDone { run } => self.record(Fact::RunDone { run, reply: done_data(carried) }),
            ControlEvent::RunRefused { run } => self.record(Fact::RunRefused { run, code: code(carried) }),
            ControlEvent::RunExhausted { run } => self.record(Fact::RunExhausted { run }),
            ControlEvent::RunAbandoned { run } => self.record(Fact::RunAbandoned { run }),
            ControlEvent::UndosSent { ref runs } => self.undo(runs),
            ControlEvent::UndoDone { run } => self.record(Fact::UndoDone { run }),
            ControlEvent::UndoRefused { run } => self.record(Fact::UndoRefused { run, code: code(carried) }),
            ControlEvent::UndoAbandoned { run } => self.record(Fact::UndoAbandoned { run }),
            ControlEvent::Contradicted { run } => self.record(Fact::Contradicted { run, reply: done_data(carried) }),
            ControlEvent::ContradictionAccepted { run } => self.record(Fact::ContradictionAccepted { run }),
            ControlEvent::RunRetried { run, direction } => {
                let in_ms = self.step_of(run).retry.first_timer_ms();
                self.record(Fact::RunRetried { run, direction, in_ms });
                self.send(usize::from(run), direction, kind_of(direction));
            }
            ControlEvent::WaitOpened { stage } => match self.program.within_ms(usize::from(stage), &self.saga) {
                Ok(in_ms) => self.record(Fact::WaitOpened { stage, in_ms }),
                Err(error) => self.fault(&error),
            },
            ControlEvent::EventKept { stage } => {
                if let Some(kept) = self.kept(stage, carried) {
                    self.record(Fact::EventKept(kept));
                }
            }
            ControlEvent::EventTaken { stage } => {
                if let Carried::Event { id, data } = carried {
                    self.record(Fact::EventTaken { stage, id: (*id).into(), data: Arc::new((*data).clone()) });
                }
            }
            ControlEvent::EventMismatched { stage } => {
                let event = self.kept(stage, carried);
                self.record(Fact::EventMismatched { stage, event });
            }
            ControlEvent::KeptLate { stage } => self.kept_late(stage),
            ControlEvent::EventLate { event } => {
                if let Carried::Event { id, data } = carried {
                    self.late(event, id, data);
                }
            }
            ControlEvent::WaitAsked { stage } => self.ask(stage),
            ControlEvent::DeadlinePassed { stage } => self.record(Fact::DeadlinePassed { stage }),
            ControlEvent::DeadlineParked { stage } => self.record(Fact::DeadlineParked { stage }),
            ControlEvent::WaitReset { stage } => self.record(Fact::WaitReset { stage }),
            ControlEvent::TurnedBack { reversal } => {
                let reason = self.reason.clone().unwrap_or_else(|| "exhausted".into());
                self.record(Fact::TurnedBack { reversal, reason });
            }
            ControlEvent::ReversalBegan { stage } => self.record(Fact::ReversalBegan { stage }),
            ControlEvent::ReturnBegan => self.record(Fact::ReturnBegan),
            ControlEvent::ForceBegan => self.record(Fact::ForceBegan),
            // A failed expression is recorded by `fault`, with its reason.
            ControlEvent::Faulted => {
                if let Carried::DeadLetter { input, reason, run } = *carried {
                    self.record(Fact::DeadLettered { input: input.into(), reason: reason.into(), run });
                }
            }
            ControlEvent::FaultCleared => self.clear_fault(),
            ControlEvent::Ended { outcome } => self.end(outcome),
        }
    }

    pub(super) fn step_of(&self, run: u8) -> &'a Step {
        &self.plan().steps[usize::from(self.saga.data.runs[usize::from(run)].step)]
    }

    pub(super) fn send(&mut self, run: usize, direction: Direction, kind: CommandKind) {
        let sending = effect::sending(self.plan(), &self.saga, run, direction, kind, self.setting.partitions);
        self.effects.extend(sending);
    }

    fn undo(&mut self, runs: &[u8]) {
        let timed = runs.iter().map(|run| (*run, self.step_of(*run).retry.first_timer_ms())).collect();
        self.record(Fact::UndosSent { runs: timed });
        runs.iter().for_each(|run| self.send(usize::from(*run), Direction::Undo, CommandKind::Undo));
    }
}

pub(super) fn kind_of(direction: Direction) -> CommandKind {
    match direction {
        Direction::Do => CommandKind::Do,
        Direction::Undo => CommandKind::Undo,
    }
}

fn done_data(carried: &Carried<'_>) -> Arc<Json> {
    Arc::new(match carried {
        // Null is "not done yet" to expressions.
        Carried::Reply(Verdict::Done { data: Json::Null }) => Json::Object(serde_json::Map::new()),
        Carried::Reply(Verdict::Done { data }) => data.clone(),
        Carried::Reply(Verdict::Refused { .. } | Verdict::Unknown { .. } | Verdict::NeverSeen)
        | Carried::Nothing
        | Carried::Event { .. }
        | Carried::Request { .. }
        | Carried::DeadLetter { .. } => Json::Null,
    })
}

fn code(carried: &Carried<'_>) -> Arc<str> {
    match carried {
        Carried::Reply(Verdict::Refused { code, .. }) => code.as_str().into(),
        Carried::Reply(Verdict::Done { .. } | Verdict::Unknown { .. } | Verdict::NeverSeen)
        | Carried::Nothing
        | Carried::Event { .. }
        | Carried::Request { .. }
        | Carried::DeadLetter { .. } => "refused".into(),
    }
}
