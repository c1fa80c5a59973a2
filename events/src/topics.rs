//! Topics: where a message goes and who owns it there.

use crate::{Environment, Slot};
use serde::{Deserialize, Serialize};

/// The two sides whose shards consume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Sagas.
    Orchestrator,
    /// Built-in participants.
    Participants,
}

impl Side {
    /// The spelling used in columns and labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::Participants => "participants",
        }
    }
}

/// A topic. Every topic of one system has the same number of partitions; partition k belongs to shard k.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Starts of sagas, keyed by the saga's key.
    Start,
    /// All other inputs, by the saga's slot.
    Progress,
    /// Commands to built-in participants and answers of outside parties, keyed by what they touch.
    Commands,
    /// Domain events, keyed by saga.
    Events,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; 4] = [Self::Start, Self::Progress, Self::Commands, Self::Events];

    /// The spelling used in columns and labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Progress => "progress",
            Self::Commands => "commands",
            Self::Events => "events",
        }
    }

    /// The side whose shards consume it; none for what only others read.
    #[must_use]
    pub fn side(self) -> Option<Side> {
        match self {
            Self::Start | Self::Progress => Some(Side::Orchestrator),
            Self::Commands => Some(Side::Participants),
            Self::Events => None,
        }
    }

    /// The topic's name on a broker: prefixed, so that two environments never meet.
    #[must_use]
    pub fn name(self, environment: &Environment) -> String {
        format!("{environment}.endstate.{}", self.label())
    }
}

/// Where a reply goes. Carried in the command, so that foreign participants never hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReplyTo {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u16,
}

impl ReplyTo {
    /// The `progress` partition of a saga's slot.
    #[must_use]
    pub fn progress(slot: Slot, partitions: u16) -> Self {
        Self { topic: Topic::Progress, partition: slot.partition(partitions) }
    }
}
