//! Money as integer minor units: checked, and small enough for every JSON reader.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An amount in the minor unit of its currency (fen, cent), between -(2^53-1) and 2^53-1, so that it survives every
/// JSON reader exactly. Also used for points and stock units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct MinorUnits(i64);

/// An amount outside the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("amount out of range: minor units must lie between -(2^53-1) and 2^53-1")]
pub struct MoneyError;

impl MinorUnits {
    /// The largest amount: 2^53-1.
    pub const MAX: Self = Self((1 << 53) - 1);
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Checks the range.
    pub fn new(minor: i64) -> Result<Self, MoneyError> {
        if (-Self::MAX.0..=Self::MAX.0).contains(&minor) { Ok(Self(minor)) } else { Err(MoneyError) }
    }

    /// The amount as an integer.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }

    /// Sum, or an error when it leaves the range.
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        Self::new(self.0.checked_add(other.0).ok_or(MoneyError)?)
    }

    /// Difference, or an error when it leaves the range.
    pub fn minus(self, other: Self) -> Result<Self, MoneyError> {
        Self::new(self.0.checked_sub(other.0).ok_or(MoneyError)?)
    }
}

impl<'de> Deserialize<'de> for MinorUnits {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(i64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for MinorUnits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_kept_by_every_way_in() {
        let max = MinorUnits::MAX;
        let one = MinorUnits::new(1).unwrap();
        assert_eq!(max.plus(one), Err(MoneyError));
        assert_eq!(MinorUnits::new(-max.get()).unwrap().minus(one), Err(MoneyError));
        assert_eq!(MinorUnits::new(i64::MIN), Err(MoneyError));
        assert_eq!(max.minus(one).unwrap().plus(one), Ok(max));
        assert!(serde_json::from_str::<MinorUnits>("9007199254740992").is_err());
        assert!(serde_json::from_str::<MinorUnits>("1.5").is_err());
        assert_eq!(serde_json::from_str::<MinorUnits>("9007199254740991").unwrap(), max);
    }
}
