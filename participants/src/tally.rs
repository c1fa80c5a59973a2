//! Counts what participants answer, once the batch is committed.

use endstate_events::{Command, Verdict};
use endstate_outbox::metric::{Counter, Metric};

/// A shard's counters, looked up once per participant, action and verdict: some twenty, so that a list is a fast map.
#[derive(Default)]
pub(crate) struct Tally(Vec<Count>);

struct Count {
    participant: String,
    action: String,
    verdict: &'static str,
    counter: Counter,
    /// Of the batch that is being decided.
    open: u64,
}

impl Tally {
    /// A command was answered.
    pub(crate) fn answered(&mut self, command: &Command, verdict: &Verdict) {
        let Command { participant, action, .. } = command;
        let verdict = verdict.label();
        let same = |count: &&mut Count| {
            count.verdict == verdict && count.action == *action && count.participant == *participant
        };
        if let Some(count) = self.0.iter_mut().find(same) {
            count.open += 1;
            return;
        }
        let counter = Metric::Answered.counter(&[participant, action, verdict]);
        let (participant, action) = (participant.clone(), action.clone());
        self.0.push(Count { participant, action, verdict, counter, open: 1 });
    }

    /// The batch is on disk.
    pub(crate) fn committed(&mut self) {
        self.0.iter_mut().for_each(|count| count.counter.increment(std::mem::take(&mut count.open)));
    }

    /// It is not.
    pub(crate) fn rolled_back(&mut self) {
        self.0.iter_mut().for_each(|count| count.open = 0);
    }
}
