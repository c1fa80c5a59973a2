//! The Store port: one transaction per batch, under the fence of its shard.

use crate::bus::{Delivered, Outgoing};
use crate::dead_letter::DeadLetter;
use crate::parcel::Parcel;
use crate::statement::{Row, Rows, Statement, Write};
use crate::witness::Witness;
use async_trait::async_trait;
use endstate_events::{Side, Topic};
use std::fmt;
use tokio::sync::watch;

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
    /// In what was spilled of `start`; unused by participants.
    pub spilled_start: i64,
    /// In what was spilled of `progress`; for participants, of `commands`.
    pub spilled_progress: i64,
    /// By which record the position in `start` was reached.
    pub witness_start: Witness,
    /// The same of `progress`; for participants, of `commands`.
    pub witness_progress: Witness,
}

impl Positions {
    /// The position of one topic.
    #[must_use]
    pub fn of(&self, topic: Topic) -> i64 {
        match topic {
            Topic::Start => self.start,
            Topic::Progress | Topic::Commands => self.progress,
            Topic::Events | Topic::DeadLetters | Topic::Foreign(_) => 0,
        }
    }

    /// The hash of the record in front of the position of one topic, if it is known.
    #[must_use]
    pub fn record_before(&self, topic: Topic) -> Option<u32> {
        match topic {
            Topic::Start => self.witness_start.at(self.start),
            Topic::Progress | Topic::Commands => self.witness_progress.at(self.progress),
            Topic::Events | Topic::DeadLetters | Topic::Foreign(_) => None,
        }
    }

    /// The position in what was spilled of one topic ([`crate::spill`]).
    #[must_use]
    pub fn of_spilled(&self, topic: Topic) -> i64 {
        match topic {
            Topic::Start => self.spilled_start,
            Topic::Progress | Topic::Commands => self.spilled_progress,
            Topic::Events | Topic::DeadLetters | Topic::Foreign(_) => 0,
        }
    }

    /// Moves the position of one topic to `next`.
    pub fn advance(&mut self, topic: Topic, next: i64) {
        match topic {
            Topic::Start => self.start = next,
            Topic::Progress | Topic::Commands => self.progress = next,
            Topic::Events | Topic::DeadLetters | Topic::Foreign(_) => {}
        }
    }

    /// Moves the position behind a record that was read.
    pub fn pass(&mut self, record: &Delivered) {
        let witness = Witness::of(record.next, record.record);
        match (record.spilled(), record.topic) {
            (None, topic) => {
                self.advance(topic, record.next);
                match topic {
                    Topic::Start => self.witness_start = witness,
                    Topic::Progress | Topic::Commands => self.witness_progress = witness,
                    Topic::Events | Topic::DeadLetters | Topic::Foreign(_) => {}
                }
            }
            (Some(number), Topic::Start) => self.spilled_start = number + 1,
            (Some(number), Topic::Progress | Topic::Commands) => self.spilled_progress = number + 1,
            (Some(_), Topic::Events | Topic::DeadLetters | Topic::Foreign(_)) => {}
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
    /// The next sequence number of its outgoing messages, given in the same way. Stands still where the store is the bus.
    pub next_outbox_seq: i64,
    /// Every outgoing message below was acknowledged by the broker; the next owner publishes the others again.
    pub published_seq: i64,
}

impl Assignment {
    /// Where to read a topic on; `assignments` are those of one owner, one per side.
    #[must_use]
    pub fn position(assignments: &[Self], topic: Topic) -> i64 {
        Self::positions(assignments, topic).of(topic)
    }

    /// The same in what was spilled of the topic.
    #[must_use]
    pub fn position_spilled(assignments: &[Self], topic: Topic) -> i64 {
        Self::positions(assignments, topic).of_spilled(topic)
    }

    /// The hash of the record in front of that position, if it is known.
    #[must_use]
    pub fn record_before(assignments: &[Self], topic: Topic) -> Option<u32> {
        Self::positions(assignments, topic).record_before(topic)
    }

    fn positions(assignments: &[Self], topic: Topic) -> Positions {
        let own = assignments.iter().find(|assignment| Some(assignment.shard.side) == topic.side());
        own.map_or_else(Positions::default, |assignment| assignment.positions)
    }
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
    /// Next sequence number of outgoing messages after the batch: the commit's messages are numbered from
    /// `before.next_outbox_seq` on, in their order.
    pub next_outbox_seq: i64,
    /// What the broker had acknowledged when the batch was made.
    pub published_seq: i64,
}

impl Fence {
    /// A fence that moves nothing; take it as the base of one that does.
    #[must_use]
    pub fn still(before: Assignment) -> Self {
        let Assignment { positions, next_seq, next_outbox_seq, published_seq, .. } = before;
        Self { before, positions, next_seq, next_outbox_seq, published_seq }
    }

    /// What the owner holds once the batch is on disk.
    #[must_use]
    pub fn after(&self) -> Assignment {
        let Self { before, positions, next_seq, next_outbox_seq, published_seq } = *self;
        Assignment { positions, next_seq, next_outbox_seq, published_seq, ..before }
    }

    /// The fences of one owner, one per side, with positions behind the records it has read.
    #[must_use]
    pub fn behind(assignments: &[Assignment], records: &[Delivered]) -> Vec<Self> {
        let moved = |before: &Assignment| {
            let mut positions = before.positions;
            for record in records.iter().filter(|record| record.topic.side() == Some(before.shard.side)) {
                positions.pass(record);
            }
            Self { positions, ..Self::still(*before) }
        };
        assignments.iter().map(moved).collect()
    }
}

/// Everything one batch writes, in one transaction.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// The fences of the shards that the batch moves, all of which must hold; none for writers that own no shard (the
    /// gateway producing an input, operators' tables).
    pub fences: Vec<Fence>,
    /// Bulk writes, executed in order.
    pub writes: Vec<Write>,
    /// Messages for the outbox: of the first fence's shard. Without a fence only where the store is the bus.
    pub messages: Vec<Parcel>,
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
    /// What is asked for can be in no row: it holds what the store's types cannot hold.
    #[error("E4005: {statement} asks for what the store cannot hold: {reason}")]
    Refused {
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
    /// The brokers are others than those that the store was used with.
    #[error(
        "E4067: this store goes with the brokers of cluster `{kept}`, and these are of cluster `{found}`; correct \
         kafka.brokers, or say that they take the place of the others: endstate broker adopt {found}"
    )]
    OtherBrokers {
        /// Their cluster's id.
        kept: String,
        /// The id of the cluster that answers.
        found: String,
    },
    /// The records that a shard would read next are not there, or others are in their place.
    #[error("E4060: {topic}/{partition} cannot be read on at {offset}: {reason}")]
    Lost {
        /// The topic on the broker.
        topic: String,
        /// The partition.
        partition: u16,
        /// Where the shard stands.
        offset: i64,
        /// What is there instead.
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

    /// Outgoing messages of a shard from sequence number `from` on, in order, with their numbers: at most some `limit`,
    /// none only when there are no more. A store that is its own bus has none to publish.
    async fn outgoing(&self, shard: ShardId, from: i64, limit: usize) -> Result<Vec<(i64, Outgoing)>, StoreError> {
        let _ = (shard, from, limit);
        Ok(Vec::new())
    }

    /// The store's own time, milliseconds since 1970; none where it has no clock but that of this process.
    async fn now_ms(&self) -> Result<Option<i64>, StoreError> {
        Ok(None)
    }

    /// Changes when another server answers than before, which may lack what was committed last (Z14): what an owner remembers is
    /// not what is there. None where that cannot be.
    fn timeline(&self) -> Option<watch::Receiver<i64>> {
        None
    }

    /// How many partitions every topic has; fixed when the store is made.
    fn partitions(&self) -> u16;
}
