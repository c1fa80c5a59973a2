//! Replies: what a participant vouches for.

use crate::{EffectId, Json};
use serde::{Deserialize, Serialize};

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The effect it speaks about.
    pub effect_id: EffectId,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of an effect. A timeout is [`Verdict::Unknown`], never a refusal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It happened, now or earlier under this id.
    Done {
        /// The reply's data, recorded in the saga.
        #[serde(default)]
        data: Json,
    },
    /// The participant vouches: no effect now, earlier or later under this id.
    Refused {
        /// Refusal code of the catalogue, such as `stock.short`.
        code: String,
        /// For people.
        #[serde(default)]
        detail: String,
    },
    /// Nobody knows: ask, or send again.
    Unknown {
        /// For people.
        #[serde(default)]
        reason: String,
        /// The command itself lies in the dead letters: sending it again brings no other answer until a person has looked.
        /// Says nothing about the effect either.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        put_aside: bool,
    },
    /// Only to an ask: this effect id was never met. Send the command again.
    NeverSeen,
}

impl Verdict {
    /// Nobody knows, for this reason.
    #[must_use]
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self::Unknown { reason: reason.into(), put_aside: false }
    }

    /// Nobody knows, and nobody will: the command is put aside.
    #[must_use]
    pub fn put_aside(reason: impl Into<String>) -> Self {
        Self::Unknown { reason: reason.into(), put_aside: true }
    }

    /// The spelling used in columns and labels.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Done { .. } => "done",
            Self::Refused { .. } => "refused",
            Self::Unknown { .. } => "unknown",
            Self::NeverSeen => "never_seen",
        }
    }
}

/// What a saga says to the self-check of an old hold ([`crate::InputBody::Inquire`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InquiryAnswer {
    /// The hold's effect id.
    pub effect_id: EffectId,
    /// True: the saga needs it. False: the participant releases it by itself.
    pub keep: bool,
    /// Whether there is such a saga. Programs of before never said so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
}
