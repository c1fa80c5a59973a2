//! The Bus port: messages into partitions, and out of them in order.

use crate::store::{CommitError, ShardId, StoreError};
use async_trait::async_trait;
use endstate_events::{Envelope, ForeignTopic, Side, Topic};
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
    /// Its offset; the position after it is `offset + 1`.
    pub offset: i64,
    /// The message, or its bytes when nobody can read them.
    pub envelope: Result<Arc<Envelope>, Undecodable>,
    /// How long it is as it was written.
    pub bytes: usize,
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

    /// Carries a shard's committed messages from `published_seq` on. Made anew for every assignment. None where the store
    /// is the bus: there a commit is the delivery.
    fn relay(&self, shard: ShardId, published_seq: i64) -> Option<Box<dyn Relay>> {
        let _ = (shard, published_seq);
        None
    }

    /// Looks whether a topic of another team can be written to: it is there, with `partitions` partitions if that is said.
    async fn reach(&self, topic: ForeignTopic, partitions: Option<u16>) -> Result<(), BusError> {
        let _ = partitions;
        let name = topic.name();
        Err(BusError::Refused(format!(
            "`{name}` is on no bus here: topics of other teams need kafka.brokers and store.url"
        )))
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

/// A message as the broker gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// The message and its place.
    pub outgoing: Outgoing,
    /// Its body, encoded.
    pub body: Vec<u8>,
}

/// Carries the committed messages of one shard to the broker, in order of their numbers.
#[async_trait]
pub trait Relay: Send + Sync {
    /// Encodes a message, before it is committed: one that the broker would never take must not reach the outbox. The
    /// error says why.
    fn pack(&self, outgoing: Outgoing) -> Result<Packed, String>;

    /// Hands over messages that are on disk, numbered from `first_seq` on. Waits while too many of a destination are
    /// unacknowledged.
    async fn publish(&mut self, first_seq: i64, messages: Vec<Packed>) -> Result<(), RelayError>;

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

    /// Resolves when there may be something to take. Cancel-safe.
    async fn ready(&mut self);
}
