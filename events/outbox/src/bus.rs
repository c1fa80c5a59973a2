//! The Bus port: messages into partitions, and out of them in order.

use crate::parcel::Parcel;
use crate::store::{CommitError, ShardId, StoreError};
use async_trait::async_trait;
use endstate_events::{Envelope, ForeignTopic, Side, Topic};
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;

/// A message and the partition it goes to; whoever makes it names the partition, from the key's slot.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u16,
    /// The message.
    pub envelope: Arc<Envelope>,
}

/// A message as read from its partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// The topic.
    pub topic: Topic,
    /// Its position. A record of Kafka may hold several messages: in topics of ours it is 1024 times the offset, plus the
    /// message in that record. Below zero: it was spilled, see [`Delivered::spilled`].
    pub offset: i64,
    /// The position behind it: that of what comes next, whenever that will be.
    pub next: i64,
    /// The message, or its bytes when nobody can read them.
    pub envelope: Result<Arc<Envelope>, Undecodable>,
    /// How long it is as it was written.
    pub bytes: usize,
    /// The [`hash`](crate::witness::hash) of the record that held it; 0 where none is kept.
    pub record: u32,
}

impl Delivered {
    /// The offset under which a spilled message is known, in dead letters, too: spilled ones and those of the topic are
    /// numbered apart, so that its number would stand for another message.
    #[must_use]
    pub fn offset_spilled(number: i64) -> i64 {
        -1 - number
    }

    /// Its number among those that were spilled; none when it came by the topic.
    #[must_use]
    pub fn spilled(&self) -> Option<i64> {
        (self.offset < 0).then(|| -1 - self.offset)
    }
}

/// Bytes with which a take is full: it ends with the message that reaches them, however many were asked for.
pub const TAKE_BYTES: usize = 4 * 1024 * 1024;

/// A record that is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// Its bytes, as text.
    pub bytes: String,
    /// Why it cannot be read.
    pub reason: String,
    /// A newer program may know it: it is not poison, and waits for that one.
    pub newer: bool,
}

/// Why a message could not be queued.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BusError {
    /// Nobody knows whether it is queued: send it again under the same id.
    #[error("E4020: the message was not acknowledged: {0}; send it again with the same idempotency key")]
    Unacknowledged(String),
    /// It can never be queued.
    #[error("E4021: the message is refused: {0}")]
    Refused(String),
    /// It is not queued: the broker does not answer, and as much as may wait for it waits already.
    #[error("E4023: the message is not queued, {0}; send it again later")]
    Full(String),
}

impl From<CommitError> for BusError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Data(reason) => Self::Refused(reason),
            other @ (CommitError::Fenced(_) | CommitError::Conflict { .. } | CommitError::Doubt(_)) => {
                Self::Unacknowledged(other.to_string())
            }
        }
    }
}

/// The broker.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Queues messages durably: `Ok` means they survive a crash.
    async fn produce(&self, messages: Vec<Outgoing>) -> Result<(), BusError>;

    /// Reads one partition from `position` on. Made anew for every assignment.
    fn consumer(&self, topic: Topic, partition: u16, position: i64) -> Box<dyn Consumer>;

    /// The same, where the hash of the record in front of `position` is known: another one in its place means that this is
    /// another log, and nothing of it is read (Z3).
    fn consumer_behind(&self, topic: Topic, partition: u16, position: i64, record: Option<u32>) -> Box<dyn Consumer> {
        let _ = record;
        self.consumer(topic, partition, position)
    }

    /// Reads from `position` on what was spilled of a partition, which is older than what its topic will bring. None where
    /// nothing ever is.
    fn spilled(&self, topic: Topic, partition: u16, position: i64) -> Option<Box<dyn Consumer>> {
        let _ = (topic, partition, position);
        None
    }

    /// Whether messages to this partition are being spilled: who reads it may be as far from the broker as we are.
    fn is_spilling(&self, topic: Topic, partition: u16) -> bool {
        let _ = (topic, partition);
        false
    }

    /// Whether messages to any partition are.
    fn is_spilling_any(&self) -> bool {
        false
    }

    /// Whether the broker of a partition answers, as far as that can be found out without a message.
    async fn answers(&self, topic: Topic, partition: u16) -> bool {
        let _ = (topic, partition);
        true
    }

    /// Carries a shard's committed messages from `published_seq` on. Made anew for every assignment. None where the store
    /// is the bus: there a commit is the delivery.
    fn relay(&self, shard: ShardId, published_seq: i64) -> Option<Box<dyn Relay>> {
        let _ = (shard, published_seq);
        None
    }

    /// Looks whether a topic of another team can be written to: it is there, with `partitions` partitions if that is said.
    /// Returns how many it has.
    async fn reach(&self, topic: ForeignTopic, partitions: Option<u16>) -> Result<u16, BusError> {
        let _ = partitions;
        let name = topic.name();
        Err(BusError::Refused(format!(
            "`{name}` is on no bus here: topics of other teams need kafka.brokers and store.url"
        )))
    }

    /// The oldest offset of a foreign topic's partition, and the one behind its newest.
    async fn edges(&self, topic: ForeignTopic, partition: u16) -> Result<(i64, i64), BusError> {
        let _ = partition;
        Err(BusError::Refused(format!("`{}` is on no bus here", topic.name())))
    }

    /// The partitions of a foreign topic that this process is to read, as that changes. None where nobody can.
    fn heard(&self, topic: ForeignTopic) -> Option<watch::Receiver<BTreeSet<u16>>> {
        let _ = topic;
        None
    }

    /// The shards of a side that this process owns, as that changes. None: all of them, as long as it runs.
    fn owned(&self, side: Side) -> Option<watch::Receiver<BTreeSet<u16>>> {
        let _ = side;
        None
    }
}

/// Why a relay carries nothing any more; the cure is a new assignment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("E4022: committed messages were not published: {0}")]
pub struct RelayError(pub String);

/// Carries the committed messages of one shard to the broker, in order of their numbers.
#[async_trait]
pub trait Relay: Send + Sync {
    /// Looks at a message and its encoded length before it is committed: one that the broker would never take must not
    /// reach the outbox. The error says why.
    fn fits(&self, envelope: &Envelope, bytes: usize) -> Result<(), String>;

    /// Hands over messages that are on disk, numbered from `first_seq` on. Waits while too many of a destination are
    /// unacknowledged.
    async fn publish(&mut self, first_seq: i64, parcels: Vec<Parcel>) -> Result<(), RelayError>;

    /// Every message below was acknowledged.
    fn published(&self) -> Result<i64, RelayError>;
}

/// Reads one partition in order.
#[async_trait]
pub trait Consumer: Send {
    /// Takes at most `limit` messages that are ready, and no more once they have [`TAKE_BYTES`]; an empty answer means
    /// there is none now.
    async fn take(&mut self, limit: usize) -> Result<Vec<Delivered>, StoreError>;

    /// Whether the last take left nothing behind: no timer may overtake what is queued. False as long as nobody knows.
    fn at_end(&self) -> bool;

    /// Asks where the queue ends now; with `true`, [`at_end`](Self::at_end) of the next take tells the truth as of this
    /// call or later. For who hears of the end only now and then.
    fn look(&mut self) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(true))
    }

    /// Resolves when there may be something to take. Cancel-safe.
    async fn ready(&mut self);
}
