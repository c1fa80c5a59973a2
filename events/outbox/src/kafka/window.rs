//! What a shard has handed to the producer and the broker has not acknowledged: bounded per destination, with the mark
//! below which nothing is missing.

use crate::bus::RelayError;
use endstate_events::Topic;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Messages to one partition that may be unacknowledged; above, their shard waits (Z10, Z20).
const WINDOW: usize = 4_096;

/// The same for a topic of another team. Above, commands to it are as good as lost, which their sagas are made for.
pub const FOREIGN_WINDOW: usize = 1_024;

/// One partition of one topic.
pub(super) type Place = (Topic, u16);

/// The unacknowledged messages of one assignment.
pub(super) struct Window {
    state: Mutex<State>,
    moved: Notify,
}

struct State {
    /// Every message below is acknowledged.
    mark: i64,
    /// From the mark on: whether each is acknowledged.
    above: VecDeque<bool>,
    open: FxHashMap<Place, usize>,
    failed: Option<String>,
}

impl State {
    fn advance(&mut self) {
        while self.above.front() == Some(&true) {
            self.above.pop_front();
            self.mark += 1;
        }
    }
}

impl Window {
    pub(super) fn from(mark: i64) -> Self {
        let state = State { mark, above: VecDeque::new(), open: FxHashMap::default(), failed: None };
        Self { state: Mutex::new(state), moved: Notify::new() }
    }

    /// Waits for room for `count` more messages to `place` and takes it; `seq`, the first one's, follows the one before.
    pub(super) async fn enter(&self, seq: i64, count: usize, place: Place) -> Result<(), RelayError> {
        loop {
            let moved = self.moved.notified();
            if self.try_enter(seq, count, place)? {
                return Ok(());
            }
            moved.await;
        }
    }

    fn try_enter(&self, seq: i64, count: usize, place: Place) -> Result<bool, RelayError> {
        let mut state = self.follow(seq)?;
        let open = state.open.entry(place).or_default();
        if *open >= WINDOW {
            return Ok(false);
        }
        *open += count;
        state.above.extend(std::iter::repeat_n(false, count));
        Ok(true)
    }

    /// Takes room for a message that nobody waits for: without room it is passed over, and false.
    pub(super) fn enter_or_pass(&self, seq: i64, place: Place) -> Result<bool, RelayError> {
        let mut state = self.follow(seq)?;
        let open = state.open.entry(place).or_default();
        let fits = *open < FOREIGN_WINDOW;
        *open += usize::from(fits);
        state.above.push_back(!fits);
        state.advance();
        Ok(fits)
    }

    fn follow(&self, seq: i64) -> Result<MutexGuard<'_, State>, RelayError> {
        let state = self.lock();
        if let Some(reason) = &state.failed {
            return Err(RelayError(reason.clone()));
        }
        let next = state.mark + state.above.len() as i64;
        if seq != next {
            return Err(RelayError(format!("message {seq} does not follow {next}")));
        }
        Ok(state)
    }

    /// The broker has `count` messages, from `seq` on.
    pub(super) fn acknowledged(&self, seq: i64, count: usize, place: Place) {
        let mut state = self.lock();
        let first = usize::try_from(seq - state.mark).unwrap_or(usize::MAX);
        state.above.iter_mut().skip(first).take(count).for_each(|done| *done = true);
        state.advance();
        if let Some(open) = state.open.get_mut(&place) {
            *open -= count;
        }
        drop(state);
        self.moved.notify_one();
    }

    /// Nobody knows whether the broker has it: the next assignment publishes it again.
    pub(super) fn failed(&self, reason: String) {
        self.lock().failed.get_or_insert(reason);
        self.moved.notify_one();
    }

    /// Every message below was acknowledged.
    pub(super) fn mark(&self) -> Result<i64, RelayError> {
        let state = self.lock();
        match &state.failed {
            Some(reason) => Err(RelayError(reason.clone())),
            None => Ok(state.mark),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    const PLACE: Place = (Topic::Commands, 0);
    const OTHER: Place = (Topic::Commands, 1);

    #[tokio::test]
    async fn the_mark_moves_only_over_what_is_whole() {
        let window = Window::from(7);
        for (seq, count) in [(7, 1), (8, 3), (11, 1)] {
            window.enter(seq, count, PLACE).await.unwrap();
        }
        window.acknowledged(8, 3, PLACE);
        window.acknowledged(11, 1, PLACE);
        assert_eq!(window.mark().unwrap(), 7, "7 is missing");
        window.acknowledged(7, 1, PLACE);
        assert_eq!(window.mark().unwrap(), 12);
    }

    #[tokio::test]
    async fn z10_a_full_destination_waits_and_others_do_not() {
        let window = Window::from(0);
        let full = WINDOW as i64;
        window.enter(0, WINDOW, PLACE).await.unwrap();
        assert!(window.enter(full, 1, PLACE).now_or_never().is_none(), "no room");
        window.enter(full, 1, OTHER).await.unwrap();
        window.acknowledged(0, WINDOW, PLACE);
        window.enter(full + 1, 1, PLACE).await.unwrap();
    }

    #[tokio::test]
    async fn z10_what_does_not_fit_to_a_foreign_destination_is_passed_over() {
        let place = (Topic::Foreign(endstate_events::ForeignTopic::named("shop.wrap").unwrap()), 0);
        let window = Window::from(0);
        let full = FOREIGN_WINDOW as i64;
        assert!((0..full).all(|seq| window.enter_or_pass(seq, place).unwrap()));
        assert!(!window.enter_or_pass(full, place).unwrap(), "no room, and no waiting");
        window.enter(full + 1, 1, OTHER).await.unwrap();
        window.acknowledged(full + 1, 1, OTHER);
        assert_eq!(window.mark().unwrap(), 0, "what is under way may still be lost with this process");
        (0..full).for_each(|seq| window.acknowledged(seq, 1, place));
        assert_eq!(window.mark().unwrap(), full + 2);
    }

    #[tokio::test]
    async fn a_failure_ends_it_for_good_also_for_who_waits() {
        let window = std::sync::Arc::new(Window::from(0));
        for seq in 0..WINDOW as i64 {
            window.enter(seq, 1, PLACE).await.unwrap();
        }
        let waits = tokio::spawn({
            let window = window.clone();
            async move { window.enter(WINDOW as i64, 1, PLACE).await }
        });
        tokio::task::yield_now().await;
        window.failed("timed out".to_owned());
        assert_eq!(waits.await.unwrap(), Err(RelayError("timed out".to_owned())));
        window.acknowledged(0, 1, PLACE);
        assert!(window.mark().is_err());
    }
}
