//! A message as a Kafka record: CloudEvents in binary mode, the envelope's key as the record's key.

use crate::bus::{Outgoing, Packed, Undecodable};
use endstate_events::cloud_event::{self, Record};
use endstate_events::{Envelope, Environment, Message as Body, Topic};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use std::sync::Arc;

/// Attributes become headers under this prefix.
const PREFIX: &str = "ce_";

/// The headers of [`cloud_event::attributes`], in their order.
const HEADERS: [&str; 9] = [
    "ce_specversion",
    "ce_id",
    "ce_type",
    "ce_source",
    "ce_time",
    "ce_partitionkey",
    "ce_schemaversion",
    "ce_lane",
    "ce_environment",
];

const CONTENT_TYPE: &str = "content-type";

/// The largest record, headers and key included: what brokers take unless told otherwise, less some for framing.
pub(super) const LARGEST: usize = 1_000_000;

/// The batch a record travels in: what a topic must take, and brokers take unless told otherwise.
pub(super) const BATCH: i64 = 1_048_588;

/// Room that the headers' names and lengths take in a record, at most.
const HEAD: usize = 4_096;

/// Characters of a reason that travel in a header; the body has all of it.
const REASON: usize = 500;

/// Encodes a message; refuses one that no broker would take.
pub(super) fn pack(outgoing: Outgoing) -> Result<Packed, String> {
    let body = cloud_event::data(&outgoing.envelope.message).map_err(|error| error.to_string())?;
    let Envelope { id, key, .. } = &*outgoing.envelope;
    // The key travels twice, as itself and as an attribute.
    let size = body.len() + id.len() + 2 * key.len() + HEAD;
    if size > LARGEST {
        return Err(format!("a message of {size} bytes is too large for the bus; it takes {LARGEST}"));
    }
    Ok(Packed { outgoing, body })
}

/// The headers of a record.
pub(super) fn headers(topic: Topic, envelope: &Envelope, environment: &Environment) -> OwnedHeaders {
    let headers = OwnedHeaders::new_with_capacity(HEADERS.len() + 1);
    let content_type = Header { key: CONTENT_TYPE, value: Some(cloud_event::BINARY) };
    let attributes = cloud_event::attributes(envelope, environment);
    let headers = HEADERS.iter().zip(&attributes).fold(headers.insert(content_type), |headers, (name, (_, value))| {
        headers.insert(Header { key: name, value: Some(value.as_ref()) })
    });
    extensions(topic, envelope, environment)
        .into_iter()
        .fold(headers, |headers, (name, value)| headers.insert(Header { key: name, value: Some(value.as_bytes()) }))
}

/// What other teams need beside it, so that they need not read the body, nor hash.
fn extensions(topic: Topic, envelope: &Envelope, environment: &Environment) -> Vec<(&'static str, String)> {
    match (topic, &envelope.message) {
        (Topic::Foreign(_), Body::Command(command)) => vec![
            ("ce_replytopic", command.reply_to.topic.name(environment).into_owned()),
            ("ce_replypartition", command.reply_to.partition.to_string()),
            ("ce_replykey", command.saga().to_string()),
        ],
        (_, Body::Letter(letter)) => vec![
            ("ce_deadtopic", letter.topic.clone()),
            ("ce_deadpartition", letter.partition.to_string()),
            ("ce_deadoffset", letter.offset.to_string()),
            ("ce_reason", letter.reason.chars().take(REASON).collect()),
        ],
        (_, Body::Foreign(event)) => event.subject.iter().map(|subject| ("ce_subject", subject.clone())).collect(),
        _ => Vec::new(),
    }
}

/// The message in a record, or what can be kept of one that is none.
pub(super) fn unpack(
    record: &BorrowedMessage<'_>,
    topic: Topic,
    environment: &Environment,
) -> Result<Arc<Envelope>, Undecodable> {
    let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
    let recorded_ms = record.timestamp().to_millis().unwrap_or(0);
    let mut read = Record::new(key, record.payload().unwrap_or_default(), recorded_ms);
    for header in record.headers().into_iter().flat_map(|headers| headers.iter()) {
        // A header that is no text is none of ours.
        let Some(value) = header.value.and_then(|value| std::str::from_utf8(value).ok()) else { continue };
        match header.key.strip_prefix(PREFIX) {
            Some(name) => read.set(name, value),
            None if header.key == CONTENT_TYPE => read.set_content_type(value),
            None => {}
        }
    }
    let unreadable = |error: cloud_event::Unreadable| Undecodable { bytes: error.bytes, reason: error.reason };
    let read = match topic {
        Topic::Foreign(_) => read.read_foreign(environment),
        Topic::Start | Topic::Progress | Topic::Commands | Topic::Events | Topic::DeadLetters => read.read(environment),
    };
    read.map(Arc::new).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use endstate_events::{InquiryAnswer, Lane, Message, SCHEMA_VERSION, Topic};

    fn outgoing(key: String) -> Outgoing {
        let effect_id = "0193a0b2-7c00-8abc-9def-0123456789ab:hold:line-1:do:0".parse().unwrap();
        let message = Message::Inquired(InquiryAnswer { effect_id, keep: true });
        let envelope = Envelope { id: "i".into(), schema: SCHEMA_VERSION, time_ms: 0, key, lane: Lane::Test, message };
        Outgoing { topic: Topic::Commands, partition: 1, envelope: envelope.into() }
    }

    #[test]
    fn every_attribute_has_its_header() {
        let packed = pack(outgoing("k".to_owned())).unwrap();
        let environment = Environment::default();
        let attributes = cloud_event::attributes(&packed.outgoing.envelope, &environment);
        let names: Vec<_> = attributes.iter().map(|(name, _)| format!("{PREFIX}{name}")).collect();
        assert_eq!(names, HEADERS);
        let headers = headers(packed.outgoing.topic, &packed.outgoing.envelope, &environment);
        let lane = headers.iter().find(|header| header.key == "ce_lane").unwrap();
        assert_eq!(lane.value, Some("test".as_bytes()));
    }

    #[test]
    fn z10_what_no_broker_takes_is_refused_before_it_is_committed() {
        let reason = pack(outgoing("k".repeat(LARGEST / 2))).unwrap_err();
        assert!(reason.contains("too large"), "{reason}");
    }
}
