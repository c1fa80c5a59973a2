//! Where partitions end now, for timers that are due: the broker is asked for all of them at once, on a thread of its own,
//! and at most some times a second. Statistics tell it too, but up to five seconds late.

use super::hand_over::HandOver;
use super::reading::Context;
use super::settings::ANSWER;
use super::topics::Names;
use super::window::Place;
use crate::looks::Looks;
use futures_util::future::BoxFuture;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;

/// Asks where partitions end.
#[derive(Clone)]
pub(super) struct Watermarks {
    consumer: Arc<BaseConsumer<Context>>,
    names: Names,
    looks: Arc<Looks<(Place, Arc<HandOver>)>>,
}

impl Watermarks {
    pub(super) fn new(consumer: Arc<BaseConsumer<Context>>, names: Names) -> Self {
        Self { consumer, names, looks: Arc::new(Looks::new()) }
    }

    /// Asks for the end of one partition, and tells its queue.
    pub(super) fn look(&self, place: Place, queue: Arc<HandOver>) -> BoxFuture<'static, bool> {
        let (consumer, names) = (Arc::clone(&self.consumer), self.names.clone());
        self.looks.ask((place, queue), move |wanted| {
            let (consumer, names) = (Arc::clone(&consumer), names.clone());
            async move {
                let asked = tokio::task::spawn_blocking(move || ask(&consumer, &names, &wanted)).await;
                asked.is_ok_and(|asked| {
                    asked.inspect_err(|error| tracing::debug!(%error, "where partitions end is not known")).is_ok()
                })
            }
        })
    }
}

fn ask(consumer: &BaseConsumer<Context>, names: &Names, wanted: &[(Place, Arc<HandOver>)]) -> KafkaResult<()> {
    let name = |(topic, _): Place| names.get(topic);
    let mut list = TopicPartitionList::with_capacity(wanted.len());
    for (place, _) in wanted {
        // As a point in time, this is the end.
        list.add_partition_offset(name(*place), i32::from(place.1), Offset::End)?;
    }
    let ends = consumer.offsets_for_times(list, ANSWER)?;
    for (place, queue) in wanted {
        let end = ends.find_partition(name(*place), i32::from(place.1));
        let end = end.map(|end| end.error().map(|()| end.offset())).transpose()?;
        if let Some(Offset::Offset(end)) = end {
            queue.ends(end);
        }
    }
    Ok(())
}
