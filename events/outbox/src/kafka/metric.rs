//! What the Kafka clients tell of themselves. Labels are brokers, topics and partitions, never keys or ids.

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::statistics::{Statistics, Window};

/// Names of all metrics of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Records that wait in a partition: its end minus the shard's position.
    LagRecords,
    /// Records that were read and not yet taken by their shard.
    HandedOverRecords,
    /// Messages of the producer that are not acknowledged.
    QueuedMessages,
    /// Their bytes.
    QueuedBytes,
    /// Time of a request to a broker and back, by client, broker and quantile.
    RoundTripSeconds,
    /// Requests that a client sent again.
    Retries,
    /// Partitions that this process owns, by side.
    OwnedShards,
    /// Assignments that were refused because the topic is not what the position says, by topic.
    LostPositions,
    /// Commands that did not reach a topic of another team, by topic.
    LostCommands,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::LagRecords,
        Self::HandedOverRecords,
        Self::QueuedMessages,
        Self::QueuedBytes,
        Self::RoundTripSeconds,
        Self::Retries,
        Self::OwnedShards,
        Self::LostPositions,
        Self::LostCommands,
    ];

    /// The name as it is scraped.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LagRecords => "bus_lag_records",
            Self::HandedOverRecords => "bus_handed_over_records",
            Self::QueuedMessages => "bus_queued_messages",
            Self::QueuedBytes => "bus_queued_bytes",
            Self::RoundTripSeconds => "bus_round_trip_seconds",
            Self::Retries => "bus_retries",
            Self::OwnedShards => "bus_owned_shards",
            Self::LostPositions => "bus_lost_positions_total",
            Self::LostCommands => "bus_lost_commands_total",
        }
    }
}

/// Sets the gauges of a client.
pub(super) fn client(statistics: &Statistics) {
    let kind = statistics.client_type.clone();
    if kind == "producer" {
        metrics::gauge!(Metric::QueuedMessages.name()).set(statistics.msg_cnt as f64);
        metrics::gauge!(Metric::QueuedBytes.name()).set(statistics.msg_size as f64);
    }
    for broker in statistics.brokers.values().filter(|broker| broker.nodeid >= 0) {
        let labels = [("client", kind.clone()), ("broker", broker.nodeid.to_string())];
        metrics::gauge!(Metric::Retries.name(), &labels).set(broker.txretries as f64);
        if let Some(Window { p50, p99, .. }) = &broker.rtt {
            for (quantile, micros) in [("0.5", p50), ("0.99", p99)] {
                let mut labels = labels.to_vec();
                labels.push(("quantile", quantile.to_owned()));
                metrics::gauge!(Metric::RoundTripSeconds.name(), &labels).set(*micros as f64 / 1e6);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own() {
        let mut names: Vec<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Metric::ALL.len());
    }
}
