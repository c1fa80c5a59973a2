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

/// Timers that are tried one by one in one turn at most, when the data of one of them is refused: inputs wait meanwhile.
pub(crate) const ALONE: usize = 256;

/// How many of the due timers a batch fires.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Timers {
    /// As many as fit.
    #[default]
    All,
    /// The first: together with others it was refused.
    First,
    /// None: the first is put off, as it was refused alone, for this reason.
    PutOff(String),
}

/// Part of a batch that is tried on its own.
pub(crate) struct Part {
    pub(crate) records: Vec<Delivered>,
    /// Set when the part is one record that cannot be handled.
    pub(crate) poison: Option<String>,
    pub(crate) attempt: u32,
    /// As [`Batch::timers_ms`].
    pub(crate) timers_ms: Option<i64>,
    /// As [`Batch::timers`].
    pub(crate) timers: Timers,
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
        timers: part.timers.clone(),
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

/// Halves a part whose data is refused; a single record becomes poison, and a single timer is put off.
pub(crate) fn split(mut part: Part, reason: String, parts: &mut VecDeque<Part>) -> Result<(), String> {
    let (timers_ms, now_ms) = (part.timers_ms, part.now_ms);
    let half = part.records.len() / 2;
    if half > 0 {
        let rest = part.records.split_off(half);
        parts.push_front(Part { records: rest, poison: None, attempt: 1, timers_ms, timers: Timers::All, now_ms });
        parts.push_front(Part { poison: None, attempt: 1, timers_ms: None, ..part });
    } else if timers_ms.is_some() && !part.records.is_empty() {
        // A timer may be at fault: the record must not go for it.
        let timers = Part { records: Vec::new(), poison: None, attempt: 0, timers_ms, timers: Timers::All, now_ms };
        parts.push_front(timers);
        parts.push_front(Part { timers_ms: None, ..part });
    } else if part.records.is_empty() && timers_ms.is_some() {
        let timers = match part.timers {
            Timers::All => Timers::First,
            Timers::First => Timers::PutOff(reason),
            Timers::PutOff(_) => return Err(unexplained(&reason)),
        };
        parts.push_front(Part { timers, attempt: 1, ..part });
    } else if part.poison.is_none() && !part.records.is_empty() && part.attempt < LAST_ATTEMPT {
        parts.push_front(Part { attempt: LAST_ATTEMPT, ..part });
    } else if part.poison.is_none() && !part.records.is_empty() {
        tracing::error!(%reason, "E4032: a record cannot be handled and goes to the dead letters");
        parts.push_front(Part { poison: Some(reason), timers_ms: None, attempt: 0, ..part });
    } else {
        return Err(unexplained(&reason));
    }
    Ok(())
}

fn unexplained(reason: &str) -> String {
    format!("the store refuses what neither record nor timer explains: {reason}")
}
