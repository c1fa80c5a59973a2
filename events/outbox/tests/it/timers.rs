//! When timers fire: not before the clock can be trusted.

use endstate_events::{Side, Topic};
use endstate_outbox::*;
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
        if batch.timers && self.due_ms <= batch.now_ms {
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
