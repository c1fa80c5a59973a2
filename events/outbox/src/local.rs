//! The embedded bus: topic, partition, offset over the outbox itself.
//!
//! Committed messages are handed over in memory; the table is read only for what memory does not hold: after a restart,
//! or when a consumer is so far behind that its window was cut.

use crate::bus::{Bus, BusError, Consumer, Delivered, Outgoing, TAKE_BYTES, Undecodable};
use crate::metric::Metric;
use crate::parcel::{self, Parcel, Read};
use crate::sqlite::SqliteStore;
use crate::statement::{Kind, Rows, Statement, Value};
use crate::store::{Commit, Store, StoreError};
use async_trait::async_trait;
use endstate_events::{Envelope, Topic};
use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use tokio::sync::Notify;

/// Messages one partition keeps in memory for a slow consumer; beyond, it reads the table.
const WINDOW: usize = 20_000;

/// Bytes of those messages at most, as they were written.
const WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// Messages that one read of the table takes, rounded up to whole rows: a row can hold a whole batch.
const PAGE: i64 = 1_000;

static LOAD: Statement = Statement {
    name: "outbox.page",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int, Kind::Int],
    // The row that holds `from_offset` may begin before it: start at the last row that begins at or before it. Offsets
    // have no gaps, so that a range of them is a number of messages. A page ends with the row that makes it large.
    sql: "with r(topic, partition, from_offset, page, bytes) as ({rows}), \
          p as (select o.first_offset, o.messages, o.body, r.bytes, sum(length(o.body)) over (order by o.first_offset \
          rows between unbounded preceding and 1 preceding) as before from r join outbox o \
          on o.topic = r.topic and o.partition = r.partition and o.first_offset >= coalesce((select max(b.first_offset) \
          from outbox b where b.topic = r.topic and b.partition = r.partition and b.first_offset <= r.from_offset), 0) \
          and o.first_offset < r.from_offset + r.page) \
          select first_offset, messages, body from p where coalesce(before, 0) < bytes order by first_offset",
};

/// The embedded bus.
pub struct LocalBus {
    /// Of each topic.
    count: u16,
    partitions: Vec<Partition>,
    store: OnceLock<Weak<SqliteStore>>,
}

struct Partition {
    topic: Topic,
    index: u16,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    /// The offset the next message gets.
    next: i64,
    /// The offset of the window's first message.
    head: i64,
    window: VecDeque<(Arc<Envelope>, usize)>,
    /// Of the window's messages together.
    bytes: usize,
    /// Set while somebody consumes; without a consumer nothing is kept in memory.
    consumed: bool,
    /// The next offset the consumer will take; rows below it may go.
    position: i64,
}

impl LocalBus {
    pub(crate) async fn load(pool: &sqlx::sqlite::SqlitePool, count: NonZeroU16) -> Result<Arc<Self>, StoreError> {
        let count = count.get();
        let mut partitions = Vec::new();
        for topic in Topic::ALL {
            for index in 0..count {
                let next: i64 = sqlx::query_scalar(
                    "select max(coalesce((select first_offset + messages from outbox where topic = ?1 and \
                     partition = ?2 order by first_offset desc limit 1), 0), coalesce((select next_offset from outbox_end where topic = ?1 and \
                     partition = ?2), 0))",
                )
                .bind(topic.label())
                .bind(index)
                .fetch_one(pool)
                .await
                .map_err(|error| StoreError::Failed { statement: "outbox.ends".into(), reason: error.to_string() })?;
                let state = Mutex::new(State { next, head: next, ..State::default() });
                partitions.push(Partition { topic, index, state, arrived: Notify::new() });
            }
        }
        Ok(Arc::new(Self { count, partitions, store: OnceLock::new() }))
    }

    pub(crate) fn attach(&self, store: &Arc<SqliteStore>) {
        self.store.set(Arc::downgrade(store)).ok();
    }

    fn partition(&self, topic: Topic, index: u16) -> &Partition {
        // No definition that needs a foreign topic is loaded on this bus; should one be met, it goes where nobody reads.
        let topics = Topic::ALL.iter().position(|t| *t == topic).unwrap_or(Topic::ALL.len() - 1);
        &self.partitions[topics * usize::from(self.count) + usize::from(index.min(self.count - 1))]
    }

    /// Partitions of each topic.
    pub(crate) fn partition_count(&self) -> u16 {
        self.count
    }

    /// The offset that the next message delivered to the partition gets.
    pub(crate) fn next_offset(&self, topic: Topic, partition: u16) -> i64 {
        self.partition(topic, partition).lock().next
    }

    /// Hands over committed messages. Called by the one writer, in commit order.
    pub(crate) fn deliver(&self, parcel: &Parcel) {
        let partition = self.partition(parcel.topic, parcel.partition);
        let mut state = partition.lock();
        let first = state.next;
        state.next += parcel.len() as i64;
        if !state.consumed {
            return;
        }
        if state.window.is_empty() {
            state.head = first;
        }
        // A window that is cut stays contiguous: what does not fit is read from the table later.
        let contiguous = state.head + state.window.len() as i64 == first;
        if contiguous && state.window.len() < WINDOW && state.bytes < WINDOW_BYTES {
            state.bytes += parcel.sized().iter().map(|(_, bytes)| bytes).sum::<usize>();
            state.window.extend(parcel.sized().iter().cloned());
        }
        drop(state);
        partition.arrived.notify_one();
    }

    /// Tells how far consumers are behind, and deletes outbox rows below their positions; rows of topics nobody consumes here go when they lie more
    /// than `keep` messages back. Returns how many rows went.
    pub async fn purge(&self, keep: i64) -> Result<i64, StoreError> {
        let below = self
            .partitions
            .iter()
            .map(|partition| {
                let state = partition.lock();
                if state.consumed {
                    let lag = (state.next - state.position) as f64;
                    Metric::LagRecords.set(lag, &[partition.topic.label(), &partition.index.to_string()]);
                }
                let position = if partition.topic == Topic::Events { state.next - keep } else { state.position };
                (partition.topic.label(), partition.index, position)
            })
            .collect();
        match self.store.get().and_then(Weak::upgrade) {
            Some(store) => store.purge(below).await,
            None => Ok(0),
        }
    }

    /// Messages waiting in one partition: end minus the consumer's position.
    #[must_use]
    pub fn lag(&self, topic: Topic, index: u16) -> i64 {
        let state = self.partition(topic, index).lock();
        state.next - state.position
    }
}

impl Partition {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Bus for LocalBus {
    async fn produce(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        let store = self.store.get().and_then(Weak::upgrade);
        let store = store.ok_or_else(|| BusError::Unacknowledged("the store is closed".into()))?;
        let messages = Parcel::pack(messages, |_, _| Ok(())).map_err(BusError::Refused)?;
        store.commit(Commit { messages, ..Commit::default() }).await?;
        Ok(())
    }

    fn consumer(&self, topic: Topic, partition: u16, position: i64) -> Box<dyn Consumer> {
        let store = self.store.get().cloned().unwrap_or_default();
        let Some(bus) = store.upgrade().map(|store| store.bus()) else {
            return Box::new(Closed);
        };
        let mut state = bus.partition(topic, partition).lock();
        state.consumed = true;
        state.position = position;
        if state.window.is_empty() {
            state.head = state.next;
        }
        drop(state);
        Box::new(LocalConsumer { bus, store, topic, partition, position, page: VecDeque::new(), at_end: false })
    }
}

/// A consumer of a bus whose store is gone: there is never anything to take.
struct Closed;

#[async_trait]
impl Consumer for Closed {
    async fn take(&mut self, _limit: usize) -> Result<Vec<Delivered>, StoreError> {
        Ok(Vec::new())
    }

    fn at_end(&self) -> bool {
        false
    }

    async fn ready(&mut self) {
        std::future::pending().await
    }
}

struct LocalConsumer {
    bus: Arc<LocalBus>,
    store: Weak<SqliteStore>,
    topic: Topic,
    partition: u16,
    position: i64,
    /// Messages read from the table, from `position` on.
    page: VecDeque<Read>,
    /// Whether the last take went up to the end that the partition had then.
    at_end: bool,
}

impl LocalConsumer {
    fn take_from_window(&mut self, limit: usize) -> Option<Vec<Delivered>> {
        let mut state = self.bus.partition(self.topic, self.partition).lock();
        self.at_end = self.position >= state.next;
        if self.at_end {
            return Some(Vec::new());
        }
        // What the window holds below our position was read from the table.
        while state.head < self.position
            && let Some((_, bytes)) = state.window.pop_front()
        {
            state.head += 1;
            state.bytes -= bytes;
        }
        if state.head != self.position || state.window.is_empty() {
            return None;
        }
        let (count, bytes) = fill(state.window.iter().map(|(_, bytes)| *bytes), limit);
        let taken: Vec<_> = state.window.drain(..count).collect();
        state.head += count as i64;
        state.bytes -= bytes;
        self.at_end = state.head >= state.next;
        drop(state);
        Some(taken.into_iter().map(|(envelope, bytes)| self.deliver(Ok(envelope), bytes)).collect())
    }

    fn deliver(&mut self, envelope: Result<Arc<Envelope>, Undecodable>, bytes: usize) -> Delivered {
        let offset = self.position;
        self.position += 1;
        Delivered { topic: self.topic, offset, next: self.position, envelope, bytes, record: 0 }
    }

    async fn load_page(&mut self) -> Result<(), StoreError> {
        let Some(store) = self.store.upgrade() else { return Ok(()) };
        let (partition, bytes) = (i64::from(self.partition), TAKE_BYTES as i64);
        let key = [self.topic.label().into(), partition.into(), self.position.into(), PAGE.into(), bytes.into()];
        for row in store.read(&LOAD, Rows::one(key)).await? {
            let [Value::Int(first), Value::Int(messages), Value::Text(body)] = row.as_slice() else { continue };
            let skip = (self.position + self.page.len() as i64 - first).clamp(0, *messages);
            self.page.extend(decode(body, *messages).into_iter().skip(usize::try_from(skip).unwrap_or(0)));
        }
        Ok(())
    }
}

/// How many of these sizes a take of at most `limit` messages has, and their sum.
fn fill(sizes: impl Iterator<Item = usize>, limit: usize) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0);
    for size in sizes.take(limit) {
        (count, bytes) = (count + 1, bytes + size);
        if bytes >= TAKE_BYTES {
            break;
        }
    }
    (count, bytes)
}

/// The messages of a row; a row that cannot be read is as many bad ones.
fn decode(body: &str, messages: i64) -> Vec<Read> {
    parcel::decode(body).unwrap_or_else(|error| {
        let bad =
            Undecodable { bytes: body.to_owned(), reason: format!("the row is no JSON array: {error}"), newer: false };
        (0..messages).map(|_| (Err(bad.clone()), body.len())).collect()
    })
}

#[async_trait]
impl Consumer for LocalConsumer {
    async fn take(&mut self, limit: usize) -> Result<Vec<Delivered>, StoreError> {
        if self.page.is_empty() {
            match self.take_from_window(limit) {
                Some(taken) => {
                    self.bus.partition(self.topic, self.partition).lock().position = self.position - taken.len() as i64;
                    return Ok(taken);
                }
                None => self.load_page().await?,
            }
        }
        let (count, _) = fill(self.page.iter().map(|(_, bytes)| *bytes), limit);
        {
            let mut state = self.bus.partition(self.topic, self.partition).lock();
            state.position = self.position;
            self.at_end = self.position + count as i64 >= state.next;
        }
        let page: Vec<_> = self.page.drain(..count).collect();
        Ok(page.into_iter().map(|(envelope, bytes)| self.deliver(envelope, bytes)).collect())
    }

    fn at_end(&self) -> bool {
        self.at_end
    }

    async fn ready(&mut self) {
        let bus = Arc::clone(&self.bus);
        let partition = bus.partition(self.topic, self.partition);
        loop {
            let arrived = partition.arrived.notified();
            if !self.page.is_empty() || partition.lock().next > self.position {
                return;
            }
            arrived.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use endstate_events::{DomainEvent, Lane, Message, SCHEMA_VERSION, SagaId, Slot};

    /// A message of at least so many bytes.
    fn sized(n: u64, bytes: usize) -> Outgoing {
        let event = DomainEvent {
            saga: SagaId::mint(1, Slot::of("k"), n),
            definition: "d".into(),
            number: n.to_string(),
            version: n,
            status: "x".repeat(bytes),
            before: String::new(),
            outcome: None,
            reason: None,
        };
        let (id, key, message) = (n.to_string(), "k".to_owned(), Message::Domain(event));
        let envelope = Envelope { id, schema: SCHEMA_VERSION, time_ms: 1, key, lane: Lane::Live, message };
        Outgoing { topic: Topic::Events, partition: 1, envelope: envelope.into() }
    }

    /// After a restart the queue is read in pages; only the last of them ends it.
    #[tokio::test]
    async fn z07_the_end_of_a_page_is_not_the_end() {
        const MESSAGES: u64 = PAGE as u64 + 100;
        let folder = tempfile::tempdir().unwrap();
        {
            let store = SqliteStore::open(folder.path()).await.unwrap();
            let messages = (0..MESSAGES).map(|n| sized(n, 1)).collect::<Vec<_>>();
            for some in messages.chunks(10) {
                store.bus().produce(some.to_vec()).await.unwrap();
            }
        }
        let store = SqliteStore::open(folder.path()).await.unwrap();
        let mut consumer = store.bus().consumer(Topic::Events, 1, 0);
        let mut read = 0;
        while read < MESSAGES as usize {
            read += consumer.take(512).await.unwrap().len();
            assert_eq!(consumer.at_end(), read == MESSAGES as usize, "after {read}");
        }
        assert!(consumer.take(512).await.unwrap().is_empty() && consumer.at_end());
    }

    /// What a slow consumer is kept in memory is bounded by its bytes, too; the rest is read from the table, in order.
    #[tokio::test]
    async fn z20_the_window_is_bounded_by_bytes() {
        const MESSAGES: u64 = 40;
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).await.unwrap();
        let bus = store.bus();
        let mut consumer = bus.consumer(Topic::Events, 1, 0);
        for n in 0..MESSAGES {
            bus.produce(vec![sized(n, 1024 * 1024)]).await.unwrap();
        }
        let window = |bus: &LocalBus| {
            let state = bus.partition(Topic::Events, 1).lock();
            (state.window.len(), state.bytes)
        };
        let (messages, bytes) = window(&bus);
        assert!(
            (1..MESSAGES as usize).contains(&messages) && bytes < WINDOW_BYTES + 2 * 1024 * 1024,
            "{messages} {bytes}"
        );
        let mut read = Vec::new();
        while let taken @ [_, ..] = &*consumer.take(1_000).await.unwrap() {
            let bytes: usize = taken.iter().map(|delivered| delivered.bytes).sum();
            assert!(bytes < TAKE_BYTES + 2 * 1024 * 1024, "{bytes}");
            read.extend(taken.iter().map(|delivered| delivered.envelope.as_ref().unwrap().id.clone()));
        }
        assert_eq!(read, (0..MESSAGES).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(window(&bus), (0, 0), "what was taken is not counted any more");
        bus.produce(vec![sized(MESSAGES, 1024 * 1024)]).await.unwrap();
        assert_eq!(window(&bus).0, 1, "and what comes now is kept in memory again");
    }
}
