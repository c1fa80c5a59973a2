//! The one data consumer of a process, on a thread of its own. It belongs to no group: each partition is assigned by
//! hand, at the position that the database names (Z3), and its records go to the shard's queue.
//!
//! Never `split_partition_queue`: a partition read through it can stall for ever (rust-rdkafka pull request 840).

use super::assigned::Assigned;
use super::hand_over::HandOver;
use super::metric;
use super::settings::{ANSWER, KafkaSettings};
use super::topics::Names;
use super::watermark::Watermarks;
use super::window::Place;
use super::wire;
use crate::bus::{Consumer, Delivered};
use crate::metric::Metric;
use crate::store::StoreError;
use endstate_events::Environment;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long the thread waits for records before it looks for wishes of shards.
const POLL: Duration = Duration::from_millis(10);

/// Records that are read between two looks for wishes.
const ROUND: usize = 512;

/// The queues of the partitions that are read, for whoever tells how far they are.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<FxHashMap<Place, Arc<HandOver>>>>);

impl Places {
    pub(super) fn lock(&self) -> MutexGuard<'_, FxHashMap<Place, Arc<HandOver>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread, as shards see it.
pub(super) struct Reader {
    wishes: mpsc::Sender<Wish>,
    generations: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
    pub(super) places: Places,
    watermarks: Watermarks,
}

/// What shards want of the thread. A wish of an older generation is forgotten.
pub(super) enum Wish {
    Assign { place: Place, position: i64, generation: u64, queue: Arc<HandOver> },
    Release { place: Place, generation: u64 },
    Resume { place: Place, generation: u64 },
    Stop,
}

impl Reader {
    pub(super) fn start(settings: &KafkaSettings) -> KafkaResult<Self> {
        let ends = Ends::default();
        let consumer = BaseConsumer::from_config_and_context(&settings.reader(), Context { ends: ends.clone() })?;
        let consumer = Arc::new(consumer);
        let (wishes, wished) = mpsc::channel();
        let places = Places::default();
        let names = Names::of(&settings.environment);
        let environment = settings.environment.clone();
        let shown = places.clone();
        let watermarks = Watermarks::new(Arc::clone(&consumer), names.clone());
        let reading = Reading { consumer, names, environment, slots: FxHashMap::default(), places: shown, ends };
        let thread = std::thread::Builder::new()
            .name("kafka-reader".into())
            .spawn(move || reading.run(&wished))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { wishes, generations: AtomicU64::new(1), thread: Mutex::new(Some(thread)), places, watermarks })
    }

    /// Reads a partition from `position` on.
    pub(super) fn read(&self, place: Place, position: i64) -> Box<dyn Consumer> {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let queue = Arc::new(HandOver::from(position));
        let wish = Wish::Assign { place, position, generation, queue: Arc::clone(&queue) };
        if self.wishes.send(wish).is_err() {
            queue.fail(failed("the bus is closed"));
        }
        let (wishes, watermarks) = (self.wishes.clone(), self.watermarks.clone());
        Box::new(Assigned { queue, place, generation, wishes, watermarks, at_end: false })
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.wishes.send(Wish::Stop).ok();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the reading thread of the bus has panicked");
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The ends of partitions, as statistics tell them.
type Ends = Arc<Mutex<FxHashMap<(String, i32), i64>>>;

pub(super) struct Context {
    ends: Ends,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        metric::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "the consumer has trouble");
    }

    fn stats(&self, statistics: Statistics) {
        metric::client(&statistics);
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in statistics.topics.values() {
            for (partition, told) in topic.partitions.iter().filter(|(_, told)| told.hi_offset >= 0) {
                ends.insert((topic.topic.clone(), *partition), told.hi_offset);
            }
        }
    }
}

impl ConsumerContext for Context {}

/// One partition that is read.
struct Slot {
    generation: u64,
    queue: Arc<HandOver>,
    /// The offset that comes next.
    next: i64,
    /// The offset behind which a gap was seen once.
    doubted: Option<i64>,
}

/// The thread's own state.
struct Reading {
    consumer: Arc<BaseConsumer<Context>>,
    names: Names,
    environment: Environment,
    slots: FxHashMap<Place, Slot>,
    places: Places,
    ends: Ends,
}

impl Reading {
    fn run(mut self, wished: &mpsc::Receiver<Wish>) {
        let mut told = std::time::Instant::now();
        loop {
            loop {
                match wished.try_recv() {
                    Ok(Wish::Stop) | Err(mpsc::TryRecvError::Disconnected) => return,
                    Ok(wish) => self.grant(wish),
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            self.round();
            if told.elapsed() > ANSWER {
                told = std::time::Instant::now();
                self.tell();
            }
        }
    }

    fn grant(&mut self, wish: Wish) {
        let current = |slots: &FxHashMap<Place, Slot>, place, generation| {
            slots.get(&place).is_some_and(|slot| slot.generation == generation)
        };
        match wish {
            Wish::Assign { place, position, generation, queue } => {
                self.release(place);
                let assigned = self.check(place, position).and_then(|end| {
                    queue.ends(end);
                    self.assign(place, position)
                });
                if let Err(error) = assigned {
                    return queue.fail(error);
                }
                self.places.lock().insert(place, Arc::clone(&queue));
                self.slots.insert(place, Slot { generation, queue, next: position, doubted: None });
            }
            Wish::Release { place, generation } if current(&self.slots, place, generation) => self.release(place),
            Wish::Resume { place, generation } if current(&self.slots, place, generation) => self.resume(place),
            Wish::Release { .. } | Wish::Resume { .. } | Wish::Stop => {}
        }
    }

    fn resume(&mut self, place: Place) {
        let Some(next) = self.slots.get(&place).map(|slot| slot.next) else { return };
        let resumed = self.check(place, next).and_then(|end| {
            let resumed = self.consumer.resume(&self.list(place, None));
            resumed.map(|()| end).map_err(|error| failed(&error.to_string()))
        });
        match (resumed, self.slots.get(&place)) {
            (Ok(end), Some(slot)) => slot.queue.ends(end),
            (Err(error), _) => self.fail(place, error),
            (Ok(_), None) => {}
        }
    }

    /// The log must hold our position, or end there. Returns its end.
    fn check(&self, place: Place, position: i64) -> Result<i64, StoreError> {
        let (topic, partition) = (self.name(place), place.1);
        let ends = self.consumer.fetch_watermarks(topic, i32::from(partition), ANSWER);
        let (low, high) = ends.map_err(|error| failed(&format!("{topic}/{partition}: {error}")))?;
        let reason = if position < low {
            format!("it begins at {low}, what lay before was deleted unread")
        } else if position > high {
            format!("it ends at {high}: it was made anew, or has lost records that were read")
        } else {
            return Ok(high);
        };
        Metric::LostPositions.add(1, &[place.0.label()]);
        let lost = StoreError::Lost { topic: topic.to_owned(), partition, position, reason };
        tracing::error!("{lost}");
        Err(lost)
    }

    fn assign(&self, place: Place, position: i64) -> Result<(), StoreError> {
        let list = self.list(place, Some(position));
        // Whoever had it before may have left it paused.
        let assigned = self.consumer.incremental_assign(&list).and_then(|()| self.consumer.resume(&list));
        assigned.map_err(|error| failed(&error.to_string()))
    }

    fn release(&mut self, place: Place) {
        if self.slots.remove(&place).is_none() {
            return;
        }
        self.places.lock().remove(&place);
        gauges(place, 0.0, 0.0);
        self.unassign(place);
    }

    fn unassign(&self, place: Place) {
        if let Err(error) = self.consumer.incremental_unassign(&self.list(place, None)) {
            tracing::warn!(%error, topic = self.name(place), partition = place.1, "a partition is not released");
        }
    }

    fn fail(&mut self, place: Place, error: StoreError) {
        if let Some(slot) = self.slots.get(&place) {
            slot.queue.fail(error);
        }
        self.release(place);
    }

    /// Reads what is there, at most one round.
    fn round(&mut self) {
        let mut wait = POLL;
        for _ in 0..ROUND {
            let full = match self.consumer.poll(wait) {
                None => return,
                Some(Ok(record)) => arrived(&mut self.slots, &self.names, &self.environment, &record),
                Some(Err(error)) => return self.trouble(&error),
            };
            match full {
                Next::More => {}
                Next::Pause(place) => {
                    if let Err(error) = self.consumer.pause(&self.list(place, None)) {
                        self.fail(place, failed(&error.to_string()));
                    }
                }
                Next::ReadAgain(place, position) => {
                    self.unassign(place);
                    if let Err(error) = self.assign(place, position) {
                        self.fail(place, error);
                    }
                }
            }
            wait = Duration::ZERO;
        }
    }

    /// An error says what happened, but not where.
    fn trouble(&mut self, error: &KafkaError) {
        use RDKafkaErrorCode as Code;
        let code = error.rdkafka_error_code();
        let everywhere = match code {
            Some(
                Code::AutoOffsetReset
                | Code::OffsetOutOfRange
                | Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::TopicAuthorizationFailed,
            ) => false,
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => true,
            _ => return tracing::debug!(%error, "the consumer goes on"),
        };
        tracing::warn!(%error, "positions are checked");
        let places: Vec<(Place, i64)> = self.slots.iter().map(|(place, slot)| (*place, slot.next)).collect();
        for (place, next) in places {
            let checked = if everywhere { Err(failed(&error.to_string())) } else { self.check(place, next) };
            match checked {
                Err(error) => self.fail(place, error),
                // The error stopped its fetching, or another's: begin anew where it was.
                Ok(_) => {
                    self.unassign(place);
                    if let Err(error) = self.assign(place, next) {
                        self.fail(place, error);
                    }
                }
            }
        }
    }

    /// Tells how far each partition is.
    fn tell(&self) {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, slot) in &self.slots {
            let (position, waiting) = slot.queue.place();
            let end = ends.get(&(self.name(*place).to_owned(), i32::from(place.1)));
            end.iter().for_each(|end| slot.queue.grows(**end));
            let lag = end.map_or(0, |end| (end - position).max(0));
            gauges(*place, lag as f64, waiting as f64);
        }
    }

    fn name(&self, place: Place) -> &str {
        self.names.get(place.0)
    }

    fn list(&self, place: Place, position: Option<i64>) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(1);
        let offset = position.map_or(Offset::Invalid, Offset::Offset);
        if let Err(error) = list.add_partition_offset(self.name(place), i32::from(place.1), offset) {
            // Only an offset below zero is refused, and no shard row has one.
            tracing::error!(%error, "a position cannot be expressed");
        }
        list
    }
}

/// What a record calls for.
enum Next {
    More,
    Pause(Place),
    ReadAgain(Place, i64),
}

fn arrived(
    slots: &mut FxHashMap<Place, Slot>,
    names: &Names,
    environment: &Environment,
    record: &BorrowedMessage<'_>,
) -> Next {
    let Some(place) = names.find(record.topic()).zip(u16::try_from(record.partition()).ok()) else { return Next::More };
    let Some(slot) = slots.get_mut(&place) else { return Next::More };
    let offset = record.offset();
    if offset < slot.next {
        // Of an older assignment.
        return Next::More;
    }
    if offset > slot.next && slot.doubted != Some(slot.next) {
        // Of an older assignment as well, or a gap that the broker really has (marks of a transaction, compaction): what
        // a second reading shows is true.
        slot.doubted = Some(slot.next);
        return Next::ReadAgain(place, slot.next);
    }
    slot.next = offset + 1;
    let (envelope, bytes) = (wire::unpack(record, place.0, environment), record.payload_len() + record.key_len());
    let read = Delivered { topic: place.0, offset, envelope, bytes };
    if slot.queue.put(read, bytes) { Next::Pause(place) } else { Next::More }
}

fn gauges((topic, partition): Place, lag: f64, waiting: f64) {
    let partition = partition.to_string();
    Metric::LagRecords.set(lag, &[topic.label(), &partition]);
    Metric::HandedOverRecords.set(waiting, &[topic.label(), &partition]);
}

fn failed(reason: &str) -> StoreError {
    StoreError::Failed { statement: "bus.read".to_owned(), reason: reason.to_owned() }
}
