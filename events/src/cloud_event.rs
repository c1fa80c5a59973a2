//! A message as a CloudEvent, for brokers that carry headers beside a body. Binary mode is what we write: attributes in
//! headers, the data as the body; structured mode, all of it in one JSON object, is read as well.
//!
//! Spec: CloudEvents 1.0.2, Kafka protocol binding. Ours beside its attributes are `schemaversion`, `lane` and
//! `environment`.

use crate::{Envelope, Environment, ForeignEvent, Input, Json, Lane, Message, SCHEMA_VERSION, foreign, time};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Content type of a body that is only the data.
pub const BINARY: &str = "application/json";
/// Content type of a body that holds attributes and data.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// Content type of several structured events in one body.
const BATCHED: &str = "application/cloudevents-batch+json";

/// Begins every type of ours.
const TYPES: &str = "endstate.";

/// A record that is no message of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// What can be kept of it: an envelope as JSON if it is as much as that, else the body as text.
    pub bytes: String,
    /// Why.
    pub reason: String,
}

/// The attributes of a message, without the prefix that a binding gives them.
#[must_use]
pub fn attributes<'a>(envelope: &'a Envelope, environment: &'a Environment) -> [(&'static str, Cow<'a, str>); 9] {
    let mut at = String::with_capacity(24);
    // Writing to a string cannot fail.
    time::write(envelope.time_ms, &mut at).ok();
    let (id, kind, source) = match &envelope.message {
        event @ Message::Foreign(ForeignEvent { id, source, .. }) => {
            (id.as_str(), type_of(event), Cow::Borrowed(source.as_str()))
        }
        ours => (envelope.id.as_str(), type_of(ours), format!("/endstate/{environment}").into()),
    };
    [
        ("specversion", "1.0".into()),
        ("id", id.into()),
        ("type", kind),
        ("source", source),
        ("time", at.into()),
        ("partitionkey", envelope.key.as_str().into()),
        ("schemaversion", envelope.schema.to_string().into()),
        ("lane", envelope.lane.label().into()),
        ("environment", environment.as_str().into()),
    ]
}

/// The type of a message.
#[must_use]
pub fn type_of(message: &Message) -> Cow<'_, str> {
    match message {
        Message::Foreign(event) => event.kind.as_str().into(),
        ours => format!("{TYPES}{}", ours.label()).into(),
    }
}

/// The data of a message, as JSON.
pub fn data(message: &Message) -> serde_json::Result<Vec<u8>> {
    match message {
        Message::Input(input) => serde_json::to_vec(input),
        Message::Command(command) => serde_json::to_vec(command),
        Message::Answer(reply) => serde_json::to_vec(reply),
        Message::Inquired(answer) => serde_json::to_vec(answer),
        Message::Domain(event) => serde_json::to_vec(event),
        Message::Reply(reply) => serde_json::to_vec(reply),
        Message::Foreign(event) => Ok(event.data.clone().into_bytes()),
        Message::Letter(letter) => serde_json::to_vec(letter),
    }
}

/// A record as a binding found it. Unknown attributes are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    id: Option<&'a str>,
    kind: Option<&'a str>,
    source: Option<&'a str>,
    subject: Option<&'a str>,
    at: Option<&'a str>,
    key: Option<&'a str>,
    schema: Option<&'a str>,
    lane: Option<&'a str>,
    environment: Option<&'a str>,
    content_type: Option<&'a str>,
    recorded_ms: i64,
    record_key: Option<&'a str>,
    body: &'a [u8],
}

impl<'a> Record<'a> {
    /// A record with its key, if that is text, its body, and when the broker took it, in milliseconds since 1970: that
    /// stands in for a missing time, and is the same at every reading.
    #[must_use]
    pub fn new(record_key: Option<&'a str>, body: &'a [u8], recorded_ms: i64) -> Self {
        Self { record_key, body, recorded_ms, ..Self::default() }
    }

    /// How the body is to be read.
    pub fn set_content_type(&mut self, content_type: &'a str) {
        self.content_type = Some(content_type);
    }

    /// Takes one attribute, named without its prefix.
    pub fn set(&mut self, name: &str, value: &'a str) {
        match name {
            "id" => self.id = Some(value),
            "type" => self.kind = Some(value),
            "source" => self.source = Some(value),
            "subject" => self.subject = Some(value),
            "time" => self.at = Some(value),
            "partitionkey" => self.key = Some(value),
            "schemaversion" => self.schema = Some(value),
            "lane" => self.lane = Some(value),
            "environment" => self.environment = Some(value),
            _ => {}
        }
    }

    /// The message in it, if it is one of `environment`.
    pub fn read(&self, environment: &Environment) -> Result<Envelope, Unreadable> {
        self.opened(|record, body| record.binary(body, environment))
    }

    /// What a topic of another team holds: a message of ours if its type says so, else an event of theirs.
    pub fn read_foreign(&self, environment: &Environment) -> Result<Envelope, Unreadable> {
        self.opened(|record, body| match record.kind {
            Some(kind) if kind.starts_with(TYPES) => record.binary(body, environment),
            _ => record.foreign(body).map_err(|reason| record.unreadable(&reason)),
        })
    }

    /// Finds attributes and data, in whichever mode they are written.
    fn opened(
        &self,
        read: impl FnOnce(&Record<'_>, &[u8]) -> Result<Envelope, Unreadable>,
    ) -> Result<Envelope, Unreadable> {
        match self.content_type.map(|kind| kind.split(';').next().unwrap_or_default().trim()) {
            Some(STRUCTURED) => {}
            Some(BATCHED) => return Err(self.unreadable("a batch of events in one record is not read")),
            _ => return read(self, self.body),
        }
        let whole: BTreeMap<String, &RawValue> =
            serde_json::from_slice(self.body).map_err(|error| self.unreadable(&error.to_string()))?;
        let data = whole.get("data").map(|data| data.get()).unwrap_or_default();
        let texts: Vec<(&String, String)> = whole
            .iter()
            .filter_map(|(name, raw)| match serde_json::from_str(raw.get()) {
                Ok(Json::String(text)) => Some((name, text)),
                Ok(Json::Number(number)) => Some((name, number.to_string())),
                Ok(Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_)) | Err(_) => None,
            })
            .collect();
        let mut inner = Record::new(self.record_key, self.body, self.recorded_ms);
        for (name, value) in &texts {
            inner.set(name, value);
        }
        read(&inner, data.as_bytes())
    }

    fn binary(&self, body: &[u8], environment: &Environment) -> Result<Envelope, Unreadable> {
        let text = std::str::from_utf8(body).map_err(|_| self.unreadable("its body is no UTF-8"))?;
        let head = self.head(environment).map_err(|reason| self.unreadable(&reason))?;
        if head.schema > SCHEMA_VERSION {
            return Err(head.kept(text, format!("its schema version {} is newer", head.schema)));
        }
        let message = message(head.kind, text).map_err(|reason| head.kept(text, reason))?;
        let Head { id, schema, time_ms, key, lane, .. } = head;
        Ok(Envelope { id: id.to_owned(), schema, time_ms, key: key.to_owned(), lane, message })
    }

    /// An event of another team. Its time is the broker's: what is made of it must be the same at every reading.
    fn foreign(&self, body: &[u8]) -> Result<Envelope, String> {
        let named = |name: &str, value: Option<&str>, most: usize| match value {
            // They become parts of ids, and keys of rows.
            Some(value) if value.contains(char::is_control) => Err(format!("its {name} holds a control character")),
            Some(value) if (1..=most).contains(&value.len()) => Ok(value.to_owned()),
            Some(_) => Err(format!("its {name} is empty, or longer than {most} bytes")),
            None => Err(format!("it is no CloudEvent: it has no {name}")),
        };
        let event = ForeignEvent {
            source: named("source", self.source, 256)?,
            id: named("id", self.id, 128)?,
            kind: named("type", self.kind, 128)?,
            subject: self.subject.map(|subject| named("subject", Some(subject), 256)).transpose()?,
            teller: None,
            data: std::str::from_utf8(body).map_err(|_| "its body is no UTF-8")?.to_owned(),
        };
        let lane = match self.lane {
            Some(label) => Lane::labelled(label).ok_or_else(|| format!("there is no lane `{label}`"))?,
            None => Lane::default(),
        };
        let id = foreign::identity(&event.source, &event.id);
        let key = self.key.or(self.record_key).unwrap_or(&id).to_owned();
        let message = Message::Foreign(event);
        Ok(Envelope { id, schema: SCHEMA_VERSION, time_ms: self.recorded_ms, key, lane, message })
    }

    fn head(&self, environment: &Environment) -> Result<Head<'a>, String> {
        if let Some(other) = self.environment.filter(|other| *other != environment.as_str()) {
            return Err(format!("it is of environment `{other}`"));
        }
        let id = self.id.ok_or("it has no id")?;
        let kind = self.kind.and_then(|kind| kind.strip_prefix(TYPES)).ok_or("its type is none of ours")?;
        let time_ms = match self.at {
            Some(at) => time::parse(at).ok_or_else(|| format!("its time `{at}` cannot be read"))?,
            None => self.recorded_ms,
        };
        let schema = match self.schema {
            Some(schema) => schema.parse().map_err(|_| format!("its schema version `{schema}` is no number"))?,
            None => SCHEMA_VERSION,
        };
        let lane = match self.lane {
            Some(label) => Lane::labelled(label).ok_or_else(|| format!("there is no lane `{label}`"))?,
            None => Lane::default(),
        };
        let key = self.key.or(self.record_key).ok_or("it has no key")?;
        Ok(Head { id, kind, schema, time_ms, key, lane })
    }

    fn unreadable(&self, reason: &str) -> Unreadable {
        Unreadable { bytes: String::from_utf8_lossy(self.body).into_owned(), reason: reason.to_owned() }
    }
}

/// The attributes that an envelope holds.
struct Head<'a> {
    id: &'a str,
    kind: &'a str,
    schema: u16,
    time_ms: i64,
    key: &'a str,
    lane: Lane,
}

impl Head<'_> {
    /// The record as an envelope all the same, so that a later program, or a replay, can read it.
    fn kept(&self, text: &str, reason: String) -> Unreadable {
        let data = serde_json::from_str(text).unwrap_or_else(|_| Json::from(text));
        let message = serde_json::json!({ "type": self.kind, "data": data });
        let Self { id, schema, time_ms, key, lane, .. } = self;
        let whole = serde_json::json!({
            "id": id, "schema": schema, "time_ms": time_ms, "key": key, "lane": lane, "message": message,
        });
        Unreadable { bytes: whole.to_string(), reason }
    }
}

fn message(kind: &str, text: &str) -> Result<Message, String> {
    fn read<'de, T: Deserialize<'de>>(text: &'de str, wrap: impl FnOnce(T) -> Message) -> Result<Message, String> {
        serde_json::from_str(text).map(wrap).map_err(|error| error.to_string())
    }
    match kind {
        "input" => read::<Input>(text, Message::Input),
        "command" => read(text, Message::Command),
        "answer" => read(text, Message::Answer),
        "inquired" => read(text, Message::Inquired),
        "domain" => read(text, Message::Domain),
        "reply" => read(text, Message::Reply),
        "dead_letter" => read(text, Message::Letter),
        other => Err(format!("there is no message type `{other}`")),
    }
}
