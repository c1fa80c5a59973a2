//! Messages as Kafka records. What other teams may read or write is a CloudEvent in binary mode, the envelope's key as the
//! record's key. Between our own shards a whole parcel is one record (ADR 0019); single CloudEvents are read there as well.

use super::position;
use crate::bus::Undecodable;
use crate::parcel::{self, Parcel, Read};
use crate::witness;
use endstate_events::cloud_event::{self, Record};
use endstate_events::{Envelope, Environment, Message as Body, Topic};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use std::borrow::Cow;
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

/// The content type of a parcel: a JSON array of envelopes.
const PARCEL: &str = "application/vnd.endstate.parcel+json";

/// How all content types begin that are ours alone, those of programs to come as well.
const OURS: &str = "application/vnd.endstate.";

/// Which environment a parcel is of.
const ENVIRONMENT: &str = "ce_environment";

/// The largest record, headers and key included: what brokers take unless told otherwise, less some for framing.
pub(super) const LARGEST: usize = 1_000_000;

/// The batch a record travels in: what a topic must take, and brokers take unless told otherwise.
pub(super) const BATCH: i64 = 1_048_588;

/// Room that the headers' names and lengths take in a record, at most.
const HEAD: usize = 4_096;

/// Characters of a reason that travel in a header; the body has all of it.
const REASON: usize = 500;

/// Refuses a message that no broker would take; `bytes` is its envelope's length.
pub(super) fn fits(envelope: &Envelope, bytes: usize) -> Result<(), String> {
    // The key travels as itself, too.
    let size = bytes + envelope.key.len() + HEAD;
    if size > LARGEST {
        return Err(format!("a message of {size} bytes is too large for the bus; it takes {LARGEST}"));
    }
    Ok(())
}

/// Whether a parcel to this topic is one record. What others may read is a CloudEvent each.
pub(super) fn is_whole(topic: Topic) -> bool {
    topic.side().is_some()
}

/// A record on its way.
pub(super) struct Outbound<'a> {
    pub(super) key: Option<&'a str>,
    pub(super) body: Cow<'a, [u8]>,
    pub(super) headers: OwnedHeaders,
}

impl<'a> Outbound<'a> {
    /// All messages of a parcel, as they stand in the outbox.
    pub(super) fn whole(parcel: &'a Parcel, environment: &Environment) -> Self {
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: CONTENT_TYPE, value: Some(PARCEL) })
            .insert(Header { key: ENVIRONMENT, value: Some(environment.as_str()) });
        Self { key: None, body: parcel.body.as_bytes().into(), headers }
    }

    /// One message.
    pub(super) fn one(topic: Topic, envelope: &'a Envelope, environment: &Environment) -> serde_json::Result<Self> {
        let body = cloud_event::data(&envelope.message)?.into();
        Ok(Self { key: Some(&envelope.key), body, headers: headers(topic, envelope, environment) })
    }
}

/// The headers of a record.
fn headers(topic: Topic, envelope: &Envelope, environment: &Environment) -> OwnedHeaders {
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

/// The hash of a record, see [`witness::hash`].
pub(super) fn hash(record: &BorrowedMessage<'_>) -> u32 {
    witness::hash(record.timestamp().to_millis().unwrap_or(-1), record.payload().unwrap_or_default())
}

/// The messages in a record; at least one.
pub(super) fn unpack(record: &BorrowedMessage<'_>, topic: Topic, environment: &Environment) -> Vec<Read> {
    let ours = header(record, CONTENT_TYPE).filter(|kind| is_whole(topic) && kind.starts_with(OURS));
    if let Some(kind) = ours {
        let body = record.payload().unwrap_or_default();
        if kind != PARCEL {
            return vec![(Err(of_another_kind(kind, body, header(record, ENVIRONMENT), environment)), body.len())];
        }
        return unpack_parcel(body, header(record, ENVIRONMENT), environment).unwrap_or_else(|reason| {
            let bytes = String::from_utf8_lossy(body).into_owned();
            vec![(Err(Undecodable { bytes, reason, newer: false }), body.len())]
        });
    }
    vec![(unpack_one(record, topic, environment), record.payload_len() + record.key_len())]
}

/// A record that only we write, in a way that this program does not know: a newer one does, unless it is a stranger's.
fn of_another_kind(kind: &str, body: &[u8], of: Option<&str>, environment: &Environment) -> Undecodable {
    let (bytes, newer) = (String::from_utf8_lossy(body).into_owned(), of == Some(environment.as_str()));
    let reason = format!("its content type is `{kind}`, of environment `{}`", of.unwrap_or_default());
    Undecodable { bytes, reason, newer }
}

fn unpack_parcel(body: &[u8], of: Option<&str>, environment: &Environment) -> Result<Vec<Read>, String> {
    // Only we write parcels, and each says whose it is.
    if of != Some(environment.as_str()) {
        return Err(format!("it is of environment `{}`", of.unwrap_or_default()));
    }
    let body = std::str::from_utf8(body).map_err(|_| "its body is no UTF-8")?;
    let messages = parcel::decode(body).map_err(|error| format!("it is no JSON array: {error}"))?;
    match messages.len() {
        1..=position::MOST => Ok(messages),
        other => Err(format!("it holds {other} messages instead of 1 to {}", position::MOST)),
    }
}

/// A header that is no text is none of ours.
fn header<'a>(record: &'a BorrowedMessage<'_>, key: &str) -> Option<&'a str> {
    let header = record.headers()?.iter().find(|header| header.key == key)?;
    std::str::from_utf8(header.value?).ok()
}

fn unpack_one(
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
    let unreadable =
        |error: cloud_event::Unreadable| Undecodable { bytes: error.bytes, reason: error.reason, newer: false };
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

    fn envelope(key: String) -> Envelope {
        let effect_id = "0193a0b2-7c00-8abc-9def-0123456789ab:hold:line-1:do:0".parse().unwrap();
        let message = Message::Inquired(InquiryAnswer { effect_id, keep: true, known: true });
        Envelope { id: "i".into(), schema: SCHEMA_VERSION, time_ms: 0, key, lane: Lane::Test, message }
    }

    #[test]
    fn every_attribute_has_its_header() {
        let (envelope, environment) = (envelope("k".to_owned()), Environment::default());
        let attributes = cloud_event::attributes(&envelope, &environment);
        let names: Vec<_> = attributes.iter().map(|(name, _)| format!("{PREFIX}{name}")).collect();
        assert_eq!(names, HEADERS);
        let headers = Outbound::one(Topic::Events, &envelope, &environment).unwrap().headers;
        let lane = headers.iter().find(|header| header.key == "ce_lane").unwrap();
        assert_eq!(lane.value, Some("test".as_bytes()));
    }

    #[test]
    fn z10_what_no_broker_takes_is_refused_before_it_is_committed() {
        let reason = fits(&envelope("k".repeat(LARGEST / 2)), LARGEST / 2).unwrap_err();
        assert!(reason.contains("too large"), "{reason}");
    }

    #[test]
    fn z17_a_parcel_of_another_environment_is_no_message() {
        let (body, ours) = (parcel_of(2), Environment::default());
        let read = |of| unpack_parcel(body.as_bytes(), of, &ours).map(|read| read.len());
        assert_eq!(read(Some(ours.as_str())), Ok(2));
        assert!(read(Some("staging")).is_err_and(|reason| reason.contains("`staging`")));
        assert!(read(None).is_err(), "nobody says whose it is");
    }

    #[test]
    fn z10_a_record_of_ours_of_an_unknown_kind_waits_for_the_upgrade_and_a_strangers_does_not() {
        let (kind, ours) = ("application/vnd.endstate.parcel.2+cbor", Environment::default());
        for (of, newer) in [(Some(ours.as_str()), true), (Some("staging"), false), (None, false)] {
            let read = of_another_kind(kind, b"\xff", of, &ours);
            assert_eq!((read.newer, read.reason.contains(kind)), (newer, true), "{read:?}");
        }
    }

    #[test]
    fn z10_a_parcel_that_is_none_is_told() {
        let ours = Environment::default();
        for (body, told) in [
            (b"{}".to_vec(), "no JSON array"),
            (b"[]".to_vec(), "holds 0"),
            (vec![0xff], "UTF-8"),
            (parcel_of(position::MOST + 1).into_bytes(), "instead of 1 to"),
        ] {
            let reason = unpack_parcel(&body, Some(ours.as_str()), &ours).unwrap_err();
            assert!(reason.contains(told), "{reason}");
        }
    }

    fn parcel_of(messages: usize) -> String {
        serde_json::to_string(&vec![envelope("k".to_owned()); messages]).unwrap()
    }
}
