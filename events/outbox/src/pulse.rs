//! What a shard tells of itself while it works: batches, their sizes and times, and how far it is behind.

use crate::bus::Delivered;
use crate::dead_letter::DeadLetter;
use crate::metric::{Counter, Gauge, Histogram, Metric};
use crate::shard::Outcome;
use crate::store::{CommitError, ShardId};
use endstate_events::Topic;
use std::time::{Duration, Instant};

/// A shard's metrics, looked up once: a batch must not pay for names.
pub(crate) struct Pulse {
    side: &'static str,
    batches: Counter,
    records: Histogram,
    rows: Histogram,
    messages: Histogram,
    decide: Histogram,
    commit: Histogram,
    behind: Gauge,
    /// When the oldest record was queued that was read and is not committed.
    oldest_ms: Option<i64>,
    fenced: bool,
    /// When the commit under way began, and where the records came from that it puts aside.
    began: Instant,
    put_aside: Vec<Topic>,
}

impl Pulse {
    pub(crate) fn of(shard: ShardId) -> Self {
        let side = shard.side.label();
        Self {
            side,
            batches: Metric::Batches.counter(&[side]),
            records: Metric::BatchRecords.histogram(&[side]),
            rows: Metric::BatchRows.histogram(&[side]),
            messages: Metric::BatchMessages.histogram(&[side]),
            decide: Metric::BatchDecide.histogram(&[side]),
            commit: Metric::BatchCommit.histogram(&[side]),
            behind: Metric::ShardBehind.gauge(&[side, &shard.index.to_string()]),
            oldest_ms: None,
            fenced: false,
            began: Instant::now(),
            put_aside: Vec::new(),
        }
    }

    /// A batch was taken; an empty one means that nothing waits.
    pub(crate) fn took(&mut self, records: &[Delivered], now_ms: i64) {
        let sent = |record: &Delivered| Some((record.topic, record.envelope.as_ref().ok()?.time_ms));
        let oldest = records.iter().filter_map(sent).min_by_key(|(_, time_ms)| *time_ms);
        self.oldest_ms = oldest.map(|(_, time_ms)| time_ms);
        if let Some((topic, time_ms)) = oldest {
            Metric::RecordAge.record(seconds(now_ms - time_ms), &[topic.label()]);
        }
        self.show(now_ms);
    }

    fn show(&self, now_ms: i64) {
        self.behind.set(self.oldest_ms.map_or(0.0, |oldest_ms| seconds(now_ms - oldest_ms)));
    }

    /// How long it took to decide.
    pub(crate) fn decided(&self, took: Duration) {
        self.decide.record(took);
    }

    /// What a commit holds; told before the store takes it over.
    pub(crate) fn offered(&self, records: usize, outcome: &Outcome) {
        self.records.record(records as f64);
        self.rows.record(outcome.writes.iter().map(|write| write.rows.len()).sum::<usize>() as f64);
        self.messages.record(outcome.messages.len() as f64);
    }

    /// The store takes it over now, with these records put aside.
    pub(crate) fn commits(&mut self, letters: &[DeadLetter]) {
        self.began = Instant::now();
        self.put_aside.clear();
        self.put_aside.extend(letters.iter().map(|letter| letter.topic));
    }

    /// It is on disk.
    pub(crate) fn committed(&self) {
        self.batches.increment(1);
        self.commit.record(self.began.elapsed());
        self.put_aside.iter().for_each(|topic| Metric::DeadLettered.add(1, &[topic.label()]));
    }

    pub(crate) fn assigned(&self) {
        Metric::Assignments.add(1, &[self.side]);
    }

    pub(crate) fn met_a_conflict(&self) {
        Metric::Conflicts.add(1, &[self.side]);
    }

    pub(crate) fn halved(&self) {
        Metric::Halvings.add(1, &[self.side]);
    }

    /// A commit failed; when somebody else owns the shard, the doubt that follows says so.
    pub(crate) fn failed(&mut self, error: &CommitError) {
        self.fenced = matches!(error, CommitError::Fenced(_));
    }

    /// The shard forgets everything. What it has read is not done, so its age goes on.
    pub(crate) fn doubted(&mut self, panicked: bool, now_ms: i64) {
        let reason = match (panicked, std::mem::take(&mut self.fenced)) {
            (true, _) => "panicked",
            (false, true) => "fenced",
            (false, false) => "other",
        };
        Metric::Doubts.add(1, &[self.side, reason]);
        self.show(now_ms);
    }
}

impl Drop for Pulse {
    /// What another process owns is not ours to tell of.
    fn drop(&mut self) {
        self.behind.set(0.0);
    }
}

fn seconds(ms: i64) -> f64 {
    ms.max(0) as f64 / 1_000.0
}
