//! The bus over Kafka. The database knows positions and owners' epochs; Kafka carries, and tells which process should own
//! which shard.
//!
//! - [`settings`]: what it must know, and the settings of its clients
//! - [`topics`]: made with the right settings, or checked; [`claim`]: whose they are
//! - [`wire`]: messages as records; [`position`]: where a message is in its partition
//! - [`sender`], [`window`]: the producer, and what of a shard is not acknowledged
//! - [`reader`], [`reading`], [`slot`]: the one data consumer, and a partition that it reads; [`hand_over`], [`assigned`]: the
//!   queue to each shard, and the shard's end of it;
//!   [`watermark`]: where partitions end now; [`passed`]: what was read and is no message;
//!   [`context`]: what the client says beside records
//! - [`look`]: where a log begins and ends, asked without keeping the reader
//! - [`member`]: which shards this process owns; [`guard`]: its thread and the reader's survive a panic
//! - [`raw`]: a broker as strangers see it
//! - [`metric`]: what the clients tell of themselves; [`examine`]: a report about brokers and topics

mod admin;
mod assigned;
mod claim;
mod context;
pub mod examine;
mod guard;
mod hand_over;
mod look;
mod member;
mod metric;
mod passed;
mod position;
pub mod raw;
mod reader;
mod reading;
mod sender;
mod settings;
mod slot;
mod topics;
mod watermark;
mod window;
mod wire;

pub use sender::Sent;
pub use settings::KafkaSettings;
pub use window::FOREIGN_WINDOW;

use crate::bus::{Bus, BusError, Consumer, Outgoing, Relay};
use crate::store::{Positions, ShardId};
use async_trait::async_trait;
use endstate_events::{ForeignTopic, Side, Topic};
use member::{Member, Share};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;
use reader::Reader;
use sender::{Carrier, Sender};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why there is no bus.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No broker answers, or it refuses us.
    #[error("E4061: the brokers {brokers} cannot be used: {reason}")]
    Unreachable {
        /// Where they should be.
        brokers: String,
        /// Their words, or the client's.
        reason: String,
    },
    /// Brokers answer, and the topic that says whose the environment is cannot be read.
    #[error("E4061: brokers answer, and topic {topic}, which says whose the environment is, cannot be read: {reason}")]
    Unread {
        /// The topic.
        topic: String,
        /// Their words, or the client's.
        reason: String,
    },
    /// The client's own settings are no settings; trying again would not help.
    #[error("E4063: the Kafka client cannot be made: {reason}{}", hint(reason))]
    Settings {
        /// The client's words.
        reason: String,
    },
    /// Another store was there first.
    #[error(
        "E4068: environment `{environment}` on these brokers belongs to store {theirs}, and this one is {ours}; choose \
         another environment, or delete its topics if the other store is gone for good"
    )]
    Claimed {
        /// The environment.
        environment: String,
        /// The store that has it.
        theirs: String,
        /// The one that came.
        ours: String,
    },
    /// A topic is not as it must be.
    #[error("E4062: topic {topic} is not as it must be: {reason}")]
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong.
        reason: String,
    },
}

impl OpenError {
    /// What the client said when it was made.
    fn settings(error: &KafkaError) -> Self {
        let reason = match error {
            // Its words hold the value, which may be a password under a wrong name.
            KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
                format!("there is no setting `{name}`")
            }
            KafkaError::ClientConfig(_, _, name, _) => format!("`{name}` cannot have this value"),
            other => other.to_string(),
        };
        Self::Settings { reason }
    }
}

/// What to do when the client was built without what it is asked for.
fn hint(reason: &str) -> &'static str {
    let words = ["ssl", "SSL", "SCRAM", "OAUTHBEARER", "security.protocol", "sasl.mechanism"];
    let asks = words.iter().any(|word| reason.contains(word));
    match asks && !cfg!(feature = "kafka-tls") {
        true => "; this program was built without TLS: build it with --features kafka-tls",
        false => "",
    }
}

/// The bus over Kafka.
pub struct KafkaBus {
    settings: KafkaSettings,
    sender: Arc<Sender>,
    reader: Reader,
    members: Mutex<Vec<(Share, Member)>>,
    stop: CancellationToken,
}

impl KafkaBus {
    /// The id of the brokers' cluster.
    pub async fn cluster(settings: &KafkaSettings) -> Result<String, OpenError> {
        claim::cluster(settings).await
    }

    /// Claims the environment on these brokers for a store; refuses every other one than the first that came. To be done
    /// before [`open`](Self::open).
    pub async fn claim(settings: &KafkaSettings, store: &str) -> Result<(), OpenError> {
        claim::claim(settings, store).await
    }

    /// The store that has claimed the environment, if one has.
    pub async fn claimed(settings: &KafkaSettings) -> Result<Option<String>, OpenError> {
        claim::claimed(settings).await
    }

    /// Where the topics begin that each shard reads; changes nothing.
    pub async fn beginnings(settings: &KafkaSettings) -> Result<Vec<(ShardId, Positions)>, OpenError> {
        topics::beginnings(settings).await
    }

    /// Connects; makes or checks the topics. Joins no group yet.
    pub async fn open(settings: KafkaSettings) -> Result<Arc<Self>, OpenError> {
        topics::ensure(&settings).await?;
        let stop = CancellationToken::new();
        let sender = Sender::new(&settings, stop.clone()).map_err(|error| OpenError::settings(&error))?;
        let reader = Reader::start(&settings).map_err(|error| OpenError::settings(&error))?;
        Ok(Arc::new(Self { settings, sender, reader, members: Mutex::default(), stop }))
    }

    /// What this process owns of something that a group shares out; joins the group when it is asked first.
    fn member(&self, share: Share) -> watch::Receiver<BTreeSet<u16>> {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, member)) = members.iter().find(|(mine, _)| *mine == share) {
            return member.owned.clone();
        }
        match Member::join(&self.settings, share, self.reader.places.clone()) {
            Ok(member) => {
                let owned = member.owned.clone();
                members.push((share, member));
                owned
            }
            Err(error) => {
                tracing::error!(%error, ?share, "E4061: the group cannot be joined; nothing of it is owned");
                watch::channel(BTreeSet::new()).1
            }
        }
    }

    /// What it has sent to topics of its own.
    #[must_use]
    pub fn sent(&self) -> &Sent {
        self.sender.sent()
    }

    /// Deletes every topic of an environment, for tools that made one for themselves.
    pub async fn wipe(settings: &KafkaSettings) -> Result<(), String> {
        topics::wipe(settings).await
    }

    /// Ends it once its shards have stopped: waits for acknowledgements, then leaves the groups.
    pub async fn close(self: Arc<Self>) {
        let closing = tokio::task::spawn_blocking(move || {
            self.sender.flush();
            self.stop.cancel();
            for (_, member) in &*self.members.lock().unwrap_or_else(PoisonError::into_inner) {
                member.leave();
            }
            self.reader.stop();
        });
        if let Err(error) = closing.await {
            tracing::error!(%error, "the bus did not close");
        }
    }
}

#[async_trait]
impl Bus for KafkaBus {
    async fn produce(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        self.sender.produce(messages).await
    }

    fn consumer(&self, topic: Topic, partition: u16, position: i64) -> Box<dyn Consumer> {
        self.reader.read((topic, partition), position, None)
    }

    fn consumer_behind(&self, topic: Topic, partition: u16, position: i64, record: Option<u32>) -> Box<dyn Consumer> {
        self.reader.read((topic, partition), position, record)
    }

    async fn answers(&self, topic: Topic, partition: u16) -> bool {
        self.reader.watermarks.answers((topic, partition)).await
    }

    fn relay(&self, _: ShardId, published_seq: i64) -> Option<Box<dyn Relay>> {
        Some(Box::new(Carrier::new(Arc::clone(&self.sender), published_seq)))
    }

    async fn reach(&self, topic: ForeignTopic, partitions: Option<u16>) -> Result<u16, BusError> {
        let found = topics::foreign(&self.settings, topic).await.map_err(BusError::Refused)?;
        match partitions {
            Some(wanted) if wanted != found => {
                let name = topic.name();
                Err(BusError::Refused(format!("topic `{name}` has {found} partitions instead of {wanted}")))
            }
            _ => Ok(found),
        }
    }

    async fn edges(&self, topic: ForeignTopic, partition: u16) -> Result<(i64, i64), BusError> {
        topics::edges(&self.settings, topic, partition).await.map_err(BusError::Refused)
    }

    fn heard(&self, topic: ForeignTopic) -> Option<watch::Receiver<BTreeSet<u16>>> {
        Some(self.member(Share::Foreign(topic)))
    }

    fn owned(&self, side: Side) -> Option<watch::Receiver<BTreeSet<u16>>> {
        Some(self.member(Share::Shards(side)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_is_named_and_its_value_is_not() {
        use RDKafkaConfRes::{RD_KAFKA_CONF_INVALID, RD_KAFKA_CONF_UNKNOWN};
        let told = |kind, name: &str| {
            let [said, value] = ["not this: hunter2", "hunter2"].map(str::to_owned);
            OpenError::settings(&KafkaError::ClientConfig(kind, said, name.to_owned(), value)).to_string()
        };
        let unknown = told(RD_KAFKA_CONF_UNKNOWN, "pasword");
        assert_eq!(unknown, "E4063: the Kafka client cannot be made: there is no setting `pasword`");
        let invalid = told(RD_KAFKA_CONF_INVALID, "security.protocol");
        assert!(invalid.contains("`security.protocol` cannot have this value"), "{invalid}");
        assert!(!invalid.contains("hunter2"), "{invalid}");
        assert_eq!(invalid.contains("--features kafka-tls"), !cfg!(feature = "kafka-tls"), "{invalid}");
    }
}
