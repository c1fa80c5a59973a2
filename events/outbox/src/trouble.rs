//! A shard that does not get on: what people are told, and where it stands.

use crate::alert::{self, Alert};
use crate::store::{Assignment, Commit, ShardId, Store};
use endstate_events::Topic;
use std::any::Any;

const DAY_MS: i64 = 24 * 3_600_000;

/// Where a shard stood when it last got on.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    shard: ShardId,
    /// Its positions and sequence; zero while it was never assigned.
    start: i64,
    progress: i64,
    next_seq: i64,
    /// Newer records of which people were told, and on which day.
    newer: Vec<(Topic, i64, i64)>,
}

impl Standing {
    /// A shard that was never assigned.
    pub(crate) fn of(shard: ShardId) -> Self {
        Self { shard, start: 0, progress: 0, next_seq: 0, newer: Vec::new() }
    }

    /// It got as far as this.
    pub(crate) fn at(&mut self, assignment: &Assignment) {
        let Assignment { positions, next_seq, .. } = assignment;
        (self.start, self.progress, self.next_seq) = (positions.start, positions.progress, *next_seq);
    }

    /// Tells of a panic, or of a doubt that does not pass.
    pub(crate) async fn tell(&self, store: &dyn Store, panicked: bool, reason: &str, now_ms: i64) {
        let text = match panicked {
            true => format!("E4035: the task of shard {} panicked and is assigned again: {reason}", self.shard),
            false => format!("E4030: shard {} is assigned again and again and does not get on: {reason}", self.shard),
        };
        self.write(store, if panicked { "panic" } else { "doubt" }, text, now_ms).await;
    }

    /// Tells that a record of a newer schema waits at a position, once a day; whatever else moves meanwhile.
    pub(crate) async fn tell_newer(&mut self, store: &dyn Store, (topic, position): (Topic, i64), now_ms: i64) {
        let (shard, day) = (self.shard, now_ms / DAY_MS);
        let told = (topic, position, day);
        if self.newer.contains(&told) {
            return;
        }
        self.newer.retain(|(.., other)| *other == day);
        self.newer.push(told);
        let topic = topic.label();
        let text = format!(
            "E4031: shard {shard} waits at a record of a newer schema version, in `{topic}` at {position}: upgrade this program"
        );
        tracing::error!("{text}");
        let alert = Alert::new("shard", &[&shard, &"newer", &topic, &position, &day], text, now_ms);
        self.commit(store, &alert).await;
    }

    /// The same trouble at the same place is one alert a day. When the store takes none, the log and `/readyz` have to do.
    async fn write(&self, store: &dyn Store, what: &str, text: String, now_ms: i64) {
        let (shard, day) = (&self.shard, &(now_ms / DAY_MS));
        let alert =
            Alert::new("shard", &[shard, &what, &self.start, &self.progress, &self.next_seq, day], text, now_ms);
        self.commit(store, &alert).await;
    }

    async fn commit(&self, store: &dyn Store, alert: &Alert) {
        let writes = alert::write(std::slice::from_ref(alert)).into_iter().collect();
        if let Err(error) = store.commit(Commit { writes, ..Commit::default() }).await {
            tracing::warn!(shard = %self.shard, %error, "an alert about a shard could not be written");
        }
    }
}

/// What a panic said.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no reason given")
}
