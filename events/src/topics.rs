//! Topics: where a message goes and who owns it there.

use crate::{Environment, Slot};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Starts of sagas, keyed by the saga's key.
    Start,
    /// All other inputs, by the saga's slot.
    Progress,
    /// Commands to built-in participants and answers of outside parties, keyed by what they touch.
    Commands,
    /// Domain events, keyed by saga.
    Events,
    /// Copies of dead letters, for the tools of other teams.
    DeadLetters,
    /// A topic of another team: commands to its participant, or its events. It has partitions of its own, which its
    /// producers choose by the key.
    Foreign(ForeignTopic),
}

impl Topic {
    /// All topics of ours.
    pub const ALL: [Self; 5] = [Self::Start, Self::Progress, Self::Commands, Self::Events, Self::DeadLetters];

    /// The spelling used in columns and labels; that of a foreign topic begins with `foreign:`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Progress => "progress",
            Self::Commands => "commands",
            Self::Events => "events",
            Self::DeadLetters => "dead-letters",
            Self::Foreign(topic) => topic.0,
        }
    }

    /// The topic with this [`label`](Self::label).
    #[must_use]
    pub fn labelled(label: &str) -> Option<Self> {
        match label.strip_prefix(FOREIGN) {
            Some(name) => ForeignTopic::named(name).ok().map(Self::Foreign),
            None => Self::ALL.into_iter().find(|topic| topic.label() == label),
        }
    }

    /// The side whose shards consume it; none for what only others read.
    #[must_use]
    pub fn side(self) -> Option<Side> {
        match self {
            Self::Start | Self::Progress => Some(Side::Orchestrator),
            Self::Commands => Some(Side::Participants),
            Self::Events | Self::DeadLetters | Self::Foreign(_) => None,
        }
    }

    /// The topic's name on a broker: ours are prefixed, so that two environments never meet.
    #[must_use]
    pub fn name(self, environment: &Environment) -> Cow<'static, str> {
        match self {
            Self::Foreign(topic) => topic.name().into(),
            Self::Start | Self::Progress | Self::Commands | Self::Events | Self::DeadLetters => {
                format!("{environment}{OURS}{}", self.label()).into()
            }
        }
    }
}

impl Serialize for Topic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

/// Only ours can be read: what a message names is where an answer goes, and no stranger says that it is elsewhere.
impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let label = Cow::<'de, str>::deserialize(deserializer)?;
        let ours = Self::ALL.into_iter().find(|topic| topic.label() == label);
        ours.ok_or_else(|| serde::de::Error::custom(format_args!("there is no topic `{label}`")))
    }
}

/// Begins the label of a foreign topic.
const FOREIGN: &str = "foreign:";

/// Stands in the name of every topic of ours, behind its environment.
const OURS: &str = ".endstate.";

/// Names of foreign topics that were met. They come from catalogues and the configuration, so they are few and stay.
static MET: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The name of a topic of another team.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ForeignTopic(&'static str);

/// A name that no topic of another team has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// No broker takes it.
    #[error("`{0}` is no name of a topic: expected 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`")]
    Malformed(String),
    /// It is one of ours, and nobody but the program itself writes there.
    #[error("`{0}` is a topic of Endstate itself")]
    Ours(String),
}

impl ForeignTopic {
    /// Checks the name; a topic of ours, in whatever environment, is none of another team.
    pub fn named(name: &str) -> Result<Self, TopicNameError> {
        let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !(1..=249).contains(&name.len()) || !letters || matches!(name, "." | "..") {
            return Err(TopicNameError::Malformed(name.chars().take(64).collect()));
        }
        if name.contains(OURS) {
            return Err(TopicNameError::Ours(name.to_owned()));
        }
        let label = format!("{FOREIGN}{name}");
        let mut met = MET.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = met.get(label.as_str()) {
            return Ok(Self(known));
        }
        let label: &'static str = Box::leak(label.into_boxed_str());
        met.insert(label);
        Ok(Self(label))
    }

    /// The name on the broker.
    #[must_use]
    pub fn name(self) -> &'static str {
        &self.0[FOREIGN.len()..]
    }
}

impl fmt::Debug for ForeignTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_found_by_its_label() {
        let foreign = Topic::Foreign(ForeignTopic::named("shop.gift-wrap_1").unwrap());
        for topic in Topic::ALL.into_iter().chain([foreign]) {
            assert_eq!(Topic::labelled(topic.label()), Some(topic));
        }
        assert_eq!(foreign.name(&Environment::default()), "shop.gift-wrap_1");
        assert_eq!(Topic::DeadLetters.name(&Environment::default()), "dev.endstate.dead-letters");
        assert!(serde_json::from_str::<Topic>("\"foreign:shop.gift-wrap_1\"").is_err(), "no answer goes there");
    }

    #[test]
    fn a_topic_of_ours_is_no_foreign_one() {
        for bad in ["", "..", "a b", "prod.endstate.progress", "ü"] {
            assert!(ForeignTopic::named(bad).is_err(), "{bad}");
        }
    }
}
