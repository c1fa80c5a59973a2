//! Events: facts about a saga, past tense. Folding them ([`crate::fold`]) gives its row.
//!
//! An event repeats nothing that an earlier one recorded: an undo names its run, not its payload. Names of steps and
//! stages are indices into the definition's plan, which never changes under a version.

use crate::control::{ControlEvent, Outcome};
use crate::saga::{Ask, Belongs, Kept, RunData, Saga};
use endstate_events::{Actor, Direction, Json, Lane, Operation, SagaId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A fact and its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When it was decided, milliseconds since 1970.
    #[serde(rename = "at")]
    pub at_ms: i64,
    /// What happened.
    pub fact: Fact,
}

/// What happened to a saga. Times named `in_ms` count from the event's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// It began.
    Started(Box<Started>),
    /// A stage began and its commands were sent.
    StageEntered {
        /// The stage.
        stage: u8,
        /// Its runs, ordered by step; their `due_ms` counts from the event.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        runs: Vec<RunData>,
    },
    /// A stage's `when` did not hold.
    StageSkipped {
        /// The stage.
        stage: u8,
    },
    /// A run is done.
    RunDone {
        /// The run.
        run: u8,
        /// The reply's data.
        #[serde(default, skip_serializing_if = "is_null")]
        reply: Arc<Json>,
    },
    /// A run was refused.
    RunRefused {
        /// The run.
        run: u8,
        /// Refusal code.
        code: Arc<str>,
    },
    /// A run's ladder of retries is used up.
    RunExhausted {
        /// The run.
        run: u8,
    },
    /// The saga goes on without a run's answer.
    RunAbandoned {
        /// The run.
        run: u8,
    },
    /// The undos of these runs were sent.
    UndosSent {
        /// (run, time to its first timer).
        runs: Vec<(u8, u64)>,
    },
    /// A run is undone.
    UndoDone {
        /// The run.
        run: u8,
    },
    /// A run's undo was refused.
    UndoRefused {
        /// The run.
        run: u8,
        /// Refusal code.
        code: Arc<str>,
    },
    /// Under force: the saga goes on without an undo's answer.
    UndoAbandoned {
        /// The run.
        run: u8,
    },
    /// A reply contradicts an earlier one.
    Contradicted {
        /// The run.
        run: u8,
        /// The data of the reply, when it is the one that says done.
        #[serde(default, skip_serializing_if = "is_null")]
        reply: Arc<Json>,
    },
    /// A person has looked at a contradiction: the effect counts as done.
    ContradictionAccepted {
        /// The run.
        run: u8,
    },
    /// An operator had a parked run sent again.
    RunRetried {
        /// The run.
        run: u8,
        /// Step or undo.
        direction: Direction,
        /// Time to its first timer.
        in_ms: u64,
    },
    /// A silent participant was asked about the command that a run awaits.
    RunAsked {
        /// The run.
        run: u8,
        /// Time to the next timer.
        in_ms: u64,
    },
    /// The command that a run awaits was sent again.
    RunResent {
        /// The run.
        run: u8,
        /// How often it was sent again by now.
        attempt: u16,
        /// Time to the next timer.
        in_ms: u64,
    },
    /// A participant said that it does not know; the next try comes sooner.
    RunDelayed {
        /// The run.
        run: u8,
        /// Time to the next timer.
        in_ms: u64,
    },
    /// A stage's wait began.
    WaitOpened {
        /// The stage.
        stage: u8,
        /// How long it stays open.
        in_ms: u64,
    },
    /// An event came before its wait and is kept.
    EventKept(Kept),
    /// A wait has its event.
    EventTaken {
        /// The stage of the wait.
        stage: u8,
        /// The event's identity.
        id: Arc<str>,
        /// Its data; null when it was among the kept.
        #[serde(default, skip_serializing_if = "is_null")]
        data: Arc<Json>,
    },
    /// An event did not match and the wait parks. None: it was among the kept.
    EventMismatched {
        /// The stage of the wait.
        stage: u8,
        /// The event.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        event: Option<Kept>,
    },
    /// The kept events of a wait are late, each starting its linked saga.
    KeptLate {
        /// The stage of the wait.
        stage: u8,
    },
    /// An event is late and starts a linked saga.
    EventLate {
        /// Index into the plan's events.
        event: u8,
        /// Its identity.
        id: Arc<str>,
    },
    /// A wait's time was up and its ask was sent.
    WaitAsked(Ask),
    /// The ask of a wait was sent again.
    WaitAskedAgain {
        /// How often by now.
        attempt: u16,
        /// Time to the next timer.
        in_ms: u64,
    },
    /// Time was up and the saga goes on without the event.
    DeadlinePassed {
        /// The stage of the wait.
        stage: u8,
    },
    /// Time was up and the wait parks.
    DeadlineParked {
        /// The stage of the wait.
        stage: u8,
    },
    /// An operator lets a parked wait begin anew.
    WaitReset {
        /// The stage of the wait.
        stage: u8,
    },
    /// The saga gives back (before the pivot) or is to be reversed (after it).
    TurnedBack {
        /// True after the pivot.
        reversal: bool,
        /// Why.
        reason: Arc<str>,
    },
    /// What was in flight has settled; the reversal stages follow.
    ReversalBegan {
        /// The first reversal stage.
        stage: u8,
    },
    /// The reversal stages are behind; the undos follow.
    ReturnBegan,
    /// An operator forces the end that gives everything back.
    ForceBegan,
    /// An expression failed.
    Faulted {
        /// Which one.
        place: Arc<str>,
        /// What went wrong.
        reason: Arc<str>,
    },
    /// An input of the saga went to the dead letters: it parks, as whatever that input said is missing. Or one of its commands
    /// did: nobody will answer it.
    DeadLettered {
        /// The input's identity: the envelope's id; a command's is its effect.
        input: Arc<str>,
        /// Why nobody could handle it.
        reason: Arc<str>,
        /// The run whose command it was; it is not sent again until a person has looked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<u8>,
    },
    /// An operator has looked at what failed: expressions are tried again, and the saga goes on.
    FaultCleared,
    /// The saga is final.
    Ended {
        /// How.
        outcome: Outcome,
    },
    /// Its events so far are put together: this is the saga that they have made. What came before can go.
    Snapshot(Box<Saga>),
    /// What the customer sees changed.
    StatusChanged {
        /// To this.
        status: Arc<str>,
    },
    /// Somebody asked for a cancel that the saga follows.
    CancelRequested {
        /// The reason.
        reason: Arc<str>,
        /// Who.
        actor: Actor,
        /// The input's id: sent again, it is answered alike.
        #[serde(default, skip_serializing_if = "str::is_empty")]
        input: Arc<str>,
    },
    /// An operator acted.
    Operated {
        /// What.
        operation: Operation,
        /// Why.
        reason: String,
        /// Who.
        actor: Actor,
        /// The input's id, as above.
        #[serde(default, skip_serializing_if = "str::is_empty")]
        input: Arc<str>,
    },
}

/// The first event of a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The saga's id.
    pub id: SagaId,
    /// Name of its definition.
    pub definition: Arc<str>,
    /// Version of its definition.
    pub definition_version: u32,
    /// How many stages the definition has, reversal included.
    pub stages: u8,
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
    /// When the start was queued.
    pub started_ms: i64,
    /// `input`.
    pub input: Arc<Json>,
    /// `values`.
    #[serde(default, skip_serializing_if = "is_null")]
    pub values: Arc<Json>,
    /// `order`.
    #[serde(default, skip_serializing_if = "is_null")]
    pub order: Arc<Json>,
    /// How it belongs to another saga.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Box<Belongs>>,
}

fn is_null(value: &Arc<Json>) -> bool {
    value.is_null()
}

impl Fact {
    /// What it means for control; none for what only data knows.
    #[must_use]
    pub fn control(&self) -> Option<ControlEvent> {
        Some(match *self {
            Self::StageEntered { stage, ref runs } => {
                let counts = runs.chunk_by(|a, b| a.step == b.step).map(|part| (part[0].step, part.len() as u8));
                ControlEvent::StageEntered { stage, counts: counts.collect() }
            }
            Self::StageSkipped { stage } => ControlEvent::StageSkipped { stage },
            Self::RunDone { run, .. } => ControlEvent::RunDone { run },
            Self::RunRefused { run, .. } => ControlEvent::RunRefused { run },
            Self::RunExhausted { run } => ControlEvent::RunExhausted { run },
            Self::RunAbandoned { run } => ControlEvent::RunAbandoned { run },
            Self::UndosSent { ref runs } => {
                ControlEvent::UndosSent { runs: runs.iter().map(|(run, _)| *run).collect() }
            }
            Self::UndoDone { run } => ControlEvent::UndoDone { run },
            Self::UndoRefused { run, .. } => ControlEvent::UndoRefused { run },
            Self::UndoAbandoned { run } => ControlEvent::UndoAbandoned { run },
            Self::Contradicted { run, .. } => ControlEvent::Contradicted { run },
            Self::ContradictionAccepted { run } => ControlEvent::ContradictionAccepted { run },
            Self::RunRetried { run, direction, .. } => ControlEvent::RunRetried { run, direction },
            Self::WaitOpened { stage, .. } => ControlEvent::WaitOpened { stage },
            Self::EventKept(ref kept) => ControlEvent::EventKept { stage: kept.stage },
            Self::EventTaken { stage, .. } => ControlEvent::EventTaken { stage },
            Self::EventMismatched { stage, .. } => ControlEvent::EventMismatched { stage },
            Self::KeptLate { stage } => ControlEvent::KeptLate { stage },
            Self::EventLate { event, .. } => ControlEvent::EventLate { event },
            Self::WaitAsked(ref ask) => ControlEvent::WaitAsked { stage: ask.stage },
            Self::DeadlinePassed { stage } => ControlEvent::DeadlinePassed { stage },
            Self::DeadlineParked { stage } => ControlEvent::DeadlineParked { stage },
            Self::WaitReset { stage } => ControlEvent::WaitReset { stage },
            Self::TurnedBack { reversal, .. } => ControlEvent::TurnedBack { reversal },
            Self::ReversalBegan { stage } => ControlEvent::ReversalBegan { stage },
            Self::ReturnBegan => ControlEvent::ReturnBegan,
            Self::ForceBegan => ControlEvent::ForceBegan,
            Self::Faulted { .. } | Self::DeadLettered { .. } => ControlEvent::Faulted,
            Self::FaultCleared => ControlEvent::FaultCleared,
            Self::Ended { outcome } => ControlEvent::Ended { outcome },
            Self::Started(_)
            | Self::RunAsked { .. }
            | Self::RunResent { .. }
            | Self::RunDelayed { .. }
            | Self::WaitAskedAgain { .. }
            | Self::Snapshot(_)
            | Self::StatusChanged { .. }
            | Self::CancelRequested { .. }
            | Self::Operated { .. } => return None,
        })
    }

    /// The spelling used in timelines and labels.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Started(_) => "started",
            Self::StageEntered { .. } => "stage_entered",
            Self::StageSkipped { .. } => "stage_skipped",
            Self::RunDone { .. } => "run_done",
            Self::RunRefused { .. } => "run_refused",
            Self::RunExhausted { .. } => "run_exhausted",
            Self::RunAbandoned { .. } => "run_abandoned",
            Self::UndosSent { .. } => "undos_sent",
            Self::UndoDone { .. } => "undo_done",
            Self::UndoRefused { .. } => "undo_refused",
            Self::UndoAbandoned { .. } => "undo_abandoned",
            Self::Contradicted { .. } => "contradicted",
            Self::ContradictionAccepted { .. } => "contradiction_accepted",
            Self::RunRetried { .. } => "run_retried",
            Self::RunAsked { .. } => "run_asked",
            Self::RunResent { .. } => "run_resent",
            Self::RunDelayed { .. } => "run_delayed",
            Self::WaitOpened { .. } => "wait_opened",
            Self::EventKept(_) => "event_kept",
            Self::EventTaken { .. } => "event_taken",
            Self::EventMismatched { .. } => "event_mismatched",
            Self::KeptLate { .. } => "kept_late",
            Self::EventLate { .. } => "event_late",
            Self::WaitAsked(_) => "wait_asked",
            Self::WaitAskedAgain { .. } => "wait_asked_again",
            Self::DeadlinePassed { .. } => "deadline_passed",
            Self::DeadlineParked { .. } => "deadline_parked",
            Self::WaitReset { .. } => "wait_reset",
            Self::TurnedBack { .. } => "turned_back",
            Self::ReversalBegan { .. } => "reversal_began",
            Self::ReturnBegan => "return_began",
            Self::ForceBegan => "force_began",
            Self::Faulted { .. } => "faulted",
            Self::DeadLettered { .. } => "dead_lettered",
            Self::FaultCleared => "fault_cleared",
            Self::Ended { .. } => "ended",
            Self::Snapshot(_) => "snapshot",
            Self::StatusChanged { .. } => "status_changed",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::Operated { .. } => "operated",
        }
    }
}
