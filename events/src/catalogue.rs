//! The catalogue: which participants exist, how they are reached, and what each action accepts.

use crate::{Environment, ForeignTopic, Json, TopicNameError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All participants known to a system, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Catalogue {
    /// Participants by name.
    pub participants: BTreeMap<String, Participant>,
}

impl Catalogue {
    /// Finds `PARTICIPANT.ACTION`.
    #[must_use]
    pub fn action(&self, participant: &str, action: &str) -> Option<&Action> {
        self.participants.get(participant)?.actions.get(action)
    }

    /// Finds the event `PARTICIPANT.EVENT`.
    #[must_use]
    pub fn event(&self, name: &str) -> Option<&EventKind> {
        let (participant, event) = name.split_once('.')?;
        self.participants.get(participant)?.events.get(event)
    }
}

/// One participant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Participant {
    /// For people.
    #[serde(default)]
    pub description: String,
    /// How it is reached.
    pub transport: Transport,
    /// What it can do.
    pub actions: BTreeMap<String, Action>,
    /// What it tells sagas about, without having been asked: `payment` with `captured` is the event `payment.captured`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub events: BTreeMap<String, EventKind>,
}

/// An event that sagas may wait for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventKind {
    /// For people.
    #[serde(default)]
    pub description: String,
    /// JSON Schema of its data.
    pub schema: Json,
    /// An example of that data, used by samples and the model check.
    #[serde(default)]
    pub example: Json,
}

/// How a participant is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Transport {
    /// Part of this program, over the ledger or tokens.
    Builtin,
    /// `POST {url}/{action}` with `Idempotency-Key`, `GET {url}/effects/{effect id}` to ask.
    Http {
        /// Base address, `http://` or `https://`.
        url: String,
        /// Time limit of one call.
        #[serde(default = "default_timeout_ms")]
        timeout_ms: u64,
    },
    /// Commands to a topic of its own; it answers in the topic and partition that each command names.
    Kafka {
        /// The topic; `{environment}` in it stands for the system's name.
        topic: String,
        /// How many partitions it must have; not looked at when none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        partitions: Option<u16>,
    },
}

impl Transport {
    /// Stands for the system's name in a topic.
    pub const ENVIRONMENT: &'static str = "{environment}";

    /// The topic that takes commands, in a system of this name; none for other transports.
    #[must_use]
    pub fn topic(&self, environment: &Environment) -> Option<Result<ForeignTopic, TopicNameError>> {
        match self {
            Self::Kafka { topic, .. } => {
                Some(ForeignTopic::named(&topic.replace(Self::ENVIRONMENT, environment.as_str())))
            }
            Self::Builtin | Self::Http { .. } => None,
        }
    }
}

fn default_timeout_ms() -> u64 {
    5_000
}

/// One action of a participant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// For people.
    #[serde(default)]
    pub description: String,
    /// JSON Schema of the command's payload (`with`).
    #[serde(default)]
    pub with: Json,
    /// JSON Schema of the data of a `done` reply.
    #[serde(default)]
    pub reply: Json,
    /// An example of that data, used by samples and the model check.
    #[serde(default)]
    pub example: Json,
    /// The field of `with` that routes the command (what it touches); absent: the saga's own key. An action used with
    /// `of:` or as an undo reuses the key of the effect it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The action that undoes this one, if there is a usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<String>,
    /// Codes it may refuse with.
    #[serde(default)]
    pub refusals: Vec<String>,
}
