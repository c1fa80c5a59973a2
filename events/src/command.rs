//! Commands: what a saga tells a participant to do, undo, or tell it about.

use crate::{EffectId, Json, ReplyTo, SagaId};
use serde::{Deserialize, Serialize};

/// One command to one participant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Id of the effect this command makes. For [`CommandKind::Ask`], the id of the effect asked about.
    pub effect_id: EffectId,
    /// Do, undo or ask.
    pub kind: CommandKind,
    /// The participant's name in the catalogue.
    pub participant: String,
    /// The action's name in the catalogue. For an undo this is the undo action; for an ask, the action asked about.
    pub action: String,
    /// The business number of the saga.
    pub number: String,
    /// The definition's name.
    pub definition: String,
    /// The version that the saga runs: its catalogue says how the participant is reached and what it answers. 0 in
    /// commands of no saga.
    #[serde(default, skip_serializing_if = "is_none")]
    pub definition_version: u32,
    /// Routing key: what the action touches. Confirm, release and ask reuse the hold's.
    pub key: String,
    /// The payload, evaluated once and recorded; an undo gets its step's payload again.
    pub with: Json,
    /// What this command refers to: the step undone, or the `of:` step's run it confirms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Forward>,
    /// Where the reply goes; foreign participants never hash.
    pub reply_to: ReplyTo,
}

impl Command {
    /// The saga that sent it.
    #[must_use]
    pub fn saga(&self) -> SagaId {
        self.effect_id.saga
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_none(version: &u32) -> bool {
    *version == 0
}

/// Why a command is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandKind {
    /// Make the effect.
    Do,
    /// Undo the effect named by `of`; valid also when that effect never happened (then leave a tombstone).
    Undo,
    /// Tell what became of `effect_id`; changes nothing.
    Ask,
}

impl CommandKind {
    /// The spelling used in columns and labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Undo => "undo",
            Self::Ask => "ask",
        }
    }
}

/// The recorded effect that a later command refers to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forward {
    /// Its effect id.
    pub effect_id: EffectId,
    /// Its payload.
    pub with: Json,
    /// The data of its reply; null when unknown.
    #[serde(default)]
    pub reply: Json,
}
