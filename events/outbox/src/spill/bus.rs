//! A bus over a broker that may be away: what it does not acknowledge in time is spilled.
//!
//! Each partition is judged by itself. After a failure its messages are spilled at once, but for one in a while, which
//! tries the broker: the first that is acknowledged ends the spilling, and nothing else does. The broker of a partition that
//! gets none is asked: one that answers may be ready again, but whether it takes a message only a message shows.

use super::appends::Appends;
use super::reader::Ends;
use super::{Place, Spill};
use crate::alert::{self, Alert};
use crate::bus::{Bus, BusError, Consumer, Outgoing, Relay};
use crate::clock::Clock;
use crate::metric::Metric;
use crate::store::{Commit, ShardId, Store, StoreError};
use async_trait::async_trait;
use endstate_events::{ForeignTopic, Side, Topic};
use futures_util::StreamExt as _;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How often a broker that did not answer is tried again, by one message for each partition.
const TRY_AGAIN_MS: i64 = 1_000;

/// After that long without a message the broker of a partition is asked whether it answers: nobody else would find out.
const IDLE_MS: i64 = 5_000;

/// Brokers of partitions that are asked at a time; each may take seconds.
const ASKED: usize = 8;

/// How often the table is looked at for what other processes have spilled.
const LOOK: Duration = Duration::from_millis(500);

/// Numbers that one deletion covers, for each place.
const FORGET: i64 = 1_000;

/// People are told once in so long that messages are spilled.
const TELL_MS: i64 = 3_600_000;

/// When messages are spilled, and how many.
#[derive(Clone, Copy, Debug)]
pub struct SpillSettings {
    /// How long the broker may take to acknowledge a message; then it is spilled as well.
    pub patience: Duration,
    /// Messages that may wait in the table, of all shards together; then calls are refused. Known here within half a
    /// second, so that it may be a few more.
    pub most: i64,
}

/// A broker that did not take a message.
#[derive(Clone, Copy, PartialEq)]
struct Away {
    /// When one of the partition's messages tries it again.
    again_ms: i64,
    /// It answers questions since.
    answers: bool,
}

/// A bus that spills what its broker does not take.
pub struct SpillingBus {
    inner: Arc<dyn Bus>,
    store: Arc<dyn Store>,
    spill: Arc<dyn Spill>,
    clock: Arc<dyn Clock>,
    settings: SpillSettings,
    appends: Appends,
    ends: Arc<Ends>,
    /// Partitions whose broker did not take a message.
    away: Mutex<FxHashMap<Place, Away>>,
    /// When people were told last, in units of [`TELL_MS`].
    told: AtomicI64,
}

impl SpillingBus {
    /// Over this bus; `store` takes the alerts.
    #[must_use]
    pub fn new(
        inner: Arc<dyn Bus>,
        store: Arc<dyn Store>,
        spill: Arc<dyn Spill>,
        clock: Arc<dyn Clock>,
        settings: SpillSettings,
    ) -> Arc<Self> {
        let ends = Ends::of(Arc::clone(&spill));
        let grown = Arc::clone(&ends);
        let appends = Appends::new(Arc::clone(&spill), Arc::new(move |touched| grown.grow(touched)));
        let (away, told) = (Mutex::default(), AtomicI64::new(0));
        Arc::new(Self { inner, store, spill, clock, settings, appends, ends, away, told })
    }

    /// Follows what other processes spill, deletes what was read, and asks for brokers that are back, until dropped.
    pub async fn follow(self: Arc<Self>) {
        let looking = async {
            loop {
                if let Err(error) = self.look().await {
                    tracing::debug!(%error, "the table of spilled messages was not looked at");
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let asking = async {
            loop {
                self.ask_idle().await;
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::join!(looking, asking);
    }

    /// Asks once the brokers that were away and that no message has tried for a while.
    pub async fn ask_idle(&self) {
        let now_ms = self.clock.now_ms();
        let is_idle = |again: i64| again < now_ms - IDLE_MS || is_odd(again, now_ms);
        let idle: Vec<(Place, Away)> = self.away().iter().map(|(place, away)| (*place, *away)).collect();
        let idle = idle.into_iter().filter(|(_, away)| is_idle(away.again_ms));
        let asked = idle.map(|(place, away)| async move { (place, away, self.inner.answers(place.0, place.1).await) });
        let mut asked = futures_util::stream::iter(asked).buffer_unordered(ASKED);
        while let Some((place, before, answers)) = asked.next().await {
            // A message that tried meanwhile knows better.
            if answers && let Some(away) = self.away().get_mut(&place).filter(|away| **away == before) {
                *away = Away { again_ms: now_ms, answers };
            }
        }
    }

    /// Looks once, and deletes a page of what was read.
    pub async fn look(&self) -> Result<(), StoreError> {
        self.ends.look().await?;
        self.ends.tell();
        let read = self.ends.all().into_iter().filter_map(|end| {
            let below = end.position.min(end.first? + FORGET);
            (end.first? < below).then_some((end.place, below))
        });
        let read: Vec<_> = read.collect();
        if !read.is_empty() {
            self.spill.forget(&read).await?;
        }
        Ok(())
    }

    /// Whether the broker is tried with these messages.
    fn tries(&self, messages: &[Outgoing]) -> bool {
        let mut away = self.away();
        if away.is_empty() {
            return true;
        }
        let now_ms = self.clock.now_ms();
        let place = |message: &Outgoing| (message.topic, message.partition);
        let waits = |message: &Outgoing| {
            away.get(&place(message)).is_some_and(|away| away.again_ms > now_ms && !is_odd(away.again_ms, now_ms))
        };
        let tries = !messages.iter().any(waits);
        if tries {
            // While this one tries, the others do not wait for what it finds.
            for message in messages {
                away.entry(place(message)).and_modify(|away| away.again_ms = now_ms + TRY_AGAIN_MS);
            }
        }
        tries
    }

    fn answered(&self, messages: &[Outgoing]) {
        let mut away = self.away();
        for message in messages {
            let place = (message.topic, message.partition);
            if away.remove(&place).is_some() {
                back(place);
            }
        }
    }

    fn missed(&self, messages: &[Outgoing], reason: &str) {
        let missed = Away { again_ms: self.clock.now_ms() + TRY_AGAIN_MS, answers: false };
        let mut away = self.away();
        for message in messages {
            if away.insert((message.topic, message.partition), missed).is_none() {
                let (topic, partition) = (message.topic.label(), message.partition);
                tracing::error!(topic, partition, reason, "E4024: the broker does not answer: messages are spilled");
            }
        }
    }

    async fn append(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        let (waiting, most) = (self.ends.waiting(), self.settings.most);
        if waiting >= most {
            Metric::SpillRefused.add(messages.len() as u64, &[]);
            let reason = format!("the broker does not answer, and {waiting} messages wait for it (at most {most} may)");
            return Err(BusError::Full(reason));
        }
        let mut counts = FxHashMap::<Topic, u64>::default();
        messages.iter().for_each(|message| *counts.entry(message.topic).or_default() += 1);
        self.appends.append(messages).await?;
        for (topic, count) in counts {
            Metric::SpilledMessages.add(count, &[topic.label()]);
        }
        self.tell().await;
        Ok(())
    }

    /// Tells people, once in a while.
    async fn tell(&self) {
        let now_ms = self.clock.now_ms();
        let time = now_ms / TELL_MS;
        if self.told.swap(time, Ordering::Relaxed) == time {
            return;
        }
        let text =
            "E4024: the broker does not answer: calls are accepted into the database, and wait there until it does";
        let alert = Alert::new("spill", &[&time], text, now_ms);
        let writes = alert::write(&[alert]).into_iter().collect();
        if let Err(error) = self.store.commit(Commit { writes, ..Commit::default() }).await {
            tracing::warn!(%error, "an alert about spilled messages could not be written");
        }
    }

    fn away(&self) -> MutexGuard<'_, FxHashMap<Place, Away>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the clock has gone back since a partition was missed: then nobody would try it for as long.
fn is_odd(again_ms: i64, now_ms: i64) -> bool {
    again_ms > now_ms + TRY_AGAIN_MS
}

fn back((topic, partition): Place) {
    tracing::info!(topic = topic.label(), partition, "the broker takes messages again: nothing more is spilled");
}

#[async_trait]
impl Bus for SpillingBus {
    async fn produce(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        if messages.iter().any(|message| message.topic.side().is_none()) {
            // What no shard reads is nobody's in the table.
            return self.inner.produce(messages).await;
        }
        if self.tries(&messages) {
            let patience = self.settings.patience;
            let reason = match tokio::time::timeout(patience, self.inner.produce(messages.clone())).await {
                Ok(Ok(())) => {
                    self.answered(&messages);
                    return Ok(());
                }
                Ok(Err(BusError::Unacknowledged(reason))) => reason,
                Ok(Err(refused @ (BusError::Refused(_) | BusError::Full(_)))) => return Err(refused),
                // It may still arrive: then the same input is read twice, and is one.
                Err(_) => format!("no acknowledgement in {patience:?}"),
            };
            self.missed(&messages, &reason);
        }
        self.append(messages).await
    }

    fn consumer(&self, topic: Topic, partition: u16, position: i64) -> Box<dyn Consumer> {
        self.inner.consumer(topic, partition, position)
    }

    fn consumer_behind(&self, topic: Topic, partition: u16, position: i64, record: Option<u32>) -> Box<dyn Consumer> {
        self.inner.consumer_behind(topic, partition, position, record)
    }

    fn spilled(&self, topic: Topic, partition: u16, position: i64) -> Option<Box<dyn Consumer>> {
        Some(self.ends.reader((topic, partition), position))
    }

    async fn answers(&self, topic: Topic, partition: u16) -> bool {
        self.inner.answers(topic, partition).await
    }

    fn is_spilling(&self, topic: Topic, partition: u16) -> bool {
        self.away().get(&(topic, partition)).is_some_and(|away| !away.answers)
    }

    fn is_spilling_any(&self) -> bool {
        self.away().values().any(|away| !away.answers)
    }

    fn relay(&self, shard: ShardId, published_seq: i64) -> Option<Box<dyn Relay>> {
        self.inner.relay(shard, published_seq)
    }

    async fn reach(&self, topic: ForeignTopic, partitions: Option<u16>) -> Result<u16, BusError> {
        self.inner.reach(topic, partitions).await
    }

    async fn edges(&self, topic: ForeignTopic, partition: u16) -> Result<(i64, i64), BusError> {
        self.inner.edges(topic, partition).await
    }

    fn heard(&self, topic: ForeignTopic) -> Option<watch::Receiver<BTreeSet<u16>>> {
        self.inner.heard(topic)
    }

    fn owned(&self, side: Side) -> Option<watch::Receiver<BTreeSet<u16>>> {
        self.inner.owned(side)
    }
}
