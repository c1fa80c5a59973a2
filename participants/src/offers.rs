//! Open calls that found no room at the caller. A shard never waits for room, because the answers that make room come
//! through the same shard: it goes on, and offers what is left in the `call` table again, page by page.

use crate::desk::Call;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Pause between two pages.
const EVERY_MS: i64 = 1_000;

/// Where one shard's offers stand.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    /// Set by whoever left a call out, here or at the caller.
    behind: Arc<AtomicBool>,
    /// The last call of the page before. All calls are gone through before any is offered once more, so that a party that
    /// does not answer holds up nobody else's calls.
    after: Option<Arc<str>>,
    next_ms: i64,
}

impl Offers {
    /// Calls of a page at most.
    pub(crate) const PAGE: i64 = 512;

    /// Those of a new assignment: every open call is to be offered.
    pub(crate) fn of_all() -> Self {
        let offers = Self::default();
        offers.leave_out();
        offers
    }

    /// Some calls were left out.
    pub(crate) fn leave_out(&self) {
        self.behind.store(true, Ordering::Release);
    }

    /// For the caller, to tell the same.
    pub(crate) fn behind(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.behind)
    }

    pub(crate) fn due_ms(&self) -> Option<i64> {
        (self.after.is_some() || self.behind.load(Ordering::Acquire)).then_some(self.next_ms)
    }

    /// After which call the next page begins, when there is one and it is time.
    pub(crate) fn begin(&mut self, now_ms: i64) -> Option<Arc<str>> {
        if now_ms < self.next_ms {
            return None;
        }
        let after = match self.after.take() {
            Some(after) => after,
            None if self.behind.swap(false, Ordering::AcqRel) => Arc::from(""),
            None => return None,
        };
        self.next_ms = now_ms + EVERY_MS;
        Some(after)
    }

    /// The page is offered.
    pub(crate) fn end(&mut self, page: &[Call]) {
        self.after = page.last().filter(|_| page.len() as i64 == Self::PAGE).map(|call| Arc::clone(&call.id));
    }
}
