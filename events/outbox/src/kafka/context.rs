//! What the reading client says beside records: its log, its errors, its statistics.

use super::metric;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rustc_hash::FxHashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The ends of partitions, as statistics tell them.
pub(super) type Ends = Arc<Mutex<FxHashMap<(String, i32), i64>>>;

/// Hears what the client says.
pub(super) struct Context {
    ends: Ends,
}

impl Context {
    /// One that tells where partitions end.
    pub(super) fn telling(ends: &Ends) -> Self {
        Self { ends: Ends::clone(ends) }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        metric::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        metric::trouble("the consumer", &error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        metric::client("consumer", &statistics);
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in statistics.topics.values() {
            for (partition, told) in topic.partitions.iter().filter(|(_, told)| told.hi_offset >= 0) {
                ends.insert((topic.topic.clone(), *partition), told.hi_offset);
            }
        }
    }
}

impl ConsumerContext for Context {}
