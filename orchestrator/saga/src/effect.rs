//! Effects: what is to be done because of events, as data. The runtime carries them out in the same transaction.

use crate::plan::{Call, Plan};
use crate::saga::Saga;
use endstate_events::{
    Command, CommandKind, Direction, DomainEvent, EffectId, Forward, InquiryAnswer, Json, Link, Reply, ReplyTo, SagaId,
};
use std::sync::Arc;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a command to the partition of its key.
    Send(Box<Command>),
    /// Queue the start of a linked or called saga, under the key of this one.
    Start(Box<LinkedStart>),
    /// Publish a status change.
    Publish(Box<DomainEvent>),
    /// Answer the saga that called this one: an input `Reply` to `reply.effect_id.saga`.
    Reply {
        /// Where it goes.
        to: ReplyTo,
        /// The answer.
        reply: Reply,
    },
    /// Answer the self-check of a hold.
    Answer {
        /// The partition that asked.
        to: ReplyTo,
        /// Keep or release.
        answer: InquiryAnswer,
    },
    /// Tell people.
    Alert {
        /// What about.
        kind: AlertKind,
        /// The step concerned, if one is.
        step: Option<Arc<str>>,
        /// For them.
        text: String,
    },
    /// Record that two books differ.
    Discrepancy {
        /// How.
        kind: DiscrepancyKind,
        /// The effect concerned, if one is.
        effect_id: Option<EffectId>,
        /// For people.
        text: String,
    },
}

/// The start of a linked or called saga.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkedStart {
    /// Its id, derived from what starts it, so that a repeat gives the same.
    pub id: SagaId,
    /// Name of its definition; whoever queues the start chooses the version.
    pub definition: Arc<str>,
    /// Business number. A called saga is numbered by its caller and step.
    pub number: String,
    /// Routing key: that of the saga that starts it.
    pub key: Arc<str>,
    /// Its input.
    pub input: Json,
    /// How it belongs to the saga that starts it.
    pub link: Link,
}

/// What people are told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlertKind {
    /// A saga waits for a person.
    Parked,
    /// An input of a saga went to the dead letters while it was parked already; otherwise it parks by that.
    DeadLetter,
    /// An undo or a called saga is not answered after all its retries; it goes on at the last interval.
    Silent,
    /// Two books differ.
    Discrepancy,
}

impl AlertKind {
    /// The spelling used in columns and labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::DeadLetter => "dead_letter",
            Self::Silent => "silent",
            Self::Discrepancy => "discrepancy",
        }
    }
}

/// How two books differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiscrepancyKind {
    /// A participant contradicted itself after the end, or under force.
    Contradiction,
    /// Forced to an end with a step that is not done.
    NotDone,
    /// Forced to an end with a step that is not undone.
    NotUndone,
    /// A late event whose linked saga could not be made.
    LateUnhandled,
    /// An input went to the dead letters after the end, or under force: what it said is in no book.
    DeadLetter,
}

impl DiscrepancyKind {
    /// The spelling used in columns and labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Contradiction => "contradiction",
            Self::NotDone => "not_done",
            Self::NotUndone => "not_undone",
            Self::LateUnhandled => "late_unhandled",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// The command, or the start of a called saga, of one run.
///
/// Built from what is recorded, so sending again gives the same bytes.
#[must_use]
pub fn sending(
    plan: &Plan,
    saga: &Saga,
    run: usize,
    direction: Direction,
    kind: CommandKind,
    p: u16,
) -> Option<Effect> {
    let data = &saga.data.runs[run];
    let step = &plan.steps[usize::from(data.step)];
    let call = match direction {
        Direction::Do => &step.call,
        Direction::Undo => step.undo.as_ref()?,
    };
    let effect_id = saga.effect_id(plan, run, direction);
    let reply_to = ReplyTo::progress(saga.id.slot(), p);
    if call.is_saga() {
        return Some(called(plan, saga, call, effect_id, reply_to, &data.with));
    }
    let of = match direction {
        Direction::Undo => Some(run),
        Direction::Do => data.of.map(usize::from),
    };
    let of = of.map(|of| Forward {
        effect_id: saga.effect_id(plan, of, Direction::Do),
        with: Json::clone(&saga.data.runs[of].with),
        reply: Json::clone(&saga.data.runs[of].reply),
    });
    Some(Effect::Send(Box::new(Command {
        effect_id,
        kind,
        participant: call.participant.to_string(),
        action: call.action.to_string(),
        number: saga.number.to_string(),
        definition: saga.definition.to_string(),
        definition_version: saga.definition_version,
        key: data.key.as_ref().unwrap_or(&saga.key).to_string(),
        with: Json::clone(&data.with),
        of,
        reply_to,
    })))
}

/// Asking or undoing a called saga is starting it again: the same effect gives the same saga, which answers with its outcome.
/// Its number names the caller whole: definitions number apart, and may call the same saga.
fn called(plan: &Plan, saga: &Saga, call: &Call, effect_id: EffectId, reply_to: ReplyTo, with: &Json) -> Effect {
    let text = effect_id.to_string();
    let number = text.split_once(':').map_or(text.as_str(), |(_, rest)| rest);
    Effect::Start(Box::new(LinkedStart {
        id: linked_id(saga, &text),
        definition: call.action.clone(),
        number: format!("{}/{}:{number}", saga.definition, saga.number),
        key: saga.key.clone(),
        input: with.clone(),
        link: Link { order: saga.id, snapshot: saga.snapshot(plan), caller: Some((effect_id, reply_to)) },
    }))
}

/// The id of a saga that this one starts: the same cause gives the same id, whenever and however it is met. So its time is
/// this saga's.
#[must_use]
pub fn linked_id(saga: &Saga, cause: &str) -> SagaId {
    use sha2::{Digest, Sha256};
    let digest = Sha256::new().chain_update(saga.id.0.as_bytes()).chain_update(cause.as_bytes()).finalize();
    let random = digest.iter().take(8).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    SagaId::mint(saga.started_ms, saga.id.slot(), random)
}

/// The step part of the effect id of a wait's ask; a step's name holds no dot.
pub const ASK_PREFIX: &str = "ask.";

/// The ask of a stage's wait, as recorded.
#[must_use]
pub fn asking(plan: &Plan, saga: &Saga, p: u16) -> Option<Effect> {
    let ask = saga.data.ask.as_ref()?;
    let stage = &plan.stages[usize::from(ask.stage)];
    let call = stage.wait.as_ref()?.ask.as_ref()?;
    Some(Effect::Send(Box::new(Command {
        effect_id: EffectId {
            saga: saga.id,
            step: format!("{ASK_PREFIX}{}", stage.name),
            item: String::new(),
            direction: Direction::Do,
            round: ask.round,
        },
        kind: CommandKind::Do,
        participant: call.participant.to_string(),
        action: call.action.to_string(),
        number: saga.number.to_string(),
        definition: saga.definition.to_string(),
        definition_version: saga.definition_version,
        key: ask.key.as_ref().unwrap_or(&saga.key).to_string(),
        with: Json::clone(&ask.with),
        of: None,
        reply_to: ReplyTo::progress(saga.id.slot(), p),
    })))
}
