//! What is kept beside a position: by which record it was reached. A log that was made anew, or has lost its end and grown
//! again, may be long enough for a position and yet be another one; the record in front of the position tells (Z3,
//! ADR 0021).

/// Bytes of a record's body that count: its first message's id is among them.
const BODY: usize = 256;

/// Bits of the position that stand beside the hash.
const BITS: u32 = 32;

/// A short hash of a record, in the upper half, and the lower half of the position that was reached by it: a witness of
/// another position says nothing. An older program moves the position alone, and so does an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Witness(i64);

impl Witness {
    /// That `position` was reached by a record with this hash; nothing where none is kept.
    #[must_use]
    pub fn of(position: i64, record: u32) -> Self {
        Self(if record == 0 { 0 } else { (i64::from(record) << BITS) | low(position) })
    }

    /// As it was stored.
    #[must_use]
    pub fn stored(value: i64) -> Self {
        Self(value)
    }

    /// As it is stored.
    #[must_use]
    pub fn value(self) -> i64 {
        self.0
    }

    /// The hash of the record in front of `position`, if this is the witness of that position.
    #[must_use]
    pub fn at(self, position: i64) -> Option<u32> {
        let record = (self.0 >> BITS) as u32;
        (record != 0 && low(self.0) == low(position)).then_some(record)
    }
}

fn low(position: i64) -> i64 {
    position & i64::from(u32::MAX)
}

/// The hash of a record; never 0. It is stored, so that it must stay as it is: FNV-1a.
#[must_use]
pub fn hash(time_ms: i64, body: &[u8]) -> u32 {
    let length = body.len() as u64;
    let bytes = time_ms.to_le_bytes().into_iter().chain(length.to_le_bytes());
    let bytes = bytes.chain(body.iter().take(BODY).copied());
    fnv(bytes).max(1)
}

/// FNV-1a of 64 bits, folded to 32: short, and the same for ever.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u32 {
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash >> BITS) as u32 ^ hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z03_a_witness_speaks_for_its_position_alone() {
        for position in [1, 1 << 10, (7 << 40) + 3] {
            for record in [1, u32::MAX] {
                let witness = Witness::stored(Witness::of(position, record).value());
                assert_eq!((witness.at(position), witness.at(position + 1)), (Some(record), None));
            }
        }
        assert_eq!((Witness::default().at(0), Witness::of(1 << 10, 0).at(1 << 10)), (None, None));
    }

    #[test]
    fn the_hash_of_a_record_stays_what_it_is() {
        assert_eq!(hash(0, b""), 0xe8df7bdc);
        assert_eq!(hash(1_795_312_079_123, br#"[{"id":"a"}]"#), 0xf65a548c);
        let more = [b'x'; BODY + 1];
        let all = [hash(1, b"a"), hash(2, b"a"), hash(1, b"b"), hash(1, b"aa"), hash(1, &more), hash(1, &more[1..])];
        assert!((1..all.len()).all(|at| !all[..at].contains(&all[at])), "{all:?}");
    }
}
