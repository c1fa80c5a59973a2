//! Control: the small state that the transition works on, and what can be read off it.
//!
//! It holds no strings, times or ids, so that the model check can explore it exhaustively; what payloads and conditions
//! read rides beside it (see [`crate::saga`]). Five files work on it:
//! - [`event`]: what can happen to it, and `apply`
//! - [`react`]: an input to events; total, one row for each case; `answers`: of replies
//! - [`advance`](mod@advance): what the saga does next by itself
//! - [`table`]: all of that as a page

pub mod event;
pub mod react;
mod answers;
pub mod advance;
pub mod table;
pub(crate) mod wire;

pub use advance::{Conditions, advance, step};
pub use event::{ControlEvent, apply, apply_to};
pub use react::{Answer, ControlInput, Ignored, Reaction, Rejection, react};

use crate::plan::{MAX_RUNS, MAX_STAGES, Pivot, Plan, Refused, Step};
use endstate_events::Direction;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The control state of one saga.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// Which way it goes.
    pub course: Course,
    /// The next stage to enter or skip: index into the plan's stages. The current stage is the one before.
    pub next: u8,
    /// An operator named the end: nothing parks any more, what does not answer is let go.
    pub forced: bool,
    /// An expression failed in flight, or an input went to the dead letters.
    pub faulted: bool,
    waits: [WaitState; MAX_STAGES],
    len: u8,
    runs: [Run; MAX_RUNS],
}

/// Which way a saga goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Course {
    /// Through the forward stages.
    Forward,
    /// Giving back, before the pivot.
    Compensating,
    /// After the pivot: a reversal is decided, steps in flight settle.
    Settling,
    /// Through the reversal stages.
    Reversing,
    /// After the reversal stages: every undo.
    Returning,
    /// Final.
    Ended(Outcome),
}

/// How a saga ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every stage passed.
    Completed,
    /// Given back before the pivot.
    Cancelled,
    /// Reversed after the pivot.
    Reversed,
    /// An operator named the end.
    Forced,
}

impl Outcome {
    /// The spelling used in columns and labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Reversed => "reversed",
            Self::Forced => "forced",
        }
    }
}

/// What a saga is doing, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Steps are in flight.
    Running,
    /// It waits for an event.
    Waiting,
    /// It gives back.
    Compensating,
    /// It reverses.
    Reversing,
    /// It waits for a person.
    Parked,
    /// It is final.
    Ended,
}

impl Phase {
    /// The spelling used in columns and labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Compensating => "compensating",
            Self::Reversing => "reversing",
            Self::Parked => "parked",
            Self::Ended => "ended",
        }
    }
}

/// One run: a step times an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// Index into the plan's steps.
    pub step: u8,
    /// What is known of the step.
    pub forward: Forward,
    /// What is known of its undo.
    pub undo: Undo,
    /// Whether its answers contradict each other.
    pub contradiction: Contradiction,
    /// Round of the step: rises when an operator retries a refused one.
    pub round: u8,
    /// Round of the undo: the step's, and more when an operator retries a refused undo.
    pub undo_round: u8,
}

impl Run {
    const FREE: Self = Self {
        step: 0,
        forward: Forward::InFlight,
        undo: Undo::None,
        contradiction: Contradiction::None,
        round: 0,
        undo_round: 0,
    };

    /// True when the effect may exist, as far as anybody knows.
    #[must_use]
    pub fn is_done_or_unknown(&self) -> bool {
        match self.forward {
            Forward::InFlight | Forward::Exhausted | Forward::Done | Forward::Abandoned => true,
            Forward::Refused => self.contradiction != Contradiction::None,
        }
    }
}

/// What is known of a step's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forward {
    /// Sent, no answer: unknown.
    InFlight,
    /// The ladder of retries is used up: unknown.
    Exhausted,
    /// Done.
    Done,
    /// Refused: the participant vouches that there is no effect under this round's id.
    Refused,
    /// The saga went on without an answer: unknown.
    Abandoned,
}

/// What is known of a run's undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Undo {
    /// Not sent.
    None,
    /// Sent, no answer.
    InFlight,
    /// Done.
    Done,
    /// Refused.
    Refused,
    /// Under force: nobody answered; a discrepancy.
    Abandoned,
}

/// Whether a run's answers contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contradiction {
    /// They do not.
    None,
    /// They do, and a person must look.
    Open,
    /// They did, and a person has looked: the effect counts as done.
    Accepted,
}

/// The wait of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitState {
    /// The stage has not come to its wait (or has none).
    NotOpen,
    /// Not open, and at least one event came early and is kept.
    Kept,
    /// Open.
    Open,
    /// Open, time is up, the ask is on its way.
    Asked,
    /// The event came.
    Taken,
    /// Passed without the event: time was up, or the saga turned back.
    Passed,
    /// Its stage was skipped.
    Skipped,
    /// Time was up and the definition says park.
    ParkedDeadline,
    /// An event did not match and the definition says park; the event is kept.
    ParkedMismatch,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            course: Course::Forward,
            next: 0,
            forced: false,
            faulted: false,
            waits: [WaitState::NotOpen; MAX_STAGES],
            len: 0,
            runs: [Run::FREE; MAX_RUNS],
        }
    }
}

impl Control {
    /// The runs so far, in the order in which their stages were entered.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs[..usize::from(self.len)]
    }

    /// The runs so far, to be reordered or normalised by the model check.
    pub fn runs_mut(&mut self) -> &mut [Run] {
        &mut self.runs[..usize::from(self.len)]
    }

    /// The wait of a stage.
    #[must_use]
    pub fn wait(&self, stage: usize) -> WaitState {
        self.waits[stage]
    }

    /// The waits of all stages.
    #[must_use]
    pub fn waits(&self) -> &[WaitState; MAX_STAGES] {
        &self.waits
    }

    /// The outcome, once ended.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self.course {
            Course::Ended(outcome) => Some(outcome),
            Course::Forward | Course::Compensating | Course::Settling | Course::Reversing | Course::Returning => None,
        }
    }

    /// True once it is final.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.outcome().is_some()
    }

    /// The direction in which a run has a command that awaits its reply; its timer follows this.
    #[must_use]
    pub fn awaits(&self, run: usize) -> Option<Direction> {
        let run = &self.runs()[run];
        match (self.course, run.undo) {
            (Course::Ended(_), _) => None,
            (_, Undo::InFlight) => Some(Direction::Undo),
            (_, Undo::Done | Undo::Refused | Undo::Abandoned) => None,
            (Course::Forward | Course::Settling | Course::Reversing, Undo::None) => {
                (run.forward == Forward::InFlight).then_some(Direction::Do)
            }
            // What has no undo is of no interest once the saga gives back.
            (Course::Compensating | Course::Returning, Undo::None) => None,
        }
    }

    /// True when a command awaits its reply.
    #[must_use]
    pub fn is_in_motion(&self) -> bool {
        (0..self.runs().len()).any(|run| self.awaits(run).is_some())
    }

    /// The stage whose wait is open or asked, if any.
    #[must_use]
    pub fn open_wait(&self) -> Option<usize> {
        self.waits.iter().position(|wait| matches!(wait, WaitState::Open | WaitState::Asked))
    }

    /// True when a run keeps the saga from going on until a person acts.
    #[must_use]
    pub fn is_run_parked(&self, plan: &Plan, index: usize) -> bool {
        if self.forced || self.is_ended() {
            return false;
        }
        let run = &self.runs()[index];
        let step = &plan.steps[usize::from(run.step)];
        if run.contradiction == Contradiction::Open {
            return true;
        }
        match self.course {
            Course::Forward | Course::Reversing => {
                plan.is_reversal(step.stage) == (self.course == Course::Reversing)
                    && match run.forward {
                        Forward::InFlight | Forward::Done | Forward::Abandoned => false,
                        Forward::Exhausted => true,
                        Forward::Refused => !skips_refusal(step),
                    }
            }
            Course::Compensating | Course::Returning => run.undo == Undo::Refused,
            Course::Settling | Course::Ended(_) => false,
        }
    }

    /// True when the saga waits for a person; computed, never stored.
    #[must_use]
    pub fn is_parked(&self, plan: &Plan) -> bool {
        !self.is_ended()
            && (self.faulted
                || self.waits.iter().any(|wait| matches!(wait, WaitState::ParkedDeadline | WaitState::ParkedMismatch))
                || (0..self.runs().len()).any(|run| self.is_run_parked(plan, run)))
    }

    /// What the saga is doing, as people see it.
    #[must_use]
    pub fn phase(&self, plan: &Plan) -> Phase {
        if self.is_parked(plan) {
            return Phase::Parked;
        }
        match self.course {
            Course::Forward if self.open_wait().is_some() => Phase::Waiting,
            Course::Forward => Phase::Running,
            Course::Compensating => Phase::Compensating,
            Course::Settling | Course::Reversing | Course::Returning => Phase::Reversing,
            Course::Ended(_) => Phase::Ended,
        }
    }

    /// True when the saga is past its point of no return.
    #[must_use]
    pub fn is_pivot_passed(&self, plan: &Plan) -> bool {
        match plan.pivot {
            Pivot::Never => false,
            Pivot::Start => true,
            Pivot::Stage(pivot) => {
                let next = usize::from(self.next);
                next > pivot + 1 || (next == pivot + 1 && self.is_stage_complete(plan, pivot))
            }
        }
    }

    /// True when the steps of an entered stage hold nothing up any more.
    #[must_use]
    pub fn are_steps_settled(&self, plan: &Plan, stage: usize) -> bool {
        let steps = &plan.stages[stage].steps;
        self.runs().iter().filter(|run| steps.contains(&usize::from(run.step))).all(|run| match run.forward {
            Forward::InFlight | Forward::Exhausted => false,
            Forward::Done | Forward::Abandoned => true,
            Forward::Refused => self.forced || skips_refusal(&plan.steps[usize::from(run.step)]),
        })
    }

    /// True when an entered or skipped stage is behind the saga: its steps settled, its wait over.
    #[must_use]
    pub fn is_stage_complete(&self, plan: &Plan, stage: usize) -> bool {
        let wait_over = match self.waits[stage] {
            WaitState::Taken | WaitState::Passed | WaitState::Skipped => true,
            WaitState::NotOpen => plan.stages[stage].wait.is_none(),
            WaitState::Kept
            | WaitState::Open
            | WaitState::Asked
            | WaitState::ParkedDeadline
            | WaitState::ParkedMismatch => false,
        };
        wait_over && self.are_steps_settled(plan, stage)
    }

    /// True when a run's undo is due or was sent: a forward step that has an undo and may have an effect.
    #[must_use]
    pub fn needs_undo(&self, plan: &Plan, run: &Run) -> bool {
        let step = &plan.steps[usize::from(run.step)];
        !plan.is_reversal(step.stage) && step.undo.is_some() && run.is_done_or_unknown()
    }

    /// True when a hold made by this run must be kept by its participant.
    #[must_use]
    pub fn needs_effect(&self, run: &Run) -> bool {
        match run.undo {
            Undo::None if self.is_ended() => run.forward == Forward::Done,
            Undo::None => run.is_done_or_unknown(),
            Undo::InFlight | Undo::Refused => !self.is_ended(),
            Undo::Done | Undo::Abandoned => false,
        }
    }

    /// True when the undo of a run that needs one is behind the saga.
    #[must_use]
    pub fn is_undo_settled(&self, run: &Run) -> bool {
        match run.undo {
            Undo::None | Undo::InFlight => false,
            Undo::Done | Undo::Abandoned => true,
            Undo::Refused => self.forced,
        }
    }
}

/// What the customer sees, given what was seen before.
#[must_use]
pub fn status(plan: &Plan, control: &Control, before: &Arc<str>) -> Arc<str> {
    if let Some(outcome) = control.outcome() {
        return match outcome {
            Outcome::Completed => &plan.ends.completed,
            Outcome::Cancelled => &plan.ends.cancelled,
            Outcome::Reversed => &plan.ends.reversed,
            Outcome::Forced => &plan.ends.forced,
        }
        .clone();
    }
    let parked = (0..control.runs().len()).filter(|run| control.is_run_parked(plan, *run));
    let shown = |run: usize| plan.steps[usize::from(control.runs()[run].step)].parked_status.as_ref();
    if let Some(status) = parked.filter_map(shown).next() {
        return status.clone();
    }
    let begin = match control.course {
        Course::Reversing | Course::Returning => plan.forward_stages,
        Course::Forward | Course::Compensating | Course::Settling | Course::Ended(_) => 0,
    };
    let entered = (begin..usize::from(control.next)).rev().filter(|stage| control.wait(*stage) != WaitState::Skipped);
    entered.filter_map(|stage| plan.stages[stage].status.as_ref()).next().unwrap_or(before).clone()
}

/// True when a refusal of the step is skipped.
fn skips_refusal(step: &Step) -> bool {
    step.best_effort || step.refused == Refused::Skip
}

impl Hash for Control {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Only the runs in use: the rest is always the same.
        (self.course, self.next, self.forced, self.faulted, self.waits).hash(state);
        self.runs().hash(state);
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waits: Vec<_> = self.waits.iter().enumerate().filter(|(_, wait)| **wait != WaitState::NotOpen).collect();
        f.debug_struct("Control")
            .field("course", &self.course)
            .field("next", &self.next)
            .field("forced", &self.forced)
            .field("faulted", &self.faulted)
            .field("waits", &waits)
            .field("runs", &self.runs())
            .finish()
    }
}
