//! How far the client has come where no record shows it: the mark that ends a transaction takes an offset, and is no
//! message; nor are the messages of one that was taken back. The client steps over both, and its own position tells.

use super::context::Context;
use super::topics::Names;
use super::window::Place;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rustc_hash::FxHashMap;
use std::thread;
use std::time::Duration;

/// How often the client is asked after an assignment, and the pause between: it lets go of the old one within a moment.
const LOOKS: usize = 50;
const PAUSE: Duration = Duration::from_millis(1);

/// The offsets behind all that the client has told the reading thread of, or has stepped over since. A partition that it has
/// told nothing of has none.
pub(super) fn offsets(consumer: &BaseConsumer<Context>, names: &Names) -> KafkaResult<FxHashMap<Place, i64>> {
    let told = consumer.position()?;
    let place = |name: &str, partition: i32| names.find(name).zip(u16::try_from(partition).ok());
    let told = told.elements().into_iter().filter_map(|told| match told.offset() {
        Offset::Offset(offset) => Some((place(told.topic(), told.partition())?, offset)),
        _ => None,
    });
    Ok(told.collect())
}

/// Waits until the client has forgotten the position of an older assignment, right after a new one. Nothing is told of the
/// new one meanwhile: the thread that asks is the one that reads. Returns a position that did not go away; an error when the client does
/// not tell, which is no sign that it has forgotten.
pub(super) fn forgotten(consumer: &BaseConsumer<Context>, names: &Names, place: Place) -> KafkaResult<Option<i64>> {
    let mut held = Ok(None);
    for _ in 0..LOOKS {
        held = offsets(consumer, names).map(|told| told.get(&place).copied());
        if matches!(held, Ok(None)) {
            break;
        }
        thread::sleep(PAUSE);
    }
    held
}
