//! What a Kafka bus must know, and the settings of each of its clients.

use endstate_events::Environment;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a record may wait for a partition that takes nothing: then whoever has committed it begins anew, and sends
/// again what all partitions have had since. A partition that finds a leader sooner costs nobody else a repeat.
const DELIVERY: Duration = Duration::from_secs(300);

/// The same for topics of other teams, whose partitions nobody of ours waits for.
const FOREIGN_DELIVERY: Duration = Duration::from_secs(15);

/// How long a caller waits for the acknowledgement of what it sends; then nobody knows whether the broker has it.
pub(super) const CALL: Duration = Duration::from_secs(15);

/// How long an answer of the broker is waited for where a caller waits.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// How long changes of status wait for more of them: a third of all requests to the broker would be theirs.
const LINGER: Duration = Duration::from_millis(25);

/// Requests of a connection that may be unanswered; one more is prepared.
const IN_FLIGHT: &str = "1";

/// How often clients tell of themselves.
const STATISTICS: Duration = Duration::from_secs(5);

/// Where the brokers are, and how topics are to be.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// Prefixes topics and groups.
    pub environment: Environment,
    /// Partitions of every topic; the store knows them.
    pub partitions: u16,
    /// Copies of each partition of a topic that is made; 0 leaves it to the brokers.
    pub replication: u16,
    /// Copies that must have a message before it is acknowledged, for topics that are made, and the least that is accepted
    /// of topics that are there; 0 leaves it to the brokers.
    pub min_insync: u16,
    /// Partitions of a topic of another team that is needed and not there; 0: it is not made.
    pub foreign_partitions: u16,
    /// How long a topic keeps its records: longer than the longest saga.
    pub retention: Duration,
    /// After this silence an instance is given up, and others take its shards over.
    pub session: Duration,
    /// More settings for every client, named as librdkafka names them: `security.protocol`, `sasl.*`, `ssl.*`.
    pub client: BTreeMap<String, String>,
}

impl KafkaSettings {
    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", format!("endstate-{}", self.environment));
        for (name, value) in &self.client {
            config.set(name, value);
        }
        // Ours are made with their settings; a topic of another team is made by them.
        // A broker that is away is told of by whoever misses it, not by every connection.
        config.set("allow.auto.create.topics", "false");
        config.set("log.connection.close", "false").set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    pub(super) fn admin(&self) -> ClientConfig {
        self.base()
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.base();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.max.bytes", super::wire::LARGEST.to_string())
            .set("delivery.timeout.ms", DELIVERY.as_millis().to_string())
            // What is ready together travels together; waiting for more only adds to the latency of each step.
            .set("linger.ms", "0")
            // While a request is on its way the next ones gather. Brokers take a connection's requests one by one anyway,
            // and from five on for a partition the client asks itself in a loop whether it may send.
            .set("max.in.flight.requests.per.connection", IN_FLIGHT)
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", "131072")
            .set("statistics.interval.ms", STATISTICS.as_millis().to_string());
        config
    }

    /// For our topics that others read: no saga waits for them, so that they may wait for each other.
    pub(super) fn producer_for_others(&self) -> ClientConfig {
        let mut config = self.producer();
        config.set("linger.ms", LINGER.as_millis().to_string());
        config
    }

    /// For topics of other teams: a queue of its own, so that one of them that takes nothing takes no room from ours; the
    /// partition follows from the key as Java's clients compute it, however many partitions there are.
    pub(super) fn foreign_producer(&self) -> ClientConfig {
        let mut config = self.producer();
        config
            .set("partitioner", "murmur2_random")
            .set("delivery.timeout.ms", FOREIGN_DELIVERY.as_millis().to_string())
            .set("queue.buffering.max.messages", "20000")
            .set("queue.buffering.max.kbytes", "32768");
        config
    }

    /// Reads at the positions that the database names: no group has a say, and no position is ever made up (Z3).
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.base();
        config
            // Only names the client: it neither joins a group nor commits to it.
            .set("group.id", format!("{}.endstate.reader", self.environment))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "50")
            // The default waits a second once the local queue was full (librdkafka issue 3662).
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.max.messages.kbytes", "16384")
            .set("statistics.interval.ms", STATISTICS.as_millis().to_string());
        config
    }

    pub(super) fn member(&self, group: &str) -> ClientConfig {
        let mut config = self.base();
        config
            .set("group.id", group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", self.session.as_millis().to_string())
            .set("heartbeat.interval.ms", (self.session.as_millis() / 4).max(1).to_string())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Never used: its partitions are paused.
            .set("auto.offset.reset", "latest");
        config
    }

    /// For tests that reach brokers of their own, or none.
    #[cfg(test)]
    pub(super) fn of_test(brokers: &str, partitions: u16) -> Self {
        Self {
            brokers: brokers.to_owned(),
            environment: Environment::default(),
            partitions,
            replication: 1,
            min_insync: 1,
            retention: Duration::from_secs(3_600),
            session: Duration::from_secs(6),
            foreign_partitions: 0,
            client: BTreeMap::new(),
        }
    }
}
