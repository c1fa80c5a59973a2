//! What a shard reads: of each topic first what was spilled while the broker did not answer, then the log itself.
//!
//! A timer fires only when all but new starts was read to the end that it had when the timer was due (Z7). Who hears of
//! that end only now and then is asked ([`Consumer::look`]), beside the work and not in front of it; and so is the clock.
//! An answer tells of the moment in which it was asked for: what is due later waits for the next one.

use crate::bus::{Bus, Consumer, Delivered, Undecodable};
use crate::clock::Clock;
use crate::store::{Assignment, StoreError};
use endstate_events::{SCHEMA_VERSION, Topic};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all, select_all};
use std::sync::Arc;

/// The queues of one assignment, those of the most urgent topic first.
pub(crate) struct Inlets {
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    index: u16,
    all: Vec<Inlet>,
    /// The look that is under way, and the time as of which it tells.
    look: Option<(i64, BoxFuture<'static, bool>)>,
    /// As of when the ends are known; none as long as nobody looked.
    looked_ms: Option<i64>,
}

struct Inlet {
    topic: Topic,
    spilled: Option<Queue>,
    log: Queue,
}

struct Queue {
    consumer: Box<dyn Consumer>,
    /// The position of a record of a newer schema that comes next: this program takes nothing more here.
    halted_at: Option<i64>,
}

impl Queue {
    fn of(consumer: Box<dyn Consumer>) -> Self {
        Self { consumer, halted_at: None }
    }
}

/// What was taken.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) records: Vec<Delivered>,
    /// Whether all but new starts was read to its end.
    pub(crate) drained: bool,
}

impl Inlets {
    /// Reads these topics on from where the assignments stand.
    pub(crate) fn open(
        bus: &Arc<dyn Bus>,
        clock: &Arc<dyn Clock>,
        index: u16,
        topics: &[Topic],
        assignments: &[Assignment],
    ) -> Self {
        let inlet = |topic: &Topic| {
            let (position, spilled) =
                (Assignment::position(assignments, *topic), Assignment::position_spilled(assignments, *topic));
            let spilled = bus.spilled(*topic, index, spilled);
            let record = Assignment::record_before(assignments, *topic);
            let log = Queue::of(bus.consumer_behind(*topic, index, position, record));
            Inlet { topic: *topic, spilled: spilled.map(Queue::of), log }
        };
        let all = topics.iter().map(inlet).collect();
        Self { bus: Arc::clone(bus), clock: Arc::clone(clock), index, all, look: None, looked_ms: None }
    }

    /// The topics, in the order in which they are taken.
    pub(crate) fn topics(&self) -> impl Iterator<Item = Topic> {
        self.all.iter().map(|inlet| inlet.topic)
    }

    /// Where records of a newer schema wait, if they do. A newer program will read them: this one takes what comes elsewhere.
    pub(crate) fn halted(&self) -> Vec<(Topic, i64)> {
        let queues = self.all.iter().flat_map(|Inlet { topic, spilled, log }| {
            spilled.iter().chain([log]).filter_map(|queue| Some((*topic, queue.halted_at?)))
        });
        queues.collect()
    }

    /// Takes what is ready: at most so many messages of each topic as there is room for, and `most` together. A queue that
    /// fails is told of only when the others have nothing: what was spilled is decided while the broker is away.
    pub(crate) async fn take(&mut self, most: usize, rooms: &[usize]) -> Result<Taken, StoreError> {
        let mut taken = Taken { drained: true, ..Taken::default() };
        let mut failed = None;
        for (Inlet { topic, spilled, log }, room) in self.all.iter_mut().zip(rooms) {
            // What is held back for want of room is no sign of an end, but for new starts.
            let (may_wait, mut room) = (*topic == Topic::Start, *room);
            for (is_spilled, queue) in spilled.iter_mut().map(|queue| (true, queue)).chain([(false, log)]) {
                let limit = room.min(most - taken.records.len());
                if limit == 0 || queue.halted_at.is_some() {
                    taken.drained &= may_wait;
                    // What was spilled is older than what the log goes on with.
                    if is_spilled && queue.halted_at.is_some() { break } else { continue }
                }
                let mut records = match queue.consumer.take(limit).await {
                    Ok(records) => records,
                    Err(error) => {
                        failed.get_or_insert(error);
                        taken.drained = false;
                        if is_spilled { break } else { continue }
                    }
                };
                let stop = records.iter().position(is_newer);
                // What waits behind a newer record may be what a timer must not overtake.
                taken.drained &= may_wait || (queue.consumer.at_end() && stop.is_none());
                if let Some(stop) = stop {
                    // A newer record is not poison: it stays where it is, for a newer program to read.
                    let next = &records[stop];
                    queue.halted_at = Some(next.offset);
                    let anew = match next.spilled() {
                        Some(number) => self.bus.spilled(*topic, self.index, number),
                        None => Some(self.bus.consumer(*topic, self.index, next.offset)),
                    };
                    // Stands where the shard stands, and does not fill up for nobody.
                    anew.into_iter().for_each(|anew| queue.consumer = anew);
                    records.truncate(stop);
                }
                debug_assert!(records.iter().all(|record| record.spilled().is_some() == is_spilled));
                room -= records.len();
                taken.records.extend(records);
                if is_spilled && (queue.halted_at.is_some() || !queue.consumer.at_end()) {
                    taken.drained &= may_wait;
                    break;
                }
            }
        }
        match failed {
            Some(error) if taken.records.is_empty() => Err(error),
            Some(_) | None => Ok(taken),
        }
    }

    /// Whether the ends, and the time, are known as of `due_ms` or later; when they are not, they are asked for, and it is
    /// worth asking again soon.
    pub(crate) fn know_ends(&mut self, due_ms: i64, now_ms: i64) -> bool {
        if self.looked_ms.is_some_and(|looked| looked >= due_ms) {
            return true;
        }
        let (as_of, mut look) = self.look.take().unwrap_or_else(|| (now_ms, self.ask()));
        match (&mut look).now_or_never() {
            // The clock may have been put right meanwhile.
            Some(true) => self.looked_ms = Some(as_of.min(now_ms)),
            // Nobody could tell.
            Some(false) => {}
            None => self.look = Some((as_of, look)),
        }
        self.looked_ms.is_some_and(|looked| looked >= due_ms)
    }

    /// As of when the ends, and the time, were known last: what was queued later may not have been read.
    pub(crate) fn looked_ms(&self) -> Option<i64> {
        self.looked_ms
    }

    fn ask(&mut self) -> BoxFuture<'static, bool> {
        let urgent = self.all.iter_mut().filter(|inlet| inlet.topic != Topic::Start);
        let queues = urgent.flat_map(|inlet| inlet.spilled.iter_mut().chain([&mut inlet.log]));
        let looks: Vec<_> = queues.map(|queue| queue.consumer.look()).chain([self.clock.look()]).collect();
        async move { join_all(looks).await.into_iter().all(|known| known) }.boxed()
    }

    /// Resolves when there may be something to take.
    pub(crate) async fn ready(&mut self, rooms: &[usize]) {
        let open = self.all.iter_mut().zip(rooms).filter(|(_, room)| **room > 0);
        let halts = |queue: &Queue| queue.halted_at.is_some();
        // Behind what was spilled and halts, the log waits.
        let free = open.filter(|(inlet, _)| !inlet.spilled.as_ref().is_some_and(halts));
        let queues = free.flat_map(|(inlet, _)| inlet.spilled.iter_mut().chain([&mut inlet.log]));
        let queues = queues.filter(|queue| !halts(queue));
        let ready: Vec<_> = queues.map(|queue| queue.consumer.ready()).collect();
        if ready.is_empty() {
            return std::future::pending().await;
        }
        select_all(ready).await;
    }
}

fn is_newer(record: &Delivered) -> bool {
    match &record.envelope {
        Ok(envelope) => envelope.schema > SCHEMA_VERSION,
        Err(Undecodable { newer: true, .. }) => true,
        Err(Undecodable { bytes, .. }) => {
            // The message's shape may be unknown, its envelope's version is not.
            #[derive(serde::Deserialize)]
            struct Version {
                schema: u16,
            }
            serde_json::from_str::<Version>(bytes).is_ok_and(|version| version.schema > SCHEMA_VERSION)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{BusError, Outgoing};
    use crate::clock::ManualClock;
    use async_trait::async_trait;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// Reads at most two at a time, and fails while it has nothing and is told to.
    struct Fake(Arc<Mutex<VecDeque<Delivered>>>, bool);

    #[async_trait]
    impl Consumer for Fake {
        async fn take(&mut self, limit: usize) -> Result<Vec<Delivered>, StoreError> {
            if self.1 {
                return Err(StoreError::Failed { statement: "fake".to_owned(), reason: "away".to_owned() });
            }
            let mut all = self.0.lock().unwrap();
            let count = limit.min(2).min(all.len());
            Ok(all.drain(..count).collect())
        }

        fn at_end(&self) -> bool {
            self.0.lock().unwrap().is_empty()
        }

        async fn ready(&mut self) {
            if self.at_end() {
                std::future::pending::<()>().await;
            }
        }
    }

    struct FakeBus {
        spilled: Arc<Mutex<VecDeque<Delivered>>>,
        log: Arc<Mutex<VecDeque<Delivered>>>,
        fails: bool,
    }

    #[async_trait]
    impl Bus for FakeBus {
        async fn produce(&self, _: Vec<Outgoing>) -> Result<(), BusError> {
            Ok(())
        }

        fn consumer(&self, _: Topic, _: u16, _: i64) -> Box<dyn Consumer> {
            Box::new(Fake(Arc::clone(&self.log), false))
        }

        fn spilled(&self, _: Topic, _: u16, _: i64) -> Option<Box<dyn Consumer>> {
            Some(Box::new(Fake(Arc::clone(&self.spilled), self.fails)))
        }
    }

    fn record(offset: i64, newer: bool) -> Delivered {
        let envelope = Err(Undecodable { bytes: String::new(), reason: String::new(), newer });
        Delivered { topic: Topic::Progress, offset, next: offset + 1, envelope, bytes: 0, record: 0 }
    }

    /// The queues of one topic, with these numbers spilled and these in the log; number 2 of the spilled ones is newer if so.
    fn inlets(spilled: &[i64], log: &[i64], newer: bool, fails: bool) -> Inlets {
        let spilled = spilled.iter().map(|n| record(Delivered::offset_spilled(*n), newer && *n == 2)).collect();
        let log = log.iter().map(|n| record(*n, false)).collect();
        let bus: Arc<dyn Bus> =
            Arc::new(FakeBus { spilled: Arc::new(Mutex::new(spilled)), log: Arc::new(Mutex::new(log)), fails });
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(0));
        Inlets::open(&bus, &clock, 0, &[Topic::Progress], &[])
    }

    async fn offsets(inlets: &mut Inlets) -> (Vec<i64>, bool) {
        let taken = inlets.take(100, &[100]).await.unwrap();
        (taken.records.iter().map(|record| record.offset).collect(), taken.drained)
    }

    #[tokio::test]
    async fn the_log_waits_for_all_that_was_spilled_before() {
        let mut inlets = inlets(&[0, 1, 2], &[7], false, false);
        assert_eq!(offsets(&mut inlets).await, (vec![-1, -2], false), "two more would be taken too early");
        assert_eq!(offsets(&mut inlets).await, (vec![-3, 7], true));
    }

    #[tokio::test]
    async fn the_log_waits_behind_a_newer_record_that_was_spilled() {
        let mut inlets = inlets(&[0, 2], &[7], true, false);
        assert_eq!(offsets(&mut inlets).await, (vec![-1], false));
        assert_eq!(inlets.halted(), [(Topic::Progress, Delivered::offset_spilled(2))]);
        assert_eq!(offsets(&mut inlets).await, (vec![], false));
        assert!(inlets.ready(&[100]).now_or_never().is_none(), "nobody is woken for what nobody takes");
    }

    #[tokio::test]
    async fn the_log_waits_while_what_was_spilled_cannot_be_read() {
        let mut inlets = inlets(&[0], &[7], false, true);
        assert!(inlets.take(100, &[100]).await.is_err());
    }
}
