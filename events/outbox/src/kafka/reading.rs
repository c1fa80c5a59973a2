//! What the reading thread does: it assigns partitions, takes what they bring, and lets go of those in which something is
//! wrong.
//!
//! Never `split_partition_queue`: a partition read through it can stall for ever (rust-rdkafka pull request 840).

use super::context::{Context, Ends};
use super::look::{self, Look, Purpose};
use super::passed;
use super::position;
use super::reader::{Places, Wish, failed};
use super::settings::{ANSWER, KafkaSettings};
use super::slot::{Next, Slot};
use super::topics::Names;
use super::window::Place;
use crate::metric::Metric;
use crate::store::StoreError;
use endstate_events::Environment;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use rustc_hash::FxHashMap;
use std::sync::{Arc, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long the thread waits for records before it looks for wishes of shards.
const POLL: Duration = Duration::from_millis(10);

/// Records that are read between two looks for wishes.
const ROUND: usize = 512;

/// How often the client is asked how far it is while a partition seems to be behind: as often as a due timer looks.
const PASSING: Duration = Duration::from_millis(20);

/// The thread's own state.
pub(super) struct Reading {
    pub(super) consumer: Arc<BaseConsumer<Context>>,
    pub(super) names: Names,
    environment: Environment,
    /// For answers of those who look.
    wishes: mpsc::Sender<Wish>,
    /// Partitions that are looked at before they are read, and for whom.
    awaited: FxHashMap<Place, u64>,
    slots: FxHashMap<Place, Slot>,
    places: Places,
    ends: Ends,
}

impl Reading {
    pub(super) fn new(settings: &KafkaSettings, wishes: &mpsc::Sender<Wish>, places: &Places) -> KafkaResult<Self> {
        let ends = Ends::default();
        let consumer = BaseConsumer::from_config_and_context(&settings.reader(), Context::telling(&ends))?;
        Ok(Self {
            consumer: Arc::new(consumer),
            names: Names::of(&settings.environment),
            environment: settings.environment.clone(),
            wishes: wishes.clone(),
            awaited: FxHashMap::default(),
            slots: FxHashMap::default(),
            places: places.clone(),
            ends,
        })
    }

    pub(super) fn run(mut self, wished: &mpsc::Receiver<Wish>) {
        let (mut told, mut passed) = (Instant::now(), Instant::now());
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
                told = Instant::now();
                self.tell();
            }
            if passed.elapsed() > PASSING {
                passed = Instant::now();
                self.pass();
            }
        }
    }

    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Assign { place, position, record, generation, queue } => {
                self.release(place);
                self.awaited.insert(place, generation);
                self.places.lock().insert(place, Arc::clone(&queue));
                self.look(Look { place, position, generation, purpose: Purpose::Assign(queue, record) });
            }
            Wish::Release { place, generation } => {
                if self.is_current(place, generation) || self.awaited.get(&place) == Some(&generation) {
                    self.release(place);
                }
            }
            Wish::Resume { place, generation } if self.is_current(place, generation) => self.resume(place),
            Wish::Looked { look, ends } => self.looked(look, ends),
            Wish::Unseen { place, generation } => {
                if self.is_current(place, generation) || self.awaited.get(&place) == Some(&generation) {
                    self.fail(place, failed("nobody could look at the log"));
                }
            }
            Wish::Resume { .. } | Wish::Stop => {}
        }
    }

    fn is_current(&self, place: Place, generation: u64) -> bool {
        self.slots.get(&place).is_some_and(|slot| slot.generation == generation)
    }

    fn look(&self, look: Look) {
        look::at(&self.consumer, self.name(look.place), look, &self.wishes);
    }

    fn resume(&mut self, place: Place) {
        let Some(slot) = self.slots.get(&place) else { return };
        let (position, generation) = (position::of(place.0, slot.next, 0), slot.generation);
        match self.consumer.resume(&self.list(place, None)) {
            Ok(()) => self.look(Look { place, position, generation, purpose: Purpose::Resume }),
            Err(error) => self.fail(place, failed(&error.to_string())),
        }
    }

    /// Somebody has looked; what for may be over by now.
    fn looked(&mut self, look: Look, ends: Result<(i64, i64), StoreError>) {
        let Look { place, position, generation, purpose } = look;
        let (offset, message) = position::split(place.0, position);
        // Of a record that was read in part, the rest must be there.
        let needed = offset + i64::from(message > 0);
        let ends = ends.and_then(|ends| self.fits(place, (offset, needed), ends).map(|()| ends));
        match purpose {
            Purpose::Assign(queue, record) if self.awaited.get(&place) == Some(&generation) => {
                self.awaited.remove(&place);
                let begun = ends.and_then(|(low, high)| {
                    // The last that was read, unless it is too old to be kept: the log goes on from there, or is another.
                    let witness = record.map(|hash| (needed - 1, hash)).filter(|(at, _)| *at >= low);
                    let next = witness.map_or(offset, |(at, _)| at);
                    queue.ends(position::of(place.0, high, 0));
                    if next < offset {
                        // Before it is seen nothing is known to be read.
                        queue.begins(position::of(place.0, next, 0));
                    }
                    self.assign(place, next).map(|()| witness)
                });
                let witness = match begun {
                    Ok(witness) => witness,
                    Err(error) => {
                        self.places.lock().remove(&place);
                        return queue.fail(error);
                    }
                };
                let stale = match passed::forgotten(&self.consumer, &self.names, place) {
                    Ok(stale) => stale,
                    Err(error) => {
                        self.unassign(place);
                        self.places.lock().remove(&place);
                        return queue.fail(failed(&error.to_string()));
                    }
                };
                self.slots.insert(place, Slot::of(generation, queue, (offset, message), witness, stale));
            }
            Purpose::Resume | Purpose::Doubt if self.is_current(place, generation) => {
                let (low, high) = match ends {
                    Ok(ends) => ends,
                    Err(error) => return self.fail(place, error),
                };
                let Some(slot) = self.slots.get_mut(&place) else { return };
                if matches!(purpose, Purpose::Resume) {
                    return slot.queue.ends(position::of(place.0, high, 0));
                }
                slot.looked_at = false;
                let next = slot.begin_anew(low);
                // An error stopped its fetching, or another's: begin anew where it was.
                self.assign_again(place, next);
            }
            Purpose::Assign(..) | Purpose::Resume | Purpose::Doubt => {}
        }
    }

    /// The log must hold what it `needed` to have for our offset, or end there.
    fn fits(&self, place: Place, (offset, needed): (i64, i64), (low, high): (i64, i64)) -> Result<(), StoreError> {
        let reason = if offset < low {
            format!("it begins at {low}, what lay before was deleted unread")
        } else if needed > high {
            format!("it ends at {high}: it was made anew, or has lost records that were read")
        } else {
            return Ok(());
        };
        Err(self.lost(place, offset, reason))
    }

    /// The log is not the one that is to be read on.
    fn lost(&self, place: Place, offset: i64, reason: String) -> StoreError {
        Metric::LostPositions.add(1, &[place.0.label()]);
        let lost = StoreError::Lost { topic: self.name(place).to_owned(), partition: place.1, offset, reason };
        tracing::error!("{lost}");
        lost
    }

    /// Another record is where the last was that was read.
    fn another(&mut self, place: Place, at: i64) {
        let reason =
            format!("at {at} is another record than was read: it was made anew, or has lost records and grown again");
        let lost = self.lost(place, at + 1, reason);
        self.fail(place, lost);
    }

    fn assign(&self, place: Place, offset: i64) -> Result<(), StoreError> {
        let list = self.list(place, Some(offset));
        // Whoever had it before may have left it paused.
        let assigned = self.consumer.incremental_assign(&list).and_then(|()| self.consumer.resume(&list));
        assigned.map_err(|error| failed(&error.to_string()))
    }

    /// Reads on from `next` in the same assignment.
    fn assign_again(&mut self, place: Place, next: i64) {
        self.unassign(place);
        if let Err(error) = self.assign(place, next) {
            return self.fail(place, error);
        }
        let stale = match passed::forgotten(&self.consumer, &self.names, place) {
            Ok(stale) => stale,
            Err(error) => return self.fail(place, failed(&error.to_string())),
        };
        self.slots.get_mut(&place).into_iter().for_each(|slot| slot.stale = stale);
    }

    /// Where more should be than was read, the rest may be no message.
    fn pass(&mut self) {
        if !self.slots.values().any(|slot| slot.queue.is_behind()) {
            return;
        }
        let told = match passed::offsets(&self.consumer, &self.names) {
            Ok(told) => told,
            Err(error) => return tracing::debug!(%error, "how far the client is it does not tell"),
        };
        let mut others = Vec::new();
        for (place, slot) in &mut self.slots {
            let offset = told.get(place).copied();
            slot.stale = slot.stale.filter(|stale| offset == Some(*stale));
            let Some(offset) = offset.filter(|offset| slot.stale.is_none() && *offset > slot.next) else { continue };
            match slot.witness {
                // Nothing is where it was.
                Some((at, _)) => others.push((*place, at)),
                None => {
                    slot.next = offset;
                    slot.queue.passed(position::of(place.0, offset, 0));
                }
            }
        }
        others.into_iter().for_each(|(place, at)| self.another(place, at));
    }

    fn release(&mut self, place: Place) {
        if self.awaited.remove(&place).is_some() {
            self.places.lock().remove(&place);
        }
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
        if let Some(queue) = self.places.lock().get(&place) {
            queue.fail(error);
        }
        self.release(place);
    }

    /// Reads what is there, at most one round.
    fn round(&mut self) {
        let mut wait = POLL;
        for _ in 0..ROUND {
            let next = match self.consumer.poll(wait) {
                None => return,
                Some(Ok(record)) => arrived(&mut self.slots, &self.names, &self.environment, &record),
                Some(Err(error)) => return self.trouble(&error),
            };
            match next {
                Next::More => {}
                Next::Pause(place) => {
                    if let Err(error) = self.consumer.pause(&self.list(place, None)) {
                        self.fail(place, failed(&error.to_string()));
                    }
                }
                Next::ReadAgain(place, offset) => self.assign_again(place, offset),
                Next::Another(place, at) => self.another(place, at),
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
        let places: Vec<Place> = self.slots.keys().copied().collect();
        for place in places {
            let Some(slot) = self.slots.get_mut(&place) else { continue };
            if everywhere {
                self.fail(place, failed(&error.to_string()));
            } else if !std::mem::replace(&mut slot.looked_at, true) {
                let (position, generation) = (position::of(place.0, slot.next, 0), slot.generation);
                self.look(Look { place, position, generation, purpose: Purpose::Doubt });
            }
        }
    }

    /// Tells how far each partition is.
    fn tell(&self) {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, slot) in &self.slots {
            let (position, waiting) = slot.queue.place();
            let end = ends.get(&(self.name(*place).to_owned(), i32::from(place.1)));
            end.iter().for_each(|end| slot.queue.grows(position::of(place.0, **end, 0)));
            let lag = end.map_or(0, |end| (end - position::split(place.0, position).0).max(0));
            gauges(*place, lag as f64, waiting as f64);
        }
    }

    fn name(&self, place: Place) -> &str {
        self.names.get(place.0)
    }

    fn list(&self, place: Place, offset: Option<i64>) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(1);
        let offset = offset.map_or(Offset::Invalid, Offset::Offset);
        if let Err(error) = list.add_partition_offset(self.name(place), i32::from(place.1), offset) {
            // Only an offset below zero is refused, and no shard row has one.
            tracing::error!(%error, "an offset cannot be expressed");
        }
        list
    }
}

impl Drop for Reading {
    /// Others may still ask the client where partitions end; nobody takes its records any more.
    fn drop(&mut self) {
        self.consumer.unassign().ok();
    }
}

fn arrived(
    slots: &mut FxHashMap<Place, Slot>,
    names: &Names,
    environment: &Environment,
    record: &BorrowedMessage<'_>,
) -> Next {
    let place = names.find(record.topic()).zip(u16::try_from(record.partition()).ok());
    let slot = place.and_then(|place| Some((place, slots.get_mut(&place)?)));
    slot.map_or(Next::More, |(place, slot)| slot.arrived(place, environment, record))
}

fn gauges((topic, partition): Place, lag: f64, waiting: f64) {
    let partition = partition.to_string();
    Metric::LagRecords.set(lag, &[topic.label(), &partition]);
    Metric::HandedOverRecords.set(waiting, &[topic.label(), &partition]);
}
