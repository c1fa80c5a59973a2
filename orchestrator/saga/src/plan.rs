//! The plan: the control shape of a definition as pure data, and the [`Program`] trait through which `decide` asks a
//! definition to evaluate its expressions.
//!
//! `control` reads only the [`Plan`]; it never sees a name's meaning or a payload. The definition (YAML and compiled
//! expressions), the model check and tests implement [`Program`].

use crate::saga::Saga;
use endstate_events::Json;
use std::ops::Range;
use std::sync::Arc;

/// Most runs (step times item) of one saga; loading refuses definitions whose bounded lists can exceed it.
pub const MAX_RUNS: usize = 160;

/// Most stages, reversal included.
pub const MAX_STAGES: usize = 24;

/// The participant name under which a step calls another saga: `call: saga.NAME`.
pub const SAGA_PARTICIPANT: &str = "saga";

/// The role of cancel reasons that only a wait's deadline uses.
pub const DEADLINE_ROLE: &str = "deadline";

/// The control shape of one version of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Name of the definition.
    pub definition: Arc<str>,
    /// Version of the definition.
    pub version: u32,
    /// The forward stages in order, then the reversal stages in order; at most [`MAX_STAGES`].
    pub stages: Vec<Stage>,
    /// How many of `stages` are forward stages.
    pub forward_stages: usize,
    /// All steps, ordered by stage; a stage names its part by range. At most 255.
    pub steps: Vec<Step>,
    /// Where the saga's point of no return lies.
    pub pivot: Pivot,
    /// Every event that a wait or the `late` rules name.
    pub events: Vec<EventRule>,
    /// The `cancel` reasons.
    pub reasons: Vec<Reason>,
    /// Statuses of the ends.
    pub ends: Ends,
}

impl Plan {
    /// Index of a step.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|step| &*step.name == name)
    }

    /// Index of an event.
    #[must_use]
    pub fn event(&self, name: &str) -> Option<usize> {
        self.events.iter().position(|event| &*event.name == name)
    }

    /// Index of a cancel reason.
    #[must_use]
    pub fn reason(&self, name: &str) -> Option<usize> {
        self.reasons.iter().position(|reason| &*reason.name == name)
    }

    /// True for the stages of the reversal.
    #[must_use]
    pub fn is_reversal(&self, stage: usize) -> bool {
        stage >= self.forward_stages
    }
}

/// Where a saga's point of no return lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pivot {
    /// Nowhere: until its end everything can be given back.
    Never,
    /// At the start (`pivot: start`): the saga only goes forward.
    Start,
    /// After this forward stage, complete or skipped.
    Stage(usize),
}

/// One stage: steps that run in parallel, a wait, or steps and then a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name.
    pub name: Arc<str>,
    /// The status shown from its beginning on; `None` keeps the one before.
    pub status: Option<Arc<str>>,
    /// Its part of [`Plan::steps`]; may be empty.
    pub steps: Range<usize>,
    /// What it waits for after its steps.
    pub wait: Option<Wait>,
    /// True when it has a `when`; else [`Program::stage_applies`] is not asked.
    pub conditional: bool,
}

/// A stage's wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Index into [`Plan::events`].
    pub event: usize,
    /// True when it has a `where`; else [`Program::event_matches`] is not asked and every event matches.
    pub conditional: bool,
    /// What happens to an event that does not match.
    pub mismatch: Mismatch,
    /// What happens when time is up.
    pub at_deadline: AtDeadline,
    /// The action that asks, at the deadline, whether the event has happened after all.
    pub ask: Option<Call>,
    /// The ladder of that ask.
    pub retry: Retry,
}

/// What happens to an event that meets a wait's name but not its `where`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mismatch {
    /// Treated by the `late` rule; the wait goes on.
    Late,
    /// The saga parks.
    Park,
}

/// What happens when a wait's time is up (and its ask, if any, brought nothing).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AtDeadline {
    /// The next stage begins.
    Next,
    /// Cancelled with this reason (index into [`Plan::reasons`]).
    Cancel {
        /// Index into [`Plan::reasons`].
        reason: usize,
    },
    /// Compensation before the pivot, the reversal after it.
    Reverse,
    /// The saga parks.
    Park,
}

impl AtDeadline {
    /// The cancel reason it names, if it does.
    #[must_use]
    pub fn reason(self) -> Option<usize> {
        match self {
            Self::Cancel { reason } => Some(reason),
            Self::Next | Self::Reverse | Self::Park => None,
        }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name; unique in the definition.
    pub name: Arc<str>,
    /// Its stage: index into [`Plan::stages`].
    pub stage: usize,
    /// What it calls.
    pub call: Call,
    /// What undoes it; `None` means `no_undo` or an effect that needs none.
    pub undo: Option<Call>,
    /// The way a refusal takes.
    pub refused: Refused,
    /// Refused or exhausted is skipped.
    pub best_effort: bool,
    /// Runs once for each run of this step that is done or unknown.
    pub of: Option<usize>,
    /// True when it runs over a list (its reply is a list under `steps.NAME`). An `of:` step takes it from its step.
    pub each: bool,
    /// Its ladder, also used for its undo.
    pub retry: Retry,
    /// The status shown while it is parked.
    pub parked_status: Option<Arc<str>>,
}

/// An action of a participant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The participant's name in the catalogue, or [`SAGA_PARTICIPANT`].
    pub participant: Arc<str>,
    /// The action's name in the catalogue, or the definition's name of a called saga.
    pub action: Arc<str>,
}

impl Call {
    /// True when the call starts another saga.
    #[must_use]
    pub fn is_saga(&self) -> bool {
        &*self.participant == SAGA_PARTICIPANT
    }
}

/// The way a refusal takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// Give back; the default before the pivot. After it, the reversal.
    Compensate,
    /// Ask for a person.
    Park,
    /// The reversal (before the pivot: compensation).
    Reverse,
    /// Go on without it.
    Skip,
}

/// When a silent participant is asked and a command sent again. Times in milliseconds.
///
/// A command without a reply is asked about after `ask_after_ms`; `timeout_ms` later, and after each wait in turn, it is
/// sent again and given `timeout_ms`. When the waits are used up, the attempt is exhausted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How long one attempt may take.
    pub timeout_ms: u64,
    /// Silence after which the participant is asked.
    pub ask_after_ms: u64,
    /// Waits before each further attempt, written out (`1s x 5` is five entries). Must not be empty for a step with an
    /// undo: the last one is the interval at which an exhausted undo goes on.
    pub waits_ms: Arc<[u64]>,
}

impl Retry {
    /// Time from sending a command to its first timer: the ask.
    #[must_use]
    pub fn first_timer_ms(&self) -> u64 {
        self.ask_after_ms
    }

    /// Time from the ask, or from sending for the `attempt`th time again, to the next timer.
    #[must_use]
    pub fn next_timer_ms(&self, attempt: u16) -> u64 {
        self.timeout_ms + self.wait_ms(attempt).unwrap_or(0)
    }

    /// The wait before the attempt after the `attempt`th; none when the ladder is used up.
    #[must_use]
    pub fn wait_ms(&self, attempt: u16) -> Option<u64> {
        self.waits_ms.get(usize::from(attempt)).copied()
    }

    /// The interval at which what must not give up goes on.
    #[must_use]
    pub fn last_interval_ms(&self) -> u64 {
        self.timeout_ms + self.waits_ms.last().copied().unwrap_or(self.ask_after_ms)
    }
}

/// An event known to the definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRule {
    /// Its name, such as `payment.captured`.
    pub name: Arc<str>,
    /// True when a `late` rule starts a linked saga for it.
    pub late: bool,
}

/// A reason to cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Its name.
    pub name: Arc<str>,
    /// Who may use it; `deadline` is nobody but a wait.
    pub role: Arc<str>,
    /// What it does after the pivot.
    pub after_pivot: AfterPivot,
}

/// What a cancel does after the pivot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AfterPivot {
    /// It is refused.
    Refuse,
    /// It begins the reversal.
    Reverse,
}

/// Statuses of the ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Every stage passed.
    pub completed: Arc<str>,
    /// Given back before the pivot.
    pub cancelled: Arc<str>,
    /// Reversed after the pivot.
    pub reversed: Arc<str>,
    /// Ended by an operator.
    pub forced: Arc<str>,
}

/// A definition as `decide` needs it: its plan, and its expressions evaluated over a saga.
///
/// Every method is a pure function of its arguments. Indices are those of the plan. `saga.data` holds what expressions
/// read: `input`, `values`, `order`, the runs (`steps.NAME` is the reply of the run of that step, or the list of replies
/// in item order when the step has `each`; null while not done) and the events taken (`waits.STAGE`). `event` and
/// `item` come as arguments. An error parks the saga (of a `late` rule: raises a discrepancy).
pub trait Program {
    /// The control shape.
    fn plan(&self) -> &Plan;

    /// The definition's `values`, once, at the start; `saga.data.values` is still null.
    fn values(&self, saga: &Saga) -> Result<Json, EvalError>;

    /// Whether there is anything in them that could fail.
    fn has_values(&self) -> bool {
        true
    }

    /// The `when` of a stage; asked only if the stage is conditional.
    fn stage_applies(&self, stage: usize, saga: &Saga) -> Result<bool, EvalError>;

    /// The items of a step (its `when`, `each`, `item_key`), at the entry of its stage. For an `of:` step only its
    /// `when` counts: [`Items::One`] means "for each run of the other step that is done or unknown".
    fn items(&self, step: usize, saga: &Saga) -> Result<Items, EvalError>;

    /// Payload and routing key of one run. `item` is the item of the run (of an `of:` step: the item of the run it
    /// refers to).
    fn payload(&self, step: usize, item: Option<&Item>, saga: &Saga) -> Result<Payload, EvalError>;

    /// How long a stage's wait stays open, in milliseconds; asked when it opens.
    fn within_ms(&self, stage: usize, saga: &Saga) -> Result<u64, EvalError>;

    /// The `where` of a stage's wait for one event; asked only if the wait is conditional.
    fn event_matches(&self, stage: usize, event: &Json, saga: &Saga) -> Result<bool, EvalError>;

    /// Payload and routing key of the `ask` of a stage's wait; asked only if the wait has one.
    fn ask(&self, stage: usize, saga: &Saga) -> Result<Payload, EvalError>;

    /// The linked saga that the `late` rule of an event starts; asked only if the event has the rule.
    fn late(&self, event: usize, data: &Json, saga: &Saga) -> Result<LateStart, EvalError>;
}

/// Over what a step runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Items {
    /// Skipped: `when` is false or the list is empty.
    None,
    /// Once, without an item.
    One,
    /// Once for each; keys are unique, at most [`MAX_RUNS`] over the whole saga.
    Each(Vec<Item>),
}

/// One item of an `each` list.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its unique key within the step; part of the effect id.
    pub key: Arc<str>,
    /// The list's element.
    pub value: Arc<Json>,
}

/// What a command carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload {
    /// The payload.
    pub with: Json,
    /// The value of the field of `with` that the catalogue's action names as its `key`; `None` routes by the saga's
    /// key. Ignored for `of:` steps, which reuse the key of the effect they refer to.
    pub key: Option<Arc<str>>,
}

/// A linked saga that a late event starts. It runs under the key of the saga that starts it.
#[derive(Clone, Debug, PartialEq)]
pub struct LateStart {
    /// Name of the definition; whoever queues the start chooses the version.
    pub definition: Arc<str>,
    /// Business number.
    pub number: String,
    /// Its input.
    pub input: Json,
}

/// An expression that failed in flight.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct EvalError {
    /// Which expression: `steps.hold_stock.with.unit`.
    pub place: String,
    /// What went wrong.
    pub reason: String,
}
