//! What the seeds have met: faults, journeys, facts, refusals. What is never met is not tested, so the test fails.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Every kind of event a saga can have.
pub(crate) const FACTS: [&str; 40] = [
    "started",
    "stage_entered",
    "stage_skipped",
    "run_done",
    "run_refused",
    "run_exhausted",
    "run_abandoned",
    "undos_sent",
    "undo_done",
    "undo_refused",
    "undo_abandoned",
    "contradicted",
    "contradiction_accepted",
    "run_retried",
    "run_asked",
    "run_resent",
    "run_delayed",
    "wait_opened",
    "event_kept",
    "event_taken",
    "event_mismatched",
    "kept_late",
    "event_late",
    "wait_asked",
    "wait_asked_again",
    "deadline_passed",
    "deadline_parked",
    "wait_reset",
    "turned_back",
    "reversal_began",
    "return_began",
    "force_began",
    "faulted",
    "dead_lettered",
    "fault_cleared",
    "ended",
    "snapshot",
    "status_changed",
    "cancel_requested",
    "operated",
];

/// Every way to turn an asker down that needs no 255 retries and no missing saga.
pub(crate) const DENIED: [&str; 9] = [
    "ended",
    "after_pivot",
    "turned_back",
    "not_parked",
    "forced",
    "unknown_reason",
    "wrong_role",
    "unknown_step",
    "unknown_event",
];

/// Every refusal that a saga takes a way for.
pub(crate) const REFUSALS: [&str; 12] = [
    "stock.short",
    "coupon.used",
    "coupon.held",
    "coupon.unknown",
    "coupon.foreign",
    "points.short",
    "payment.rejected",
    "returns.exceeded",
    "notify.rejected",
    "saga.cancelled",
    "bench.failed",
    "lab.no",
];

/// Counts by kind and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(BTreeMap<(&'static str, String), u64>);

/// The coverage of one seed, shared by the parts of its world.
pub(crate) type Met = Arc<Mutex<Coverage>>;

impl Coverage {
    pub(crate) fn add(&mut self, kind: &'static str, name: &str) {
        *self.0.entry((kind, name.to_owned())).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (key, count) in &other.0 {
            *self.0.entry(key.clone()).or_default() += count;
        }
    }

    /// Those of `names` that were never met.
    pub(crate) fn missing<'a>(&self, kind: &'static str, names: &'a [&'static str]) -> Vec<&'a str> {
        names.iter().copied().filter(|name| !self.0.contains_key(&(kind, (*name).to_owned()))).collect()
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut last = "";
        for ((kind, name), count) in &self.0 {
            if *kind != last {
                writeln!(f, "{kind}")?;
                last = kind;
            }
            writeln!(f, "  {count:>9}  {name}")?;
        }
        Ok(())
    }
}

pub(crate) fn met(coverage: &Met, kind: &'static str, name: &str) {
    coverage.lock().unwrap_or_else(PoisonError::into_inner).add(kind, name);
}
