//! How large what a saga makes may be, in bytes of JSON (Z10, Z20): whatever it sends fits into one message of any bus,
//! and one decision fits into memory. Beyond, it parks (E3005) before anything is sent.

use endstate_events::Json;

/// One payload, one reply and one input at most; what a call over HTTP may bring.
pub const PAYLOAD_BYTES: usize = 256 * 1024;

/// All payloads that one stage sends.
pub const STAGE_BYTES: usize = 4 * 1024 * 1024;

/// What a linked or called saga gets to see of another. With its input it still fits into a message of 1 MiB, as does a
/// command with its own payload and that and the reply of what it refers to.
pub const SNAPSHOT_BYTES: usize = 512 * 1024;

/// Bytes of a value as JSON without spaces; never less than they are.
#[must_use]
pub fn of(value: &Json) -> usize {
    match value {
        Json::Null | Json::Bool(_) => 5,
        Json::Number(number) => number.as_i64().map_or(24, |n| 2 + n.unsigned_abs().max(1).ilog10() as usize),
        Json::String(text) => of_text(text),
        Json::Array(items) => 2 + items.iter().map(|item| 1 + of(item)).sum::<usize>(),
        Json::Object(map) => 2 + map.iter().map(|(name, value)| 2 + of_text(name) + of(value)).sum::<usize>(),
    }
}

fn of_text(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' => 1,
        0..0x20 => 5,
        _ => 0,
    };
    2 + text.len() + text.bytes().map(escaped).sum::<usize>()
}

/// Refuses a size beyond `most`.
///
/// # Errors
/// What is too large, for people.
pub fn check(what: &str, bytes: usize, most: usize) -> Result<(), String> {
    if bytes <= most {
        return Ok(());
    }
    Err(format!("E3005: {what} has {bytes} bytes as JSON, at most {most} are sent"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn values() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<f64>().prop_map(Json::from),
            ".*".prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 30, 5, |inner| {
            let list = proptest::collection::vec(inner.clone(), 0..5).prop_map(Json::from);
            let map = proptest::collection::hash_map(".*", inner, 0..5);
            prop_oneof![list, map.prop_map(|map| map.into_iter().collect::<Json>())]
        })
    }

    proptest! {
        #[test]
        fn a_size_is_never_less_than_what_is_written(value in values()) {
            prop_assert!(of(&value) >= serde_json::to_string(&value).unwrap().len(), "{value}");
        }
    }

    #[test]
    fn a_size_is_close_to_what_is_written() {
        let value = json!({ "number": "o-1", "lines": [{ "sku": "tea", "quantity": 2, "price_minor": 17_900 }] });
        assert!(of(&value) <= serde_json::to_string(&value).unwrap().len() + 10);
        assert!(check("it", 10, 10).is_ok());
        assert!(check("it", 11, 10).unwrap_err().starts_with("E3005"));
    }
}
