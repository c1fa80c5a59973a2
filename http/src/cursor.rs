//! Opaque places in a list, bound to the filters they were made under: a cursor of another list is refused, not misread.

use crate::{Code, Problem};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Grows when the layout changes.
const LAYOUT: u8 = 1;

/// After which row the next page starts: the sort key and, as tie-break, the row's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Sort key, usually milliseconds.
    pub at: i64,
    /// Tie-break.
    pub id: Uuid,
}

impl Cursor {
    /// Spells the cursor for a list with these filters (any text that is equal for equal filters).
    #[must_use]
    pub fn encode(self, filters: &str) -> String {
        let mut bytes = Vec::with_capacity(33);
        bytes.push(LAYOUT);
        bytes.extend_from_slice(&fingerprint(filters));
        bytes.extend_from_slice(&self.at.to_be_bytes());
        bytes.extend_from_slice(self.id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor back.
    pub fn decode(text: &str, filters: &str) -> Result<Self, Problem> {
        let unreadable = || Problem::new(Code::InvalidCursor, "this is not a cursor of ours");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| unreadable())?;
        let bytes: [u8; 33] = bytes.try_into().map_err(|_| unreadable())?;
        if bytes[0] != LAYOUT {
            return Err(unreadable());
        }
        if bytes[1..9] != fingerprint(filters) {
            return Err(Problem::new(Code::InvalidCursor, "the filters changed since this cursor was given"));
        }
        let at = i64::from_be_bytes(bytes[9..17].try_into().map_err(|_| unreadable())?);
        Ok(Self { at, id: Uuid::from_slice(&bytes[17..]).map_err(|_| unreadable())? })
    }
}

fn fingerprint(filters: &str) -> [u8; 8] {
    let digest = Sha256::digest(filters.as_bytes());
    let mut short = [0; 8];
    short.copy_from_slice(&digest[..8]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_fits_only_its_own_list() {
        let cursor = Cursor { at: 1_234, id: Uuid::from_u128(7) };
        let text = cursor.encode("status=paid");
        assert_eq!(Cursor::decode(&text, "status=paid").unwrap(), cursor);
        assert_eq!(Cursor::decode(&text, "status=closed").unwrap_err().code, Code::InvalidCursor);
        for bad in ["", "x", "!!!!", &text[1..], "'; drop table saga;--"] {
            assert_eq!(Cursor::decode(bad, "status=paid").unwrap_err().code, Code::InvalidCursor);
        }
    }
}
