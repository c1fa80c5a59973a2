//! Status changes as other teams read them: the domain events of the outbox, in order per saga, from a place that the
//! reader keeps. Nothing is consumed; a reader that comes back later reads the same.

use crate::http::model::Change;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use endstate_events::{Envelope, Json, Message, Topic};
use endstate_http::{Code, Problem, Timestamp};
use endstate_outbox::{Kind, Rows, Statement, Store, StoreError, Value};

static LOAD: Statement = Statement {
    name: "feed.read_events",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int],
    // The row that holds `from_offset` may begin before it. Last column: what is kept begins there. Where the store is the
    // bus, a topic's offsets have no gaps; otherwise a shard's messages of all topics are numbered together, and the end of
    // all that it has sent is the last row: a reader moves there, and misses nothing when others' messages are dropped.
    sql: "with r(topic, partition, from_offset, page) as ({rows}) \
          {select o.first_offset, o.messages, o.body, o.first_offset \
          from r cross join outbox o where o.topic = r.topic and o.partition = r.partition \
          and o.first_offset >= coalesce((select max(b.first_offset) from outbox b where b.topic = r.topic \
          and b.partition = r.partition and b.first_offset <= r.from_offset), 0) order by o.first_offset|\
          select f.seq, f.messages, f.body, coalesce((select min(b.seq) from outbox b where b.side = 'orchestrator' \
          and b.shard = r.partition), f.next_seq) from r cross join lateral (\
          select o.seq, o.messages, o.body, o.seq as next_seq from outbox o where o.side = 'orchestrator' \
          and o.shard = r.partition and o.seq >= coalesce((select max(b.seq) from outbox b where b.side = 'orchestrator' \
          and b.shard = r.partition and b.seq <= r.from_offset), 0) and o.topic = r.topic \
          and o.seq + o.messages > r.from_offset union all \
          select s.next_outbox_seq, 0, '[]', s.next_outbox_seq from shard s where s.side = 'orchestrator' \
          and s.shard = r.partition) f order by f.seq} limit (select page from r)",
};

/// Rows of the outbox per partition and look.
const PAGE: i64 = 32;

static OLDEST: Statement = Statement {
    name: "feed.oldest",
    columns: &[Kind::Text, Kind::Int],
    sql: "with r(topic, partition) as ({rows}) select coalesce({(select min(o.first_offset) from outbox o \
          where o.topic = r.topic and o.partition = r.partition), (select e.next_offset from outbox_end e \
          where e.topic = r.topic and e.partition = r.partition)|(select min(o.seq) from outbox o \
          where o.side = 'orchestrator' and o.shard = r.partition), (select s.next_outbox_seq from shard s \
          where s.side = 'orchestrator' and s.shard = r.partition)}, 0) from r order by r.partition",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&LOAD, &OLDEST];

/// The next offset in every partition of the topic of domain events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(Vec<i64>);

impl Position {
    /// Before the oldest change that is kept.
    pub async fn oldest(store: &dyn Store) -> Result<Self, StoreError> {
        let mut rows = Rows::new();
        for partition in 0..i64::from(store.partitions()) {
            rows.push([Topic::Events.label().into(), partition.into()]);
        }
        let found = store.read(&OLDEST, rows).await?;
        Ok(Self(found.iter().filter_map(|row| row.first().and_then(Value::int)).collect()))
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

    /// The partition that is read first. It moves on with every change read, so that none is always the last.
    fn first(&self) -> usize {
        usize::try_from(self.0.iter().fold(0, |sum: i64, offset| sum.wrapping_add(*offset))).unwrap_or(0)
    }
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// Changes behind the position were deleted unread.
    #[error("partition {partition} is kept from {oldest} on, and `after` lies at {wanted}")]
    Gone {
        /// Where.
        partition: usize,
        /// What the reader wanted next.
        wanted: i64,
        /// What there is.
        oldest: i64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// At most `limit` changes from `position` on, and the position behind them. Partitions share the limit, so that a busy
/// one does not keep a reader from the others.
pub async fn read(store: &dyn Store, position: &Position, limit: usize) -> Result<(Vec<Change>, Position), FeedError> {
    let (mut changes, mut next) = (Vec::new(), position.clone());
    let partitions = next.0.len();
    let turns = (0..partitions).map(|turn| ((position.first() + turn) % partitions, partitions - turn));
    let mut busy = Vec::new();
    for (partition, left) in turns {
        let share = (limit - changes.len()).div_ceil(left);
        let found = share_of(store, partition, next.0[partition], share).await?;
        if found.changes.len() == share {
            busy.push(partition);
        }
        next.0[partition] = found.next;
        changes.extend(found.changes);
    }
    // What the others did not need.
    for partition in busy {
        let found = share_of(store, partition, next.0[partition], limit - changes.len()).await?;
        next.0[partition] = found.next;
        changes.extend(found.changes);
    }
    Ok((changes, next))
}

/// What one partition gives to a page.
struct Share {
    changes: Vec<Change>,
    next: i64,
}

async fn share_of(store: &dyn Store, partition: usize, from: i64, most: usize) -> Result<Share, FeedError> {
    let mut share = Share { changes: Vec::new(), next: from };
    if most == 0 {
        return Ok(share);
    }
    let row = [Topic::Events.label().into(), (partition as i64).into(), from.into(), PAGE.into()];
    for row in store.read(&LOAD, Rows::one(row)).await? {
        let [Value::Int(first), Value::Int(messages), Value::Text(body), Value::Int(kept)] = row.as_slice() else {
            continue;
        };
        if *kept > share.next {
            return Err(FeedError::Gone { partition, wanted: share.next, oldest: *kept });
        }
        // Numbers in between are those of other topics.
        share.next = share.next.max(*first);
        let read = envelopes(body, *messages);
        let ahead = usize::try_from(share.next - first).unwrap_or(0);
        for (offset, envelope) in (*first..).zip(read).skip(ahead) {
            if share.changes.len() >= most {
                return Ok(share);
            }
            share.next = offset + 1;
            match envelope {
                Some(envelope) => share.changes.extend(change(envelope)),
                None => tracing::error!(partition, offset, "E4034: a change cannot be read and is left out"),
            }
        }
    }
    Ok(share)
}

/// The envelopes of a row, those that can be read; as many as the row counts.
fn envelopes(body: &str, messages: i64) -> Vec<Option<Envelope>> {
    let mut read: Vec<Option<Envelope>> = match serde_json::from_str::<Vec<Envelope>>(body) {
        Ok(envelopes) => envelopes.into_iter().map(Some).collect(),
        Err(_) => {
            let each = serde_json::from_str::<Vec<Json>>(body).unwrap_or_default();
            each.into_iter().map(|envelope| serde_json::from_value(envelope).ok()).collect()
        }
    };
    read.resize_with(usize::try_from(messages).unwrap_or(0), || None);
    read
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
    use endstate_events::{DomainEvent, Lane, SCHEMA_VERSION, SagaId, Slot};
    use endstate_outbox::{Bus as _, Outgoing, SqliteStore};
    use std::sync::Arc;

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

    fn event(partition: u16, n: u64) -> Outgoing {
        let saga = SagaId::mint(1_700_000_000_000, Slot::of("s"), n);
        let event = DomainEvent {
            saga,
            definition: "d".into(),
            number: format!("{partition}-{n}"),
            version: 1,
            status: "created".into(),
            before: String::new(),
            outcome: None,
            reason: None,
        };
        let (message, key) = (Message::Domain(event), saga.to_string());
        let envelope =
            Envelope { id: format!("{n}"), schema: SCHEMA_VERSION, time_ms: 0, key, lane: Lane::Live, message };
        Outgoing { topic: Topic::Events, partition, envelope: envelope.into() }
    }

    /// A store with `count` changes in each of `partitions`, several to a row.
    async fn filled(folder: &std::path::Path, partitions: &[u16], count: u64) -> Arc<SqliteStore> {
        let store = SqliteStore::open(folder).await.unwrap();
        for partition in partitions {
            for row in (0..count).collect::<Vec<_>>().chunks(5) {
                store.bus().produce(row.iter().map(|n| event(*partition, *n)).collect()).await.unwrap();
            }
        }
        store
    }

    #[tokio::test]
    async fn a_busy_partition_does_not_keep_a_reader_from_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let store = filled(folder.path(), &[0, 2, 3], 40).await;
        for limit in [1, 2, 3, 7, 50] {
            let mut position = Position::oldest(&*store).await.unwrap();
            let mut seen = Vec::new();
            loop {
                let (changes, next) = read(&*store, &position, limit).await.unwrap();
                assert!(changes.len() <= limit);
                if changes.is_empty() {
                    break;
                }
                seen.extend(changes.into_iter().map(|change| change.number));
                position = next;
                if seen.len() >= 12 && seen.len() < 12 + limit {
                    for partition in ["0-", "2-", "3-"] {
                        assert!(seen.iter().any(|number| number.starts_with(partition)), "{limit}: {seen:?}");
                    }
                }
            }
            for partition in [0, 2, 3] {
                let prefix = format!("{partition}-");
                let of: Vec<_> = seen.iter().filter(|number| number.starts_with(&prefix)).collect();
                let all: Vec<_> = (0..40).map(|n| format!("{prefix}{n}")).collect();
                assert_eq!(of, all.iter().collect::<Vec<_>>(), "limit {limit}: each once, in order");
            }
        }
    }

    #[tokio::test]
    async fn a_reader_who_was_too_slow_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = filled(folder.path(), &[1], 20).await;
        let begin = Position::oldest(&*store).await.unwrap();
        let (_, slow) = read(&*store, &begin, 4).await.unwrap();
        let (_, quick) = read(&*store, &begin, 12).await.unwrap();
        assert_eq!(store.bus().purge(8).await.unwrap(), 2, "rows 0-4 and 5-9");
        let gone = read(&*store, &slow, 10).await.unwrap_err();
        assert!(matches!(gone, FeedError::Gone { partition: 1, wanted: 4, oldest: 10 }), "{gone}");
        assert_eq!(read(&*store, &quick, 10).await.unwrap().0.len(), 8);
        let oldest = Position::oldest(&*store).await.unwrap();
        assert_eq!(read(&*store, &oldest, 20).await.unwrap().0.len(), 10, "without a place: what is kept");
    }

    #[test]
    fn an_unreadable_change_costs_only_itself() {
        let good = serde_json::to_string(&*event(0, 1).envelope).unwrap();
        let read = envelopes(&format!("[{good},{{\"schema\":99}},{good}]"), 3);
        assert_eq!(read.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(envelopes("no JSON", 2).len(), 2, "its offsets are passed all the same");
    }
}
