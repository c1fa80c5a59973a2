//! Payloads that fit a schema. What a schema cannot say (a code that exists, a unit that is in stock) is given by hand.

use endstate_events::Json;
use serde_json::{Map, json};

/// A payload; `{n}` in its texts stands for a number that is another one for each saga.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Payload(pub(crate) Json);

impl Payload {
    /// One that fits a schema, as far as it can be told.
    pub(crate) fn of_schema(schema: &Json) -> Self {
        Self(example(schema))
    }

    /// Another that fits as well; none when nothing in it can be changed.
    pub(crate) fn varied(&self, schema: &Json) -> Option<Self> {
        vary(&self.0, schema).map(Self)
    }

    /// With its number.
    pub(crate) fn filled(&self, n: u32) -> Json {
        fill(&self.0, &n.to_string())
    }
}

fn fill(value: &Json, n: &str) -> Json {
    match value {
        Json::String(text) => text.replace("{n}", n).into(),
        Json::Array(items) => items.iter().map(|item| fill(item, n)).collect(),
        Json::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), fill(value, n))).collect::<Map<_, _>>().into()
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => value.clone(),
    }
}

fn example(schema: &Json) -> Json {
    for key in ["const", "default"] {
        if let Some(value) = schema.get(key) {
            return value.clone();
        }
    }
    for key in ["enum", "examples"] {
        if let Some(value) = schema.get(key).and_then(Json::as_array).and_then(|values| values.first()) {
            return value.clone();
        }
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(key).and_then(Json::as_array).and_then(|all| all.first()) {
            return example(first);
        }
    }
    match kind(schema) {
        "string" => text(schema),
        "integer" | "number" => number(schema),
        "boolean" => false.into(),
        "array" => {
            let count = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
            let item = schema.get("items").map_or(Json::Null, example);
            (0..count).map(|_| item.clone()).collect()
        }
        "null" => Json::Null,
        _ => {
            let required =
                schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
            let field =
                |name: &str| schema.get("properties").and_then(|all| all.get(name)).map_or(json!("verify"), example);
            required.map(|name| (name.to_owned(), field(name))).collect::<Map<_, _>>().into()
        }
    }
}

fn kind(schema: &Json) -> &str {
    match schema.get("type") {
        Some(Json::String(kind)) => kind,
        Some(Json::Array(kinds)) => kinds.first().and_then(Json::as_str).unwrap_or_default(),
        _ => "object",
    }
}

fn text(schema: &Json) -> Json {
    let least = schema.get("minLength").and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let most = schema.get("maxLength").and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(64);
    let word = "verify";
    let long = word.repeat(least.div_ceil(word.len()).max(1));
    long.chars().take(most.max(least)).collect::<String>().into()
}

fn number(schema: &Json) -> Json {
    let bound = |key: &str| schema.get(key).and_then(Json::as_i64);
    let least = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|least| least + 1));
    // One is the smallest amount that moves anything.
    let wanted = least.unwrap_or(1).max(1);
    bound("maximum").map_or(wanted, |most| wanted.min(most)).into()
}

/// Changes the first field that can be changed.
fn vary(value: &Json, schema: &Json) -> Option<Json> {
    if schema.get("const").is_some() {
        return None;
    }
    if let Some(values) = schema.get("enum").and_then(Json::as_array) {
        return values.iter().find(|other| *other != value).cloned();
    }
    match value {
        Json::Object(fields) => fields.iter().find_map(|(name, inner)| {
            let below = schema.get("properties").and_then(|all| all.get(name)).unwrap_or(&Json::Null);
            let mut fields = fields.clone();
            fields.insert(name.clone(), vary(inner, below)?);
            Some(fields.into())
        }),
        Json::String(text) => {
            let most = schema.get("maxLength").and_then(Json::as_u64).unwrap_or(u64::MAX);
            (text.chars().count() as u64 + 2 <= most).then(|| format!("{text}-2").into())
        }
        Json::Number(number) => {
            let more = number.as_i64()? + 1;
            schema.get("maximum").and_then(Json::as_i64).is_none_or(|most| more <= most).then(|| more.into())
        }
        Json::Bool(flag) => Some((!flag).into()),
        Json::Array(_) | Json::Null => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use endstate_saga::definition::Shape;

    #[test]
    fn payloads_fit_their_schema_and_so_do_their_variations() {
        let schema = json!({
            "type": "object", "required": ["paper", "count", "name"], "additionalProperties": false,
            "properties": {
                "paper": { "enum": ["red", "gold"] },
                "count": { "type": "integer", "minimum": 3, "maximum": 4 },
                "name": { "type": "string", "minLength": 9 },
                "more": { "type": "string" },
            },
        });
        let shape = Shape::compile(&schema).unwrap();
        let payload = Payload::of_schema(&schema);
        let other = payload.varied(&schema).unwrap();
        assert!(shape.misfits(&payload.0).is_empty() && shape.misfits(&other.0).is_empty(), "{payload:?} {other:?}");
        assert_ne!(payload, other);
        assert_eq!(Payload(json!({ "code": ["C-{n}"] })).filled(7), json!({ "code": ["C-7"] }));
        let fixed = json!({ "type": "object", "required": ["a"], "properties": { "a": { "const": 1 } } });
        assert_eq!(Payload::of_schema(&fixed).varied(&fixed), None);
    }
}
