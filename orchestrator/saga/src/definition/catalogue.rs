//! Catalogue files: which participants there are and what they accept, read strictly and checked against themselves.

use super::diagnostic::{Code, Diagnostic};
use super::keys::{ACTION, EVENT, PARTICIPANT};
use super::node::Node;
use super::reader::{Complaints, Fields, Placed};
use super::schema::Shape;
use endstate_events::{Action, Catalogue, Environment, EventKind, Json, Participant, Transport};
use std::sync::Arc;

/// The participants that are part of the program.
pub const BUILTIN: &str = include_str!("../../../sagas/catalogue/builtin.yaml");

/// The name of the built-in catalogue among a source's files.
pub const BUILTIN_NAME: &str = "catalogue/builtin.yaml";

/// Reads catalogue files, `(name, text)`; a participant of a later file replaces one of an earlier file.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load_catalogue<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Catalogue, Vec<Diagnostic>> {
    let complaints = Complaints::default();
    let mut catalogue = Catalogue::default();
    for (file, text) in files {
        match Node::parse(&Arc::from(file), text) {
            Ok(node) => read_file(&node, &mut catalogue, &complaints),
            Err(diagnostic) => complaints.push(diagnostic),
        }
    }
    let diagnostics = complaints.into_sorted();
    if diagnostics.is_empty() { Ok(catalogue) } else { Err(diagnostics) }
}

fn read_file(node: &Node, catalogue: &mut Catalogue, complaints: &Complaints) {
    let super::node::Kind::Map(entries) = &node.kind else {
        complaints.add(Code::BadCatalogue, &node.at, "a catalogue is a mapping of participants");
        return;
    };
    for (key, node) in entries {
        super::reader::check_name(&key.name, &key.at, complaints);
        if key.name == crate::plan::SAGA_PARTICIPANT {
            complaints.add(
                Code::BadName,
                &key.at,
                "`saga` is not a participant: `call: saga.NAME` starts another saga",
            );
        }
        if let Some(participant) = read_participant(node, complaints) {
            catalogue.participants.insert(key.name.clone(), participant);
        }
    }
}

fn read_participant(node: &Node, complaints: &Complaints) -> Option<Participant> {
    let fields = Fields::of(node, "a participant", &PARTICIPANT, complaints)?;
    let transport = fields.require("transport").and_then(|node| read_transport(node, complaints));
    fields.require("actions");
    let mut participant = Participant {
        description: fields.text("description").map(|text| text.to_string()).unwrap_or_default(),
        transport: transport?,
        actions: Default::default(),
        events: Default::default(),
    };
    let actions = fields.named("actions");
    for (name, node) in &actions {
        let known = |undo: &str| actions.iter().any(|(other, _)| &*other.value == undo);
        if let Some(action) = read_action(name, node, known, complaints) {
            participant.actions.insert(name.value.to_string(), action);
        }
    }
    for (name, node) in fields.named("events") {
        if let Some(event) = read_event(node, complaints) {
            participant.events.insert(name.value.to_string(), event);
        }
    }
    Some(participant)
}

fn read_transport(node: &Node, complaints: &Complaints) -> Option<Transport> {
    let transport = serde_json::from_value::<Transport>(node.json());
    let reason = match &transport {
        Ok(Transport::Http { url, .. }) if !(url.starts_with("http://") || url.starts_with("https://")) => {
            Some(format!("`url` begins with http:// or https://, not `{url}`"))
        }
        Ok(Transport::Http { timeout_ms: 0, .. }) => Some("`timeout_ms` is at least 1".to_owned()),
        Ok(Transport::Kafka { partitions: Some(0), .. }) => Some("`partitions` is at least 1".to_owned()),
        Ok(kafka @ Transport::Kafka { .. }) => {
            kafka.topic(&Environment::default()).and_then(Result::err).map(|error| error.to_string())
        }
        Ok(Transport::Http { .. } | Transport::Builtin) => None,
        Err(error) => Some(format!(
            "`transport` is `builtin`, `{{ http: {{ url, timeout_ms }} }}` or `{{ kafka: {{ topic, partitions }} }}`: {error}"
        )),
    };
    if let Some(reason) = reason {
        complaints.add(Code::BadCatalogue, &node.at, reason);
        return None;
    }
    transport.ok()
}

fn read_action(
    name: &Placed<Arc<str>>,
    node: &Node,
    known: impl Fn(&str) -> bool,
    complaints: &Complaints,
) -> Option<Action> {
    let fields = Fields::of(node, "an action", &ACTION, complaints)?;
    let schema = |key: &str| fields.get(key).map_or(Json::Null, |node| read_schema(node, complaints));
    let action = Action {
        description: fields.text("description").map(|text| text.to_string()).unwrap_or_default(),
        with: schema("with"),
        reply: schema("reply"),
        example: fields.get("example").map_or(Json::Null, Node::json),
        key: fields.text("key").map(|text| text.to_string()),
        undo: fields.text("undo").map(|text| text.to_string()),
        refusals: fields.list("refusals").iter().filter_map(|node| node.text().map(str::to_owned)).collect(),
    };
    let at = |key: &str| &fields.get(key).unwrap_or(node).at;
    if let Some(key) = &action.key {
        let required = action.with.get("required").and_then(Json::as_array);
        if !required.is_some_and(|required| required.iter().any(|name| name == key.as_str())) {
            let reason = format!("`key: {key}` must be one of the required fields of `with`");
            complaints.add(Code::BadCatalogue, at("key"), reason);
        }
    }
    if let Some(undo) = action.undo.as_deref().filter(|undo| !known(undo)) {
        let reason = format!("the undo of `{}` is `{undo}`, which is no action of this participant", name.value);
        complaints.add(Code::BadCatalogue, at("undo"), reason);
    }
    check_example(&action.reply, &action.example, at("example"), "reply", complaints);
    Some(action)
}

fn read_event(node: &Node, complaints: &Complaints) -> Option<EventKind> {
    let fields = Fields::of(node, "an event", &EVENT, complaints)?;
    let event = EventKind {
        description: fields.text("description").map(|text| text.to_string()).unwrap_or_default(),
        schema: read_schema(fields.require("schema")?, complaints),
        example: fields.get("example").map_or(Json::Null, Node::json),
    };
    check_example(&event.schema, &event.example, &fields.get("example").unwrap_or(node).at, "schema", complaints);
    Some(event)
}

/// Reads an event that a definition declares itself.
pub(super) fn read_own_event(node: &Node, complaints: &Complaints) -> Option<EventKind> {
    read_event(node, complaints)
}

fn read_schema(node: &Node, complaints: &Complaints) -> Json {
    let schema = node.json();
    if let Err(reason) = Shape::compile(&schema) {
        complaints.add(Code::BadSchema, &node.at, reason);
    }
    schema
}

fn check_example(schema: &Json, example: &Json, at: &super::Position, name: &str, complaints: &Complaints) {
    if schema.is_null() || example.is_null() {
        return;
    }
    if let Some(misfit) = Shape::compile(schema).ok().and_then(|shape| shape.misfits(example).into_iter().next()) {
        complaints.add(Code::BadCatalogue, at, format!("the example does not fit `{name}`: {misfit}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Source;

    #[test]
    fn the_built_in_catalogue_is_sound() {
        let catalogue = load_catalogue([(BUILTIN_NAME, BUILTIN)]).unwrap_or_else(|all| {
            panic!("{}", all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        });
        assert!(catalogue.action("stock", "hold").is_some_and(|action| action.key.as_deref() == Some("unit")));
        assert!(catalogue.event("payment.captured").is_some());
        assert_eq!(catalogue.action("bench", "lock").and_then(|action| action.undo.as_deref()), Some("unlock"));
    }

    #[test]
    fn what_a_catalogue_gets_wrong_is_said_with_its_place() {
        let wrong = "shop:\n  transport: { http: { url: 'ftp://x' } }\n  actions: { a: {} }\nmill:\n  transport: builtin\n  \
                     actions:\n    grind: { undo: ungrind, key: x, exmaple: 1, with: { type: objekt } }\n";
        let all = load_catalogue([("c.yaml", wrong)]).unwrap_err();
        let codes: Vec<_> = all.iter().map(|d| (d.code, d.at.line)).collect();
        assert!(codes.contains(&(Code::BadCatalogue, 2)), "{all:?}");
        assert!(codes.contains(&(Code::UnknownKey, 7)), "{all:?}");
        assert!(codes.contains(&(Code::BadSchema, 7)), "{all:?}");
        assert_eq!(all.iter().filter(|d| d.code == Code::BadCatalogue).count(), 3, "{all:?}");
        for transport in ["{ kafka: { topic: 'prod.endstate.progress' } }", "{ kafka: { topic: x, partitions: 0 } }"] {
            let all = load_catalogue([("c.yaml", &*format!("shop:\n  transport: {transport}\n  actions: {{}}\n"))]);
            assert_eq!(all.unwrap_err()[0].code, Code::BadCatalogue, "{transport}");
        }
        let fine =
            "shop:\n  transport: { kafka: { topic: '{environment}.shop.commands', partitions: 6 } }\n  actions: {}\n";
        assert!(load_catalogue([("c.yaml", fine)]).is_ok());
    }

    /// Complaints about one action of a participant over HTTP.
    fn about(url: &str, action: &str) -> Vec<String> {
        let text = format!("shop:\n  transport: {{ http: {{ url: '{url}' }} }}\n  actions:\n    book: {action}\n");
        let all = load_catalogue([("c.yaml", &*text)]).err().unwrap_or_default();
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_participant_is_called_over_http_by_its_url() {
        let action = "{ key: a, with: { required: [a, b] } }";
        assert_eq!(about("http://shop", action), [""; 0]);
        assert_eq!(about("https://shop", action), [""; 0]);
        let reason = "c.yaml:2:14: error[E1025]: `url` begins with http:// or https://, not `ftp://shop`";
        assert_eq!(about("ftp://shop", action), [reason]);
    }

    #[test]
    fn a_key_is_always_there_and_an_example_fits() {
        let place = "c.yaml:4:";
        for (action, reason) in [
            ("{ key: a, with: { required: [a] } }", None),
            (
                "{ key: c, with: { required: [a, b] } }",
                Some("18: error[E1025]: `key: c` must be one of the required fields of `with`"),
            ),
            ("{ reply: { type: object } }", None),
            ("{ example: 7 }", None),
            ("{ reply: { type: object }, example: {} }", None),
            (
                "{ reply: { type: object }, example: 7 }",
                Some("47: error[E1025]: the example does not fit `reply`: 7 is not of type \"object\""),
            ),
        ] {
            let expected: Vec<_> = reason.map(|reason| format!("{place}{reason}")).into_iter().collect();
            assert_eq!(about("http://shop", action), expected, "{action}");
        }
    }

    #[test]
    fn the_built_in_catalogue_comes_first_so_that_others_can_replace_its_participants() {
        let own = "notify:\n  transport: { http: { url: 'http://sms' } }\n  actions: { send: {} }\n";
        let catalogues =
            [(BUILTIN_NAME, BUILTIN), ("catalogue/a.yaml", own)].map(|(name, text)| (name.to_owned(), text.to_owned()));
        let source = Source { catalogues: catalogues.into(), ..Source::default() };
        let names: Vec<_> = source.catalogue_files().map(|(name, _)| name).collect();
        assert_eq!(names, [BUILTIN_NAME, "catalogue/a.yaml"]);
        let catalogue = load_catalogue(source.catalogue_files()).unwrap();
        assert_ne!(catalogue.participants["notify"].transport, Transport::Builtin);
        assert_eq!(catalogue.participants["stock"].transport, Transport::Builtin);
    }
}
