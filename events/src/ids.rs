//! Ids that carry their own routing, so that a replay yields the same ids and no lookup is needed.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Parts of the key space. Fixed for ever: it is inside every saga id (12 bits).
pub const SLOTS: u16 = 4096;

/// One of the 4,096 parts of the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a routing key: murmur2 (as Kafka's Java client computes it) modulo 4,096.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(((murmur2(key.as_bytes()) & 0x7fff_ffff) % u32::from(SLOTS)) as u16)
    }

    /// The number of this slot, below [`SLOTS`].
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }

    /// The partition this slot belongs to when a topic has `partitions` partitions.
    #[must_use]
    pub fn partition(self, partitions: u16) -> u16 {
        (u32::from(self.0) * u32::from(partitions) / u32::from(SLOTS)) as u16
    }
}

/// Kafka's murmur2, so that other clients can co-partition with us.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut h = SEED ^ (data.len() as u32);
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// Id of a saga: a UUIDv8 of 48 bits milliseconds, 12 bits slot and 62 bits random.
///
/// Minted by whoever queues the start and carried in the record, so a replay gives the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SagaId(pub Uuid);

impl SagaId {
    /// Mints an id from the start's time, its slot and 64 random (or derived) bits.
    #[must_use]
    pub fn mint(time_ms: i64, slot: Slot, random: u64) -> Self {
        let mut bytes = [0u8; 16];
        bytes[..6].copy_from_slice(&(time_ms as u64).to_be_bytes()[2..]);
        bytes[6..8].copy_from_slice(&(0x8000 | slot.0).to_be_bytes());
        bytes[8..].copy_from_slice(&random.to_be_bytes());
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(Uuid::from_bytes(bytes))
    }

    /// The slot inside the id; all inputs of the saga go to its partition.
    #[must_use]
    pub fn slot(self) -> Slot {
        let bytes = self.0.as_bytes();
        Slot(u16::from_be_bytes([bytes[6], bytes[7]]) & 0x0fff)
    }

    /// When the start was queued, in milliseconds since 1970.
    #[must_use]
    pub fn time_ms(self) -> i64 {
        let bytes = self.0.as_bytes();
        bytes[..6].iter().fold(0i64, |ms, byte| (ms << 8) | i64::from(*byte))
    }
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for SagaId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Uuid::parse_str(text).map(Self).map_err(|_| IdError::Saga(text.chars().take(64).collect()))
    }
}

/// An id that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a saga id.
    #[error("`{0}` is not a saga id: expected a UUID such as 0193a0b2-7c00-8abc-9def-0123456789ab")]
    Saga(String),
    /// Not an effect id.
    #[error("`{0}` is not an effect id: expected SAGA:STEP:ITEM:do|undo:ROUND")]
    Effect(String),
}

/// Which way an effect goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Direction {
    /// The step itself.
    #[serde(rename = "do")]
    Do,
    /// Its undo.
    #[serde(rename = "undo")]
    Undo,
}

impl Direction {
    /// The spelling used in ids, columns and labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Undo => "undo",
        }
    }
}

/// Id of an effect: `SAGA:STEP:ITEM:do|undo:ROUND`, derived, never fresh.
///
/// It is the transfer id in the ledger and the idempotency key at an outside party. `round` rises when an operator
/// retries a refused step; an undo carries the round of what it undoes. `item` is empty for a step without `each`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EffectId {
    /// The saga.
    pub saga: SagaId,
    /// The step's name in the definition.
    pub step: String,
    /// The item's key under `each`, else empty.
    pub item: String,
    /// Step or undo.
    pub direction: Direction,
    /// Which try by operators, from 0.
    pub round: u8,
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { saga, step, item, direction, round } = self;
        write!(f, "{saga}:{step}:{item}:{}:{round}", direction.label())
    }
}

impl FromStr for EffectId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Effect(text.chars().take(160).collect());
        // An item key may hold colons: the first two parts and the last two are fixed.
        let (saga, rest) = text.split_once(':').ok_or_else(bad)?;
        let (step, rest) = rest.split_once(':').ok_or_else(bad)?;
        let (rest, round) = rest.rsplit_once(':').ok_or_else(bad)?;
        let (item, direction) = rest.rsplit_once(':').ok_or_else(bad)?;
        let direction = match direction {
            "do" => Direction::Do,
            "undo" => Direction::Undo,
            _ => return Err(bad()),
        };
        Ok(Self {
            saga: saga.parse().map_err(|_| bad())?,
            step: step.to_owned(),
            item: item.to_owned(),
            direction,
            round: round.parse().map_err(|_| bad())?,
        })
    }
}

impl Serialize for EffectId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EffectId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_kafkas_java_client() {
        // Values of org.apache.kafka.common.utils.Utils.murmur2, as its own unit test lists them.
        for (text, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn a_saga_id_carries_time_and_slot() {
        let slot = Slot::of("user-7/sale-1");
        let id = SagaId::mint(1_763_769_600_123, slot, u64::MAX);
        assert_eq!((id.slot(), id.time_ms()), (slot, 1_763_769_600_123));
        assert_eq!(id.0.get_version_num(), 8);
        assert_eq!(id.to_string().parse::<SagaId>().unwrap(), id);
    }

    #[test]
    fn partitions_cover_the_slots_evenly() {
        for partitions in [1u16, 4, 16, 100] {
            let mut counts = vec![0u16; usize::from(partitions)];
            (0..SLOTS).for_each(|slot| counts[usize::from(Slot(slot).partition(partitions))] += 1);
            let (low, high) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(high - low <= 1, "{partitions}: {low}..{high}");
        }
    }

    #[test]
    fn an_effect_id_survives_colons_in_its_item() {
        let id = EffectId {
            saga: SagaId::mint(1, Slot::of("k"), 2),
            step: "hold_stock".into(),
            item: "sku:red:do:1".into(),
            direction: Direction::Undo,
            round: 3,
        };
        assert_eq!(id.to_string().parse::<EffectId>().unwrap(), id);
        for bad in ["", "x", "x:y", "x:y:z:do:0", "0193a0b2-7c00-8abc-9def-0123456789ab:s::up:0"] {
            assert!(bad.parse::<EffectId>().is_err(), "{bad}");
        }
    }
}
