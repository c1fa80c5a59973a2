//! Status changes as other teams read them: the domain events of the outbox, in order per saga, from a place that the
//! reader keeps. Nothing is consumed; a reader that comes back later reads the same.

use crate::http::model::Change;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use endstate_events::{Envelope, Json, Message, Topic};
use endstate_http::{Code, Problem, Timestamp};
use endstate_outbox::{Kind, Rows, Statement, Store, StoreError, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};

static LOAD: Statement = Statement {
    name: "feed.read_events",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int],
    // The row that holds `from_offset` may begin before it. Last columns: what is kept begins there; from where it was read,
    // and the era. A place of the era before begins no later than this one did; of one before that nobody knows where it
    // lies. Where the store is the bus, a topic's offsets have no gaps; otherwise a shard's messages of all topics are numbered together, and the end of
    // all that it has sent is the last row: a reader moves there, and misses nothing when others' messages are dropped. The
    // page ends below the union, or the backlog is read for each. Numbers begin with 1: whoever is there has missed nothing
    // yet, in whatever era.
    sql: "with r(topic, partition, from_offset, page) as ({rows}) \
          {select o.first_offset, o.messages, o.body, o.first_offset, r.from_offset, 0 \
          from r cross join outbox o where o.topic = r.topic and o.partition = r.partition \
          and o.first_offset >= coalesce((select max(b.first_offset) from outbox b where b.topic = r.topic \
          and b.partition = r.partition and b.first_offset <= r.from_offset), 0) order by o.first_offset|\
          select f.seq, f.messages, f.body, coalesce((select min(b.seq) from outbox b where b.side = 'orchestrator' \
          and b.shard = r.partition), f.next_seq), g.place, g.era from r cross join lateral (\
          select s.epoch >> 32 as era, s.next_outbox_seq, case when r.from_offset & 1099511627775 <= 1 then 1 \
          when s.epoch >> 32 = r.from_offset >> 40 then r.from_offset & 1099511627775 \
          when s.epoch >> 32 = (r.from_offset >> 40) + 1 then least(r.from_offset & 1099511627775, s.era_outbox_seq) \
          else 0 end as place from shard s where s.side = 'orchestrator' and s.shard = r.partition) g cross join lateral (\
          (select o.seq, o.messages, o.body, o.seq as next_seq from outbox o where o.side = 'orchestrator' \
          and o.shard = r.partition and o.seq >= coalesce((select max(b.seq) from outbox b where b.side = 'orchestrator' \
          and b.shard = r.partition and b.seq <= g.place), 0) and o.topic = r.topic \
          and o.seq + o.messages > g.place order by o.seq limit r.page) union all \
          select g.next_outbox_seq, 0::int8, '[]', g.next_outbox_seq) f order by f.seq} limit (select page from r)",
};

/// Rows of the outbox per partition and look.
const PAGE: i64 = 32;

static OLDEST: Statement = Statement {
    name: "feed.oldest",
    columns: &[Kind::Text, Kind::Int],
    sql: "with r(topic, partition) as ({rows}) select coalesce({(select min(o.first_offset) from outbox o \
          where o.topic = r.topic and o.partition = r.partition), (select e.next_offset from outbox_end e \
          where e.topic = r.topic and e.partition = r.partition)|(select coalesce((select min(o.seq) from outbox o \
          where o.side = 'orchestrator' and o.shard = r.partition), s.next_outbox_seq) + (s.epoch >> 32 << 40) \
          from shard s where s.side = 'orchestrator' and s.shard = r.partition)}, {0|1}) from r order by r.partition",
};

/// Behind the newest of every partition given: with more than that, nobody has anything to read there.
static ENDS: Statement = Statement {
    name: "feed.ends",
    columns: &[Kind::Text, Kind::Int],
    sql: "with r(topic, partition) as ({rows}) select coalesce({(select o.first_offset + o.messages from outbox o \
          where o.topic = r.topic and o.partition = r.partition order by o.first_offset desc limit 1), \
          (select e.next_offset from outbox_end e where e.topic = r.topic and e.partition = r.partition)|\
          (select s.next_outbox_seq + (s.epoch >> 32 << 40) from shard s where s.side = 'orchestrator' \
          and s.shard = r.partition)}, 0) from r order by r.partition",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&LOAD, &OLDEST, &ENDS];

/// Between two looks for followers, of a whole process: adds half of it to what one waits, on the average.
const LOOK: Duration = Duration::from_millis(100);

/// Bits of a place that say where it is in its partition; those above say in which era it was read. A standby that is promoted
/// gives numbers again, and begins an era (Z14, ADR 0024).
const ERA_FROM: u32 = 40;

/// The next place in every partition of the topic of domain events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(Vec<i64>);

impl Position {
    /// Before the oldest change that is kept.
    pub async fn oldest(store: &dyn Store) -> Result<Self, StoreError> {
        Ok(Self(of_partitions(store, &OLDEST).await?))
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

    /// The partitions that go on behind it, in the order in which they are read. Which is the first moves on with every
    /// change read, so that none is always the last.
    fn behind(&self, ends: &[i64]) -> Vec<usize> {
        let first = usize::try_from(self.0.iter().fold(0, |sum: i64, offset| sum.wrapping_add(*offset))).unwrap_or(0);
        let partitions = self.0.len();
        let turns = (0..partitions).map(|turn| (first % partitions + turn) % partitions);
        turns.filter(|partition| ends.get(*partition).is_some_and(|end| *end > self.0[*partition])).collect()
    }
}

/// One number of every partition.
async fn of_partitions(store: &dyn Store, statement: &'static Statement) -> Result<Vec<i64>, StoreError> {
    let mut rows = Rows::new();
    for partition in 0..i64::from(store.partitions()) {
        rows.push([Topic::Events.label().into(), partition.into()]);
    }
    let found = store.read(statement, rows).await?;
    Ok(found.iter().filter_map(|row| row.first().and_then(Value::int)).collect())
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

/// Those who follow the changes from one process. One statement looks where all partitions end, for all of them, however
/// many they are: they must not use up the sessions that shards read with.
pub struct Followers {
    store: Arc<dyn Store>,
    seen: tokio::sync::Mutex<Seen>,
}

/// Where the partitions ended, and when that was looked up.
struct Seen {
    ends: Arc<[i64]>,
    at: Option<Instant>,
}

impl Followers {
    /// Nobody yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, seen: tokio::sync::Mutex::new(Seen { ends: Arc::new([]), at: None }) }
    }

    /// What [`read`] gives, as soon as there is something, or `until` has come, or `stop` says so.
    pub async fn follow(
        &self,
        position: &Position,
        limit: usize,
        until: Instant,
        stop: impl Fn() -> bool,
    ) -> Result<(Vec<Change>, Position), FeedError> {
        let (mut changes, mut next) = read(&*self.store, position, limit).await?;
        while changes.is_empty() && !stop() && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
            let ends = self.ends().await?;
            (changes, next) = read_to(&*self.store, &next, limit, &ends).await?;
        }
        Ok((changes, next))
    }

    /// Where the partitions ended a moment ago.
    async fn ends(&self) -> Result<Arc<[i64]>, StoreError> {
        let mut seen = self.seen.lock().await;
        if seen.at.is_none_or(|at| at.elapsed() >= LOOK) {
            let at = Instant::now();
            *seen = Seen { ends: of_partitions(&*self.store, &ENDS).await?.into(), at: Some(at) };
        }
        Ok(Arc::clone(&seen.ends))
    }
}

impl std::fmt::Debug for Followers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Followers").finish_non_exhaustive()
    }
}

/// At most `limit` changes from `position` on, and the position behind them. Partitions share the limit, so that a busy
/// one does not keep a reader from the others.
pub async fn read(store: &dyn Store, position: &Position, limit: usize) -> Result<(Vec<Change>, Position), FeedError> {
    let ends = of_partitions(store, &ENDS).await?;
    read_to(store, position, limit, &ends).await
}

/// The same, of partitions that end beyond the position; one that ends at it costs nothing.
async fn read_to(
    store: &dyn Store,
    position: &Position,
    limit: usize,
    ends: &[i64],
) -> Result<(Vec<Change>, Position), FeedError> {
    let (mut changes, mut next) = (Vec::new(), position.clone());
    let partitions = position.behind(ends);
    let mut busy = Vec::new();
    for (turn, partition) in partitions.iter().copied().enumerate() {
        let share = (limit - changes.len()).div_ceil(partitions.len() - turn);
        let found = share_of(store, partition, next.0[partition], share).await?;
        if found.changes.len() == share {
            busy.push(partition);
        }
        next.0[partition] = found.place();
        changes.extend(found.changes);
    }
    // What the others did not need.
    for partition in busy {
        let found = share_of(store, partition, next.0[partition], limit - changes.len()).await?;
        next.0[partition] = found.place();
        changes.extend(found.changes);
    }
    Ok((changes, next))
}

/// What one partition gives to a page.
struct Share {
    changes: Vec<Change>,
    /// Where it goes on, within an era.
    next: i64,
    era: i64,
}

impl Share {
    fn place(&self) -> i64 {
        (self.era << ERA_FROM) + self.next
    }
}

async fn share_of(store: &dyn Store, partition: usize, from: i64, most: usize) -> Result<Share, FeedError> {
    let (era, next) = (from >> ERA_FROM, from & ((1 << ERA_FROM) - 1));
    let mut share = Share { changes: Vec::new(), next, era };
    if most == 0 {
        return Ok(share);
    }
    let row = [Topic::Events.label().into(), (partition as i64).into(), from.into(), PAGE.into()];
    for (at, row) in store.read(&LOAD, Rows::one(row)).await?.iter().enumerate() {
        let [Value::Int(first), Value::Int(messages), Value::Text(body), Value::Int(kept), from, era] = row.as_slice()
        else {
            continue;
        };
        if at == 0 {
            (share.next, share.era) = (from.int().unwrap_or(next), era.int().unwrap_or(share.era));
        }
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
mod tests;
