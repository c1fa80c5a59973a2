//! Whose topics these are. The first store that comes to an environment writes its id into a topic of one partition, and every
//! process looks at the first record there before it makes, reads or joins anything. A log has one first record: of two
//! stores that come together one is it (Z17, ADR 0023).

use super::OpenError;
use super::admin::{Admin, admin, ask, blocking, why};
use super::settings::{ANSWER, KafkaSettings};
use super::topics::{LED, SETTLE, answered, counted, create, patience, replication, watermarks};
use endstate_events::Environment;
use rdkafka::admin::{ConfigResource, NewTopic, ResourceSpecifier};
use rdkafka::config::FromClientConfig as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the first record is looked for. A start tries again for longer, and says so each time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Characters of a claim that are shown: an id has 36, and whatever else is there is none.
const SHOWN: usize = 40;

/// The topic of an environment's claim.
pub(super) fn topic(environment: &Environment) -> String {
    format!("{environment}.endstate.store")
}

/// The id of the brokers' cluster.
pub(super) async fn cluster(settings: &KafkaSettings) -> Result<String, OpenError> {
    let admin = admin(settings).map_err(|error| OpenError::settings(&error))?;
    let name = topic(&settings.environment);
    let asked = ask(&admin, move |client| {
        // The answer names the cluster, whether the topic is there or not.
        client.fetch_metadata(Some(&name), Timeout::After(ANSWER))?;
        Ok(client.fetch_cluster_id(ANSWER))
    });
    let cluster = answered(settings, asked.await).await?;
    cluster.filter(|id| !id.is_empty()).ok_or_else(|| OpenError::Unreachable {
        brokers: settings.brokers.clone(),
        reason: "they do not say which cluster they are".to_owned(),
    })
}

/// Claims the environment for a store, or refuses another one than the first.
pub(super) async fn claim(settings: &KafkaSettings, store: &str) -> Result<(), OpenError> {
    make(settings).await?;
    match read_or(settings, first(settings, Some(store)).await).await? {
        Some(first) if first == store => Ok(()),
        Some(first) => Err(OpenError::Claimed {
            environment: settings.environment.to_string(),
            theirs: first.chars().take(SHOWN).collect(),
            ours: store.to_owned(),
        }),
        None => Err(OpenError::Unreachable {
            brokers: settings.brokers.clone(),
            reason: format!("topic {} takes no record", topic(&settings.environment)),
        }),
    }
}

/// The store that has claimed the environment, if one has; changes nothing.
pub(super) async fn claimed(settings: &KafkaSettings) -> Result<Option<String>, OpenError> {
    let client = admin(settings).map_err(|error| OpenError::settings(&error))?;
    match answered(settings, counted(&client, &topic(&settings.environment)).await).await? {
        0 => Ok(None),
        _ => read_or(settings, first(settings, None).await).await,
    }
}

/// The first record, or why it cannot be read though brokers answer.
async fn read_or(settings: &KafkaSettings, first: KafkaResult<Option<String>>) -> Result<Option<String>, OpenError> {
    match first {
        Ok(first) => Ok(first),
        Err(error) => {
            Err(OpenError::Unread { topic: topic(&settings.environment), reason: why(settings, &error).await })
        }
    }
}

/// The topic, as it must be: a claim that is deleted after a while claims nothing.
async fn make(settings: &KafkaSettings) -> Result<(), OpenError> {
    let client = admin(settings).map_err(|error| OpenError::settings(&error))?;
    let name = topic(&settings.environment);
    // Who cannot be asked is told of by the next call.
    let there = counted(&client, &name).await.unwrap_or(0) > 0;
    if !there {
        let min_insync = settings.min_insync.to_string();
        let mut wanted = NewTopic::new(&name, 1, replication(settings))
            .set("cleanup.policy", "delete")
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1");
        if settings.min_insync > 0 {
            wanted = wanted.set("min.insync.replicas", &min_insync);
        }
        let made = answered(settings, create(&client, &[wanted], &patience()).await).await?;
        made.map_err(|(topic, reason)| OpenError::Topic { topic, reason })?;
    }
    let described = client.describe_configs(&[ResourceSpecifier::Topic(&name)], &patience()).await;
    for resource in answered(settings, described).await? {
        let resource = answered(settings, resource.map_err(KafkaError::AdminOp)).await?;
        keeps(&resource).map_err(|reason| OpenError::Topic { topic: name.clone(), reason })?;
    }
    Ok(())
}

/// Whether a topic keeps its first record for ever.
fn keeps(resource: &ConfigResource) -> Result<(), String> {
    for (name, wanted) in [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")] {
        let value = resource.get(name).and_then(|entry| entry.value.as_deref()).unwrap_or(wanted);
        if value != wanted {
            return Err(format!("{name} is `{value}`, and the record in it must stay: `{wanted}`"));
        }
    }
    Ok(())
}

/// The first record. Where there is none, `ours` is written and what is first then is told; none when nothing was written, or
/// nobody took it. It ends in bounded time, whatever the brokers do, and each thread that waits for them waits for a moment
/// only: a process that is asked to stop waits for its threads.
async fn first(settings: &KafkaSettings, ours: Option<&str>) -> KafkaResult<Option<String>> {
    let admin = admin(settings)?;
    let first = looked_for(&admin, settings, ours).await;
    // Its end waits for its threads.
    drop(tokio::task::spawn_blocking(move || drop(admin)));
    first
}

async fn looked_for(admin: &Admin, settings: &KafkaSettings, ours: Option<&str>) -> KafkaResult<Option<String>> {
    let (name, until) = (topic(&settings.environment), Instant::now() + PATIENCE);
    let mut written = false;
    loop {
        let trouble = match (watermarks(admin, &name, 0, LED).await, ours) {
            (Ok((low, high)), _) if low < high => return read(settings, name, low, until).await,
            (Ok(_), None) => return Ok(None),
            (Ok(_), Some(ours)) if !written => {
                written = true;
                write(settings, &name, ours.to_owned(), until).await?;
                continue;
            }
            (Ok(_), Some(_)) => None,
            // One that was just made has no leader yet.
            (Err(error), _) => Some(error),
        };
        if Instant::now() >= until {
            return trouble.map_or(Ok(None), Err);
        }
        tokio::time::sleep(SETTLE).await;
    }
}

async fn write(settings: &KafkaSettings, name: &str, ours: String, until: Instant) -> KafkaResult<()> {
    let producer: BaseProducer<DefaultProducerContext> = BaseProducer::from_config(&settings.producer())?;
    producer.send(BaseRecord::<[u8], str>::to(name).partition(0).payload(&ours)).map_err(|(error, _)| error)?;
    let producer = Arc::new(producer);
    loop {
        let flushing = Arc::clone(&producer);
        let flushed = blocking(move || flushing.flush(Timeout::After(LED))).await;
        if flushed.is_ok() || Instant::now() >= until {
            drop(tokio::task::spawn_blocking(move || drop(producer)));
            return flushed;
        }
    }
}

async fn read(settings: &KafkaSettings, name: String, low: i64, until: Instant) -> KafkaResult<Option<String>> {
    let consumer: Arc<BaseConsumer> = Arc::new(BaseConsumer::from_config(&settings.reader())?);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&name, 0, Offset::Offset(low))?;
    consumer.assign(&list)?;
    loop {
        let reading = Arc::clone(&consumer);
        let record = blocking(move || {
            let record = reading.poll(Timeout::After(LED)).transpose()?;
            Ok(record.map(|record| String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned()))
        });
        let record = record.await;
        if !matches!(record, Ok(None)) || Instant::now() >= until {
            drop(tokio::task::spawn_blocking(move || drop(consumer)));
            // It is there, whoever has not brought it.
            return record?.map(Some).ok_or(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::mocking::MockCluster;
    use std::collections::BTreeMap;

    /// One of several brokers is down, and the claim was there.
    #[tokio::test]
    async fn z17_a_claim_whose_partition_has_no_leader_is_told_of_soon_and_read_once_it_has_one() {
        let brokers = MockCluster::new(1).unwrap();
        let settings = KafkaSettings {
            brokers: brokers.bootstrap_servers(),
            environment: Environment::default(),
            partitions: 1,
            replication: 1,
            min_insync: 1,
            retention: Duration::from_secs(3_600),
            session: Duration::from_secs(6),
            foreign_partitions: 0,
            client: BTreeMap::new(),
        };
        let name = topic(&settings.environment);
        brokers.create_topic(&name, 1, 1).unwrap();
        brokers.partition_leader(&name, 0, None).unwrap();
        // Nothing passes by this bound but what asks on for minutes.
        let told = tokio::time::timeout(12 * PATIENCE, claimed(&settings)).await.expect("it is told");
        assert!(matches!(&told, Err(OpenError::Unread { topic, .. }) if *topic == name), "{told:?}");
        brokers.partition_leader(&name, 0, Some(1)).unwrap();
        assert_eq!(first(&settings, Some("ours")).await, Ok(Some("ours".to_owned())));
        assert_eq!(first(&settings, Some("theirs")).await, Ok(Some("ours".to_owned())));
        assert_eq!(claimed(&settings).await, Ok(Some("ours".to_owned())));
    }
}
