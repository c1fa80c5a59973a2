//! What the Kafka clients tell of themselves. Labels are brokers, topics and partitions, never keys or ids.

use crate::metric::Metric;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::statistics::{Statistics, Window};
use rustc_hash::FxHashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Every client tells of a broker that is away each time it tries it, together many times a second: so often one of them is
/// heard, about each kind of trouble.
const EVERY: Duration = Duration::from_secs(10);

/// Sets the gauges of a producer.
pub(super) fn producer(name: &str, statistics: &Statistics) {
    Metric::QueuedMessages.set(statistics.msg_cnt as f64, &[name]);
    Metric::QueuedBytes.set(statistics.msg_size as f64, &[name]);
    client(name, statistics);
}

/// Sets the gauges of a client. Each has a name of its own: what several tell under one, only the last has told.
pub(super) fn client(name: &str, statistics: &Statistics) {
    for broker in statistics.brokers.values().filter(|broker| broker.nodeid >= 0) {
        let node = broker.nodeid.to_string();
        Metric::Retries.counter(&[name, &node]).absolute(broker.txretries);
        if let Some(Window { p50, p99, .. }) = &broker.rtt {
            for (quantile, micros) in [("0.5", p50), ("0.99", p99)] {
                Metric::RoundTrip.set(*micros as f64 / 1e6, &[name, &node, quantile]);
            }
        }
    }
}

/// Hands a line of librdkafka to our log.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => tracing::warn!(facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "{message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(facility, "{message}"),
    }
}

/// Says that a client has trouble, but not each time.
pub(super) fn trouble(client: &str, error: &KafkaError, reason: &str) {
    static TOLD: LazyLock<Seldom> = LazyLock::new(Seldom::default);
    let kind = error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| format!("{code:?}"));
    if let Some(left_out) = TOLD.lets(&kind, Instant::now()) {
        tracing::warn!(%error, reason, left_out, "{client} has trouble");
    }
}

/// When each kind of trouble was told last, and how often it was not since.
#[derive(Default)]
struct Seldom(Mutex<FxHashMap<String, (Instant, u64)>>);

impl Seldom {
    /// Whether to tell now, and how often nobody did since the last time.
    fn lets(&self, kind: &str, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match told.get_mut(kind) {
            Some((last, left_out)) if now.duration_since(*last) < EVERY => {
                *left_out += 1;
                None
            }
            Some((last, left_out)) => {
                *last = now;
                Some(std::mem::take(left_out))
            }
            None => {
                told.insert(kind.to_owned(), (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_trouble_is_told_at_once_and_then_seldom() {
        let (seldom, begun) = (Seldom::default(), Instant::now());
        let after = |ms| begun + Duration::from_millis(ms);
        assert_eq!(seldom.lets("AllBrokersDown", begun), Some(0));
        let more = (1..=99).filter_map(|n| seldom.lets("AllBrokersDown", after(n * 100)));
        assert_eq!(more.count(), 0);
        assert_eq!(seldom.lets("Resolve", after(9_000)), Some(0), "another kind");
        assert_eq!(seldom.lets("AllBrokersDown", after(10_000)), Some(99));
        assert_eq!(seldom.lets("AllBrokersDown", after(10_001)), None);
    }
}
