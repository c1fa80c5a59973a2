//! What an operator wants to know about brokers and topics before trusting them: one finding per question. Nothing is
//! made or changed.

use super::admin::{admin, why};
use super::settings::{ANSWER, KafkaSettings};
use super::{OpenError, wire};
use crate::postgres::examine::{Finding, Grade, finding};
use endstate_events::Topic;
use rdkafka::admin::{AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::util::Timeout;

/// Copies of a partition that survive the loss of a broker while another is in repair.
const COPIES: usize = 3;

/// Asks everything; what cannot be asked because something before it is bad is left out.
pub async fn examine(settings: &KafkaSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(reason) = ask_all(settings, &mut findings).await {
        let advice = "start the brokers, or correct kafka.brokers and the security settings of kafka.client_file";
        let text = format!("{}: {reason}", settings.brokers);
        findings.push(finding("kafka.reach", Grade::Bad, text).advice(advice));
    }
    findings
}

async fn ask_all(settings: &KafkaSettings, findings: &mut Vec<Finding>) -> Result<(), String> {
    let admin = admin(settings).map_err(|error| OpenError::settings(&error).to_string())?;
    let options = AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(2 * ANSWER));
    // The client's own calls wait in the thread that makes them.
    let (admin, asked) = tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(None, Timeout::After(2 * ANSWER));
        let cluster = admin.inner().fetch_cluster_id(ANSWER);
        (admin, metadata.map(|metadata| (metadata, cluster)))
    })
    .await
    .map_err(|error| error.to_string())?;
    let (metadata, cluster) = match asked {
        Ok(asked) => asked,
        Err(error) => return Err(why(settings, &error).await),
    };
    let brokers = metadata.brokers().len();
    let text = format!("{brokers} brokers answer, cluster {}", cluster.as_deref().unwrap_or("unknown"));
    findings.push(finding("kafka.reach", Grade::Good, text));
    // Whatever kafka.client_file says, these are set after it.
    findings.push(finding("kafka.producer", Grade::Good, "acks=all, idempotent, explicit partitions"));
    let ids: Vec<_> = metadata.brokers().iter().map(|broker| ResourceSpecifier::Broker(broker.id())).collect();
    let described = admin.describe_configs(&ids, &options).await.map_err(|error| error.to_string())?;
    findings.push(unclean(described.iter().flatten()));
    let names = Topic::ALL.map(|topic| topic.name(&settings.environment).into_owned());
    let missing: Vec<&str> = names.iter().map(String::as_str).filter(|name| topic(&metadata, name).is_none()).collect();
    if !missing.is_empty() {
        let text = format!("not there yet: {}", missing.join(", "));
        let advice = "`endstate serve` makes them with the settings of [kafka]; or make them yourself";
        findings.push(finding("kafka.topics", Grade::Mind, text).advice(advice));
        return Ok(());
    }
    findings.push(partitions(settings, &metadata, &names));
    findings.push(copies(&metadata, &names));
    let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let described = admin.describe_configs(&resources, &options).await.map_err(|error| error.to_string())?;
    let described: Vec<ConfigResource> =
        described.into_iter().collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    findings.push(in_sync(settings, &described, fewest(&metadata, &names)));
    findings.push(kept(settings, &described));
    findings.push(largest(&described));
    Ok(())
}

fn topic<'m>(metadata: &'m Metadata, name: &str) -> Option<&'m MetadataTopic> {
    metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none())
}

fn value<'r>(resource: &'r ConfigResource, name: &str) -> &'r str {
    resource.get(name).and_then(|entry| entry.value.as_deref()).unwrap_or_default()
}

fn number(resource: &ConfigResource, name: &str) -> i64 {
    value(resource, name).parse().unwrap_or(-1)
}

fn unclean<'r>(mut brokers: impl Iterator<Item = &'r ConfigResource>) -> Finding {
    let allowed = brokers.any(|broker| value(broker, "unclean.leader.election.enable") == "true");
    if !allowed {
        return finding("kafka.election", Grade::Good, "only copies in sync become leaders");
    }
    let text = "unclean.leader.election.enable is true: a copy that lacks acknowledged messages may become leader";
    finding("kafka.election", Grade::Bad, text).advice("set unclean.leader.election.enable=false on every broker")
}

fn partitions(settings: &KafkaSettings, metadata: &Metadata, names: &[String]) -> Finding {
    let wanted = usize::from(settings.partitions);
    let counts = names.iter().filter_map(|name| Some((name, topic(metadata, name)?.partitions().len())));
    let wrong: Vec<String> =
        counts.filter(|(_, count)| *count != wanted).map(|(name, count)| format!("{name} has {count}")).collect();
    if wrong.is_empty() {
        return finding("kafka.partitions", Grade::Good, format!("{wanted} in each of {} topics", names.len()));
    }
    let text = format!("the store has {wanted} shards, and {}", wrong.join(", "));
    finding("kafka.partitions", Grade::Bad, text).advice("never add partitions: use topics made for this store")
}

/// The fewest copies that a partition has.
fn fewest(metadata: &Metadata, names: &[String]) -> usize {
    let topics = names.iter().filter_map(|name| topic(metadata, name));
    topics.flat_map(|topic| topic.partitions()).map(|partition| partition.replicas().len()).min().unwrap_or(0)
}

fn copies(metadata: &Metadata, names: &[String]) -> Finding {
    let all = names.iter().filter_map(|name| topic(metadata, name)).flat_map(|topic| topic.partitions());
    let behind = all.filter(|partition| partition.isr().len() < partition.replicas().len()).count();
    let fewest = fewest(metadata, names);
    let text = format!("at least {fewest} of each partition, {behind} partitions with one out of sync");
    if fewest < COPIES {
        let advice = "three brokers, kafka.replication = 3: with fewer copies the loss of a disk loses accepted orders";
        return finding("kafka.copies", Grade::Mind, text).advice(advice);
    }
    let grade = if behind > 0 { Grade::Mind } else { Grade::Good };
    finding("kafka.copies", grade, text).advice(if behind > 0 { "look after the broker that is behind" } else { "" })
}

fn in_sync(settings: &KafkaSettings, topics: &[ConfigResource], copies: usize) -> Finding {
    let least = topics.iter().map(|topic| number(topic, "min.insync.replicas")).min().unwrap_or(-1);
    let text = format!("min.insync.replicas is {least}");
    if least < i64::from(settings.min_insync) {
        let advice = "raise it on the topics to kafka.min_insync, or this program refuses them";
        return finding("kafka.in_sync", Grade::Bad, text).advice(advice);
    }
    if least >= i64::try_from(copies).unwrap_or(i64::MAX) && copies > 1 {
        let advice = "one fewer than there are copies: as it is, no broker may be down for a moment";
        return finding("kafka.in_sync", Grade::Mind, text).advice(advice);
    }
    if least < 2 {
        let advice = "kafka.min_insync = 2, with three copies: with one, what a single broker acknowledged can be lost";
        return finding("kafka.in_sync", Grade::Mind, text).advice(advice);
    }
    finding("kafka.in_sync", Grade::Good, text)
}

fn kept(settings: &KafkaSettings, topics: &[ConfigResource]) -> Finding {
    let hours = |ms: i64| ms / 3_600_000;
    let wanted = i64::try_from(settings.retention.as_millis()).unwrap_or(i64::MAX);
    let by_time = topics.iter().map(|topic| number(topic, "retention.ms")).filter(|ms| *ms >= 0).min();
    let by_bytes = topics.iter().any(|topic| number(topic, "retention.bytes") >= 0);
    let compacted = topics.iter().any(|topic| value(topic, "cleanup.policy") != "delete");
    if compacted {
        let text = "a topic's cleanup.policy is not `delete`: compaction takes messages away";
        return finding("kafka.retention", Grade::Bad, text).advice("set cleanup.policy=delete");
    }
    if let Some(least) = by_time.filter(|least| *least < wanted) {
        let text = format!("records are kept for {} hours, less than the {} wanted", hours(least), hours(wanted));
        let advice = "raise retention.ms on the topics, or lower kafka.retention_days if no outage lasts so long";
        return finding("kafka.retention", Grade::Bad, text).advice(advice);
    }
    if by_bytes {
        let text = "a topic has retention.bytes: a rush can push out what nobody has read";
        return finding("kafka.retention", Grade::Mind, text).advice("set retention.bytes=-1 and watch the disk");
    }
    let text = by_time.map_or_else(|| "for ever".to_owned(), |least| format!("for {} hours", hours(least)));
    finding("kafka.retention", Grade::Good, format!("records are kept {text}"))
}

fn largest(topics: &[ConfigResource]) -> Finding {
    let least = topics.iter().map(|topic| number(topic, "max.message.bytes")).min().unwrap_or(-1);
    if least < wire::BATCH {
        let text = format!("max.message.bytes is {least}: the largest message could never be sent");
        return finding("kafka.size", Grade::Bad, text).advice(format!("raise it to {}", wire::BATCH));
    }
    finding("kafka.size", Grade::Good, format!("messages of {least} bytes are taken"))
}
