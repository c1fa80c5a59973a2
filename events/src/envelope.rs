//! What surrounds every message on the bus: the CloudEvents attributes that routing, deduplication and upgrades need.

use crate::{Command, DomainEvent, ForeignEvent, ForeignReply, Input, InquiryAnswer, Lane, Letter, Reply};
use serde::{Deserialize, Serialize};

/// Schema version written by this program. A newer one pauses a shard; it is not poison.
pub const SCHEMA_VERSION: u16 = 1;

/// One message and its attributes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Identity for deduplication: an effect id, an event id, or the caller's idempotency key.
    pub id: String,
    /// Schema version of `message`.
    pub schema: u16,
    /// When it was made, milliseconds since 1970, by the maker's clock; part of the input, so a replay sees it again.
    pub time_ms: i64,
    /// Routing key; the partition follows from its slot.
    pub key: String,
    /// Kind of traffic.
    #[serde(default)]
    pub lane: Lane,
    /// The message.
    pub message: Message,
}

impl Envelope {
    /// Id of the reply to an ask. It tells the answer from the reply to the command itself, which may still be on its
    /// way: an ask queues behind everything that its participant has not handled yet.
    #[must_use]
    pub fn answer_id(asked_about: &crate::EffectId) -> String {
        format!("{asked_about}?")
    }

    /// The effect that was asked about, when `id` is that of the reply to an ask.
    #[must_use]
    pub fn asked_about(id: &str) -> Option<&str> {
        id.strip_suffix('?')
    }
}

/// Everything that travels on the bus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
#[expect(
    clippy::large_enum_variant,
    reason = "commands are as frequent as inputs; a box each would cost more than it saves"
)]
pub enum Message {
    /// To a saga (topics `start` and `progress`), replies included.
    Input(Input),
    /// To a participant.
    Command(Command),
    /// A participant's caller books the answer of an outside party: goes back to the participant's own partition.
    Answer(Reply),
    /// The answer of a saga to the self-check of a hold: goes to the participant's partition that asked.
    Inquired(InquiryAnswer),
    /// To other teams.
    Domain(DomainEvent),
    /// What a participant of another team answers, in `progress`. Its word is weighed before it is a saga's input.
    Reply(ForeignReply),
    /// An event of another team, read in a topic of theirs.
    Foreign(ForeignEvent),
    /// A copy of a dead letter, for other teams.
    #[serde(rename = "dead_letter")]
    Letter(Letter),
}

impl Message {
    /// The input, if it is one. What a stranger writes is none before it was weighed.
    #[must_use]
    pub fn as_input(&self) -> Option<&Input> {
        match self {
            Self::Input(input) => Some(input),
            Self::Command(_)
            | Self::Answer(_)
            | Self::Inquired(_)
            | Self::Domain(_)
            | Self::Reply(_)
            | Self::Foreign(_)
            | Self::Letter(_) => None,
        }
    }

    /// The spelling used in columns and labels.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Command(_) => "command",
            Self::Answer(_) => "answer",
            Self::Inquired(_) => "inquired",
            Self::Domain(_) => "domain",
            Self::Reply(_) => "reply",
            Self::Foreign(_) => "foreign",
            Self::Letter(_) => "dead_letter",
        }
    }
}
