//! Inputs: everything that can happen to a saga. HTTP handlers, callbacks, timers, operators, reconcilers and replies
//! never write saga state; they make inputs.

use crate::{Json, Reply, ReplyTo, SagaId};
use serde::{Deserialize, Serialize};

/// One input to one saga. Its id and time are the envelope's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// The saga it is for; carries the slot.
    pub saga: SagaId,
    /// What happened.
    pub body: InputBody,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum InputBody {
    /// Begin.
    Start(Box<Start>),
    /// A participant answered.
    Reply(Reply),
    /// Something happened outside (a payment was captured). The envelope's id is its identity: repeated, a no-op.
    Event {
        /// Name of the event, as definitions use it: `payment.captured`.
        name: String,
        /// Its data.
        data: Json,
    },
    /// Somebody wants the saga stopped, for a reason that the definition declares.
    Cancel {
        /// One of the definition's `cancel` reasons.
        reason: String,
        /// Who asks.
        actor: Actor,
    },
    /// An operator acts.
    Operate {
        /// What to do.
        operation: Operation,
        /// Why; never empty.
        reason: String,
        /// Who.
        actor: Actor,
    },
    /// The self-check of an old hold asks what it should do; answered by [`crate::InquiryAnswer`].
    Inquire {
        /// The hold's effect id.
        effect_id: crate::EffectId,
        /// Where the answer goes.
        reply_to: ReplyTo,
    },
}

impl InputBody {
    /// The spelling used in columns and labels.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::Reply(_) => "reply",
            Self::Event { .. } => "event",
            Self::Cancel { .. } => "cancel",
            Self::Operate { .. } => "operate",
            Self::Inquire { .. } => "inquire",
        }
    }
}

/// In a start whose maker knew of no active version: the one that is active when it is decided.
pub const ACTIVE_VERSION: u32 = 0;

/// The first input of a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Name of the definition.
    pub definition: String,
    /// Version it is pinned to, chosen by whoever queued the start, or [`ACTIVE_VERSION`].
    pub version: u32,
    /// Business number; once, for ever, per definition.
    pub number: String,
    /// Routing key; its slot is in the saga id.
    pub key: String,
    /// Who may read and cancel it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The definition's input.
    pub input: Json,
    /// SHA-256 of the canonical input and key, in hex: the same number with another body is refused.
    pub body_hash: String,
    /// The saga that this one belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
}

/// How a saga belongs to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// The saga whose order this concerns.
    pub order: SagaId,
    /// That saga's `input`, `steps` and `waits` as they were, readable as `order` in expressions.
    #[serde(default)]
    pub snapshot: Json,
    /// For `call: saga.NAME`: the step that waits for the outcome, and where its reply goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<(crate::EffectId, ReplyTo)>,
}

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Subject of the token, or the name of a part of the system.
    pub subject: String,
    /// Role under which it acts: `owner`, `risk`, `operator`, ...
    pub role: String,
}

impl Actor {
    /// The role of this program's own parts; no token gives it.
    pub const SYSTEM: &'static str = "system";

    /// True when nobody acts but this program itself.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.role == Self::SYSTEM
    }
}

/// What an operator can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum Operation {
    /// Send again what is parked or silent.
    Retry,
    /// Give back (before the pivot) or reverse (after it).
    Compensate,
    /// Name the end.
    Force {
        /// Which.
        end: ForcedEnd,
    },
    /// Wake what is parked on one step.
    Wake {
        /// The step's name.
        step: String,
    },
}

impl Operation {
    /// The spelling used in columns and labels.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Compensate => "compensate",
            Self::Force { .. } => "force",
            Self::Wake { .. } => "wake",
        }
    }
}

/// The ends that can be forced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForcedEnd {
    /// Nothing is undone; what is not done becomes a discrepancy.
    Completed,
    /// Money taken goes back, then an undo for all that is done or unknown; what does not answer is a discrepancy.
    Cancelled,
}

impl ForcedEnd {
    /// The spelling used in columns and labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
}
