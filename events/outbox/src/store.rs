//! The Store port: one transaction per batch, under the fence of its shard.

use crate::bus::Outgoing;
use crate::dead_letter::DeadLetter;
use crate::statement::{Row, Rows, Statement, Write};
use async_trait::async_trait;
use endstate_events::{Side, Topic};
use std::fmt;

/// Partition k of one side, and everything that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId {
    /// Which side.
    pub side: Side,
    /// Which partition.
    pub index: u16,
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.side.label(), self.index)
    }
}

/// The next offset to read in each topic a shard consumes. The database knows it, not the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// In `start`; unused by participants.
    pub start: i64,
    /// In `progress`; for participants, in `commands`.
    pub progress: i64,
}

impl Positions {
    /// The position of one topic.
    #[must_use]
    pub fn of(&self, topic: Topic) -> i64 {
        match topic {
            Topic::Start => self.start,
            Topic::Progress | Topic::Commands => self.progress,
            Topic::Events => 0,
        }
    }

    /// Moves the position of one topic to `next`.
    pub fn advance(&mut self, topic: Topic, next: i64) {
        match topic {
            Topic::Start => self.start = next,
            Topic::Progress | Topic::Commands => self.progress = next,
            Topic::Events => {}
        }
    }
}

/// What a new owner gets: its epoch and where its predecessor stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The shard.
    pub shard: ShardId,
    /// The fencing number; rises with every assignment.
    pub epoch: i64,
    /// Where to read on.
    pub positions: Positions,
    /// The next sequence number of the shard's events: no gaps, given in memory by the single owner.
    pub next_seq: i64,
}

/// The condition of a commit: the shard row still has this epoch, these positions and this sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// What the owner believes the shard row holds.
    pub before: Assignment,
    /// Positions after the batch.
    pub positions: Positions,
    /// Next sequence number after the batch.
    pub next_seq: i64,
}

/// Everything one batch writes, in one transaction.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// The fences of the shards that the batch moves, all of which must hold; none for writers that own no shard (the
    /// gateway producing an input, operators' tables).
    pub fences: Vec<Fence>,
    /// Bulk writes, executed in order.
    pub writes: Vec<Write>,
    /// Messages for the outbox.
    pub messages: Vec<Outgoing>,
    /// Records that nobody could handle.
    pub dead_letters: Vec<DeadLetter>,
}

/// A store that cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or answered with an error.
    #[error("E4001: the store failed in {statement}: {reason}")]
    Failed {
        /// The statement's name.
        statement: String,
        /// The driver's words.
        reason: String,
    },
    /// Another process uses the same data folder.
    #[error("E4002: {path} is in use by another process; stop it, or choose another data folder")]
    InUse {
        /// The folder.
        path: String,
    },
    /// The file was made by a newer program, or with other settings.
    #[error("E4003: {reason}")]
    Unfit {
        /// What does not fit, and what to do.
        reason: String,
    },
}

/// Why a batch was not committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The shard row moved on: somebody else owns the shard.
    #[error("E4010: shard {0} has another owner")]
    Fenced(ShardId),
    /// A statement hit fewer or more rows than it must.
    #[error("E4011: {statement} hit {hit} rows instead of {expected}")]
    Conflict {
        /// The statement's name.
        statement: &'static str,
        /// Rows expected.
        expected: u64,
        /// Rows hit.
        hit: u64,
    },
    /// The data itself is refused (a constraint, a value the store cannot hold): the batch is halved.
    #[error("E4012: the store refuses the data: {0}")]
    Data(String),
    /// Nobody knows whether it was committed, or the store is down: run assignment again.
    #[error("E4013: the store failed during a commit: {0}")]
    Doubt(String),
}

/// A database that holds shards, sagas, ledgers and the outbox.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Runs a reading statement over the given rows and returns its rows.
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError>;

    /// Takes a shard over: bumps its epoch and returns where it stands.
    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError>;

    /// Commits one batch. Returns, per write, how many rows it hit.
    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError>;

    /// How many partitions every topic has; fixed when the store is made.
    fn partitions(&self) -> u16;
}
