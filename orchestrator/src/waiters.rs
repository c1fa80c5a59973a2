//! Who waits for a saga: HTTP handlers that promised to answer when it was decided or has ended.
//!
//! Notices are sent after the commit, so nobody is told what a crash could take back.

use endstate_events::SagaId;
use endstate_saga::control::{Outcome, Phase};
use endstate_saga::decide::Denied;
use rustc_hash::FxHashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It made this saga.
    First,
    /// Its number belongs to an earlier saga.
    Taken {
        /// That saga.
        by: SagaId,
        /// Whether that saga was started with the same body; if not, the start is refused.
        same_body: bool,
    },
}

/// The latest committed news of one saga.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notice {
    /// What became of its start, once decided.
    pub claim: Option<Claim>,
    /// Its phase, once it has one.
    pub phase: Option<Phase>,
    /// Its customer-visible status.
    pub status: Option<Arc<str>>,
    /// Its outcome, once ended.
    pub outcome: Option<Outcome>,
}

impl Notice {
    /// True when nothing more happens without somebody outside: ended, waiting, parked, or not started at all.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let refused = matches!(self.claim, Some(Claim::Taken { .. }));
        refused || matches!(self.phase, Some(Phase::Ended | Phase::Waiting | Phase::Parked))
    }
}

/// What became of an input that somebody may be turned down for (a cancel, an operator's action, an event).
pub type Answer = Option<Result<(), Denied>>;

/// All waiting handlers of one process.
#[derive(Debug, Default)]
pub struct Waiters {
    /// News of sagas.
    pub sagas: Arc<Board<SagaId, Notice>>,
    /// Answers to inputs, by saga and the input's id.
    pub inputs: Arc<Board<(SagaId, String), Answer>>,
    /// Starts that are not decided yet.
    pub starts: Arc<Starts>,
}

/// What a start wants, for whoever looks for its claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The definition.
    pub definition: String,
    /// The number it claims.
    pub number: String,
    /// With this body.
    pub body_hash: String,
}

/// Starts that are not decided yet, by the saga they would make.
#[derive(Debug, Default)]
pub struct Starts(Mutex<FxHashMap<SagaId, Wanted>>);

/// A start that is not decided; forgotten when dropped.
#[derive(Debug)]
pub struct Starting {
    starts: Arc<Starts>,
    saga: SagaId,
}

impl Starts {
    /// Remembers a start.
    #[must_use]
    pub fn begin(self: &Arc<Self>, saga: SagaId, wanted: Wanted) -> Starting {
        self.lock().insert(saga, wanted);
        Starting { starts: Arc::clone(self), saga }
    }

    /// What the start that would make `saga` wants.
    #[must_use]
    pub fn wanted(&self, saga: &SagaId) -> Option<Wanted> {
        self.lock().get(saga).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<SagaId, Wanted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.starts.lock().remove(&self.saga);
    }
}

/// Those who wait for news under a key.
#[derive(Debug)]
pub struct Board<K, N> {
    waiting: Mutex<FxHashMap<K, Entry<N>>>,
}

/// What is told under a key, and to how many. They are counted here, under the lock: of two who leave at the same moment
/// each would still see the other's receiver.
#[derive(Debug)]
struct Entry<N> {
    sender: watch::Sender<N>,
    waiting: usize,
}

impl<K, N> Default for Board<K, N> {
    fn default() -> Self {
        Self { waiting: Mutex::default() }
    }
}

impl<K: Hash + Eq + Clone, N: Default + Clone> Board<K, N> {
    /// Begins to wait. Do it before the input is queued, so that no news is missed.
    #[must_use]
    pub fn wait(self: &Arc<Self>, key: K) -> Waiting<K, N> {
        let mut waiting = self.lock();
        let entry = waiting.entry(key.clone());
        let entry = entry.or_insert_with(|| Entry { sender: watch::Sender::new(N::default()), waiting: 0 });
        entry.waiting += 1;
        Waiting { board: Arc::clone(self), key, news: entry.sender.subscribe() }
    }

    /// Tells those who wait; costs a look-up when nobody does.
    pub fn notify(&self, key: &K, tell: impl FnOnce(&mut N)) {
        if let Some(entry) = self.lock().get(key) {
            entry.sender.send_modify(tell);
        }
    }

    /// What is waited for.
    #[must_use]
    pub fn keys(&self) -> Vec<K> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<K, Entry<N>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits; stops waiting when dropped.
#[derive(Debug)]
pub struct Waiting<K: Hash + Eq + Clone, N: Default + Clone> {
    board: Arc<Board<K, N>>,
    key: K,
    news: watch::Receiver<N>,
}

impl<K: Hash + Eq + Clone, N: Default + Clone> Waiting<K, N> {
    /// The first news that satisfies `enough`. Cancel-safe.
    pub async fn until(&mut self, enough: impl FnMut(&N) -> bool) -> N {
        let news = self.news.wait_for(enough).await.map(|news| news.clone());
        match news {
            Ok(news) => news,
            // The sender lives on the board as long as we do.
            Err(_) => std::future::pending().await,
        }
    }

    /// The latest news.
    #[must_use]
    pub fn latest(&self) -> N {
        self.news.borrow().clone()
    }
}

impl<K: Hash + Eq + Clone, N: Default + Clone> Drop for Waiting<K, N> {
    fn drop(&mut self) {
        let mut waiting = self.board.lock();
        let Some(entry) = waiting.get_mut(&self.key) else { return };
        entry.waiting -= 1;
        if entry.waiting == 0 {
            waiting.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use endstate_events::Slot;

    #[tokio::test]
    async fn a_notice_before_the_wait_began_to_poll_is_not_lost() {
        let waiters = Arc::new(Waiters::default());
        let saga = SagaId::mint(1, Slot::of("k"), 1);
        let mut waiting = waiters.sagas.wait(saga);
        waiters.sagas.notify(&saga, |notice| notice.phase = Some(Phase::Ended));
        assert!(waiting.until(Notice::is_settled).await.is_settled());
        drop(waiting);
        assert!(waiters.sagas.lock().is_empty(), "nothing is kept for sagas that nobody waits for");
    }

    #[test]
    fn two_who_leave_at_the_same_moment_leave_nothing_behind() {
        let board = Arc::new(Board::<u32, Answer>::default());
        let (one, other) = (board.wait(1), board.wait(1));
        // Whoever leaves lets go of the lock first and of the receiver then: in between, the other one still sees it.
        let not_gone_yet = one.news.clone();
        drop(one);
        drop(other);
        assert!(board.lock().is_empty(), "{} entries stay for nobody", board.lock().len());
        drop(not_gone_yet);
    }
}
