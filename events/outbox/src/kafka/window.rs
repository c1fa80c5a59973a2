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

impl Window {
    pub(super) fn from(mark: i64) -> Self {
        let state = State { mark, above: VecDeque::new(), open: FxHashMap::default(), failed: None };
        Self { state: Mutex::new(state), moved: Notify::new() }
    }

    /// Waits for room for one more message to `place` and takes it; `seq` follows the one before.
    pub(super) async fn enter(&self, seq: i64, place: Place) -> Result<(), RelayError> {
        loop {
            let moved = self.moved.notified();
            if self.try_enter(seq, place)? {
                return Ok(());
            }
            moved.await;
        }
    }

    fn try_enter(&self, seq: i64, place: Place) -> Result<bool, RelayError> {
        let mut state = self.lock();
        if let Some(reason) = &state.failed {
            return Err(RelayError(reason.clone()));
        }
        let next = state.mark + state.above.len() as i64;
        if seq != next {
            return Err(RelayError(format!("message {seq} does not follow {next}")));
        }
        let open = state.open.entry(place).or_default();
        if *open >= WINDOW {
            return Ok(false);
        }
        *open += 1;
        state.above.push_back(false);
        Ok(true)
    }

    /// The broker has it.
    pub(super) fn acknowledged(&self, seq: i64, place: Place) {
        let mut state = self.lock();
        let at = usize::try_from(seq - state.mark).ok();
        if let Some(done) = at.and_then(|at| state.above.get_mut(at)) {
            *done = true;
        }
        while state.above.front() == Some(&true) {
            state.above.pop_front();
            state.mark += 1;
        }
        if let Some(open) = state.open.get_mut(&place) {
            *open -= 1;
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
        for seq in 7..10 {
            window.enter(seq, PLACE).await.unwrap();
        }
        window.acknowledged(8, PLACE);
        window.acknowledged(9, PLACE);
        assert_eq!(window.mark().unwrap(), 7, "7 is missing");
        window.acknowledged(7, PLACE);
        assert_eq!(window.mark().unwrap(), 10);
    }

    #[tokio::test]
    async fn z10_a_full_destination_waits_and_others_do_not() {
        let window = Window::from(0);
        let full = WINDOW as i64;
        for seq in 0..full {
            window.enter(seq, PLACE).await.unwrap();
        }
        assert!(window.enter(full, PLACE).now_or_never().is_none(), "no room");
        window.enter(full, OTHER).await.unwrap();
        window.acknowledged(3, PLACE);
        window.enter(full + 1, PLACE).await.unwrap();
    }

    #[tokio::test]
    async fn a_failure_ends_it_for_good_also_for_who_waits() {
        let window = std::sync::Arc::new(Window::from(0));
        for seq in 0..WINDOW as i64 {
            window.enter(seq, PLACE).await.unwrap();
        }
        let waits = tokio::spawn({
            let window = window.clone();
            async move { window.enter(WINDOW as i64, PLACE).await }
        });
        tokio::task::yield_now().await;
        window.failed("timed out".to_owned());
        assert_eq!(waits.await.unwrap(), Err(RelayError("timed out".to_owned())));
        window.acknowledged(0, PLACE);
        assert!(window.mark().is_err());
    }
}
