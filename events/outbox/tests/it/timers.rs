//! When timers fire: not before the clock can be trusted.

use async_trait::async_trait;
use endstate_events::{Side, Topic};
use endstate_outbox::*;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const SHARD: ShardId = ShardId { side: Side::Participants, index: 2 };

/// A clock that somebody else knows to be right or wrong.
struct Watched {
    clock: ManualClock,
    right: AtomicBool,
    looks: Mutex<usize>,
}

impl Clock for Watched {
    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn look(&self) -> BoxFuture<'static, bool> {
        *self.looks.lock().unwrap() += 1;
        Box::pin(std::future::ready(self.right.load(Ordering::SeqCst)))
    }
}

/// Fires at a time, and again a second later.
struct Alarm {
    due_ms: i64,
    next_ms: i64,
    fired: Arc<Mutex<Vec<i64>>>,
}

impl Handler for Alarm {
    fn topics(&self) -> &[Topic] {
        &[Topic::Commands]
    }
    fn room(&self, _: Topic) -> usize {
        1
    }
    async fn assigned(&mut self, _: &Assignment) -> Result<(), StoreError> {
        Ok(())
    }
    async fn decide(&mut self, batch: &Batch) -> Result<Outcome, DecideError> {
        self.next_ms = self.due_ms;
        if batch.timers_ms.is_some_and(|until| self.due_ms <= until) {
            self.fired.lock().unwrap().push(batch.now_ms);
            self.next_ms = self.due_ms + 1_000;
        }
        Ok(Outcome::default())
    }
    fn committed(&mut self) {
        self.due_ms = self.next_ms;
    }
    fn rolled_back(&mut self) {}
    fn due_ms(&self) -> Option<i64> {
        Some(self.due_ms)
    }
}

#[tokio::test]
async fn z07_no_timer_fires_by_a_clock_that_is_wrong_and_inputs_are_decided_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let watched =
        Arc::new(Watched { clock: ManualClock::new(1_000), right: AtomicBool::new(true), looks: Mutex::default() });
    let fired = Arc::new(Mutex::new(Vec::new()));
    let alarm = Alarm { due_ms: 5_000, next_ms: 0, fired: fired.clone() };
    let mut shard = Shard::new(SHARD, store.clone(), store.bus(), watched.clone(), alarm);
    assert_eq!((shard.turn().await, *watched.looks.lock().unwrap()), (Turn::Idle, 0), "nobody asks without a timer");
    watched.right.store(false, Ordering::SeqCst);
    watched.clock.advance(3_600_000);
    assert!(matches!(shard.turn().await, Turn::Wait(_)), "it is due, by this clock");
    store.bus().produce(vec![crate::send("a")]).await.unwrap();
    assert_eq!(shard.turn().await, Turn::Worked, "an input needs no clock");
    assert!(fired.lock().unwrap().is_empty());
    watched.right.store(true, Ordering::SeqCst);
    assert_eq!(shard.turn().await, Turn::Worked);
    assert_eq!(*fired.lock().unwrap(), [3_601_000]);
    // What was made sure of counts for all that was due by then.
    let looks = *watched.looks.lock().unwrap();
    assert_eq!(shard.turn().await, Turn::Worked);
    assert_eq!((fired.lock().unwrap().len(), *watched.looks.lock().unwrap()), (2, looks));
}

/// A broker that tells of its end only when it is asked, and not at once.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    records: Vec<Delivered>,
    /// How far the reader has heard of it.
    heard: usize,
    read: usize,
    /// Where the log ended when each open question was asked.
    asked: Vec<usize>,
}

impl Slow {
    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.0.lock().unwrap()
    }

    fn put(&self, item: &str) {
        let mut log = self.log();
        let (offset, envelope) = (log.records.len() as i64, crate::send(item).envelope);
        let record =
            Delivered { topic: Topic::Commands, offset, next: offset + 1, envelope: Ok(envelope), bytes: 1, record: 0 };
        log.records.push(record);
    }

    /// Answers what was asked.
    fn answer(&self) {
        let mut log = self.log();
        let ends = std::mem::take(&mut log.asked);
        log.heard = ends.into_iter().fold(log.heard, usize::max);
    }
}

#[async_trait]
impl Bus for Slow {
    async fn produce(&self, _: Vec<Outgoing>) -> Result<(), BusError> {
        Ok(())
    }

    fn consumer(&self, _: Topic, _: u16, _: i64) -> Box<dyn Consumer> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Consumer for Slow {
    async fn take(&mut self, _: usize) -> Result<Vec<Delivered>, StoreError> {
        let mut log = self.log();
        let taken = log.records[log.read..log.heard].to_vec();
        log.read = log.heard;
        Ok(taken)
    }

    fn at_end(&self) -> bool {
        let log = self.log();
        log.read == log.heard
    }

    fn look(&mut self) -> BoxFuture<'static, bool> {
        let slow = self.clone();
        let end = {
            let mut log = slow.log();
            let end = log.records.len();
            log.asked.push(end);
            end
        };
        futures_util::future::poll_fn(move |_| match slow.log().heard >= end && slow.log().asked.is_empty() {
            true => std::task::Poll::Ready(true),
            false => std::task::Poll::Pending,
        })
        .boxed()
    }

    async fn ready(&mut self) {
        std::future::pending().await
    }
}

/// Notes what it decides, in order.
struct Notes {
    due_ms: Vec<i64>,
    fired: usize,
    noted: Arc<Mutex<Vec<String>>>,
}

impl Handler for Notes {
    fn topics(&self) -> &[Topic] {
        &[Topic::Commands]
    }
    fn room(&self, _: Topic) -> usize {
        10
    }
    async fn assigned(&mut self, _: &Assignment) -> Result<(), StoreError> {
        Ok(())
    }
    async fn decide(&mut self, batch: &Batch) -> Result<Outcome, DecideError> {
        let mut noted = self.noted.lock().unwrap();
        noted.extend(batch.messages.iter().map(|(_, envelope)| crate::item(envelope)));
        self.fired = self.due_ms.iter().take_while(|due| batch.timers_ms.is_some_and(|until| **due <= until)).count();
        noted.extend(self.due_ms[..self.fired].iter().map(|due| format!("timer {due}")));
        Ok(Outcome::default())
    }
    fn committed(&mut self) {
        self.due_ms.drain(..self.fired);
    }
    fn rolled_back(&mut self) {}
    fn due_ms(&self) -> Option<i64> {
        self.due_ms.first().copied()
    }
}

/// What was queued before a timer was due is decided before it, however long the broker takes to tell of it.
#[tokio::test]
async fn z07_only_what_was_due_when_the_end_was_asked_for_fires() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let (bus, clock) = (Slow::default(), Arc::new(ManualClock::new(1_000)));
    let noted = Arc::new(Mutex::new(Vec::new()));
    let notes = Notes { due_ms: vec![995, 1_400], fired: 0, noted: noted.clone() };
    let mut shard = Shard::new(SHARD, store, Arc::new(bus.clone()), clock.clone(), notes);
    assert!(matches!(shard.turn().await, Turn::Wait(_)), "as of 1000 the end is asked for");
    clock.advance(300);
    bus.put("approval");
    clock.advance(200);
    bus.answer();
    assert_eq!(shard.turn().await, Turn::Worked);
    assert_eq!(*noted.lock().unwrap(), ["timer 995"], "whoever is due at 1400 might overtake the approval");
    assert!(matches!(shard.turn().await, Turn::Wait(_)), "so it asks anew, and does not spin");
    bus.answer();
    assert_eq!(shard.turn().await, Turn::Worked);
    assert_eq!(*noted.lock().unwrap(), ["timer 995", "approval", "timer 1400"]);
    assert_eq!(shard.turn().await, Turn::Idle);
}
