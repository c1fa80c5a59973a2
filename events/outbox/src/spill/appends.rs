//! Messages that are spilled at the same time share one append: while one is under way, the next one gathers.

use super::{Place, Spill};
use crate::bus::{BusError, Outgoing};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Messages of one append, rounded up to whole calls.
const PAGE: usize = 512;

/// Messages that may wait for their append; more, and the table is slower than the calls.
const WAITING: usize = 20_000;

/// What the appends told: where the places end that they touched.
pub(super) type Told = Arc<dyn Fn(&[(Place, i64)]) + Send + Sync>;

/// Those who wait for their append.
pub(super) struct Appends {
    spill: Arc<dyn Spill>,
    told: Told,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    /// Of them together.
    messages: usize,
    running: bool,
}

struct Waiting {
    messages: Vec<Outgoing>,
    answer: oneshot::Sender<Result<(), BusError>>,
}

impl Appends {
    pub(super) fn new(spill: Arc<dyn Spill>, told: Told) -> Self {
        Self { spill, told, state: Arc::default() }
    }

    /// Appends messages. What has begun is finished, also when nobody waits for it any more.
    pub(super) async fn append(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = lock(&self.state);
            if state.messages >= WAITING {
                return Err(BusError::Full("the table of spilled messages is slower than the calls".to_owned()));
            }
            state.messages += messages.len();
            state.waiting.push(Waiting { messages, answer });
            if !std::mem::replace(&mut state.running, true) {
                tokio::spawn(run(Arc::clone(&self.spill), Arc::clone(&self.told), Arc::clone(&self.state)));
            }
        }
        let gone = |_| BusError::Unacknowledged("the program is stopping".to_owned());
        answered.await.map_err(gone)?
    }
}

/// Whoever appends; when it panics, the next call begins anew.
struct Running(Arc<Mutex<State>>);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0).running = false;
        }
    }
}

async fn run(spill: Arc<dyn Spill>, told: Told, state: Arc<Mutex<State>>) {
    let next = || lock(&state).page();
    while let Some(page) = next() {
        // Dropped before the answers are: who hears of the panic may call again at once.
        let _running = Running(Arc::clone(&state));
        let messages: Vec<_> = page.iter().flat_map(|waiting| waiting.messages.iter().cloned()).collect();
        match spill.append(&messages).await {
            Ok(ends) => {
                told(&ends);
                page.into_iter().for_each(|waiting| waiting.answer.send(Ok(())).unwrap_or_default());
            }
            // One of them may be at fault: each by itself.
            Err(BusError::Refused(_)) if page.len() > 1 => {
                for Waiting { messages, answer } in page {
                    let done = spill.append(&messages).await.map(|ends| told(&ends));
                    answer.send(done).unwrap_or_default();
                }
            }
            Err(error) => {
                page.into_iter().for_each(|waiting| waiting.answer.send(Err(error.clone())).unwrap_or_default());
            }
        }
    }
}

impl State {
    /// The calls of the next append; none ends the appending.
    fn page(&mut self) -> Option<Vec<Waiting>> {
        let mut messages = 0;
        let fits = |waiting: &&Waiting| {
            let fits = messages < PAGE;
            messages += waiting.messages.len();
            fits
        };
        let calls = self.waiting.iter().take_while(fits).count();
        self.running = calls > 0;
        let page: Vec<_> = self.waiting.drain(..calls).collect();
        self.messages -= page.iter().map(|waiting| waiting.messages.len()).sum::<usize>();
        (calls > 0).then_some(page)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spill::SpillEnd;
    use crate::store::StoreError;
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A table whose first append panics.
    #[derive(Default)]
    struct Table(AtomicBool);

    #[async_trait]
    impl Spill for Table {
        async fn append(&self, _: &[Outgoing]) -> Result<Vec<(Place, i64)>, BusError> {
            assert!(self.0.swap(true, Ordering::Relaxed), "the first one");
            Ok(Vec::new())
        }

        async fn page(&self, _: Place, _: i64, _: usize) -> Result<Vec<(i64, String)>, StoreError> {
            Ok(Vec::new())
        }

        async fn ends(&self) -> Result<Vec<SpillEnd>, StoreError> {
            Ok(Vec::new())
        }

        async fn forget(&self, _: &[(Place, i64)]) -> Result<u64, StoreError> {
            Ok(0)
        }
    }

    #[tokio::test]
    async fn an_append_that_panics_fails_its_calls_and_no_later_ones() {
        let appends = Appends::new(Arc::new(Table::default()), Arc::new(|_| {}));
        assert!(matches!(appends.append(Vec::new()).await, Err(BusError::Unacknowledged(_))));
        assert!(appends.append(Vec::new()).await.is_ok());
    }
}
