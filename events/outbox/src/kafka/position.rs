//! Where a message is in a partition of ours: the offset of its record, and which of the record's messages it is.
//!
//! Both are one number, so that a shard can stop between two messages of a record: whoever counts positions sees a number
//! that rises from message to message. A record of another team's topic is one message, and its position is its offset.

use super::wire;
use endstate_events::Topic;

/// Bits of a position that tell which message of its record it is.
const BITS: u32 = 10;

/// Messages of a record at most.
pub(super) const MOST: usize = 1 << BITS;

fn bits(topic: Topic) -> u32 {
    if wire::is_whole(topic) { BITS } else { 0 }
}

/// The position of a message in the record at `offset`.
pub(super) fn of(topic: Topic, offset: i64, message: usize) -> i64 {
    (offset << bits(topic)) + message as i64
}

/// The offset of the record that holds a position, and which of its messages it is.
pub(super) fn split(topic: Topic, position: i64) -> (i64, usize) {
    let offset = position >> bits(topic);
    (offset, usize::try_from(position - of(topic, offset, 0)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parcel;

    #[test]
    fn positions_rise_from_message_to_message_and_tell_their_record() {
        const { assert!(parcel::MESSAGES <= MOST) };
        let places = [(0, 0), (0, 1), (0, MOST - 1), (1, 0), (7, 3), (1 << 40, 9)];
        let positions = places.map(|(offset, message)| of(Topic::Progress, offset, message));
        assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
        assert_eq!(positions.map(|position| split(Topic::Progress, position)), places);
        assert_eq!((of(Topic::Events, 7, 0), split(Topic::Events, 7)), (7, (7, 0)), "one message a record");
    }
}
