//! The published JSON Schemas of definition files and catalogue files, for editors.
//!
//! They complete keys and mark misspelt ones; what needs names, samples or states is checked by loading.

/// JSON Schema of a definition file.
pub const DEFINITION: &str = include_str!("../../sagas/definition.schema.json");

/// JSON Schema of a catalogue file.
pub const CATALOGUE: &str = include_str!("../../sagas/catalogue.schema.json");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{BUILTIN, Node, Shape, keys, shipped};
    use endstate_events::Json;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    fn schema(text: &str) -> (Json, Shape) {
        let schema: Json = serde_json::from_str(text).unwrap();
        let shape = Shape::compile(&schema).unwrap();
        (schema, shape)
    }

    fn json(text: &str) -> Json {
        Node::parse(&Arc::from("a.yaml"), text).unwrap().json()
    }

    #[test]
    fn what_is_shipped_fits_what_is_published() {
        let (_, definition) = schema(DEFINITION);
        for source in shipped() {
            assert_eq!(definition.misfits(&json(&source.text)), [], "{}", source.file);
        }
        let (_, catalogue) = schema(CATALOGUE);
        assert_eq!(catalogue.misfits(&json(BUILTIN)), []);
        assert!(!definition.misfits(&json(&shipped()[0].text.replace("stages:", "stagse:"))).is_empty());
    }

    #[test]
    fn the_published_keys_are_the_keys_that_are_read() {
        let (definition, _) = schema(DEFINITION);
        let (catalogue, _) = schema(CATALOGUE);
        let participant = "/additionalProperties";
        let action = "/additionalProperties/properties/actions/additionalProperties";
        let pairs: [(&Json, &str, &[&str]); 6] = [
            (&definition, "", &keys::DEFINITION),
            (&definition, "/$defs/stage", &keys::STAGE),
            (&definition, "/$defs/step", &keys::STEP),
            (&definition, "/$defs/wait", &keys::WAIT),
            (&catalogue, participant, &keys::PARTICIPANT),
            (&catalogue, action, &keys::ACTION),
        ];
        for (schema, place, known) in pairs {
            let published = schema.pointer(&format!("{place}/properties")).and_then(Json::as_object).unwrap();
            let published: BTreeSet<&str> = published.keys().map(String::as_str).collect();
            assert_eq!(published, known.iter().copied().collect(), "{place}");
        }
    }
}
