//! Looks at a partition's log, each on a thread of its own: a partition whose leader is away takes seconds to say so, and
//! must not keep the reading thread from all others.

use super::hand_over::HandOver;
use super::reader::{Wish, failed};
use super::settings::ANSWER;
use super::window::Place;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use std::sync::{Arc, mpsc};

/// What is looked at.
pub(super) struct Look {
    pub(super) place: Place,
    /// Where reading is to go on.
    pub(super) position: i64,
    /// Whose reading.
    pub(super) generation: u64,
    pub(super) purpose: Purpose,
}

/// Why.
pub(super) enum Purpose {
    /// It is about to be read, into this queue; the record in front has this hash, if it is known.
    Assign(Arc<HandOver>, Option<u32>),
    /// It goes on after a pause, and nobody knows its end.
    Resume,
    /// Something is wrong somewhere.
    Doubt,
}

/// Asks where the log begins and ends; the answer comes as a wish.
pub(super) fn at<C: ConsumerContext + 'static>(
    consumer: &Arc<BaseConsumer<C>>,
    topic: &str,
    look: Look,
    wishes: &mpsc::Sender<Wish>,
) {
    let (consumer, topic, answers) = (Arc::clone(consumer), topic.to_owned(), wishes.clone());
    let (place, generation) = (look.place, look.generation);
    let asking = move || {
        let partition = look.place.1;
        let ends = consumer.fetch_watermarks(&topic, i32::from(partition), ANSWER);
        let ends = ends.map_err(|error| failed(&format!("{topic}/{partition}: {error}")));
        answers.send(Wish::Looked { look, ends }).ok();
    };
    if let Err(error) = std::thread::Builder::new().name("kafka-look".into()).spawn(asking) {
        tracing::warn!(%error, topic = place.0.label(), partition = place.1, "nobody looks at a partition");
        wishes.send(Wish::Unseen { place, generation }).ok();
    }
}
