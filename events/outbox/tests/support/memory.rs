//! A bus in memory, for tests over a store that is not the bus: what a shard has committed is published into it.

use async_trait::async_trait;
use endstate_events::{Envelope, Topic};
use endstate_outbox::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The messages of all partitions, for ever.
#[derive(Clone, Default)]
pub(crate) struct MemoryBus(Arc<Inner>);

/// The bytes of each partition's messages.
pub(crate) type Partitions = HashMap<(Topic, u16), Vec<String>>;

#[derive(Default)]
struct Inner {
    /// As they would stand on a broker.
    partitions: Mutex<Partitions>,
    /// The number that each shard publishes next. What a new owner publishes again is not appended again, so that tests
    /// can count messages; that repeated ones do no harm is shown elsewhere.
    next_seq: Mutex<HashMap<ShardId, i64>>,
    arrived: Notify,
}

impl MemoryBus {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Partitions> {
        self.0.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, messages: impl IntoIterator<Item = Outgoing>) {
        let mut partitions = self.lock();
        for Outgoing { topic, partition, envelope } in messages {
            partitions.entry((topic, partition)).or_default().push(serde_json::to_string(&envelope).unwrap());
        }
        self.0.arrived.notify_waiters();
    }

    fn from(&self, topic: Topic, partition: u16, position: i64, limit: usize) -> Vec<String> {
        let partitions = self.lock();
        let all = partitions.get(&(topic, partition)).map_or(&[][..], Vec::as_slice);
        let waiting = all.get(usize::try_from(position).unwrap_or(0)..).unwrap_or_default().iter();
        let mut room = TAKE_BYTES;
        let fits = |body: &&String| {
            let fits = room > 0;
            room = room.saturating_sub(body.len());
            fits
        };
        waiting.take(limit).take_while(fits).cloned().collect()
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn produce(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        self.append(messages);
        Ok(())
    }

    fn consumer(&self, topic: Topic, partition: u16, position: i64) -> Box<dyn Consumer> {
        Box::new(Reader { bus: self.clone(), topic, partition, position })
    }

    fn relay(&self, shard: ShardId, published_seq: i64) -> Option<Box<dyn Relay>> {
        Some(Box::new(Carrier { bus: self.clone(), shard, published_seq }))
    }
}

struct Reader {
    bus: MemoryBus,
    topic: Topic,
    partition: u16,
    position: i64,
}

#[async_trait]
impl Consumer for Reader {
    async fn take(&mut self, limit: usize) -> Result<Vec<Delivered>, StoreError> {
        let waiting = self.bus.from(self.topic, self.partition, self.position, limit);
        let first = self.position;
        self.position += waiting.len() as i64;
        let delivered = |(offset, bytes): (i64, String)| {
            let length = bytes.len();
            let envelope = serde_json::from_str::<Envelope>(&bytes).map(Arc::new);
            let envelope = envelope.map_err(|error| Undecodable { bytes, reason: error.to_string(), newer: false });
            Delivered { topic: self.topic, offset, next: offset + 1, bytes: length, envelope, record: 0 }
        };
        Ok((first..).zip(waiting).map(delivered).collect())
    }

    fn at_end(&self) -> bool {
        self.bus.from(self.topic, self.partition, self.position, 1).is_empty()
    }

    async fn ready(&mut self) {
        let inner = Arc::clone(&self.bus.0);
        loop {
            let mut arrived = std::pin::pin!(inner.arrived.notified());
            arrived.as_mut().enable();
            if !self.bus.from(self.topic, self.partition, self.position, 1).is_empty() {
                return;
            }
            arrived.await;
        }
    }
}

/// Acknowledges at once.
struct Carrier {
    bus: MemoryBus,
    shard: ShardId,
    published_seq: i64,
}

#[async_trait]
impl Relay for Carrier {
    fn fits(&self, _: &Envelope, _: usize) -> Result<(), String> {
        Ok(())
    }

    async fn publish(&mut self, first_seq: i64, parcels: Vec<Parcel>) -> Result<(), RelayError> {
        let messages: Vec<_> = parcels.iter().flat_map(Parcel::messages).collect();
        self.published_seq = first_seq + messages.len() as i64;
        let mut next_seq = self.bus.0.next_seq.lock().unwrap_or_else(PoisonError::into_inner);
        let next_seq = next_seq.entry(self.shard).or_insert(0);
        let known = usize::try_from(*next_seq - first_seq).unwrap_or(0);
        *next_seq = self.published_seq.max(*next_seq);
        self.bus.append(messages.into_iter().skip(known));
        Ok(())
    }

    fn published(&self) -> Result<i64, RelayError> {
        Ok(self.published_seq)
    }
}
