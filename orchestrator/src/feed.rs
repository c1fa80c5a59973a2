//! Status changes as other teams read them: the domain events of the outbox, in order per saga, from a place that the
//! reader keeps. Nothing is consumed; a reader that comes back later reads the same.

use crate::http::model::Change;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use endstate_events::{Envelope, Message, Topic};
use endstate_http::{Code, Problem, Timestamp};
use endstate_outbox::{Kind, Rows, Statement, Store, StoreError, Value};

static LOAD: Statement = Statement {
    name: "feed.read_events",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int],
    // The row that holds `from_offset` may begin before it.
    sql: "with r(topic, partition, from_offset, page) as ({rows}) select o.first_offset, o.messages, o.body \
          from r cross join outbox o where o.topic = r.topic and o.partition = r.partition \
          and o.first_offset >= coalesce((select max(b.first_offset) from outbox b where b.topic = r.topic \
          and b.partition = r.partition and b.first_offset <= r.from_offset), 0) \
          order by o.first_offset limit (select page from r)",
};

/// Rows of the outbox per partition and look.
const PAGE: i64 = 32;

/// The next offset in every partition of the topic of domain events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(Vec<i64>);

impl Position {
    /// Before the oldest change that is kept.
    #[must_use]
    pub fn start(partitions: u16) -> Self {
        Self(vec![0; usize::from(partitions)])
    }

    /// The opaque text a reader keeps.
    #[must_use]
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.iter().flat_map(|offset| offset.to_be_bytes()).collect::<Vec<_>>())
    }

    /// Reads it back.
    pub fn decode(text: &str, partitions: u16) -> Result<Self, Problem> {
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        let offsets: Vec<_> = bytes.chunks_exact(8).filter_map(|c| c.try_into().ok().map(i64::from_be_bytes)).collect();
        let fits = bytes.len() == usize::from(partitions) * 8 && offsets.iter().all(|offset| *offset >= 0);
        if fits { Ok(Self(offsets)) } else { Err(Problem::new(Code::InvalidCursor, "`after` is not a `next` of ours")) }
    }
}

/// At most about `limit` changes from `position` on, and the position behind them.
pub async fn read(store: &dyn Store, position: &Position, limit: usize) -> Result<(Vec<Change>, Position), StoreError> {
    let (mut changes, mut next) = (Vec::new(), position.clone());
    for partition in 0..next.0.len() {
        let from = next.0[partition];
        let row = [Topic::Events.label().into(), (partition as i64).into(), from.into(), PAGE.into()];
        for row in store.read(&LOAD, Rows::one(row)).await? {
            let [Value::Int(first), Value::Int(messages), Value::Text(body)] = row.as_slice() else { continue };
            if changes.len() >= limit {
                break;
            }
            // Offsets of rows that went are skipped.
            let skip = usize::try_from(from - first).unwrap_or(0);
            let envelopes: Vec<Envelope> = serde_json::from_str(body).unwrap_or_default();
            changes.extend(envelopes.into_iter().skip(skip).filter_map(change));
            next.0[partition] = (first + messages).max(from);
        }
    }
    Ok((changes, next))
}

fn change(envelope: Envelope) -> Option<Change> {
    let Message::Domain(event) = envelope.message else { return None };
    Some(Change {
        saga: event.saga,
        definition: event.definition,
        number: event.number,
        version: i64::try_from(event.version).unwrap_or(i64::MAX),
        status: event.status,
        outcome: event.outcome,
        reason: event.reason,
        at: Timestamp(envelope.time_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_of_another_store_is_refused() {
        let position = Position(vec![3, 0, 7, 1]);
        assert_eq!(Position::decode(&position.encode(), 4).unwrap(), position);
        for (text, partitions) in
            [(position.encode(), 8), (String::new(), 4), ("x'; --".into(), 4), (Position(vec![-1; 4]).encode(), 4)]
        {
            assert_eq!(Position::decode(&text, partitions).unwrap_err().code, Code::InvalidCursor);
        }
    }
}
