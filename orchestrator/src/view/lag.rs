//! How far the view is behind, as a bound that holds at any moment: also between two looks, and while looks fail.

use endstate_outbox::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The view holds everything that happened, in the shards that this process follows, up to a moment.
pub struct Lag {
    clock: Arc<dyn Clock>,
    shown_ms: AtomicI64,
}

impl Lag {
    /// Nothing is known to be missing yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let shown_ms = AtomicI64::new(clock.now_ms());
        Self { clock, shown_ms }
    }

    /// A change that the view lacks is at most so old, in milliseconds: time since everything was shown, or the age of the
    /// oldest change that is known to be missing.
    #[must_use]
    pub fn ms(&self) -> i64 {
        (self.clock.now_ms() - self.shown_ms.load(Ordering::Relaxed)).max(0)
    }

    /// Everything up to this moment is shown.
    pub(super) fn shown(&self, until_ms: i64) {
        self.shown_ms.store(until_ms, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Lag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lag").field("shown_ms", &self.shown_ms).finish_non_exhaustive()
    }
}
