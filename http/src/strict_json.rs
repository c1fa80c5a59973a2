//! JSON as strangers send it, read strictly (RFC 7493): no member twice, no NUL (databases refuse it in a text), no
//! integer that other readers would round, no deep nesting. Every refusal says where.

use crate::{Code, Problem};
use endstate_events::Json;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number};
use std::cell::RefCell;
use std::fmt;

/// Deepest nesting taken. Expressions and schema checks recurse over payloads; 32 is far above any sensible order.
pub const MAX_DEPTH: usize = 32;

/// The largest integer that every JSON reader keeps exact: 2^53-1.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Reads one JSON document.
pub fn parse(bytes: &[u8]) -> Result<Json, Problem> {
    check_depth(bytes)?;
    let fault = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { fault: &fault }.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| match fault.into_inner() {
        Some(fault) => fault.into_problem(),
        None => Problem::new(Code::MalformedJson, error.to_string()),
    })
}

/// Counts brackets before anything recurses.
fn check_depth(bytes: &[u8]) -> Result<(), Problem> {
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Problem::new(Code::TooDeep, format!("more than {MAX_DEPTH} levels at byte {at}")));
                }
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// What is wrong and, innermost first, where.
struct Fault {
    code: Code,
    detail: String,
    path: Vec<String>,
}

impl Fault {
    fn into_problem(self) -> Problem {
        let pointer: String =
            self.path.iter().rev().map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect();
        Problem::field(self.code, pointer, self.detail)
    }
}

/// Builds a value; the path is only spelled out while an error unwinds.
#[derive(Clone, Copy)]
struct Strict<'a> {
    fault: &'a RefCell<Option<Fault>>,
}

impl Strict<'_> {
    fn refuse<E: Error>(self, code: Code, detail: impl Into<String>) -> E {
        *self.fault.borrow_mut() = Some(Fault { code, detail: detail.into(), path: Vec::new() });
        E::custom("refused")
    }

    fn below<E>(self, error: E, part: impl FnOnce() -> String) -> E {
        if let Some(fault) = self.fault.borrow_mut().as_mut() {
            fault.path.push(part());
        }
        error
    }

    fn text<E: Error>(self, text: &str) -> Result<(), E> {
        if text.contains('\0') {
            return Err(self.refuse(Code::NulCharacter, "texts must not hold \\u0000"));
        }
        Ok(())
    }

    fn integer_range<E: Error>(self) -> E {
        self.refuse(Code::NumberOutOfRange, "integers must lie between -(2^53-1) and 2^53-1")
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Json;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        if value.unsigned_abs() > MAX_INTEGER { Err(self.integer_range()) } else { Ok(value.into()) }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        if value > MAX_INTEGER { Err(self.integer_range()) } else { Ok(value.into()) }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        // An integer too large for u64 arrives here, already rounded.
        if value.fract() == 0.0 && value.abs() > MAX_INTEGER as f64 {
            return Err(self.integer_range());
        }
        Number::from_f64(value).map(Json::Number).ok_or_else(|| self.integer_range())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        self.text(value)?;
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Json, E> {
        self.text(&value)?;
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        loop {
            match items.next_element_seed(self) {
                Ok(Some(item)) => list.push(item),
                Ok(None) => return Ok(Json::Array(list)),
                Err(error) => return Err(self.below(error, || list.len().to_string())),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut map = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            self.text(&key)?;
            if map.contains_key(&key) {
                let error = self.refuse(Code::DuplicateKey, "this member is named twice");
                return Err(self.below(error, || key));
            }
            match members.next_value_seed(self) {
                Ok(value) => map.insert(key, value),
                Err(error) => return Err(self.below(error, || key)),
            };
        }
        Ok(Json::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(text: &str) -> (Code, String) {
        let problem = parse(text.as_bytes()).expect_err(text);
        (problem.code, problem.errors.first().map(|error| error.pointer.clone()).unwrap_or_default())
    }

    #[test]
    fn what_is_fine_is_read_as_it_stands() {
        let text = r#"{"a":[1,-2,3.5,true,null,"\u00e9\n"],"b":{"c":9007199254740991}}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Json>(text).unwrap());
        assert_eq!(parse(b" [] ").unwrap(), json!([]));
    }

    #[test]
    fn refusals_say_what_and_where() {
        assert_eq!(refused(r#"{"a":{"b":1,"b":2}}"#), (Code::DuplicateKey, "/a/b".into()));
        assert_eq!(refused(r#"{"a":[{"x/y~":"k\u0000"}]}"#), (Code::NulCharacter, "/a/0/x~1y~0".into()));
        assert_eq!(refused(r#"{"a\u0000":1}"#).0, Code::NulCharacter);
        assert_eq!(refused(r#"[1,9007199254740992]"#), (Code::NumberOutOfRange, "/1".into()));
        assert_eq!(refused(r#"{"n":-9007199254740992}"#), (Code::NumberOutOfRange, "/n".into()));
        assert_eq!(refused(r#"{"n":99999999999999999999}"#), (Code::NumberOutOfRange, "/n".into()));
        for broken in ["", "{", "{\"a\":}", "[1,]", "{} {}", "nul", "1e999", "{'a':1}", "\u{feff}{}"] {
            assert_eq!(refused(broken).0, Code::MalformedJson, "{broken}");
        }
        assert_eq!(parse(b"\"\xff\"").unwrap_err().code, Code::MalformedJson);
    }

    #[test]
    fn nesting_is_capped_before_parsing() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(deep(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(refused(&deep(MAX_DEPTH + 1)).0, Code::TooDeep);
        assert_eq!(refused(&"[".repeat(1_000_000)).0, Code::TooDeep);
        assert!(parse(format!("\"{}\"", "[\\\"".repeat(100)).as_bytes()).is_ok(), "brackets in texts do not nest");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
