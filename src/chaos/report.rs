//! What a run says at its end: a line for each case, why a failed one failed, and what repeats it.

use super::Plan;
use super::case::Case;
use super::load::Journal;
use crate::cli::failure::Failure;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What became of a case.
pub(crate) struct Ended {
    pub(crate) case: Case,
    pub(crate) seconds: f64,
    orders: usize,
    small: usize,
    /// What was done to it.
    pub(crate) faults: Vec<String>,
    /// What must not be; empty when it ended well.
    pub(crate) wrong: Vec<String>,
}

impl Ended {
    pub(crate) fn new(case: Case) -> Self {
        Self { case, seconds: 0.0, orders: 0, small: 0, faults: Vec::new(), wrong: Vec::new() }
    }

    pub(crate) fn count(&mut self, journal: &Journal) {
        (self.orders, self.small) = (journal.orders.len(), journal.small.len());
    }

    fn verdict(&self) -> &'static str {
        if self.wrong.is_empty() { "ok" } else { "FAILED" }
    }

    /// The line.
    pub(crate) fn line(&self) -> String {
        let Self { case, seconds, orders, small, .. } = self;
        let faults: Vec<String> = counted(&self.faults).into_iter().map(|(what, n)| format!("{n} x {what}")).collect();
        let (label, verdict) = (case.label(), self.verdict());
        format!(
            "{verdict:<6}  {label:<12}  {seconds:>5.1} s  {orders} orders, {small} small sagas; {}",
            faults.join(", ")
        )
    }
}

/// Equal faults together.
fn counted(faults: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    faults.iter().for_each(|fault| *counts.entry(fault.as_str()).or_default() += 1);
    counts
}

/// What became of all.
pub(crate) struct Report<'a> {
    pub(crate) ended: &'a [Ended],
    pub(crate) plan: &'a Plan,
    pub(crate) seconds: f64,
    /// Where the logs of failed cases are.
    pub(crate) folder: &'a Path,
}

impl Report<'_> {
    pub(crate) fn json(&self) -> Value {
        let case = |ended: &Ended| {
            json!({
                "case": ended.case.label(),
                "about": ended.case.about(),
                "ok": ended.wrong.is_empty(),
                "seconds": (ended.seconds * 10.0).round() / 10.0,
                "orders": ended.orders,
                "small_sagas": ended.small,
                "faults": counted(&ended.faults),
                "wrong": ended.wrong,
                "repeat": self.repeat(ended.case),
            })
        };
        json!({
            "seed": self.plan.seed,
            "seconds": (self.seconds * 10.0).round() / 10.0,
            "load_seconds_per_case": self.plan.load.as_secs(),
            "ok": self.ended.iter().all(|ended| ended.wrong.is_empty()),
            "cases": self.ended.iter().map(case).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for ended in self.ended {
            text += &format!("{}\n", ended.line());
            for wrong in &ended.wrong {
                text += &format!("        {}\n", wrong.replace('\n', "\n        "));
            }
            if !ended.wrong.is_empty() {
                text += &format!("        logs: {}\n", self.folder.join(ended.case.label()).display());
                text += &format!("        again: {}\n", self.repeat(ended.case));
            }
        }
        let well = self.ended.iter().filter(|ended| ended.wrong.is_empty()).count();
        text + &format!(
            "{well} of {} cases ended with every saga final and every book balanced; {:.0} s, seed {}\n",
            self.ended.len(),
            self.seconds,
            self.plan.seed
        )
    }

    fn repeat(&self, case: Case) -> String {
        let Plan { load, rate, seed, fused } = self.plan;
        let (label, seconds, mode) = (case.label(), load.as_secs(), if *fused { " --fused" } else { "" });
        format!(
            "scripts/services run --only postgres,kafka -- endstate chaos --case {label} --seconds {seconds} --seed {seed} --rate {rate}{mode}"
        )
    }

    /// The exit code follows from it.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let failed: Vec<&str> =
            self.ended.iter().filter(|ended| !ended.wrong.is_empty()).map(|ended| ended.case.label()).collect();
        if failed.is_empty() { Ok(()) } else { Err(Failure::no(format!("did not end well: {}", failed.join(", ")))) }
    }
}
