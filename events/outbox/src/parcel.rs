//! What a batch sends to one partition, encoded once: a row of the outbox, and where it can travel together a record.

use crate::bus::{Outgoing, Undecodable};
use endstate_events::{Envelope, Topic};
use serde_json::value::RawValue;
use std::sync::Arc;

/// Bytes of a parcel at most, but for a message that alone has more.
const BYTES: usize = 256 * 1024;

/// Messages of a parcel at most.
pub(crate) const MESSAGES: usize = 512;

/// A message, and how many bytes it has in its parcel.
pub(crate) type Sized = (Arc<Envelope>, usize);

/// A message as it was read, or what can be kept of one that is none, and how many bytes it had.
pub(crate) type Read = (Result<Arc<Envelope>, Undecodable>, usize);

/// Messages of one batch for one partition, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Parcel {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u16,
    /// Their envelopes as a JSON array.
    pub body: Arc<str>,
    envelopes: Arc<[Sized]>,
}

impl Parcel {
    /// Sorts messages by where they go, and encodes them. `fits` is asked about each and its bytes, and says why one can
    /// never be sent.
    pub fn pack(
        mut messages: Vec<Outgoing>,
        fits: impl Fn(&Envelope, usize) -> Result<(), String>,
    ) -> Result<Vec<Self>, String> {
        messages.sort_by_key(|message| (message.topic, message.partition));
        let mut parcels = Vec::new();
        for run in messages.chunk_by(|a, b| (a.topic, a.partition) == (b.topic, b.partition)) {
            let Outgoing { topic, partition, .. } = run[0];
            let mut open = Open::default();
            for Outgoing { envelope, .. } in run {
                let bytes = open.add(envelope)?;
                fits(envelope, bytes)?;
                if open.is_too_large() {
                    let next = open.split_last();
                    parcels.push(std::mem::replace(&mut open, next).close(topic, partition)?);
                }
            }
            parcels.push(open.close(topic, partition)?);
        }
        Ok(parcels)
    }

    /// How many messages it has; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is no empty parcel")]
    pub fn len(&self) -> usize {
        self.envelopes.len()
    }

    /// Its messages.
    pub fn envelopes(&self) -> impl Iterator<Item = &Arc<Envelope>> {
        self.envelopes.iter().map(|(envelope, _)| envelope)
    }

    /// Its messages as they were before they were packed.
    pub fn messages(&self) -> impl Iterator<Item = Outgoing> {
        let (topic, partition) = (self.topic, self.partition);
        self.envelopes().map(move |envelope| Outgoing { topic, partition, envelope: Arc::clone(envelope) })
    }

    /// Its messages, each with its bytes.
    pub(crate) fn sized(&self) -> &[Sized] {
        &self.envelopes
    }
}

/// A parcel that is being filled.
#[derive(Default)]
struct Open {
    body: Vec<u8>,
    envelopes: Vec<Sized>,
}

impl Open {
    /// Returns the message's bytes.
    fn add(&mut self, envelope: &Arc<Envelope>) -> Result<usize, String> {
        self.body.push(if self.body.is_empty() { b'[' } else { b',' });
        let before = self.body.len();
        serde_json::to_writer(&mut self.body, envelope).map_err(|error| error.to_string())?;
        let bytes = self.body.len() - before;
        self.envelopes.push((Arc::clone(envelope), bytes));
        Ok(bytes)
    }

    fn is_too_large(&self) -> bool {
        self.envelopes.len() > 1 && (self.envelopes.len() > MESSAGES || self.body.len() > BYTES)
    }

    /// The last message begins the next parcel.
    fn split_last(&mut self) -> Self {
        let envelopes = self.envelopes.split_off(self.envelopes.len() - 1);
        let bytes: usize = envelopes.iter().map(|(_, bytes)| bytes).sum();
        let mut body = self.body.split_off(self.body.len() - bytes - 1);
        body[0] = b'[';
        Self { body, envelopes }
    }

    fn close(self, topic: Topic, partition: u16) -> Result<Parcel, String> {
        let Self { mut body, envelopes } = self;
        body.push(b']');
        let body = String::from_utf8(body).map_err(|error| error.to_string())?;
        Ok(Parcel { topic, partition, body: body.into(), envelopes: envelopes.into() })
    }
}

/// The messages of a parcel's body; one that cannot be read does not hide its neighbours. An error when the body is no
/// array.
pub(crate) fn decode(body: &str) -> serde_json::Result<Vec<Read>> {
    let raw: Vec<&RawValue> = serde_json::from_str(body)?;
    let one = |raw: &RawValue| {
        let envelope = serde_json::from_str::<Envelope>(raw.get()).map(Arc::new);
        let bad = |error: serde_json::Error| Undecodable {
            bytes: raw.get().to_owned(),
            reason: error.to_string(),
            newer: false,
        };
        (envelope.map_err(bad), raw.get().len())
    };
    Ok(raw.into_iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use endstate_events::{InquiryAnswer, Lane, Message, SCHEMA_VERSION};

    fn message(topic: Topic, partition: u16, key: String) -> Outgoing {
        let effect_id = "0193a0b2-7c00-8abc-9def-0123456789ab:hold:line-1:do:0".parse().unwrap();
        let message = Message::Inquired(InquiryAnswer { effect_id, keep: true, known: true });
        let envelope = Envelope { id: "i".into(), schema: SCHEMA_VERSION, time_ms: 0, key, lane: Lane::Live, message };
        Outgoing { topic, partition, envelope: envelope.into() }
    }

    fn key(outgoing: &Outgoing) -> &str {
        &outgoing.envelope.key
    }

    #[test]
    fn messages_to_one_partition_are_one_parcel_in_their_order() {
        let places = [(Topic::Progress, 1), (Topic::Commands, 2), (Topic::Progress, 1), (Topic::Progress, 0)];
        let messages = (0..).zip(places).map(|(n, (topic, partition))| message(topic, partition, n.to_string()));
        let parcels = Parcel::pack(messages.collect(), |_, _| Ok(())).unwrap();
        let keys = |parcel: &Parcel| parcel.messages().map(|message| key(&message).to_owned()).collect::<String>();
        let mut found: Vec<_> = parcels.iter().map(|parcel| (parcel.topic, parcel.partition, keys(parcel))).collect();
        found.sort();
        let mut wanted = [(Topic::Progress, 0, "3"), (Topic::Progress, 1, "02"), (Topic::Commands, 2, "1")];
        wanted.sort_unstable();
        assert_eq!(found, wanted.map(|(topic, partition, keys)| (topic, partition, keys.to_owned())));
        for parcel in parcels {
            let read = decode(&parcel.body).unwrap();
            let read: Vec<Sized> = read.into_iter().map(|(envelope, bytes)| (envelope.unwrap(), bytes)).collect();
            assert_eq!(read, parcel.sized(), "what is written is what is read");
        }
    }

    #[test]
    fn z20_a_parcel_is_bounded_in_messages_and_in_bytes() {
        let many: Vec<_> = (0..MESSAGES + 1).map(|n| message(Topic::Progress, 0, n.to_string())).collect();
        let parcels = Parcel::pack(many.clone(), |_, _| Ok(())).unwrap();
        assert_eq!(parcels.iter().map(Parcel::len).collect::<Vec<_>>(), [MESSAGES, 1]);
        assert_eq!(parcels.iter().flat_map(Parcel::messages).collect::<Vec<_>>(), many);
        let sizes = [BYTES / 2, BYTES / 2, 3 * BYTES, 1, 1];
        let large: Vec<_> = sizes.iter().map(|size| message(Topic::Progress, 0, "x".repeat(*size))).collect();
        let parcels = Parcel::pack(large.clone(), |_, _| Ok(())).unwrap();
        assert_eq!(parcels.iter().map(Parcel::len).collect::<Vec<_>>(), [1, 1, 1, 2]);
        assert_eq!(parcels.iter().flat_map(Parcel::messages).collect::<Vec<_>>(), large);
        assert!(parcels.iter().all(|parcel| decode(&parcel.body).unwrap().len() == parcel.len()));
    }

    #[test]
    fn one_message_that_cannot_be_read_does_not_hide_its_neighbours() {
        let good = Parcel::pack(vec![message(Topic::Progress, 0, "k".into())], |_, _| Ok(())).unwrap();
        let good = good[0].body.trim_matches(['[', ']']);
        let read = decode(&format!("[{good},{{\"id\":7}},{good}]")).unwrap();
        assert!(read[0].0.is_ok() && read[2].0.is_ok());
        assert_eq!(read[1].0.as_ref().unwrap_err().bytes, "{\"id\":7}");
        assert!(decode("{}").is_err());
    }
}
