//! Whose topics these are. The first store that comes to an environment writes its id into a topic of one partition, and every
//! process looks at the first record there before it makes, reads or joins anything. A log has one first record: of two
//! stores that come together one is it (Z17, ADR 0023).

use super::OpenError;
use super::admin::{admin, ask, blocking};
use super::settings::{ANSWER, KafkaSettings};
use super::topics::{LOOKS, SETTLE, answered, counted, replication};
use endstate_events::Environment;
use rdkafka::admin::{AdminOptions, ConfigResource, NewTopic, ResourceSpecifier};
use rdkafka::config::FromClientConfig as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use std::time::Instant;

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
    let (own, ours) = (settings.clone(), store.to_owned());
    let first = answered(settings, blocking(move || first(&own, Some(&ours))).await).await?;
    match first {
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
    let own = settings.clone();
    let asked = blocking(move || {
        let name = topic(&own.environment);
        let there = super::admin::admin(&own)?.inner().fetch_metadata(Some(&name), Timeout::After(ANSWER))?;
        let there = there.topics().iter().any(|topic| topic.name() == name && topic.error().is_none());
        if there { first(&own, None) } else { Ok(None) }
    });
    answered(settings, asked.await).await
}

/// The topic, as it must be: a claim that is deleted after a while claims nothing.
async fn make(settings: &KafkaSettings) -> Result<(), OpenError> {
    let client = admin(settings).map_err(|error| OpenError::settings(&error))?;
    let options = AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(2 * ANSWER));
    let name = topic(&settings.environment);
    let wrong = |reason: String| OpenError::Topic { topic: name.clone(), reason };
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
        for made in answered(settings, client.create_topics([&wanted], &options).await).await? {
            match made {
                Ok(name) => tracing::info!(topic = name, "made"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, error)) => return Err(wrong(format!("it cannot be made: {error}"))),
            }
        }
    }
    let described = client.describe_configs(&[ResourceSpecifier::Topic(&name)], &options).await;
    for resource in answered(settings, described).await? {
        let resource = answered(settings, resource.map_err(KafkaError::AdminOp)).await?;
        keeps(&resource).map_err(wrong)?;
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
/// nobody took it.
fn first(settings: &KafkaSettings, ours: Option<&str>) -> KafkaResult<Option<String>> {
    let name = topic(&settings.environment);
    let consumer: BaseConsumer = BaseConsumer::from_config(&settings.reader())?;
    let (mut written, mut trouble) = (false, None);
    for _ in 0..LOOKS {
        match (consumer.fetch_watermarks(&name, 0, ANSWER), ours) {
            (Ok((low, high)), _) if low < high => return read(&consumer, &name, low),
            (Ok(_), None) => return Ok(None),
            (Ok(_), Some(ours)) if !written => {
                written = true;
                write(settings, &name, ours)?;
                continue;
            }
            (Ok(_), Some(_)) => trouble = None,
            // One that was just made has no leader yet.
            (Err(error), _) => trouble = Some(error),
        }
        std::thread::sleep(SETTLE);
    }
    trouble.map_or(Ok(None), Err)
}

fn write(settings: &KafkaSettings, name: &str, ours: &str) -> KafkaResult<()> {
    let producer: BaseProducer<DefaultProducerContext> = BaseProducer::from_config(&settings.producer())?;
    let record = BaseRecord::<[u8], str>::to(name).partition(0).payload(ours);
    producer.send(record).map_err(|(error, _)| error)?;
    producer.flush(Timeout::After(2 * ANSWER))
}

fn read(consumer: &BaseConsumer, name: &str, low: i64) -> KafkaResult<Option<String>> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(name, 0, Offset::Offset(low))?;
    consumer.assign(&list)?;
    let started = Instant::now();
    while started.elapsed() < 2 * ANSWER {
        let Some(record) = consumer.poll(Timeout::After(ANSWER)) else { continue };
        return Ok(Some(String::from_utf8_lossy(record?.payload().unwrap_or_default()).into_owned()));
    }
    Ok(None)
}
