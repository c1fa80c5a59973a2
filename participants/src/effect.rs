//! What a participant remembers about an effect id, so that told again or asked it gives the same answer for ever.

use endstate_events::{Command, Json, Lane, Verdict};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The record of one effect id.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// The effect id's text.
    pub id: Arc<str>,
    /// Kind of traffic.
    pub lane: Lane,
    /// The participant.
    pub participant: Arc<str>,
    /// The action.
    pub action: Arc<str>,
    /// Hash of the command's body; `None` for a tombstone, which stands for whatever would have come.
    pub body: Option<i64>,
    /// What became of it.
    pub state: EffectState,
    /// Code of a refusal.
    pub code: Option<Arc<str>>,
    /// Data of a done reply, or the refusal's words for people.
    pub data: Json,
    /// The effect that it confirms or undoes.
    pub of: Option<Arc<str>>,
    /// What stands behind it in the ledger.
    pub pledge: Option<Pledge>,
    /// The token behind it.
    pub token: Option<Arc<str>>,
    /// When it was made.
    pub time_ms: i64,
}

/// The amount behind an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pledge {
    /// The account that gives.
    pub debit: Arc<str>,
    /// The account that gets.
    pub credit: Arc<str>,
    /// How much.
    pub amount: i64,
    /// The pending transfer that waits to be resolved, if one does.
    pub open: Option<Arc<str>>,
}

/// What became of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EffectState {
    /// A hold, open.
    Held,
    /// A hold that was confirmed.
    Confirmed,
    /// Done for good, unless it is undone.
    Done,
    /// Was made, and undone since.
    Released,
    /// Never made, and never will be.
    Refused,
    /// Tombstone: its undo came first, so it will never be made.
    ReleasedBefore,
    /// An outside party is being called.
    Calling,
    /// An outside party was called and nobody knows what it did.
    Unknown,
}

impl EffectState {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Held,
        Self::Confirmed,
        Self::Done,
        Self::Released,
        Self::Refused,
        Self::ReleasedBefore,
        Self::Calling,
        Self::Unknown,
    ];

    /// The spelling used in columns.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Confirmed => "confirmed",
            Self::Done => "done",
            Self::Released => "released",
            Self::Refused => "refused",
            Self::ReleasedBefore => "released_before",
            Self::Calling => "calling",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the effect was made, at some time.
    #[must_use]
    pub fn was_made(self) -> bool {
        match self {
            Self::Held | Self::Confirmed | Self::Done | Self::Released => true,
            Self::Refused | Self::ReleasedBefore | Self::Calling | Self::Unknown => false,
        }
    }
}

/// Code of a late command whose undo came first.
pub const RELEASED_BEFORE: &str = "released_before";
/// Code of a repeat with another body, where the first had no effect.
pub const CONFLICT: &str = "conflict";

impl Effect {
    /// A record of this command, still without an outcome.
    #[must_use]
    pub fn of_command(command: &Command, id: Arc<str>, lane: Lane, state: EffectState, now_ms: i64) -> Self {
        Self {
            id,
            lane,
            participant: command.participant.as_str().into(),
            action: command.action.as_str().into(),
            body: Some(body_hash(command)),
            state,
            code: None,
            data: Json::Null,
            of: command.of.as_ref().map(|of| of.effect_id.to_string().into()),
            pledge: None,
            token: None,
            time_ms: now_ms,
        }
    }

    /// The record that an undo leaves for an effect it never met.
    #[must_use]
    pub fn tombstone(undo: &Command, id: Arc<str>, lane: Lane, now_ms: i64) -> Self {
        Self {
            body: None,
            of: None,
            code: Some(RELEASED_BEFORE.into()),
            ..Self::of_command(undo, id, lane, EffectState::ReleasedBefore, now_ms)
        }
    }

    /// The answer that this record stands for; `None` while a call runs, whose answer will come.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        let code = || self.code.as_deref().unwrap_or(CONFLICT).to_owned();
        let detail = || self.data.as_str().unwrap_or_default().to_owned();
        match self.state {
            EffectState::Held | EffectState::Confirmed | EffectState::Done | EffectState::Released => {
                Some(Verdict::Done { data: self.data.clone() })
            }
            EffectState::Refused | EffectState::ReleasedBefore => {
                Some(Verdict::Refused { code: code(), detail: detail() })
            }
            EffectState::Unknown => Some(Verdict::unknown("the outside party did not answer")),
            EffectState::Calling => None,
        }
    }

    /// The answer to a command with this id and another body. Where the first was made, a refusal would be a lie that
    /// keeps the saga from undoing it.
    #[must_use]
    pub fn conflict(&self) -> Verdict {
        let said = format!("effect {} is known with another body", self.id);
        match self.state {
            EffectState::Refused | EffectState::ReleasedBefore => {
                Verdict::Refused { code: CONFLICT.to_owned(), detail: said }
            }
            EffectState::Held
            | EffectState::Confirmed
            | EffectState::Done
            | EffectState::Released
            | EffectState::Calling
            | EffectState::Unknown => Verdict::unknown(format!("{CONFLICT}: {said}")),
        }
    }
}

/// Hash of everything in a command that makes up its effect: the same effect id with another hash is a conflict.
#[must_use]
pub fn body_hash(command: &Command) -> i64 {
    let mut hash = Sha256::new();
    for part in [command.kind.label(), &command.participant, &command.action, &command.key] {
        part_into(&mut hash, part);
    }
    json_into(&mut hash, &command.with);
    if let Some(of) = &command.of {
        part_into(&mut hash, &of.effect_id.to_string());
    }
    let digest = hash.finalize();
    i64::from_be_bytes(std::array::from_fn(|i| digest[i]))
}

fn part_into(hash: &mut Sha256, part: &str) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

/// Feeds JSON with the keys of objects in order, so that a sender's order does not count.
fn json_into(hash: &mut Sha256, json: &Json) {
    match json {
        Json::Null | Json::Bool(_) | Json::Number(_) => part_into(hash, &json.to_string()),
        Json::String(text) => {
            hash.update(b"s");
            part_into(hash, text);
        }
        Json::Array(items) => {
            hash.update(b"[");
            items.iter().for_each(|item| json_into(hash, item));
            hash.update(b"]");
        }
        Json::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            hash.update(b"{");
            for (name, value) in fields {
                part_into(hash, name);
                json_into(hash, value);
            }
            hash.update(b"}");
        }
    }
}
