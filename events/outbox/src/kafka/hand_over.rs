//! Between the reading thread and one shard: a bounded queue of one assignment, with two marks, so that a slow shard
//! stops its partition and not its neighbours' (Z20).

use crate::bus::{Delivered, TAKE_BYTES};
use crate::store::StoreError;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Records above which the partition is paused, and below which it goes on: some batches apart, so that neither happens
/// with each batch.
const MANY: usize = 4_096;
const FEW: usize = 1_024;

/// The same in bytes of bodies.
const LARGE: usize = 8 << 20;
const SMALL: usize = 2 << 20;

/// The queue of one assignment of one partition.
pub(super) struct HandOver {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Delivered>,
    bytes: usize,
    paused: bool,
    /// The position the shard has not committed, as far as its taking tells.
    position: i64,
    /// The position behind what was taken last.
    taken: i64,
    /// The position behind the last record that was put in, and behind what follows and is no message.
    read: i64,
    /// The position of the end of the log as it was told last; none while nobody knows it, or while the partition is paused.
    end: Option<i64>,
    failed: Option<StoreError>,
}

/// What taking made possible.
pub(super) struct Taken {
    pub(super) records: Vec<Delivered>,
    /// The partition may go on.
    pub(super) resume: bool,
    /// Nothing is left behind, here or at the broker.
    pub(super) at_end: bool,
}

impl State {
    /// When all was taken, what is no message is behind the shard as well.
    fn settle(&mut self) {
        if self.queue.is_empty() {
            self.taken = self.taken.max(self.read);
        }
    }
}

impl HandOver {
    pub(super) fn from(position: i64) -> Self {
        Self {
            state: Mutex::new(State { position, taken: position, read: position, ..State::default() }),
            arrived: Notify::new(),
        }
    }

    /// The end of the log, as the broker told it.
    pub(super) fn ends(&self, end: i64) {
        let mut state = self.lock();
        state.end = state.end.max(Some(end));
    }

    /// The same, when only what was known is to be raised.
    pub(super) fn grows(&self, end: i64) {
        let mut state = self.lock();
        state.end = state.end.map(|known| known.max(end));
    }

    /// Puts a record's messages in, and the position behind it; true when the partition must pause.
    pub(super) fn put(&self, messages: impl IntoIterator<Item = Delivered>, behind: i64) -> bool {
        let mut state = self.lock();
        for message in messages {
            state.bytes += message.bytes;
            state.queue.push_back(message);
        }
        state.read = behind;
        let full = state.queue.len() >= MANY || state.bytes >= LARGE;
        if full {
            // What lies behind comes only after a while.
            (state.paused, state.end) = (true, None);
        }
        drop(state);
        self.arrived.notify_one();
        full
    }

    /// Everything below this position was put in, or is no message.
    pub(super) fn passed(&self, behind: i64) {
        let mut state = self.lock();
        state.read = state.read.max(behind);
        state.settle();
    }

    /// Nothing of this assignment is known to be there before the log was read from here.
    pub(super) fn begins(&self, at: i64) {
        self.lock().read = at;
    }

    /// Whether the log ends further behind than what was read.
    pub(super) fn is_behind(&self) -> bool {
        let state = self.lock();
        state.end.is_some_and(|end| state.read < end)
    }

    /// Nothing comes any more, for this reason.
    pub(super) fn fail(&self, error: StoreError) {
        self.lock().failed.get_or_insert(error);
        self.arrived.notify_one();
    }

    /// Takes at most `limit` records and [`TAKE_BYTES`]. What was taken before is committed by now: a shard takes only then.
    pub(super) fn take(&self, limit: usize) -> Result<Taken, StoreError> {
        let mut state = self.lock();
        let count = limit.min(state.queue.len());
        if count == 0
            && let Some(error) = &state.failed
        {
            return Err(error.clone());
        }
        state.position = state.taken;
        let mut records = Vec::with_capacity(count);
        let mut bytes = 0;
        while records.len() < count
            && bytes < TAKE_BYTES
            && let Some(record) = state.queue.pop_front()
        {
            bytes += record.bytes;
            state.bytes -= record.bytes;
            state.taken = record.next;
            records.push(record);
        }
        state.settle();
        let resume = state.paused && state.queue.len() <= FEW && state.bytes <= SMALL;
        state.paused &= !resume;
        let at_end = state.queue.is_empty() && state.end.is_some_and(|end| state.read >= end);
        Ok(Taken { records, resume, at_end })
    }

    /// Resolves when there is something to take, a failure included.
    pub(super) async fn ready(&self) {
        loop {
            let arrived = self.arrived.notified();
            {
                let state = self.lock();
                if !state.queue.is_empty() || state.failed.is_some() {
                    return;
                }
            }
            arrived.await;
        }
    }

    /// The shard's position, and how many records wait for it here.
    pub(super) fn place(&self) -> (i64, usize) {
        let state = self.lock();
        (state.position, state.queue.len())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Undecodable;
    use endstate_events::Topic;

    fn record(offset: i64, bytes: usize) -> Delivered {
        let envelope = Err(Undecodable { bytes: String::new(), reason: String::new(), newer: false });
        Delivered { topic: Topic::Commands, offset, next: offset + 1, envelope, bytes, record: 0 }
    }

    fn put(queue: &HandOver, offset: i64, bytes: usize) -> bool {
        queue.put([record(offset, bytes)], offset + 1)
    }

    #[test]
    fn z20_a_partition_pauses_when_full_and_goes_on_when_it_is_nearly_empty() {
        let queue = HandOver::from(0);
        let pauses: Vec<i64> = (0..MANY as i64 + 2).filter(|offset| put(&queue, *offset, 1)).collect();
        let full = MANY as i64 - 1;
        assert_eq!(pauses, [full, full + 1, full + 2], "told as long as it is full: somebody may have resumed it");
        assert!(!queue.take(100).unwrap().resume, "not with the first batch");
        let mut taken = 100;
        while !queue.take(500).unwrap().resume {
            taken += 500;
        }
        assert!((MANY - FEW - 500..MANY).contains(&taken));
        assert!(put(&queue, 9_999, LARGE), "bytes count as well");
    }

    #[test]
    fn the_position_is_that_of_the_oldest_record_which_may_be_uncommitted() {
        let queue = HandOver::from(5);
        (5..9).for_each(|offset| _ = put(&queue, offset, 1));
        queue.take(2).unwrap();
        assert_eq!(queue.place(), (5, 2));
        queue.take(1).unwrap();
        assert_eq!(queue.place(), (7, 1));
        queue.take(9).unwrap();
        queue.take(9).unwrap();
        assert_eq!(queue.place(), (9, 0), "an idle shard has committed all");
    }

    #[test]
    fn z07_the_end_is_reached_when_the_broker_has_nothing_more() {
        let queue = HandOver::from(5);
        assert!(!queue.take(9).unwrap().at_end, "an empty queue says nothing before the partition is assigned");
        queue.grows(7);
        assert!(!queue.take(9).unwrap().at_end);
        queue.ends(7);
        assert!(!queue.take(9).unwrap().at_end, "two are on their way");
        (5..7).for_each(|offset| _ = put(&queue, offset, 1));
        assert!(!queue.take(1).unwrap().at_end);
        assert!(queue.take(1).unwrap().at_end);
        queue.grows(8);
        assert!(!queue.take(9).unwrap().at_end);
        put(&queue, 7, LARGE);
        assert!(!queue.take(9).unwrap().at_end, "it was paused: more may lie behind");
    }

    #[test]
    fn z07_what_is_no_message_is_read_without_being_taken() {
        let queue = HandOver::from(5);
        queue.ends(7);
        put(&queue, 5, 1);
        assert!(queue.is_behind());
        queue.passed(7);
        queue.passed(6);
        assert!(!queue.is_behind());
        assert_eq!(queue.take(9).unwrap().records.len(), 1);
        let again = queue.take(9).unwrap();
        assert!(again.records.is_empty() && again.at_end);
        assert_eq!(queue.place(), (7, 0), "no lag is shown that nobody can work off");
    }

    #[tokio::test]
    async fn what_came_before_a_failure_is_still_taken() {
        let queue = HandOver::from(0);
        put(&queue, 0, 1);
        queue.fail(StoreError::Failed { statement: "s".into(), reason: "r".into() });
        queue.ready().await;
        assert_eq!(queue.take(10).unwrap().records.len(), 1);
        queue.ready().await;
        assert!(queue.take(10).is_err());
    }
}
