//! What a shard tries to commit at once: a batch, or, when its data is refused, the halves of it, down to the one record
//! that becomes a dead letter.

use crate::bus::{Delivered, Undecodable};
use crate::dead_letter::DeadLetter;
use crate::shard::{Batch, Poisoned};
use crate::store::Assignment;
use std::collections::VecDeque;
use std::sync::Arc;

/// The attempt at a record alone, after which it is poison: a handler leaves out what may be at fault instead of it.
pub const LAST_ATTEMPT: u32 = 2;

/// Part of a batch that is tried on its own.
pub(crate) struct Part {
    pub(crate) records: Vec<Delivered>,
    /// Set when the part is one record that cannot be handled.
    pub(crate) poison: Option<String>,
    pub(crate) attempt: u32,
    /// As [`Batch::timers_ms`].
    pub(crate) timers_ms: Option<i64>,
    /// When its batch was taken.
    pub(crate) now_ms: i64,
}

/// Sorts a part's records into messages to decide and records to put aside.
pub(crate) fn sort(part: &Part, assignment: Assignment) -> (Batch, Vec<DeadLetter>) {
    let now_ms = part.now_ms;
    let mut batch = Batch {
        messages: Vec::with_capacity(part.records.len()),
        poisoned: Vec::new(),
        now_ms,
        timers_ms: part.timers_ms,
        assignment,
        attempt: part.attempt,
    };
    let mut dead_letters = Vec::new();
    for record in &part.records {
        let (unread, bytes, reason) = match (&record.envelope, &part.poison) {
            (Ok(envelope), None) => {
                batch.messages.push((record.topic, Arc::clone(envelope)));
                continue;
            }
            (Ok(envelope), Some(reason)) => {
                let bytes = serde_json::to_string(envelope).unwrap_or_default();
                (Ok(Arc::clone(envelope)), bytes, reason.clone())
            }
            (Err(Undecodable { bytes, reason, .. }), _) => (Err(bytes.clone()), bytes.clone(), reason.clone()),
        };
        let place = (assignment.shard.index, record.offset);
        dead_letters.push(DeadLetter::new(record.topic, place, &bytes, &reason, now_ms));
        batch.poisoned.push(Poisoned { record: unread, reason });
    }
    (batch, dead_letters)
}

/// Halves a part whose data is refused; a single record becomes poison.
pub(crate) fn split(mut part: Part, reason: String, parts: &mut VecDeque<Part>) -> Result<(), String> {
    let (timers_ms, now_ms) = (part.timers_ms, part.now_ms);
    let half = part.records.len() / 2;
    if half > 0 {
        let rest = part.records.split_off(half);
        parts.push_front(Part { records: rest, poison: None, attempt: 1, timers_ms, now_ms });
        parts.push_front(Part { records: part.records, poison: None, attempt: 1, timers_ms: None, now_ms });
    } else if part.timers_ms.is_some() && !part.records.is_empty() {
        // A timer may be at fault: the record must not go for it.
        parts.push_front(Part { records: Vec::new(), poison: None, attempt: 0, timers_ms, now_ms });
        parts.push_front(Part { timers_ms: None, ..part });
    } else if part.poison.is_none() && !part.records.is_empty() && part.attempt < LAST_ATTEMPT {
        parts.push_front(Part { attempt: LAST_ATTEMPT, ..part });
    } else if part.poison.is_none() && !part.records.is_empty() {
        tracing::error!(%reason, "E4032: a record cannot be handled and goes to the dead letters");
        parts.push_front(Part { poison: Some(reason), timers_ms: None, attempt: 0, ..part });
    } else {
        return Err(format!("the store refuses what no record explains: {reason}"));
    }
    Ok(())
}
