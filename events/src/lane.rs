//! Lanes keep test and load traffic apart from real orders; environments keep whole systems apart.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Marks traffic end to end; lanes never share accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Real orders.
    #[default]
    Live,
    /// Orders of testers.
    Test,
    /// Orders of a load generator.
    Load,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Live, Self::Test, Self::Load];

    /// The lane with this [`label`](Self::label).
    #[must_use]
    pub fn labelled(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.label() == label)
    }

    /// The spelling used in ids, columns and labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
            Self::Load => "load",
        }
    }
}

/// Name of a whole system (`production`, `staging`); prefixes topics, groups and keys, so that strangers never meet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Environment(String);

/// A name that cannot prefix a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an environment: expected 1 to 32 of a-z, 0-9 and `-`, starting with a letter")]
pub struct EnvironmentError(String);

impl Environment {
    /// Checks that the name can be part of a topic.
    pub fn new(name: &str) -> Result<Self, EnvironmentError> {
        let fits = (1..=32).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits { Ok(Self(name.to_owned())) } else { Err(EnvironmentError(name.chars().take(64).collect())) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self("dev".to_owned())
    }
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
