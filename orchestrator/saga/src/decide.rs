//! Deciding: an input, or a timer, to events and effects. Pure: time, ids and randomness come in with the input.
//!
//! Each input becomes one [`ControlInput`]; control reacts, the facts are recorded with their data, and the saga goes on
//! by itself until it must wait.

mod aside;
mod ending;
mod stage;
mod timer;
mod turn;
mod wait;
#[cfg(test)]
mod laid;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod lost;
#[cfg(test)]
mod moments;
#[cfg(test)]
mod odd;
#[cfg(test)]
mod repeats;
#[cfg(test)]
mod reversal;
#[cfg(test)]
mod silence;
#[cfg(test)]
mod tests;

pub use timer::{asks_of, decide_due};

use crate::control::{Answer, ControlInput, Ignored, Reaction, Rejection};
use crate::effect::{ASK_PREFIX, Effect};
use crate::event::{Event, Fact, Started};
use crate::fold;
use crate::plan::{DEADLINE_ROLE, EvalError, Program};
use crate::saga::{Belongs, Request, Saga};
use endstate_events::{
    Actor, Direction, EffectId, ForcedEnd, Input, InputBody, InquiryAnswer, Json, Lane, Operation, Reply, ReplyTo,
    SagaId, Start, Verdict,
};
use std::sync::Arc;
use turn::{Carried, Turn};

/// An input and what surrounds it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Its identity: the envelope's id.
    pub id: &'a str,
    /// When it was made, by its maker's clock.
    pub time_ms: i64,
    /// Kind of traffic; counts for a start.
    pub lane: Lane,
    /// The input.
    pub input: &'a Input,
}

/// What a decision happens in.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The time by the store's clock, milliseconds since 1970.
    pub now_ms: i64,
    /// Number of partitions, for reply addresses.
    pub partitions: u16,
}

/// What follows from an input or a timer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The saga after it; none only when there was none and the input began none.
    pub saga: Option<Saga>,
    /// What happened, in order; the saga's version counts them.
    pub events: Vec<Event>,
    /// What is to be done.
    pub effects: Vec<Effect>,
    /// Why the asker is turned down, if it is.
    pub denied: Option<Denied>,
}

/// Why an input is turned down. Nothing happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no such saga (yet).
    #[error("there is no such saga")]
    NoSaga,
    /// Its values cannot be computed from its input.
    #[error("the saga cannot start: {0}")]
    BadInput(EvalError),
    /// It has ended.
    #[error("the saga has ended as {0}")]
    Ended(&'static str),
    /// The reason does not hold after the pivot.
    #[error("too late: this reason does not hold after the point of no return")]
    AfterPivot,
    /// It is giving back already.
    #[error("the saga is giving back already")]
    TurnedBack,
    /// Nothing is parked there, and nothing is silent.
    #[error("nothing is parked or silent there")]
    NotParked,
    /// It is being forced already.
    #[error("the saga is being forced already")]
    Forced,
    /// Retried 255 times.
    #[error("retried too often: this step has no rounds left")]
    RoundsUsedUp,
    /// The definition has no such cancel reason.
    #[error("the definition knows no cancel reason `{0}`")]
    UnknownReason(String),
    /// The actor's role may not use this reason.
    #[error("role `{role}` may not cancel with reason `{reason}`")]
    WrongRole {
        /// The role.
        role: String,
        /// The reason.
        reason: String,
    },
    /// The definition has no such step.
    #[error("the definition knows no step `{0}`")]
    UnknownStep(String),
    /// The definition has no such event.
    #[error("the definition knows no event `{0}`")]
    UnknownEvent(String),
    /// Another request was taken under this id.
    #[error("the key was used for another request to this saga")]
    KeyTaken,
}

impl Denied {
    /// The spelling used in problems and labels.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoSaga => "no_saga",
            Self::BadInput(_) => "bad_input",
            Self::Ended(_) => "ended",
            Self::AfterPivot => "after_pivot",
            Self::TurnedBack => "turned_back",
            Self::NotParked => "not_parked",
            Self::Forced => "forced",
            Self::RoundsUsedUp => "rounds_used_up",
            Self::UnknownReason(_) => "unknown_reason",
            Self::WrongRole { .. } => "wrong_role",
            Self::UnknownStep(_) => "unknown_step",
            Self::UnknownEvent(_) => "unknown_event",
            Self::KeyTaken => "key_taken",
        }
    }
}

impl From<Rejection> for Denied {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Ended(outcome) => Self::Ended(outcome.label()),
            Rejection::AfterPivot => Self::AfterPivot,
            Rejection::TurnedBack => Self::TurnedBack,
            Rejection::NotParked => Self::NotParked,
            Rejection::Forced => Self::Forced,
            Rejection::RoundsUsedUp => Self::RoundsUsedUp,
        }
    }
}

/// What follows from one input. The saga is taken and given back, so nothing is copied.
#[must_use]
pub fn decide<P: Program + ?Sized>(
    program: &P,
    saga: Option<Saga>,
    arrival: Arrival<'_>,
    setting: Setting,
) -> Decision {
    match (&arrival.input.body, saga) {
        (InputBody::Start(start), None) => begin(program, start, arrival, setting),
        (InputBody::Inquire { effect_id, reply_to }, saga) => inquired(program, saga, effect_id, *reply_to),
        (
            InputBody::Reply(_) | InputBody::Event { .. } | InputBody::Cancel { .. } | InputBody::Operate { .. },
            None,
        ) => Decision { denied: Some(Denied::NoSaga), ..Decision::default() },
        (body, Some(saga)) => {
            let mut turn = Turn::new(program, saga, setting);
            match body {
                InputBody::Start(_) => turn.answer_caller(),
                InputBody::Reply(reply) => replied(&mut turn, reply),
                InputBody::Event { name, data } => turn.occurred(name, arrival.id, data),
                InputBody::Cancel { reason, actor } => cancelled(&mut turn, arrival.id, reason, actor),
                InputBody::Operate { operation, reason, actor } => {
                    let (operation, reason, actor) = (operation.clone(), reason.clone(), actor.clone());
                    operated(&mut turn, Fact::Operated { operation, reason, actor, input: arrival.id.into() });
                }
                // The arm above takes every inquiry.
                InputBody::Inquire { .. } => {}
            }
            turn.finish()
        }
    }
}

fn begin<P: Program + ?Sized>(program: &P, start: &Start, arrival: Arrival<'_>, setting: Setting) -> Decision {
    let mut started = unvalued(program, start, arrival.input.saga, (arrival.time_ms, arrival.lane));
    match values(program, &started) {
        Some(Ok(values)) => started.values = Arc::new(values),
        Some(Err(error)) => return Decision { denied: Some(Denied::BadInput(error)), ..Decision::default() },
        None => return Decision::default(),
    }
    let first = Event { at_ms: setting.now_ms, fact: Fact::Started(Box::new(started)) };
    let Some(saga) = fold::begin(&first) else { return Decision::default() };
    let mut turn = Turn::new(program, saga, setting);
    turn.events.push(first);
    turn.follow();
    turn.finish()
}

/// Whether a start makes a saga: its values can be computed. For who queues it, so that its caller hears of what else
/// nobody would.
///
/// # Errors
/// The first value that cannot be computed.
pub fn check_start<P: Program + ?Sized>(
    program: &P,
    saga: SagaId,
    start: &Start,
    time_ms: i64,
) -> Result<(), EvalError> {
    if !program.has_values() {
        return Ok(());
    }
    values(program, &unvalued(program, start, saga, (time_ms, Lane::Live))).map_or(Ok(()), |values| values.map(drop))
}

/// How a saga starts, but for its values.
fn unvalued<P: Program + ?Sized>(program: &P, start: &Start, id: SagaId, (started_ms, lane): (i64, Lane)) -> Started {
    let order = start.link.as_ref().map(|link| link.snapshot.clone()).unwrap_or_default();
    Started {
        id,
        definition: start.definition.as_str().into(),
        definition_version: start.version,
        stages: program.plan().stages.len() as u8,
        number: start.number.as_str().into(),
        key: start.key.as_str().into(),
        owner: start.owner.as_deref().map(Arc::from),
        lane,
        started_ms,
        input: Arc::new(start.input.clone()),
        values: Arc::new(Json::Null),
        order: Arc::new(order),
        link: start.link.as_ref().map(|link| Box::new(Belongs { order: link.order, caller: link.caller.clone() })),
    }
}

/// The values of a saga that starts so.
fn values<P: Program + ?Sized>(program: &P, started: &Started) -> Option<Result<Json, EvalError>> {
    let event = Event { at_ms: started.started_ms, fact: Fact::Started(Box::new(started.clone())) };
    fold::begin(&event).map(|saga| program.values(&saga))
}

fn replied<P: Program + ?Sized>(turn: &mut Turn<'_, P>, reply: &Reply) {
    let plan = turn.program.plan();
    if let Some(stage) = reply.effect_id.step.strip_prefix(ASK_PREFIX) {
        let stage = plan.stages.iter().position(|candidate| *candidate.name == *stage);
        return turn.ask_answered(stage, reply);
    }
    let Some(run) = turn.saga.run(plan, &reply.effect_id) else { return };
    if let Verdict::Unknown { reason, put_aside: true } = &reply.verdict {
        return turn.put_aside(run, &reply.effect_id, reason);
    }
    let EffectId { direction, round, .. } = reply.effect_id;
    let answer = match &reply.verdict {
        Verdict::Done { .. } => Answer::Done,
        Verdict::Refused { .. } => Answer::Refused,
        Verdict::Unknown { .. } => Answer::Unknown,
        Verdict::NeverSeen => Answer::NeverSeen,
    };
    let input = ControlInput::Reply { run: run as u8, direction, round, answer };
    match turn.react(input, Carried::Reply(&reply.verdict)) {
        Reaction::Ignored(Ignored::Inconclusive) => turn.inconclusive(run, direction, answer),
        Reaction::Discrepant => turn.contradicted(reply),
        Reaction::Events(_) | Reaction::Ignored(_) | Reaction::Rejected(_) => {}
    }
}

fn cancelled<P: Program + ?Sized>(turn: &mut Turn<'_, P>, id: &str, reason: &str, actor: &Actor) {
    let plan = turn.program.plan();
    let Some(index) = plan.reason(reason) else { return turn.deny(Denied::UnknownReason(reason.to_owned())) };
    // Nobody acts as the deadline.
    if *plan.reasons[index].role != *actor.role || actor.role == DEADLINE_ROLE {
        return turn.deny(Denied::WrongRole { role: actor.role.clone(), reason: reason.to_owned() });
    }
    let reason = plan.reasons[index].name.clone();
    let request = Fact::CancelRequested { reason: reason.clone(), actor: actor.clone(), input: id.into() };
    if is_repeat(turn, &request) {
        return;
    }
    turn.react(ControlInput::Cancel { reason: index as u8 }, Carried::Request { request, reason });
}

/// True when the request was taken before, or another one under its id: then it is refused.
fn is_repeat<P: Program + ?Sized>(turn: &mut Turn<'_, P>, request: &Fact) -> bool {
    let Some(request) = Request::of(request) else { return false };
    let Some(known) = turn.saga.data.requests.iter().find(|known| known.input == request.input) else { return false };
    if *known != request {
        turn.deny(Denied::KeyTaken);
    }
    true
}

fn operated<P: Program + ?Sized>(turn: &mut Turn<'_, P>, request: Fact) {
    let Fact::Operated { operation, actor, .. } = &request else { return };
    if is_repeat(turn, &request) {
        return;
    }
    // What parked after the sweep had seen its row waits for a person: a push says nothing about why.
    if actor.is_system() && turn.was_parked {
        return turn.deny(Denied::NotParked);
    }
    let operation = operation.clone();
    let input = match &operation {
        Operation::Retry => ControlInput::Retry,
        Operation::Compensate => ControlInput::Compensate,
        Operation::Force { end: ForcedEnd::Completed } => ControlInput::ForceCompleted,
        Operation::Force { end: ForcedEnd::Cancelled } => ControlInput::ForceCancelled,
        Operation::Wake { step } => match turn.program.plan().step(step) {
            Some(step) => ControlInput::Wake { step: step as u8 },
            None => return turn.deny(Denied::UnknownStep(step.clone())),
        },
    };
    match operation {
        Operation::Retry if turn.saga.control.is_in_motion() && !turn.saga.control.is_parked(turn.program.plan()) => {
            turn.record(request);
            turn.send_again();
        }
        Operation::Retry | Operation::Compensate | Operation::Force { .. } | Operation::Wake { .. } => {
            turn.react(input, Carried::Request { request, reason: "operator".into() });
        }
    }
}

/// What follows when an input of the saga went to the dead letters: it parks, since nobody knows what that input meant.
/// What has ended, or is being forced, does not park; there the letter is a discrepancy.
#[must_use]
pub fn decide_dead_letter<P: Program + ?Sized>(
    program: &P,
    saga: Saga,
    input: &str,
    reason: &str,
    setting: Setting,
) -> Decision {
    let mut turn = Turn::new(program, saga, setting);
    turn.dead_lettered(input, reason, None);
    turn.finish()
}

/// Puts the events of a saga together: what it is becomes an event, so that earlier ones can go. What has ended never
/// changes.
#[must_use]
pub fn snapshot(saga: Saga, now_ms: i64) -> Decision {
    if saga.control.is_ended() {
        return Decision { saga: Some(saga), ..Decision::default() };
    }
    let event = Event { at_ms: now_ms, fact: Fact::Snapshot(Box::new(saga.clone())) };
    let mut saga = saga;
    fold::apply(&mut saga, &event);
    Decision { saga: Some(saga), events: vec![event], ..Decision::default() }
}

/// H3: a hold is kept while its saga needs it, and released when the saga is unknown or done with it.
fn inquired<P: Program + ?Sized>(program: &P, saga: Option<Saga>, effect_id: &EffectId, to: ReplyTo) -> Decision {
    let keep = saga.as_ref().is_some_and(|saga| {
        saga.run(program.plan(), effect_id).is_some_and(|run| {
            let state = &saga.control.runs()[run];
            let present = effect_id.direction == Direction::Do && effect_id.round == state.round;
            present && saga.control.needs_effect(state)
        })
    });
    let answer = InquiryAnswer { effect_id: effect_id.clone(), keep, known: saga.is_some() };
    Decision { saga, effects: vec![Effect::Answer { to, answer }], ..Decision::default() }
}
