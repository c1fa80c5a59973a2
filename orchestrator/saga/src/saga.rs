//! The saga: control and data of one run of a definition. Its row is a cache of its events.

use crate::control::{Control, WaitState};
use crate::event::Fact;
use crate::plan::Plan;
use endstate_events::{Direction, EffectId, Json, Lane, ReplyTo, SagaId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// One run of a definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saga {
    /// Its id.
    pub id: SagaId,
    /// Name of its definition.
    pub definition: Arc<str>,
    /// Version of its definition; it keeps the one it started with.
    pub definition_version: u32,
    /// Business number.
    pub number: Arc<str>,
    /// Routing key.
    pub key: Arc<str>,
    /// Who may read and cancel it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Arc<str>>,
    /// Kind of traffic.
    #[serde(default)]
    pub lane: Lane,
    /// How many events it has; guards its row.
    pub version: u64,
    /// When its start was queued, milliseconds since 1970.
    pub started_ms: i64,
    /// When its last event happened.
    pub changed_ms: i64,
    /// What the customer sees.
    pub status: Arc<str>,
    /// Why it turned back: a cancel reason, a refusal's code, `exhausted`, `deadline`, `undone` (by a
    /// participant, unasked: Z14) or `operator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    /// When its events were last put together, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_ms: Option<i64>,
    /// Where it stands.
    pub control: Control,
    /// What payloads and conditions read.
    pub data: Data,
    /// How it belongs to another saga.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Box<Belongs>>,
}

/// How a saga belongs to another; the snapshot of that one is [`Data::order`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Belongs {
    /// The saga whose order this concerns.
    pub order: SagaId,
    /// For `call: saga.NAME`: the effect that waits for the outcome, and where the reply goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<(EffectId, ReplyTo)>,
}

/// What payloads and conditions read, and what is recorded for sending again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// `input`.
    pub input: Arc<Json>,
    /// `values`; null until they are computed.
    #[serde(default, skip_serializing_if = "is_null")]
    pub values: Arc<Json>,
    /// `order`: the snapshot of the saga that this one belongs to; null if none.
    #[serde(default, skip_serializing_if = "is_null")]
    pub order: Arc<Json>,
    /// The runs (step times item) so far, in the order in which their stages were entered; a step's runs are adjacent
    /// and in item order. Parallel to the control's runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunData>,
    /// `waits`: the events taken, by stage index; null or missing where none was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Arc<Json>>,
    /// Events that came before their wait, or that a wait parks on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Kept>,
    /// Ids of the events that were taken, kept or late: repeated, they are no-ops.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consumed: Vec<Arc<str>>,
    /// The latest requests that were taken, the oldest first: repeated, they are answered alike.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Request>,
    /// When the open wait's time is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<i64>,
    /// The last ask of a wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<Box<Ask>>,
}

/// A request that was taken: a cancel, or an operator's action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The input's id.
    pub input: Arc<str>,
    /// Hash of what was asked, why and by whom.
    pub said: Arc<str>,
}

impl Request {
    /// Requests that a saga remembers; older ones are decided anew when they are repeated.
    pub const MOST: usize = 8;

    /// The request that a fact tells of; none for other facts.
    #[must_use]
    pub fn of(fact: &Fact) -> Option<Self> {
        let (Fact::CancelRequested { input, .. } | Fact::Operated { input, .. }) = fact else { return None };
        let digest = Sha256::digest(serde_json::to_vec(fact).unwrap_or_default());
        let said: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        (!input.is_empty()).then(|| Self { input: Arc::clone(input), said: said.into() })
    }
}

/// What is recorded about one run. Field names are short: they are written with every row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunData {
    /// Its step: index into the plan's steps.
    #[serde(rename = "s")]
    pub step: u8,
    /// The item's key under `each`, else empty.
    #[serde(rename = "i", default = "nothing", skip_serializing_if = "str::is_empty")]
    pub item_key: Arc<str>,
    /// The item; null without `each`.
    #[serde(rename = "v", default, skip_serializing_if = "is_null")]
    pub item: Arc<Json>,
    /// The payload, evaluated once.
    #[serde(rename = "w")]
    pub with: Arc<Json>,
    /// The data of its reply; null until done.
    #[serde(rename = "r", default, skip_serializing_if = "is_null")]
    pub reply: Arc<Json>,
    /// Routing key of its command; `None` is the saga's key.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
    /// The run that an `of:` step's run refers to.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u8>,
    /// How often the awaited command was sent again.
    #[serde(rename = "n", default, skip_serializing_if = "is_zero")]
    pub attempt: u16,
    /// True when the silent participant was asked about the awaited command.
    #[serde(rename = "a", default, skip_serializing_if = "std::ops::Not::not")]
    pub asked: bool,
    /// True when the awaited command lies in the dead letters: nobody asks or sends again until a person has looked.
    #[serde(rename = "p", default, skip_serializing_if = "std::ops::Not::not")]
    pub put_aside: bool,
    /// When the awaited command's next timer fires; meaningless while none is awaited.
    #[serde(rename = "d", default)]
    pub due_ms: i64,
}

/// An event that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The stage of its wait.
    pub stage: u8,
    /// Index into the plan's events.
    pub event: u8,
    /// Its identity.
    pub id: Arc<str>,
    /// Its data.
    pub data: Arc<Json>,
}

/// The ask of a wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// The stage of the wait.
    pub stage: u8,
    /// How many asks of waits the saga has sent before: the round of this one's effect id.
    pub round: u8,
    /// Its payload.
    pub with: Arc<Json>,
    /// Its routing key; `None` is the saga's.
    pub key: Option<Arc<str>>,
    /// How often it was sent again.
    pub attempt: u16,
    /// When its next timer fires.
    pub due_ms: i64,
}

/// What a saga is parked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParkedOn {
    /// A step (the first of several).
    Step(Arc<str>),
    /// An expression that failed, or an input that went to the dead letters.
    Fault,
    /// A wait, by its deadline or an event that does not match.
    Wait,
}

impl Data {
    /// The runs of one step, in item order.
    pub fn runs_of(&self, step: usize) -> impl Iterator<Item = &RunData> {
        self.runs.iter().filter(move |run| usize::from(run.step) == step)
    }
}

impl Saga {
    /// The effect id of a run's step or undo, in its present round.
    #[must_use]
    pub fn effect_id(&self, plan: &Plan, run: usize, direction: Direction) -> EffectId {
        let (state, data) = (&self.control.runs()[run], &self.data.runs[run]);
        EffectId {
            saga: self.id,
            step: plan.steps[usize::from(state.step)].name.to_string(),
            item: data.item_key.to_string(),
            direction,
            round: match direction {
                Direction::Do => state.round,
                Direction::Undo => state.undo_round,
            },
        }
    }

    /// The run that an effect id names, whatever its round.
    #[must_use]
    pub fn run(&self, plan: &Plan, effect_id: &EffectId) -> Option<usize> {
        let step = plan.step(&effect_id.step)?;
        self.data.runs.iter().position(|run| usize::from(run.step) == step && *run.item_key == *effect_id.item)
    }

    /// What it is parked on, if it is.
    #[must_use]
    pub fn parked_on(&self, plan: &Plan) -> Option<ParkedOn> {
        let control = &self.control;
        if !control.is_parked(plan) {
            return None;
        }
        let run = (0..control.runs().len()).find(|run| control.is_run_parked(plan, *run));
        Some(match run {
            Some(run) => ParkedOn::Step(plan.steps[usize::from(control.runs()[run].step)].name.clone()),
            None if control.faulted => ParkedOn::Fault,
            None => ParkedOn::Wait,
        })
    }

    /// When its earliest timer fires; none for a saga that only an input can move.
    ///
    /// A parked saga's deadline does not count: it fires when the saga wakes.
    #[must_use]
    pub fn due_ms(&self, plan: &Plan) -> Option<i64> {
        if self.control.is_ended() {
            return None;
        }
        let awaited =
            |(index, run): (usize, &RunData)| self.control.awaits(index).filter(|_| !run.put_aside).map(|_| run.due_ms);
        let runs = self.data.runs.iter().enumerate().filter_map(awaited).min();
        let wait = self.control.open_wait().filter(|_| !self.control.is_parked(plan)).and_then(|stage| {
            match self.control.wait(stage) {
                WaitState::Asked => self.data.ask.as_ref().map(|ask| ask.due_ms),
                WaitState::Open => self.data.deadline_ms,
                WaitState::NotOpen
                | WaitState::Kept
                | WaitState::Taken
                | WaitState::Passed
                | WaitState::Skipped
                | WaitState::ParkedDeadline
                | WaitState::ParkedMismatch => None,
            }
        });
        runs.into_iter().chain(wait).min()
    }

    /// `input`, `values`, `steps` and `waits`, as a linked saga reads them under `order`.
    #[must_use]
    pub fn snapshot(&self, plan: &Plan) -> Json {
        let mut steps = serde_json::Map::new();
        for (index, step) in plan.steps.iter().enumerate() {
            let mut replies = self.data.runs_of(index).map(|run| Json::clone(&run.reply)).peekable();
            if replies.peek().is_some() {
                let value = if step.each { replies.collect() } else { replies.next().unwrap_or_default() };
                steps.insert(step.name.to_string(), value);
            }
        }
        let taken = plan.stages.iter().zip(&self.data.waits).filter(|(_, event)| !event.is_null());
        let waits: serde_json::Map<_, _> =
            taken.map(|(stage, event)| (stage.name.to_string(), Json::clone(event))).collect();
        serde_json::json!({
            "id": self.id,
            "number": self.number,
            "input": self.data.input,
            "values": self.data.values,
            "steps": steps,
            "waits": waits,
        })
    }
}

fn is_null(value: &Arc<Json>) -> bool {
    value.is_null()
}

fn is_zero(value: &u16) -> bool {
    *value == 0
}

fn nothing() -> Arc<str> {
    Arc::from("")
}
