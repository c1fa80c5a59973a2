//! What other teams say in topics of their own, and what they are told in ours.

use crate::{EffectId, Verdict};
use serde::{Deserialize, Serialize};

/// What a participant of another team answers: flat, as its author writes it by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForeignReply {
    /// The effect it speaks about.
    pub effect_id: EffectId,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// An event of another team (CloudEvents 1.0), as it stands in its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignEvent {
    /// Its `source`; with `id` it is the event's identity.
    pub source: String,
    /// Its `id`.
    pub id: String,
    /// Its `type`: the name that definitions know it by.
    pub kind: String,
    /// Its `subject`: `DEFINITION/NUMBER` when it is for one saga.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The participant that speaks in the topic where it was read; none: nobody who is in a catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teller: Option<String>,
    /// Its data, as the JSON text that came: whoever takes it reads it strictly.
    pub data: String,
}

/// What tells an event from all others: its `source`, which is not empty, and `id` in one text, which no other pair of
/// them makes. A source with a `#` has `#` and its length in front: one without cannot begin so, whatever it is.
#[must_use]
pub fn identity(source: &str, id: &str) -> String {
    if source.contains('#') { format!("#{}:{source}#{id}", source.len()) } else { format!("{source}#{id}") }
}

/// A copy of a dead letter. The letter itself is a row of the store, from where it is replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Label of the topic where the record was read.
    pub topic: String,
    /// Its partition.
    pub partition: u16,
    /// Its position: in a topic of ours over Kafka 1024 times the offset, plus the message in that record; else its offset.
    pub offset: i64,
    /// Its bytes as text, at most [`LETTER_BYTES`] of them.
    pub bytes: String,
    /// Whether there are more of them in the store.
    #[serde(default)]
    pub cut: bool,
    /// Why nobody could handle it.
    pub reason: String,
}

/// Bytes of a record that its letter carries: escaped, they still fit into a record.
pub const LETTER_BYTES: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::identity;

    #[test]
    fn no_two_events_have_one_identity() {
        assert_eq!(identity("/shop", "1"), "/shop#1", "as stored ones have it");
        assert_ne!(identity("/shop#eu", "1"), identity("/shop", "eu#1"));
        assert_ne!(identity("/a#b", "c#d"), identity("/a#b#c", "d"));
        assert_ne!(identity("/shop#eu", "1"), identity("8:/shop", "eu#1"), "nobody asks for a URI");
        assert_eq!(identity("/shop#eu", "1"), "#8:/shop#eu#1");
    }
}
