//! A broker as strangers see it: records of any bytes, and positions of groups that nobody is in. For tools that try what
//! programs make of such things; the program itself reads and writes through [`super::KafkaBus`].

use super::member::Share;
use super::settings::ANSWER;
use super::topics::{Names, delete};
use endstate_events::{Environment, Side, Topic};
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// The largest record that a topic of ours takes, and a little more, so that the broker has the last word.
const LARGEST: &str = "2000000";

/// How long the broker may take to hand over or to acknowledge some records.
const PATIENCE: Duration = Duration::from_secs(30);

/// A record as it is on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRecord {
    /// Its key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Its body.
    pub payload: Vec<u8>,
    /// Names and values.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Where a group is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before the oldest record.
    Beginning,
    /// Behind the newest one.
    End,
}

/// Somebody who may reach the broker and knows the names of an environment.
#[derive(Clone, Debug)]
pub struct Raw {
    brokers: String,
    environment: Environment,
}

impl Raw {
    /// Connects when it is used.
    #[must_use]
    pub fn new(brokers: &str, environment: Environment) -> Self {
        Self { brokers: brokers.to_owned(), environment }
    }

    /// The last records of a partition, at most so many.
    pub async fn read(&self, topic: Topic, partition: u16, most: usize) -> Result<Vec<RawRecord>, String> {
        let raw = self.clone();
        blocking(move || raw.read_now(topic, partition, most)).await
    }

    /// Sends records to a partition, in this order.
    pub async fn send(&self, topic: Topic, partition: u16, records: Vec<RawRecord>) -> Result<(), String> {
        let raw = self.clone();
        blocking(move || raw.send_now(topic, partition, &records)).await
    }

    /// Moves the positions of a side's group, which must have no members.
    pub async fn move_group(&self, side: Side, partitions: u16, place: Place) -> Result<(), String> {
        let raw = self.clone();
        blocking(move || raw.move_now(side, partitions, place)).await
    }

    /// Deletes every topic of the environment.
    pub async fn wipe(&self) -> Result<(), String> {
        let admin: Result<AdminClient<DefaultClientContext>, _> = self.client("stranger").create();
        delete(&admin.map_err(|error| error.to_string())?, &self.environment).await
    }

    fn client(&self, group: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("group.id", group).set("enable.auto.commit", "false");
        config
    }

    fn name(&self, topic: Topic) -> String {
        Names::of(&self.environment).get(topic).to_owned()
    }

    fn read_now(&self, topic: Topic, partition: u16, most: usize) -> Result<Vec<RawRecord>, KafkaError> {
        let (name, partition) = (self.name(topic), i32::from(partition));
        let consumer: BaseConsumer = self.client("stranger").create()?;
        let (low, high) = consumer.fetch_watermarks(&name, partition, ANSWER)?;
        let from = low.max(high - i64::try_from(most).unwrap_or(i64::MAX));
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&name, partition, Offset::Offset(from))?;
        consumer.assign(&list)?;
        let (mut found, started) = (Vec::new(), Instant::now());
        let mut next = from;
        while next < high && started.elapsed() < PATIENCE {
            let Some(record) = consumer.poll(ANSWER) else { continue };
            let record = record?;
            next = record.offset() + 1;
            let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
            let headers = headers.map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()));
            let payload = record.payload().unwrap_or_default().to_vec();
            found.push(RawRecord { key: record.key().map(<[u8]>::to_vec), payload, headers: headers.collect() });
        }
        Ok(found)
    }

    fn send_now(&self, topic: Topic, partition: u16, records: &[RawRecord]) -> Result<(), KafkaError> {
        let mut config = self.client("stranger");
        let producer: BaseProducer<DefaultProducerContext> = config.set("message.max.bytes", LARGEST).create()?;
        let name = self.name(topic);
        for RawRecord { key, payload, headers } in records {
            let headers = headers
                .iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
            let mut record = BaseRecord::<[u8], [u8]>::to(&name).partition(i32::from(partition));
            record = record.payload(payload).headers(headers);
            record = if let Some(key) = key { record.key(key) } else { record };
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(PATIENCE)
    }

    fn move_now(&self, side: Side, partitions: u16, place: Place) -> Result<(), KafkaError> {
        let consumer: BaseConsumer = self.client(&Share::Shards(side).group(&self.environment)).create()?;
        let mut list = TopicPartitionList::new();
        for topic in Share::Shards(side).topics() {
            let name = self.name(topic);
            for partition in 0..i32::from(partitions) {
                let (low, high) = consumer.fetch_watermarks(&name, partition, ANSWER)?;
                let offset = if place == Place::Beginning { low } else { high };
                list.add_partition_offset(&name, partition, Offset::Offset(offset))?;
            }
        }
        consumer.commit(&list, CommitMode::Sync)
    }
}

/// The client blocks; callers do not.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
