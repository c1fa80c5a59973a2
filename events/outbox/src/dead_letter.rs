//! Dead letters: records that nobody could handle, kept with their bytes and the reason, listed and replayed (G2).

use crate::bus::{Bus, BusError, Outgoing};
use crate::statement::{Kind, Rows, Statement, Value};
use crate::store::{Commit, CommitError, Store, StoreError};
use crate::witness;
use endstate_events::foreign::LETTER_BYTES;
use endstate_events::{Envelope, Lane, Letter, Message, SCHEMA_VERSION, Topic};

/// One record that nobody could handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it was read.
    pub topic: Topic,
    /// Its partition.
    pub partition: u16,
    /// Its position, see [`crate::Delivered::offset`].
    pub offset: i64,
    /// Its bytes, as text (lossy only where they are no UTF-8).
    pub bytes: String,
    /// Why.
    pub reason: String,
    /// When it was put aside, milliseconds since 1970.
    pub time_ms: i64,
}

impl DeadLetter {
    /// A letter that every store can hold: a NUL, which a text of a database may not have, is spelled out, in the bytes as in
    /// the reason, which may quote them.
    #[must_use]
    pub fn new(topic: Topic, (partition, offset): (u16, i64), bytes: &str, reason: &str, time_ms: i64) -> Self {
        let [bytes, reason] = [bytes, reason].map(|text| text.replace('\0', "\\u0000"));
        Self { topic, partition, offset, bytes, reason, time_ms }
    }

    /// Tells letters of one place from each other: a short hash of the bytes.
    #[must_use]
    pub fn mark(&self) -> u32 {
        witness::fnv(self.bytes.bytes())
    }
}

/// Bits of a stored offset that are the offset itself. The others are 0, but for a letter that found another one in its
/// place: a topic that was made anew counts from 0 again, and both are kept.
const OFFSET_BITS: u32 = 50;

/// Where a letter is stored when its place is taken by another: apart from it, and in the same place each time.
fn beside(offset: i64, mark: u32) -> i64 {
    let apart = i64::from(mark % 8_191 + 1) << OFFSET_BITS;
    if offset < 0 { offset - apart } else { offset + apart }
}

/// The offset of a letter, wherever it is stored.
fn offset_of(stored: i64) -> i64 {
    stored % (1 << OFFSET_BITS)
}

/// Inserts dead letters; the same record twice is one letter, and another record in the same place is another.
pub static INSERT: Statement = Statement {
    name: "dead_letter.insert",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int, Kind::Text, Kind::Text, Kind::Int],
    sql: "with r(topic, partition, read_offset, beside, bytes, reason, time_ms) as ({rows}) \
          insert into dead_letter (topic, partition, read_offset, bytes, reason, time_ms) \
          select r.topic, r.partition, case when exists (select 1 from dead_letter d where d.topic = r.topic \
          and d.partition = r.partition and d.read_offset = r.read_offset and d.bytes <> r.bytes) \
          then r.beside else r.read_offset end, r.bytes, r.reason, r.time_ms from r where true \
          on conflict (topic, partition, read_offset) do nothing",
};

/// The rows that [`INSERT`] takes.
pub(crate) fn rows(letters: Vec<DeadLetter>) -> Rows {
    let mut rows = Rows::new();
    for letter in letters {
        rows.push([
            letter.topic.label().into(),
            i64::from(letter.partition).into(),
            letter.offset.into(),
            beside(letter.offset, letter.mark()).into(),
            letter.bytes.into(),
            letter.reason.into(),
            letter.time_ms.into(),
        ]);
    }
    rows
}

/// Bytes of a reason that a copy keeps.
const REASON_BYTES: usize = 4_096;

/// A copy for the tools of other teams, in the partition of the same number; a foreign topic may have more than ours.
#[must_use]
pub fn copy(letter: &DeadLetter, partitions: u16) -> Outgoing {
    let DeadLetter { topic, partition, offset, bytes, reason, time_ms } = letter;
    let kept = bytes.floor_char_boundary(LETTER_BYTES);
    // A reason may hold what it complains of.
    let told = reason.floor_char_boundary(REASON_BYTES);
    let copy = Letter {
        topic: topic.label().to_owned(),
        partition: *partition,
        offset: *offset,
        bytes: bytes[..kept].to_owned(),
        cut: kept < bytes.len(),
        reason: reason[..told].to_owned(),
    };
    let key = format!("{}/{partition}/{offset}", topic.label());
    let (id, message) = (format!("{key}/{:08x}", letter.mark()), Message::Letter(copy));
    let envelope = Envelope { id, schema: SCHEMA_VERSION, time_ms: *time_ms, key, lane: Lane::Live, message };
    Outgoing { topic: Topic::DeadLetters, partition: partition % partitions.max(1), envelope: envelope.into() }
}

static LIST: Statement = Statement {
    name: "dead_letter.list",
    columns: &[Kind::Int, Kind::Int],
    sql: "with r(after_id, page) as ({rows}) \
          select d.id, d.topic, d.partition, d.read_offset, d.bytes, d.reason, d.time_ms, d.replayed_ms, \
          d.replayed_by, d.replay_reason \
          from dead_letter d, r where d.id > r.after_id order by d.id limit (select page from r)",
};

static ONE: Statement = Statement {
    name: "dead_letter.one",
    columns: &[Kind::Int],
    sql: "with r(id) as ({rows}) select d.topic, d.partition, d.bytes, d.replayed_ms from dead_letter d join r on d.id = r.id",
};

static REPLAYED: Statement = Statement {
    name: "dead_letter.replayed",
    columns: &[Kind::Int, Kind::Int, Kind::Text, Kind::Text],
    sql: "with r(id, now_ms, actor, reason) as ({rows}) update dead_letter \
          set replayed_ms = r.now_ms, replayed_by = r.actor, replay_reason = r.reason from r \
          where dead_letter.id = r.id and dead_letter.replayed_ms is null",
};

/// All of them, see [`crate::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&INSERT, &LIST, &ONE, &REPLAYED];

/// A stored dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: i64,
    /// What was put aside.
    pub letter: DeadLetter,
    /// When it was replayed, if ever.
    pub replayed_ms: Option<i64>,
    /// Who replayed it, and why.
    pub replayed: Option<Replay>,
}

/// An operator's wish to replay a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Subject of the operator.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Why a dead letter was not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// No such letter.
    #[error("there is no dead letter {0}")]
    Unknown(i64),
    /// Replayed before.
    #[error("dead letter {0} was replayed already")]
    Replayed(i64),
    /// The bytes are still no message; correct the sender and let it send again.
    #[error("dead letter {id} still cannot be taken: {reason}")]
    Unreadable {
        /// The letter.
        id: i64,
        /// Why.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bus did not take it.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The store did not commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Lists dead letters after `after_id`, oldest first.
pub async fn list(store: &dyn Store, after_id: i64, page: i64) -> Result<Vec<Stored>, StoreError> {
    let rows = store.read(&LIST, Rows::one([after_id.into(), page.into()])).await?;
    Ok(rows.iter().filter_map(|row| stored(row)).collect())
}

fn stored(row: &[Value]) -> Option<Stored> {
    let [id, topic, partition, offset, bytes, reason, time_ms, replayed_ms, by, why] = row else { return None };
    let letter = DeadLetter {
        topic: Topic::labelled(topic.text()?)?,
        partition: u16::try_from(partition.int()?).ok()?,
        offset: offset_of(offset.int()?),
        bytes: bytes.text()?.to_owned(),
        reason: reason.text()?.to_owned(),
        time_ms: time_ms.int()?,
    };
    let replayed = by.text().zip(why.text()).map(|(by, why)| Replay { by: by.to_owned(), reason: why.to_owned() });
    Some(Stored { id: id.int()?, letter, replayed_ms: replayed_ms.int(), replayed })
}

/// Sends a dead letter to its partition again and marks it. Sent first: a letter that is marked was sent, and one that two
/// people send at a time comes twice, which its reader knows by its id. `again` says what is sent for the letter's message:
/// it may complete what the letter lacked when it was put aside, and knows what an event of another team means.
pub async fn replay(
    store: &dyn Store,
    bus: &dyn Bus,
    id: i64,
    Replay { by, reason }: &Replay,
    now_ms: i64,
    again: impl AsyncFnOnce(Outgoing) -> Result<Vec<Outgoing>, String>,
) -> Result<(), ReplayError> {
    let rows = store.read(&ONE, Rows::one([id.into()])).await?;
    let row = rows.first().ok_or(ReplayError::Unknown(id))?;
    let [topic, partition, bytes, replayed] = row.as_slice() else { return Err(ReplayError::Unknown(id)) };
    if replayed.int().is_some() {
        return Err(ReplayError::Replayed(id));
    }
    let topic = topic.text().and_then(Topic::labelled).ok_or(ReplayError::Unknown(id))?;
    let partition = partition.int().and_then(|p| u16::try_from(p).ok()).ok_or(ReplayError::Unknown(id))?;
    let envelope: Envelope = serde_json::from_str(bytes.text().unwrap_or_default())
        .map_err(|error| ReplayError::Unreadable { id, reason: error.to_string() })?;
    let letter = Outgoing { topic, partition, envelope: envelope.into() };
    let messages = again(letter).await.map_err(|reason| ReplayError::Unreadable { id, reason })?;
    let mark = Rows::one([id.into(), now_ms.into(), by.as_str().into(), reason.as_str().into()]);
    bus.produce(messages).await?;
    let commit = Commit { writes: vec![crate::Write::exact(&REPLAYED, mark)], ..Commit::default() };
    match store.commit(commit).await {
        Ok(_) => Ok(()),
        // Another operator was earlier.
        Err(CommitError::Conflict { .. }) => Err(ReplayError::Replayed(id)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_beside_another_has_the_same_offset_and_no_others_place() {
        let offsets = [0, 1, 5 << 10, (1 << 49) + 3, -1, -7];
        let places = offsets.into_iter().flat_map(|offset| [0, 1, 8_190, u32::MAX].map(|mark| (offset, mark)));
        let mut taken = offsets.to_vec();
        for (offset, mark) in places {
            let place = beside(offset, mark);
            assert_eq!((offset_of(offset), offset_of(place)), (offset, offset));
            assert!(offsets.iter().all(|other| *other != place));
            taken.push(place);
        }
        assert!(taken.iter().all(|place| (*place < 0) == (offset_of(*place) < 0)), "{taken:?}");
    }

    #[test]
    fn z10_a_letter_about_what_no_database_holds_can_be_held_itself() {
        let letter = DeadLetter::new(Topic::Progress, (3, 7), "a\0b", "the lane `\0` is unknown", 5);
        assert_eq!((&*letter.bytes, &*letter.reason), ("a\\u0000b", "the lane `\\u0000` is unknown"));
    }
}
