//! Counts sagas as their batches are committed: begun, parked, ended, and how long they took.

use crate::decide::Changed;
use crate::waiters::Claim;
use endstate_outbox::metric::{Counter, Histogram, Metric};
use endstate_saga::control::Phase;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A shard's counters, looked up once per definition.
#[derive(Default)]
pub(crate) struct Tally(FxHashMap<Arc<str>, Counts>);

struct Counts {
    started: Counter,
    parked: Counter,
    ended: FxHashMap<&'static str, (Counter, Histogram)>,
}

impl Tally {
    /// One saga of a committed batch.
    pub(crate) fn take(&mut self, changed: &Changed, now_ms: i64) {
        let Some(saga) = &changed.saga else { return };
        let definition = &saga.definition;
        let counts = self.0.entry(Arc::clone(definition)).or_insert_with(|| Counts {
            started: Metric::SagasStarted.counter(&[definition]),
            parked: Metric::SagasParked.counter(&[definition]),
            ended: FxHashMap::default(),
        });
        if matches!(changed.claim, Some(Claim::First)) {
            counts.started.increment(1);
        }
        if changed.was == Some(changed.phase) {
            return;
        }
        if changed.phase == Phase::Parked {
            counts.parked.increment(1);
        }
        if let Some(outcome) = saga.control.outcome() {
            let (ended, took) = counts.ended.entry(outcome.label()).or_insert_with(|| {
                let labels = [&**definition, outcome.label()];
                (Metric::SagasEnded.counter(&labels), Metric::SagaDuration.histogram(&labels))
            });
            ended.increment(1);
            took.record((now_ms - saga.started_ms).max(0) as f64 / 1_000.0);
        }
    }
}
