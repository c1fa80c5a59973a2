//! Parcels as rows of the outbox: those of one transaction for one partition are joined, and cut so that no row grows
//! without bound.

use crate::parcel::Parcel;
use std::sync::Arc;

/// Bytes of an outbox row at most, but for its last parcel: what a consumer that is behind reads in one piece.
const ROW_BYTES: usize = 1024 * 1024;

/// Cuts what goes into one partition into rows.
pub(super) fn pieces<'a, 'b>(mut parts: &'a [&'b Parcel]) -> impl Iterator<Item = &'a [&'b Parcel]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let full = |part: &&Parcel| {
            bytes += part.body.len();
            bytes >= ROW_BYTES
        };
        let most = parts.iter().position(full).map_or(parts.len(), |last| last + 1);
        let (piece, rest) = parts.split_at(most);
        parts = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The elements of several JSON arrays, none of them empty, as one array.
pub(super) fn join_arrays(parts: &[&Parcel]) -> Arc<str> {
    if let [only] = parts {
        return Arc::clone(&only.body);
    }
    let mut joined = String::with_capacity(parts.iter().map(|part| part.body.len()).sum());
    for part in parts {
        joined.push(if joined.is_empty() { '[' } else { ',' });
        joined.push_str(&part.body[1..part.body.len() - 1]);
    }
    joined.push(']');
    joined.into()
}
