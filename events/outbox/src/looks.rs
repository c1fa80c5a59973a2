//! Looks that are shared: whoever wants to know where queues end asks here, and one answer serves all who asked before it
//! was begun.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Pause between two looks: a busy process has timers due all the time, and a timer may be that late.
const PAUSE: Duration = Duration::from_millis(20);

/// Those who wait for the next look, with what each of them wants to know of.
pub(crate) struct Looks<K>(Arc<Mutex<State<K>>>);

struct State<K> {
    waiting: Vec<(K, oneshot::Sender<bool>)>,
    running: bool,
}

impl<K: Send + 'static> Looks<K> {
    /// Nobody waits.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { waiting: Vec::new(), running: false })))
    }

    /// Has `look` run for all who ask, this one among them; it may already be under way for others, and is run again
    /// then. Tells whether it found out.
    pub(crate) fn ask<F, L>(&self, wanted: K, look: L) -> BoxFuture<'static, bool>
    where
        L: Fn(Vec<K>) -> F + Send + 'static,
        F: Future<Output = bool> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let mut state = lock(&self.0);
        state.waiting.push((wanted, answer));
        if !std::mem::replace(&mut state.running, true) {
            tokio::spawn(run(Arc::clone(&self.0), look));
        }
        drop(state);
        answered.map(|known| known.unwrap_or(false)).boxed()
    }
}

async fn run<K, F, L>(state: Arc<Mutex<State<K>>>, look: L)
where
    L: Fn(Vec<K>) -> F,
    F: Future<Output = bool>,
{
    loop {
        let waiting = {
            let mut state = lock(&state);
            state.running = !state.waiting.is_empty();
            if !state.running {
                return;
            }
            std::mem::take(&mut state.waiting)
        };
        let (wanted, answers): (Vec<K>, Vec<_>) = waiting.into_iter().unzip();
        let known = look(wanted).await;
        for answer in answers {
            // Who has gone needs no answer.
            answer.send(known).ok();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn lock<K>(state: &Mutex<State<K>>) -> MutexGuard<'_, State<K>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
