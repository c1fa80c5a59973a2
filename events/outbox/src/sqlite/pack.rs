//! Messages as rows of the outbox: grouped by partition, encoded once, and cut so that no row grows without bound.

use crate::bus::Outgoing;
use crate::store::CommitError;
use endstate_events::{Envelope, Topic};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Bytes of an outbox row at most, but for its last message: what a consumer that is behind reads in one piece.
const ROW_BYTES: usize = 1024 * 1024;

/// Messages, each with its bytes.
pub(super) type Envelopes = Vec<(Arc<Envelope>, usize)>;

/// Messages of one batch for one partition, encoded.
pub(super) struct OutboxRow {
    pub(super) topic: Topic,
    pub(super) partition: u16,
    /// JSON array.
    pub(super) body: Arc<str>,
    /// Each with its bytes.
    pub(super) envelopes: Envelopes,
}

/// Groups and encodes the messages of one batch.
pub(super) fn group(messages: Vec<Outgoing>) -> Result<Vec<OutboxRow>, CommitError> {
    let mut groups: FxHashMap<(Topic, u16), (Vec<u8>, Envelopes)> = FxHashMap::default();
    let mut rows = Vec::new();
    for Outgoing { topic, partition, envelope } in messages {
        let (body, envelopes) = groups.entry((topic, partition)).or_default();
        body.push(if body.is_empty() { b'[' } else { b',' });
        let before = body.len();
        serde_json::to_writer(&mut *body, &envelope).map_err(|error| CommitError::Data(error.to_string()))?;
        envelopes.push((envelope, body.len() - before));
        if body.len() >= ROW_BYTES {
            let (body, envelopes) = std::mem::take(groups.entry((topic, partition)).or_default());
            rows.push(row(topic, partition, body, envelopes)?);
        }
    }
    for ((topic, partition), (body, envelopes)) in groups {
        if !envelopes.is_empty() {
            rows.push(row(topic, partition, body, envelopes)?);
        }
    }
    Ok(rows)
}

fn row(topic: Topic, partition: u16, mut body: Vec<u8>, envelopes: Envelopes) -> Result<OutboxRow, CommitError> {
    body.push(b']');
    let body = String::from_utf8(body).map_err(|error| CommitError::Data(error.to_string()))?;
    Ok(OutboxRow { topic, partition, body: body.into(), envelopes })
}

/// Cuts what goes into one partition into rows.
pub(super) fn pieces<'a, 'b>(mut parts: &'a [&'b OutboxRow]) -> impl Iterator<Item = &'a [&'b OutboxRow]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let full = |part: &&OutboxRow| {
            bytes += part.body.len();
            bytes >= ROW_BYTES
        };
        let most = parts.iter().position(full).map_or(parts.len(), |last| last + 1);
        let (piece, rest) = parts.split_at(most);
        parts = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The elements of several JSON arrays, none of them empty, as one array.
pub(super) fn join_arrays(parts: &[&OutboxRow]) -> Arc<str> {
    if let [only] = parts {
        return Arc::clone(&only.body);
    }
    let mut joined = String::with_capacity(parts.iter().map(|part| part.body.len()).sum());
    for part in parts {
        joined.push(if joined.is_empty() { '[' } else { ',' });
        joined.push_str(&part.body[1..part.body.len() - 1]);
    }
    joined.push(']');
    joined.into()
}
