//! Batches that wait for a session. Whoever gets one takes all that wait and writes them together, in one statement: the
//! busier the sessions are, the more batches share the price of a commit, and nobody waits for others to come (ADR 0017).

use super::commit::{Failure, Prepared};
use crate::store::CommitError;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Batches of one statement at most.
const MANY: usize = 64;

/// Texts of one statement at most, unless one batch alone has more: each is kept twice while it is sent.
const LARGE: usize = 4 << 20;

/// What becomes of a batch: rows that each write of the caller hit.
pub(super) type Done = Result<Vec<u64>, Failure>;

/// A batch, and who waits for it.
pub(super) struct Waiting {
    pub(super) batch: Arc<Prepared>,
    pub(super) done: oneshot::Sender<Done>,
}

/// The batches that wait.
#[derive(Default)]
pub(super) struct Gather(Mutex<VecDeque<Waiting>>);

impl Gather {
    /// Has a batch wait.
    pub(super) fn put(&self, batch: Arc<Prepared>) -> oneshot::Receiver<Done> {
        let (done, becomes) = oneshot::channel();
        self.lock().push_back(Waiting { batch, done });
        becomes
    }

    /// Takes the batch that waits longest, and those that can be written together with it. None when nobody waits.
    pub(super) fn take(&self) -> Vec<Waiting> {
        let mut waiting = self.lock();
        // Whoever went away wants nothing written any more.
        waiting.retain(|one| !one.done.is_closed());
        let Some(first) = waiting.pop_front() else { return Vec::new() };
        let mut group = vec![first];
        if !group[0].batch.may_join() {
            return group;
        }
        let (mut bytes, mut at) = (group[0].batch.bytes(), 0);
        while group.len() < MANY
            && let Some(next) = waiting.get(at)
        {
            let fits = next.batch.may_join() && bytes + next.batch.bytes() <= LARGE;
            let taken = if fits { waiting.remove(at) } else { None };
            match taken {
                Some(next) => {
                    bytes += next.batch.bytes();
                    group.push(next);
                }
                None => at += 1,
            }
        }
        group
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody knows what became of a batch.
pub(super) fn lost(reason: &str) -> Failure {
    Failure::Commit(CommitError::Doubt(reason.to_owned()))
}
