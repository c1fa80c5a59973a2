//! JSON Schemas: what a value must look like, and which paths it has.

use crate::expression::Segment;
use endstate_events::Json;
use std::fmt;
use std::sync::Arc;

/// Deepest chain of `$ref` that is followed.
const MAX_REFERENCES: usize = 16;

/// Most misfits reported at once.
const MAX_MISFITS: usize = 8;

/// A compiled schema.
#[derive(Clone, Debug)]
pub struct Shape(Arc<jsonschema::Validator>);

/// One way in which a value does not fit its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// JSON pointer into the value; empty for the whole.
    pub pointer: String,
    /// What is wrong, for people.
    pub reason: String,
}

impl Misfit {
    /// Where it is, for people: `/` for the whole.
    #[must_use]
    pub fn place(&self) -> &str {
        if self.pointer.is_empty() { "/" } else { &self.pointer }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.pointer, self.reason) }
    }
}

impl Shape {
    /// Compiles a schema. Nothing is fetched: references stay inside the file.
    ///
    /// # Errors
    /// A text for people.
    pub fn compile(schema: &Json) -> Result<Self, String> {
        jsonschema::validator_for(schema).map(|validator| Self(Arc::new(validator))).map_err(|error| error.to_string())
    }

    /// All ways in which a value does not fit; empty when it does.
    #[must_use]
    pub fn misfits(&self, value: &Json) -> Vec<Misfit> {
        if self.0.is_valid(value) {
            return Vec::new();
        }
        let errors = self.0.iter_errors(value).take(MAX_MISFITS);
        errors
            .map(|error| Misfit {
                pointer: error.instance_path().to_string(),
                reason: error.to_string().chars().take(300).collect(),
            })
            .collect()
    }
}

/// What a schema says about a path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found<'s> {
    /// The schema of what is there.
    Schema(&'s Json),
    /// The schema leaves it open.
    Open,
    /// No such field; `within` is the path up to it, and `known` what there is instead.
    Missing { field: String, known: Vec<&'s str> },
}

/// Follows a path through a schema.
pub(crate) fn resolve<'s>(root: &'s Json, segments: &[Segment]) -> Found<'s> {
    resolve_from(root, root, segments)
}

fn resolve_from<'s>(root: &'s Json, schema: &'s Json, segments: &[Segment]) -> Found<'s> {
    let Some(schema) = dereference(root, schema) else { return Found::Open };
    let Some((first, rest)) = segments.split_first() else { return Found::Schema(schema) };
    let alternatives: Vec<&Json> =
        ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|key| schema.get(key)?.as_array()).flatten().collect();
    let own = resolve_own(root, schema, first, rest);
    let has_shape = ["properties", "items", "additionalProperties", "type"].iter().any(|key| schema.get(key).is_some());
    if alternatives.is_empty() || (has_shape && !matches!(own, Found::Missing { .. })) {
        return own;
    }
    let mut last = own;
    for alternative in alternatives {
        match resolve_from(root, alternative, segments) {
            Found::Missing { field, known } => last = Found::Missing { field, known },
            found @ (Found::Schema(_) | Found::Open) => return found,
        }
    }
    last
}

fn resolve_own<'s>(root: &'s Json, schema: &'s Json, first: &Segment, rest: &[Segment]) -> Found<'s> {
    match first {
        Segment::Element => match schema.get("items").or_else(|| schema.get("additionalProperties")) {
            Some(items) if items.is_object() => resolve_from(root, items, rest),
            Some(_) | None => Found::Open,
        },
        Segment::Field(name) => {
            let properties = schema.get("properties").and_then(Json::as_object);
            if let Some(property) = properties.and_then(|properties| properties.get(name)) {
                return resolve_from(root, property, rest);
            }
            match schema.get("additionalProperties") {
                Some(Json::Bool(true)) => Found::Open,
                Some(additional) if additional.is_object() => resolve_from(root, additional, rest),
                Some(_) | None => Found::Missing {
                    field: name.clone(),
                    known: properties.map(|all| all.keys().map(String::as_str).collect()).unwrap_or_default(),
                },
            }
        }
    }
}

/// Follows `$ref` inside the document; `None` when it leads elsewhere.
fn dereference<'s>(root: &'s Json, mut schema: &'s Json) -> Option<&'s Json> {
    for _ in 0..MAX_REFERENCES {
        match schema.get("$ref").and_then(Json::as_str) {
            None => return Some(schema),
            Some(reference) => schema = root.pointer(reference.strip_prefix('#')?)?,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_are_followed_through_lists_references_and_alternatives() {
        let schema = json!({ "type": "object", "$defs": { "line": { "type": "object", "properties": { "sku": { "type": "string" } } } },
            "properties": { "lines": { "type": "array", "maxItems": 3, "items": { "$ref": "#/$defs/line" } },
                "free": { "type": "object", "additionalProperties": true },
                "either": { "anyOf": [{ "type": "null" }, { "$ref": "#/$defs/line" }] } } });
        let field = |name: &str| Segment::Field(name.into());
        assert_eq!(
            resolve(&schema, &[field("lines"), Segment::Element, field("sku")]),
            Found::Schema(&json!({ "type": "string" }))
        );
        assert_eq!(resolve(&schema, &[field("free"), field("x"), field("y")]), Found::Open);
        assert_eq!(resolve(&schema, &[field("either"), field("sku")]), Found::Schema(&json!({ "type": "string" })));
        let missing = Found::Missing { field: "sk".into(), known: vec!["sku"] };
        assert_eq!(resolve(&schema, &[field("lines"), Segment::Element, field("sk")]), missing);
    }

    #[test]
    fn what_is_said_beside_alternatives_counts_and_so_do_they() {
        let field = |name: &str| [Segment::Field(name.into())];
        let text = json!({ "type": "string" });
        let named = json!({ "type": "object", "properties": { "a": text }, "anyOf": [{ "required": ["a"] }, { "properties": { "b": text } }] });
        assert_eq!(resolve(&named, &field("a")), Found::Schema(&text));
        assert_eq!(resolve(&named, &field("b")), Found::Schema(&text));
        assert!(matches!(resolve(&named, &field("c")), Found::Missing { .. }));
    }

    #[test]
    fn a_schema_that_leaves_something_open_is_followed_as_far_as_it_goes() {
        let field = |name: &str| Segment::Field(name.into());
        let text = json!({ "type": "string" });
        let schema = json!({ "properties": { "any": { "type": "array", "items": true }, "by_name": { "additionalProperties": { "properties": { "x": text } } },
            "else": { "additionalProperties": true } } });
        assert_eq!(resolve(&schema, &[field("any"), Segment::Element, field("x")]), Found::Open);
        assert_eq!(resolve(&schema, &[field("by_name"), field("ann"), field("x")]), Found::Schema(&text));
        assert!(matches!(resolve(&schema, &[field("by_name"), field("ann"), field("y")]), Found::Missing { .. }));
        assert_eq!(resolve(&schema, &[field("by_name"), Segment::Element, field("x")]), Found::Schema(&text));
        assert_eq!(resolve(&schema, &[field("else"), field("x"), field("y")]), Found::Open);
    }

    #[test]
    fn misfits_carry_a_pointer() {
        let shape = Shape::compile(&json!({ "properties": { "a": { "items": { "type": "integer" } } } })).unwrap();
        let misfits = shape.misfits(&json!({ "a": [1, "x"] }));
        assert_eq!(misfits[0].pointer, "/a/1");
        assert!(shape.misfits(&json!({ "a": [1] })).is_empty());
        assert!(Shape::compile(&json!({ "type": "objekt" })).is_err());
    }
}
