//! Which shards of this process are assigned: what tells others that it has started and is ready for work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Counts the assigned shards of a process.
#[derive(Clone, Debug)]
pub struct Census(Arc<Count>);

#[derive(Debug)]
struct Count {
    expected: AtomicUsize,
    assigned: AtomicUsize,
    complete_once: AtomicBool,
}

impl Census {
    /// A census of so many shards.
    #[must_use]
    pub fn of(expected: usize) -> Self {
        let (expected, assigned) = (AtomicUsize::new(expected), AtomicUsize::new(0));
        Self(Arc::new(Count { expected, assigned, complete_once: AtomicBool::new(false) }))
    }

    /// One more shard belongs to this process, or one fewer.
    pub fn expect(&self, one_more: bool) {
        if one_more {
            self.0.expected.fetch_add(1, Ordering::AcqRel);
        } else {
            self.0.expected.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// How many shards are assigned now, and how many there should be.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        (self.0.assigned.load(Ordering::Acquire), self.0.expected.load(Ordering::Acquire))
    }

    /// Whether all of them are assigned now.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let (assigned, expected) = self.count();
        assigned >= expected
    }

    /// Whether all of them have ever been assigned at a time.
    #[must_use]
    pub fn was_complete(&self) -> bool {
        self.0.complete_once.load(Ordering::Acquire) || self.is_complete()
    }

    /// A seat for one shard.
    pub(crate) fn seat(&self) -> Seat {
        Seat { census: self.clone(), taken: false }
    }
}

/// One shard's place in a census; free again when the shard is gone.
#[derive(Debug)]
pub(crate) struct Seat {
    census: Census,
    taken: bool,
}

impl Default for Seat {
    /// A seat in a census that nobody reads.
    fn default() -> Self {
        Census::of(0).seat()
    }
}

impl Seat {
    /// Tells whether the shard is assigned.
    pub(crate) fn take(&mut self, assigned: bool) {
        if self.taken == assigned {
            return;
        }
        self.taken = assigned;
        let Count { expected, assigned: count, complete_once } = &*self.census.0;
        if !assigned {
            count.fetch_sub(1, Ordering::AcqRel);
        } else if count.fetch_add(1, Ordering::AcqRel) + 1 == expected.load(Ordering::Acquire) {
            complete_once.store(true, Ordering::Release);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.take(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_complete_while_every_seat_is_taken_and_remembers_that_it_was() {
        let census = Census::of(2);
        let (mut first, mut second) = (census.seat(), census.seat());
        first.take(true);
        first.take(true);
        assert_eq!((census.count(), census.is_complete(), census.was_complete()), ((1, 2), false, false));
        second.take(true);
        assert!(census.is_complete() && census.was_complete());
        drop(first);
        second.take(false);
        assert_eq!((census.count(), census.is_complete(), census.was_complete()), ((0, 2), false, true));
    }
}
