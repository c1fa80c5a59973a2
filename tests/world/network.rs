//! The bus that shards see. Its consumers fail at times; where a relay carries messages, what is under way is distorted
//! here. And because such a bus takes its time, somebody who turns shards by hand must know when all has arrived.

use super::fault::{SharedFaults, broken, lock};
use async_trait::async_trait;
use endstate_events::{Envelope, Topic};
use endstate_outbox::{Bus, BusError, Consumer, Delivered, Outgoing, Parcel, Relay, RelayError, ShardId, StoreError};
use futures_util::future::{BoxFuture, join_all, select_all};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Mutex as Shared;

/// Nothing passes or fails by it but a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a relay is asked what was acknowledged: it tells nobody by itself.
const ASK: Duration = Duration::from_millis(1);

/// So many times a new reader of starts over a bus that carries finds nothing: a broker may answer for other partitions
/// sooner.
const LATE: usize = 8;

/// Messages that are on their way to shards, by partition. It outlives every process.
#[derive(Default)]
pub(crate) struct UnderWay(Mutex<BTreeMap<(Topic, u16), Way>>);

#[derive(Default)]
struct Way {
    /// Handed over, and not taken by anybody yet.
    messages: usize,
    /// The offset behind what was taken: a new owner takes some again.
    next: i64,
}

impl UnderWay {
    fn sent(&self, messages: &[Outgoing]) {
        let mut ways = held(&self.0);
        for message in messages.iter().filter(|message| message.topic.side().is_some()) {
            ways.entry((message.topic, message.partition)).or_default().messages += 1;
        }
    }

    fn took(&self, place: (Topic, u16), taken: &[Delivered]) {
        let mut ways = held(&self.0);
        let way = ways.entry(place).or_default();
        let known = way.next;
        for record in taken.iter().filter(|record| record.offset >= known) {
            way.next = record.next;
            // What others than this world have sent is not counted.
            way.messages = way.messages.saturating_sub(1);
        }
    }

    /// Whether something comes to one who has read up to `next`: something that nobody has taken, or what another owner
    /// took, maybe in vain.
    fn is_open(&self, place: (Topic, u16), next: i64) -> bool {
        held(&self.0).get(&place).is_some_and(|way| way.messages > 0 || next < way.next)
    }
}

/// The bus of one process, as its shards see it.
pub(crate) struct Network {
    inner: Arc<dyn Bus>,
    faults: SharedFaults,
    under_way: Arc<UnderWay>,
    /// What its shards read and write at present.
    queues: Mutex<Vec<Weak<Queue>>>,
    carriers: Mutex<Vec<Weak<Shared<Carrier>>>>,
    /// As [`LATE`], or never.
    late: usize,
}

/// The consumer of a partition, which its shard takes from and the world waits at.
struct Queue {
    place: (Topic, u16),
    consumer: Shared<Box<dyn Consumer>>,
    /// Whether its shard has taken of late: who has no room for more does not.
    taken: AtomicBool,
    at_end: AtomicBool,
    /// The position behind what was taken.
    next: AtomicI64,
    /// How often it still finds nothing.
    late: AtomicUsize,
}

impl Queue {
    fn is_late(&self) -> bool {
        self.late.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |late| late.checked_sub(1)).is_ok()
    }
}

impl Network {
    /// `delivers`: whether the bus hands messages over by itself, with their commit.
    pub(crate) fn new(
        inner: Arc<dyn Bus>,
        faults: SharedFaults,
        under_way: Arc<UnderWay>,
        delivers: bool,
    ) -> Arc<Self> {
        let late = if delivers { 0 } else { LATE };
        Arc::new(Self { inner, faults, under_way, queues: Mutex::default(), carriers: Mutex::default(), late })
    }

    fn queues(&self) -> Vec<Arc<Queue>> {
        living(&self.queues)
    }

    /// From now on it counts who takes.
    pub(crate) fn mark(&self) {
        self.queues().iter().for_each(|queue| queue.taken.store(false, Ordering::Relaxed));
    }

    /// After a turn of all shards: waits for a message that is under way to one of those that took. False when there is
    /// none.
    pub(crate) async fn comes(&self) -> bool {
        let waits = |queue: &Arc<Queue>| {
            let next = queue.next.load(Ordering::Relaxed);
            queue.taken.load(Ordering::Relaxed) && self.under_way.is_open(queue.place, next)
        };
        let awaited: Vec<_> = self.queues().into_iter().filter(waits).collect();
        if awaited.is_empty() {
            return false;
        }
        let ready = awaited.iter().map(|queue| Box::pin(async { queue.consumer.lock().await.ready().await }));
        tokio::time::timeout(PATIENCE, select_all(ready)).await.expect("what is in the partition arrives");
        true
    }

    /// Waits until the broker has all that shards have handed over, and has told where its partitions end now.
    pub(crate) async fn settle(&self) {
        for carrier in living(&self.carriers) {
            let acknowledged = async {
                while carrier.lock().await.is_open() {
                    tokio::time::sleep(ASK).await;
                }
            };
            tokio::time::timeout(PATIENCE, acknowledged).await.expect("the broker acknowledges");
        }
        let queues = self.queues();
        let looked = async {
            loop {
                let mut looks = Vec::new();
                for queue in &queues {
                    looks.push(queue.consumer.lock().await.look());
                }
                if join_all(looks).await.into_iter().all(|known| known) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, looked).await.expect("the broker tells where partitions end");
    }

    /// After that, and a turn of all shards: partitions that were not read to their end.
    pub(crate) fn unread(&self) -> Vec<(Topic, u16)> {
        let unread = self.queues().into_iter().filter(|queue| !queue.at_end.load(Ordering::Relaxed));
        unread.map(|queue| queue.place).collect()
    }

    /// How far shards have read their partitions.
    pub(crate) fn read_to(&self) -> BTreeMap<(String, i64), i64> {
        let place = |queue: Arc<Queue>| {
            let (topic, partition) = queue.place;
            ((topic.label().to_owned(), i64::from(partition)), queue.next.load(Ordering::Relaxed))
        };
        self.queues().into_iter().map(place).collect()
    }
}

fn living<T>(all: &Mutex<Vec<Weak<T>>>) -> Vec<Arc<T>> {
    let mut all = held(all);
    all.retain(|one| one.strong_count() > 0);
    all.iter().filter_map(Weak::upgrade).collect()
}

fn held<T>(all: &Mutex<T>) -> MutexGuard<'_, T> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Bus for Network {
    async fn produce(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        self.under_way.sent(&messages);
        self.inner.produce(messages).await
    }

    fn consumer(&self, topic: Topic, partition: u16, position: i64) -> Box<dyn Consumer> {
        let consumer = Shared::new(self.inner.consumer(topic, partition, position));
        let (taken, at_end, next) = (AtomicBool::new(false), AtomicBool::new(false), AtomicI64::new(position));
        let late = AtomicUsize::new(if topic == Topic::Start { self.late } else { 0 });
        let queue = Arc::new(Queue { place: (topic, partition), consumer, taken, at_end, next, late });
        held(&self.queues).push(Arc::downgrade(&queue));
        let (faults, under_way) = (Arc::clone(&self.faults), Arc::clone(&self.under_way));
        Box::new(FaultyConsumer { queue, faults, under_way })
    }

    fn relay(&self, shard: ShardId, published_seq: i64) -> Option<Box<dyn Relay>> {
        let inner = self.inner.relay(shard, published_seq)?;
        let carrier = Carrier { inner, next_seq: published_seq, published_seq, open: VecDeque::new() };
        let carrier = Arc::new(Shared::new(carrier));
        held(&self.carriers).push(Arc::downgrade(&carrier));
        let (faults, under_way) = (Arc::clone(&self.faults), Arc::clone(&self.under_way));
        Some(Box::new(FaultyRelay { carrier, faults, under_way }))
    }
}

struct FaultyConsumer {
    queue: Arc<Queue>,
    faults: SharedFaults,
    under_way: Arc<UnderWay>,
}

#[async_trait]
impl Consumer for FaultyConsumer {
    async fn take(&mut self, limit: usize) -> Result<Vec<Delivered>, StoreError> {
        if lock(&self.faults).fails_to_take() {
            return Err(broken("take"));
        }
        if self.queue.is_late() {
            self.queue.taken.store(true, Ordering::Relaxed);
            return Ok(Vec::new());
        }
        let mut consumer = self.queue.consumer.lock().await;
        let taken = consumer.take(limit).await?;
        self.under_way.took(self.queue.place, &taken);
        if let Some(last) = taken.last() {
            self.queue.next.store(last.next, Ordering::Relaxed);
        }
        self.queue.at_end.store(consumer.at_end(), Ordering::Relaxed);
        self.queue.taken.store(true, Ordering::Relaxed);
        Ok(taken)
    }

    fn at_end(&self) -> bool {
        self.queue.at_end.load(Ordering::Relaxed)
    }

    fn look(&mut self) -> BoxFuture<'static, bool> {
        self.queue.consumer.try_lock().expect("one thing happens at a time").look()
    }

    async fn ready(&mut self) {
        self.queue.consumer.lock().await.ready().await;
    }
}

/// What a relay really carries. The network loses and doubles messages, so it numbers them anew.
struct Carrier {
    inner: Box<dyn Relay>,
    next_seq: i64,
    /// By the shard's numbers.
    published_seq: i64,
    /// What was handed over: the shard's number behind it, and ours.
    open: VecDeque<(i64, i64)>,
}

impl Carrier {
    fn published(&mut self) -> Result<i64, RelayError> {
        let acknowledged = self.inner.published()?;
        while let Some((theirs, _)) = self.open.pop_front_if(|(_, ours)| *ours <= acknowledged) {
            self.published_seq = theirs;
        }
        Ok(self.published_seq)
    }

    /// Whether something is unacknowledged that still may be.
    fn is_open(&mut self) -> bool {
        self.published().is_ok() && !self.open.is_empty()
    }
}

struct FaultyRelay {
    carrier: Arc<Shared<Carrier>>,
    faults: SharedFaults,
    under_way: Arc<UnderWay>,
}

#[async_trait]
impl Relay for FaultyRelay {
    fn fits(&self, envelope: &Envelope, bytes: usize) -> Result<(), String> {
        self.carrier.try_lock().expect("one thing happens at a time").inner.fits(envelope, bytes)
    }

    async fn publish(&mut self, first_seq: i64, parcels: Vec<Parcel>) -> Result<(), RelayError> {
        let count = |parcels: &[Parcel]| parcels.iter().map(Parcel::len).sum::<usize>() as i64;
        let behind = first_seq + count(&parcels);
        let arrives = lock(&self.faults).carry(parcels.iter().flat_map(Parcel::messages).collect());
        self.under_way.sent(&arrives);
        let mut carrier = self.carrier.lock().await;
        let parcels =
            Parcel::pack(arrives, |envelope, bytes| carrier.inner.fits(envelope, bytes)).map_err(RelayError)?;
        let first = carrier.next_seq;
        carrier.next_seq += count(&parcels);
        let ours = carrier.next_seq;
        carrier.open.push_back((behind, ours));
        if parcels.is_empty() { Ok(()) } else { carrier.inner.publish(first, parcels).await }
    }

    fn published(&self) -> Result<i64, RelayError> {
        self.carrier.try_lock().expect("one thing happens at a time").published()
    }
}
