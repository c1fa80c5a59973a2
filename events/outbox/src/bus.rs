//! The Bus port: messages into partitions, and out of them in order.

use crate::store::{CommitError, StoreError};
use async_trait::async_trait;
use endstate_events::{Envelope, Topic};
use std::sync::Arc;

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
}

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
}

/// Reads one partition in order.
#[async_trait]
pub trait Consumer: Send {
    /// Takes at most `limit` messages that are ready; an empty answer means there is none now.
    async fn take(&mut self, limit: usize) -> Result<Vec<Delivered>, StoreError>;

    /// Resolves when there may be something to take. Cancel-safe.
    async fn ready(&mut self);
}
