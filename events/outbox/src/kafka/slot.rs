//! One partition that is read: what must come next, and what a record means.

use super::hand_over::HandOver;
use super::position;
use super::window::Place;
use super::wire;
use crate::bus::Delivered;
use endstate_events::Environment;
use rdkafka::message::{BorrowedMessage, Message as _};
use std::sync::Arc;

/// One partition that is read.
pub(super) struct Slot {
    pub(super) generation: u64,
    pub(super) queue: Arc<HandOver>,
    /// The offset that comes next.
    pub(super) next: i64,
    /// The record that must come first, being the last that was read before: its offset and hash.
    pub(super) witness: Option<(i64, u32)>,
    /// The client's own position as long as it may be that of an older assignment.
    pub(super) stale: Option<i64>,
    /// Somebody looks what is wrong with it.
    pub(super) looked_at: bool,
    /// The first message to hand over: its record's offset, and how many messages of that were read before.
    from: (i64, usize),
    /// The record that came last.
    last: Option<(i64, u32)>,
    /// The offset behind which a gap was seen once.
    doubted: Option<i64>,
}

/// What a record calls for.
pub(super) enum Next {
    More,
    Pause(Place),
    ReadAgain(Place, i64),
    /// It is not the log that was read.
    Another(Place, i64),
}

impl Slot {
    /// An assignment that begins `from` a message: its record's offset, and which of the messages in it.
    pub(super) fn of(
        generation: u64,
        queue: Arc<HandOver>,
        from: (i64, usize),
        witness: Option<(i64, u32)>,
        stale: Option<i64>,
    ) -> Self {
        let next = witness.map_or(from.0, |(at, _)| at);
        Self { generation, queue, next, witness, stale, looked_at: false, from, last: None, doubted: None }
    }

    /// Where to read on after something went wrong: with the record that came last, if it is kept, because it must be the
    /// log that was read.
    pub(super) fn begin_anew(&mut self, low: i64) -> i64 {
        if let Some(last) = self.last.filter(|(at, _)| *at >= low) {
            (self.witness, self.next, self.from) = (Some(last), last.0, (last.0 + 1, 0));
        }
        self.next
    }

    pub(super) fn arrived(&mut self, place: Place, environment: &Environment, record: &BorrowedMessage<'_>) -> Next {
        let offset = record.offset();
        if offset < self.next {
            // Of an older assignment.
            return Next::More;
        }
        if offset > self.next && self.doubted != Some(self.next) {
            // Of an older assignment as well, or a gap that the broker really has (marks of a transaction, compaction):
            // what a second reading shows is true.
            self.doubted = Some(self.next);
            return Next::ReadAgain(place, self.next);
        }
        let (topic, hash) = (place.0, wire::hash(record));
        if self.witness.is_some_and(|witness| witness != (offset, hash)) {
            return Next::Another(place, self.next);
        }
        (self.next, self.witness, self.stale, self.last) = (offset + 1, None, None, Some((offset, hash)));
        let behind = position::of(topic, self.next, 0);
        if offset < self.from.0 {
            self.queue.passed(behind);
            return Next::More;
        }
        let messages = wire::unpack(record, topic, environment);
        let (read, last) = (if self.from.0 == offset { self.from.1 } else { 0 }, messages.len() - 1);
        let messages = messages.into_iter().enumerate().skip(read).map(|(at, (envelope, bytes))| {
            let here = position::of(topic, offset, at);
            Delivered {
                topic,
                offset: here,
                next: if at == last { behind } else { here + 1 },
                envelope,
                bytes,
                record: hash,
            }
        });
        if self.queue.put(messages, behind) { Next::Pause(place) } else { Next::More }
    }
}
