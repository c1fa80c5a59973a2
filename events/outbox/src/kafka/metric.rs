//! What the Kafka clients tell of themselves. Labels are brokers, topics and partitions, never keys or ids.

use crate::metric::Metric;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::statistics::{Statistics, Window};

/// Sets the gauges of a client.
pub(super) fn client(statistics: &Statistics) {
    let kind = statistics.client_type.clone();
    if kind == "producer" {
        Metric::QueuedMessages.set(statistics.msg_cnt as f64, &[]);
        Metric::QueuedBytes.set(statistics.msg_size as f64, &[]);
    }
    for broker in statistics.brokers.values().filter(|broker| broker.nodeid >= 0) {
        let node = broker.nodeid.to_string();
        Metric::Retries.counter(&[&kind, &node]).absolute(broker.txretries);
        if let Some(Window { p50, p99, .. }) = &broker.rtt {
            for (quantile, micros) in [("0.5", p50), ("0.99", p99)] {
                Metric::RoundTrip.set(*micros as f64 / 1e6, &[&kind, &node, quantile]);
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
